"""What only the configured pipeline has: services, models of other names, stages of the user's own; and its corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.calibration.corpora import count_lengths, questions
from orchestrator.calibration.ladder import MOST_WARM_UP, Climbed, CountTokens, climb
from orchestrator.calibration.timed import Timed, model_of, row_key
from orchestrator.costs.fit import fit
from orchestrator.costs.kept import CorpusFigures
from orchestrator.errors import OrchestratorError
from orchestrator.loading import OnBuild, silent
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Progress, is_remote, no_progress

log = get_logger()

_DEPTHS = (5, 20)
_QUESTIONS = 12


@dataclass(frozen=True)
class Ways:
    """How the configured pipeline is measured.

    Attributes:
        cards: name of a model on the hub -> name of its card.
        count: tokens of a text.
        seconds: in all, about.
        remotes: whether services may be asked.
        progress: told about long work.
        on_build: told before an index is built.
    """

    cards: Mapping[str, str]
    count: CountTokens
    seconds: float
    remotes: bool = True
    progress: Progress = no_progress
    on_build: OnBuild = silent


def time_own_stages(own: Pipeline, timed: Timed, ways: Ways) -> None:
    """Times of the reranks of `own` of which `timed` has none yet; under `missing` those that gave none, and why."""
    new = [node for node in _named(own, timed) if _is_new(row_key(node, ways.cards), timed)]
    if not new:
        return
    services = services_of(own.graph, ways.cards)
    if services and not ways.remotes:
        why = f"the pipeline asks {', '.join(services)}, and task.remotes=false"
        timed.missing.update({row_key(node, ways.cards)[0]: why for node in new})
        return
    try:
        own.load(ways.progress, ways.on_build)
        asked, _ = questions(own, _QUESTIONS)
        for service in services:
            most = len(_DEPTHS) * (MOST_WARM_UP + len(asked))
            log.info("calibrate.asks", service=service, most_questions=most, switch="task.remotes=false")
        steps = [{name: depth for node in new for name in node.inputs} for depth in _DEPTHS]
        found = climb(own, steps, asked, ways.count, ways.seconds)
    except OrchestratorError as error:
        timed.missing.update({row_key(node, ways.cards)[0]: str(error) for node in new})
        return
    timed.cost_usd += found.cost_usd
    _take(new, found, timed, ways.cards)


def _named(own: Pipeline, timed: Timed) -> Iterator[Node]:
    """Reranks that say under which kind they are reckoned; predictions have no use for times of the others."""
    for node in own.graph.nodes:
        if node.kind == "rerank" and getattr(node.stage, "cost_kind", None) is None:
            timed.missing[node.name] = f"its class, {type(node.stage).__name__}, names no cost_kind"
        elif node.kind == "rerank":
            yield node


def _is_new(key: tuple[str, str | None], timed: Timed) -> bool:
    return not timed.is_measured(key) and key not in timed.absent


def _take(new: Sequence[Node], found: Climbed, timed: Timed, cards: Mapping[str, str]) -> None:
    for node in new:
        timed.keep(row_key(node, cards), found.points[node.name], node.stage)
    for node in new:
        kind = row_key(node, cards)[0]
        if timed.is_measured(row_key(node, cards)):
            timed.missing.pop(kind, None)
        else:
            timed.missing[kind] = f"it did its work for none of the questions: {found.shortfalls.get(node.name, '-')}"


def services_of(graph: StageGraph, cards: Mapping[str, str]) -> list[str]:
    """Somebody else's models that a question to the stages asks, by name; each once."""
    asked = [node for node in graph.all_nodes if any(map(is_remote, _parts(node)))]
    return list(dict.fromkeys(f"{node.name} ({model_of(node.stage, cards) or 'a service'})" for node in asked))


def _parts(node: Node) -> Iterator[object]:
    yield node.stage
    yield from (getattr(node.stage, name, None) for name in ("embedder", "encoder"))


def corpus_figures_of(bm25: Pipeline, ways: Ways) -> dict[str, CorpusFigures]:
    """Lengths of questions and of the documents found for them, and what searching costs; empty without any words.

    Args:
        bm25: a pipeline of that one stage over the corpus.
        ways: how it is measured.
    """
    bm25.load(ways.progress, ways.on_build)
    asked, are_real = questions(bm25)
    lengths = count_lengths(bm25, asked, ways.count) if asked else None
    corpus = bm25.corpus
    if lengths is None:
        return {}
    if not are_real:
        log.warning("calibrate.no_questions", corpus=corpus.name, taken="the first words of its documents")
    found = climb(bm25, [{"bm25": 100}, {"bm25": 1000}], asked, ways.count, ways.seconds / 2).points["bm25"]
    rows = [fit("bm25", None, found, f"calibrate, {corpus.name}")] if len(found) > 1 else []
    return {corpus.key: CorpusFigures(corpus.name, corpus.content_hash, lengths, rows)}
