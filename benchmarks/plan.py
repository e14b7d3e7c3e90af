"""Are plans true: what `plan` predicts beside what was measured, whether plans keep their budget, and what they miss.

    python benchmarks/plan.py MODEL_DIR DATA_DIR/medquad DATA_DIR/policyqa > benchmarks/results/plan.txt

MODEL_DIR is a cross-encoder. Of each collection, every second judged query is set aside: on up to OWN of those,
`evaluate` may be asked what stacks are worth there; all that is measured below is on QUERIES of the others, which no
plan has seen. First `calibrate` measures this machine and the collection. Then, for each need, `plan` chooses, and
every other stack that it says would fit is run too.

    reads           candidates that the last rerank reads
    p50 p95         of a query, milliseconds: predicted, measured one at a time with no budget, and how far off
    in time         share of the answers that came within the budget, with the deadline on
    nDCG@10         of the uncut ranking, no budget
    best other      the best of the other stacks that fit, and how much the plan is below it (regret; - is above)

Twice: by published figures alone, and once `evaluate` has measured three stacks on the queries set aside.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import numpy as np
from hydra import compose, initialize_config_module

from orchestrator import Pipeline
from orchestrator.config import schema, searchpath
from orchestrator.deciding.decide import Decision
from orchestrator.deciding.planning import decide_for
from orchestrator.evaluation.measures import Measures
from orchestrator.types import Query

QUERIES, OWN = 200, 100
WARM_UP = 40
"""Queries before those that are timed: vectors of documents are read from the disk for the first of them."""
MEASURE = "nDCG@10"
MAX_LENGTH_TOKENS = 128
"""Of a pair; as the model was trained."""
NEEDS = [
    *({"latency_ms": ms} for ms in (15, 25, 50, 75, 100, 150, 250, 400)),
    *({"latency_ms": ms, "candidates": 1000} for ms in (100, 250)),
]
OWN_STACKS = [
    ["+scenario=low_latency"],
    ["+scenario=balanced"],
    ["pipeline=cross_encoder_50", "pipeline.stages.fused.top_k=20"],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("data_dirs", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--scratch", type=Path, default=Path("outputs/plan"))
    arguments = parser.parse_args()
    schema.register()
    searchpath.register()
    print(header(arguments.queries), flush=True)
    model = [
        *("model@models.reranker=local", f"models.reranker.path={arguments.model_dir.resolve()}"),
        *(f"models.reranker.max_length_tokens={MAX_LENGTH_TOKENS}", "models.reranker.languages=[en]"),
    ]
    plans: dict[str, list[Plan]] = {"by published figures": [], "by own evaluations too": []}
    for data_dir in arguments.data_dirs:
        folder = halves(data_dir, arguments.scratch.resolve() / data_dir.name)
        words = [*model, f"corpus.path={folder}", f"corpus.name={data_dir.name}"]
        measured = Measured(words, arguments.queries)
        command("calibrate", *words, "corpus.split=first")
        for basis, found in plans.items():
            if found is not plans["by published figures"]:
                for stack in OWN_STACKS:
                    command("evaluate", *stack, *words, *aside(), "latency_queries=0")
            print(f"\n{data_dir.name}, {basis}\n{HEAD}", flush=True)
            for need in NEEDS:
                found.append(plan(need, words, measured))
                print(found[-1].line(), flush=True)
    for basis, found in plans.items():
        print(f"\n{basis}: {summary(found)}", flush=True)


def header(n_queries: int) -> str:
    names = ("rerank-orchestrator", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"
    return f"{machine}\n{n_queries} test queries a plan, one at a time"


def aside() -> list[str]:
    return ["corpus.split=first", f"corpus.max_queries={OWN}"]


def halves(data_dir: Path, folder: Path) -> Path:
    """The collection with the judgements of its test queries in two files: every second query in `first`."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl.gz", "queries.jsonl.gz"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((data_dir / name).resolve())
    head, *rows = (data_dir / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
    place_of = {query: place for place, query in enumerate(dict.fromkeys(row.split("\t")[0] for row in rows))}
    for half, name in enumerate(("first", "second")):
        kept = [row for row in rows if place_of[row.split("\t")[0]] % 2 == half]
        (folder / "qrels" / f"{name}.tsv").write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    return folder


def command(*words: str) -> None:
    """Run `orchestrate`; what it prints goes to stderr."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "orchestrator", *words], check=True, stdout=sys.stderr)
    print(f"orchestrate {words[0]}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


@dataclass
class Times:
    """One stack: milliseconds of each query, and its figure."""

    ms: list[float]
    ndcg: float

    def p(self, share: int) -> float:
        return float(np.percentile(self.ms, share))


@dataclass
class Measured:
    """Stacks that were run on the second half of a collection's queries, each once."""

    words: Sequence[str]
    n_queries: int
    known: dict[tuple[str, ...], Times] = field(default_factory=dict)

    def whole(self, stack: Sequence[str]) -> Times:
        """Without a budget."""
        return self._run(stack, None)

    def in_time(self, stack: Sequence[str], budget_ms: float) -> float:
        """Share of the answers that came within the budget, with the deadline on."""
        return fmean(ms <= budget_ms for ms in self._run(stack, budget_ms).ms)

    def _run(self, stack: Sequence[str], budget_ms: float | None) -> Times:
        key = (*stack, str(budget_ms))
        if key not in self.known:
            rest = [*self.words, "corpus.split=second", f"budget_ms={budget_ms or 'null'}"]
            with Pipeline.compose([*stack, *rest]) as pipeline:
                self.known[key] = ask(pipeline, self.n_queries, budget_ms)
        return self.known[key]


def ask(pipeline: Pipeline, n_queries: int, budget_ms: float | None) -> Times:
    pipeline.load()
    asked = sample(pipeline, n_queries)
    times, rankings = [], {}
    warm = asked[:WARM_UP] if budget_ms is None else asked[:5]
    for place, query in enumerate([*warm, *asked]):
        started = time.perf_counter()
        (result,) = pipeline.search_many([query], enforce_budget=budget_ms is not None, use_kept=False)
        if place >= len(warm):
            times.append((time.perf_counter() - started) * 1000)
        rankings[query.query_id] = list(result.uncut())
    qrels = pipeline.corpus.qrels()
    per_query = Measures([MEASURE]).per_query({key: qrels[key] for key in rankings}, rankings)
    return Times(times, fmean(figures[MEASURE] for figures in per_query.values()))


def sample(pipeline: Pipeline, n_queries: int) -> list[Query]:
    """Judged queries, spread evenly."""
    judged = pipeline.corpus.queries()
    places = np.unique(np.linspace(0, len(judged) - 1, num=min(n_queries, len(judged))).astype(int))
    return [judged[place] for place in places]


HEAD = (
    f"{'budget':>6} {'cand.':>5} {'choice':<14} {'reads':>5} {'p50':>7} {'measured':>8} {'off':>5} {'p95':>7} "
    f"{'measured':>8} {'off':>5} {'in time':>7} {MEASURE:>7}  {'best other':<20} {'regret':>6}"
)


@dataclass
class Plan:
    """One plan and what came of it."""

    need: dict[str, int]
    decision: Decision
    times: Times
    in_time: float
    others: dict[str, float]

    @property
    def errors(self) -> tuple[float, float]:
        """(predicted - measured) / measured, of p50 and p95."""
        predicted = self.decision.choice.predicted
        return predicted.p50_ms / self.times.p(50) - 1, predicted.p95_ms / self.times.p(95) - 1

    @property
    def regret(self) -> float:
        return max(self.others.values(), default=self.times.ndcg) - self.times.ndcg

    def line(self) -> str:
        choice, (off_50, off_95) = self.decision.choice, self.errors
        reads = next(one.option.reads for one in self.decision.candidates if one.is_choice and one.option)
        best = max(self.others, key=lambda name: self.others[name], default="")
        other = f"{best} {self.others[best]:.4f}" if best else "none fits"
        return (
            f"{self.need['latency_ms']:>6} {self.need.get('candidates', 100):>5} {choice.name:<14} {reads or '':>5} "
            f"{choice.predicted.p50_ms:>7.1f} {self.times.p(50):>8.1f} {off_50:>+5.0%} {choice.predicted.p95_ms:>7.1f} "
            f"{self.times.p(95):>8.1f} {off_95:>+5.0%} {self.in_time:>7.1%} {self.times.ndcg:>7.4f}  {other:<20} "
            f"{self.regret:>+6.4f}"
        )


def plan(need: dict[str, int], words: Sequence[str], measured: Measured) -> Plan:
    """Decide, run what was chosen, and every other stack that would fit."""
    asked = [*words, "corpus.split=first", *(f"need.{key}={value}" for key, value in need.items())]
    with initialize_config_module("orchestrator.conf", version_base="1.3", job_name="orchestrate"):
        decision = decide_for(compose("config", overrides=["task=plan", *asked]), asked)
    others = {
        one.name: measured.whole(one.overrides).ndcg for one in decision.candidates if one.fits and not one.is_choice
    }
    chosen = next(one.overrides for one in decision.candidates if one.is_choice)
    return Plan(need, decision, measured.whole(chosen), measured.in_time(chosen, need["latency_ms"]), others)


def summary(plans: Sequence[Plan]) -> str:
    p50, p95 = ([abs(plan.errors[place]) for plan in plans] for place in (0, 1))
    kept = fmean(plan.in_time >= 0.95 for plan in plans)
    regrets = [max(0.0, plan.regret) for plan in plans]
    return (
        f"{len(plans)} plans; p50 off by {median(p50):.0%} at the median (at most {max(p50):.0%}), p95 by "
        f"{median(p95):.0%} ({max(p95):.0%}); {kept:.0%} of the plans kept their budget in 95 % of the answers; regret "
        f"{fmean(regrets):.4f} on average, {max(regrets):.4f} at most, none in {sum(not regret for regret in regrets)}"
    )


if __name__ == "__main__":
    main()
