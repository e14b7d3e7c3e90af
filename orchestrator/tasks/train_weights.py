"""`orchestrate train weights`: find the weights of a fusion's inputs, and `k`, on judged queries."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from orchestrator import report
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.evaluation.measures import Measures, Rankings
from orchestrator.learning import training
from orchestrator.learning.knobs import Found, ListKeeper, Values, quality_of, rankings_of, tune
from orchestrator.learning.seen import without_seen
from orchestrator.learning.training_queries import TrainingQueries, training_queries
from orchestrator.learning.verdict import Verdict, judge
from orchestrator.pipeline import Pipeline
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Adjustable, Fusion, Json
from orchestrator.storage import write_atomic
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.tasks.training_candidates import candidates, splits_of, told_before

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

_GROUP = "scenario"
_SAVED = Path(_GROUP) / "tuned.yaml"
_ANYWAY = "++"
"""To Hydra: whether the key is there or not; weights of inputs that have none yet are new keys."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found.

    Attributes:
        node: the fusion.
        given: its numbers as they were.
        found: one a search; the last one's numbers are kept.
        verdict: on queries that the numbers were not looked for on.
        told: in words, which queries these are.
        words: of the command line that chose the stack.
        before: in words, what stages before know of these queries.
    """

    node: Node
    given: Values
    found: tuple[Found, ...]
    verdict: Verdict
    told: str
    words: tuple[str, ...]
    before: tuple[str, ...] = ()

    @property
    def values(self) -> Values:
        """The numbers found."""
        return self.found[-1].values

    @property
    def overrides(self) -> list[str]:
        """The words that set them on a command line."""
        return [
            f"{_ANYWAY if isinstance(value, Mapping) else ''}{self.node.path}.use.{key}={_inline(value)}"
            for key, value in nested(self.values).items()
        ]


def run(cfg: DictConfig, output: Path | None) -> float:
    """Look for the numbers, judge them, keep them as a scenario; no model is written.

    Returns:
        The first of `task.measures` on the queries held out, for a sweeper to maximise.
    """
    measures, saved = Measures(cfg.task.measures), _target(cfg.task.save, output)
    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        node = _fusion(pipeline.graph, cfg.task.stage)
        corpus = pipeline.open_corpus(progress)
        topics = training_queries(corpus, cfg.task.held_out, cfg.task.max_queries, cfg.task.seed)
        keeper = ListKeeper(corpus.parents if topics.by_parent else None)
        runner = pipeline.upstream(node.name, keeper, progress, say_building)
        seen = pipeline.seen(topics.queries, node.name)
        topics = without_seen(topics, seen, cfg.task.seen)
        pool = candidates(cfg, pipeline, runner, keeper, topics, seen, progress)
        outcome = _search(cfg, node, keeper, pool, topics, measures, pipeline.words, progress)
        outcome = replace(outcome, before=told_before(cfg, topics, seen))
    if saved is not None:
        saved.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(saved, _scenario(saved, outcome))
    _show(cfg.format.name, outcome, saved, output)
    return outcome.verdict.means[outcome.verdict.name][measures.names[0]] if outcome.verdict.means else float("nan")


def _fusion(graph: StageGraph, name: str | None) -> Node:
    found = {node.name: node for node in graph.nodes if isinstance(node.stage, Adjustable)}
    if name is not None and name not in found:
        choices = f"{', '.join(found) or 'none'}.{did_you_mean(name, found)}"
        raise ConfigError("task.stage", f"'{name}' has no weights to be found; stages that do: {choices}")
    if not found:
        choices = "fusion@pipeline.stages.fused.use=weighted, fusion@pipeline.stages.fused.use=rrf"
        raise ConfigError("pipeline.stages", f"no fusion with weights; for example: pipeline=hybrid, {choices}")
    if name is None and len(found) > 1:
        raise ConfigError("task.stage", f"missing, and several stages have weights: {', '.join(found)}")
    return found[name or next(iter(found))]


def _search(
    cfg: DictConfig,
    node: Node,
    keeper: ListKeeper,
    pool: training.Pool,
    topics: TrainingQueries,
    measures: Measures,
    words: Sequence[str],
    progress: ProgressBars,
) -> Outcome:
    fusion, depth, parents = cast(Adjustable, node.stage), cfg.task.depth, keeper.parents
    knobs = fusion.knobs(node.inputs)
    splits, tuned, found, held_out = splits_of(cfg, topics), Rankings(), list[Found](), list[str]()
    for split in splits:
        learn = (*split.train, *split.validation)
        found.append(
            tune(knobs, quality_of(fusion, keeper.lists, learn, topics.qrels, measures, depth, parents), progress)
        )
        adjusted = cast(Fusion, fusion.adjusted(found[-1].values))
        tuned |= rankings_of(adjusted, keeper.lists, split.held_out, depth, parents)
        held_out += split.held_out
    before = rankings_of(cast(Fusion, node.stage), keeper.lists, held_out, depth, parents)
    others = {f"{node.name} as it was": before}
    for name, rankings in pool.rankings.items():
        if {key: rankings[key] for key in before if key in rankings} != before:  # else it is the fusion as it was
            others[name] = rankings
    verdict = judge(f"{node.name} tuned", tuned, others, topics.qrels, held_out, measures, cfg.task.seed)
    n_learn = len(splits[-1].train) + len(splits[-1].validation)
    judged = f"verdict on all, each held out once in {len(splits) - 1} searches" if cfg.task.folds else ""
    told = f"{topics.told}. {n_learn} to learn from, {judged or f'{len(held_out)} held out'}."
    given = {name: knob.value for name, knob in knobs.items()}
    return Outcome(node, given, tuple(found), verdict, told, tuple(words))


def nested(values: Mapping[str, float]) -> dict[str, float | dict[str, float]]:
    """`{"k": 60, "weights.bm25": 1}` as `{"k": 60, "weights": {"bm25": 1}}`."""
    found: dict[str, float | dict[str, float]] = {}
    for name, value in values.items():
        key, _, inner = name.partition(".")
        if inner:
            cast(dict[str, float], found.setdefault(key, {}))[inner] = value
        else:
            found[key] = value
    return found


def _inline(value: float | Mapping[str, float], space: str = "") -> str:
    if isinstance(value, Mapping):
        return "{" + f",{space}".join(f"{name}:{space}{_inline(inner)}" for name, inner in value.items()) + "}"
    return f"{value:g}"


def _target(wanted: str | None, output: Path | None) -> Path | None:
    """Where the scenario goes; None where there is no place for one."""
    if wanted is None:
        return None if output is None else output / _SAVED
    path = Path(str(wanted)).expanduser()
    if path.suffix != ".yaml":
        raise ConfigError("task.save", f"found {path}; expected a file that ends in .yaml")
    return path


def _scenario(path: Path, outcome: Outcome) -> str:
    lines = ["# @package _global_", f"# {command(path, outcome)}", f"# {outcome.verdict.words()}"]
    lines += ["pipeline:", "  stages:", f"    {outcome.node.name}:", "      use:"]
    lines += [f"        {key}: {_inline(value, ' ')}" for key, value in nested(outcome.values).items()]
    return "\n".join(lines) + "\n"


def command(path: Path | None, outcome: Outcome) -> str:
    """The command that runs the stack with the numbers found: by the scenario where Hydra can find it there."""
    words = list(outcome.words)
    if path is None or path.parent.name != _GROUP or "--config-dir" in words:
        return shlex.join(["orchestrate", "run", *words, *outcome.overrides])
    chosen = [word.partition("=")[2].strip("[]") for word in words if word.startswith(f"+{_GROUP}=")]
    together = ",".join([*chosen, path.stem])
    rest = [word for word in words if not word.startswith(f"+{_GROUP}=")]
    last = f"+{_GROUP}=[{together}]" if chosen else f"+{_GROUP}={together}"
    return shlex.join(["orchestrate", "run", "--config-dir", str(path.parent.parent), *rest, last])


def _show(form: str, outcome: Outcome, saved: Path | None, output: Path | None) -> None:
    verdict, last = outcome.verdict, outcome.found[-1]
    if output is not None:
        write_atomic(output / "comparison.json", json.dumps(_as_json(outcome, saved), indent=2) + "\n")
        write_atomic(output / "comparison.csv", verdict.as_csv())
    if form == "json":
        sys.stdout.write(json.dumps(_as_json(outcome, saved)) + "\n")
        return
    console = report.console()
    for told in (f"Queries: {outcome.told}", *outcome.before):
        console.print(told, markup=False)
    console.print(
        f"{last.tried} combinations tried; {verdict.measure} {last.quality:.4f} on the queries to learn from, "
        f"{last.given_quality:.4f} as it was.",
        markup=False,
    )
    console.print(_table(outcome))
    if verdict.means:
        console.print(report.comparison_table(verdict))
    console.print(verdict.words(), markup=False, style="green" if verdict.wins else "yellow")
    console.print(f"to set them: {shlex.join(outcome.overrides)}", markup=False, soft_wrap=True)
    console.print(f"to run it: {command(saved, outcome)}", markup=False, soft_wrap=True)
    if saved is not None:
        console.print(f"scenario: {saved}", markup=False, soft_wrap=True)


def _table(outcome: Outcome) -> Table:
    folds = outcome.found[:-1]
    columns = ["as it was", *(f"fold {place}" for place in range(1, len(folds) + 1)), "found"]
    table = report.plain_table(f"{outcome.node.name}.use", *columns, right=columns)
    for name, value in outcome.given.items():
        table.add_row(name, f"{value:g}", *(f"{found.values[name]:g}" for found in outcome.found))
    return table


def _as_json(outcome: Outcome, saved: Path | None) -> dict[str, Json]:
    return {
        **outcome.verdict.as_json(),
        "told": " ".join((outcome.told, *outcome.before)),
        "values": dict(outcome.values),
        "given": dict(outcome.given),
        "tried": outcome.found[-1].tried,
        "folds": [dict(found.values) for found in outcome.found[:-1]],
        "overrides": list(outcome.overrides),
        "scenario": None if saved is None else str(saved),
    }
