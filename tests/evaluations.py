"""Folders as `orchestrate evaluate` leaves them, of this version and of an older one, made without a pipeline.

Query n has one relevant document, `rel n`; `places` say at which rank a system has it among ten, or 0 for nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from orchestrator.config.failure import Failure
from orchestrator.evaluation.folder import stage_file
from orchestrator.evaluation.measures import Measures
from orchestrator.jobs import METRICS_FILE, Job, write_outcome, write_plan
from orchestrator.study.folders import read_folders
from orchestrator.study.headline import headline
from orchestrator.study.study import Study, study_of, with_queries
from orchestrator.trec import qrels_text, run_text

MEASURES = ("RR@10", "R@10")
GOOD, FAIR, POOR = [1] * 20, [1] * 14 + [2] * 6, [2] * 10 + [5] * 10
"""Ranks of the one relevant document, a query each."""
DEPTH = 10

Places = Sequence[int]


def query_id(n: int) -> str:
    return f"q {n}"


def ranking(places: Places) -> dict[str, list[str]]:
    ranked = {}
    for n, place in enumerate(places):
        others = [f"other {n}-{rank}" for rank in range(1, DEPTH + 1)]
        ranked[query_id(n)] = [*others[: place - 1], f"rel {n}", *others[place - 1 :]][:DEPTH] if place else others
    return ranked


def qrels(n_queries: int) -> dict[str, dict[str, int]]:
    return {query_id(n): {f"rel {n}": 2, f"other {n}-1": 0} for n in range(n_queries)}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation; what is None or empty an older version did not write.

    Attributes:
        places: of the whole pipeline.
        stages: stage -> its places, the stage before reranking first.
        p95: of a question; None where nothing was timed.
    """

    places: Places
    stages: Mapping[str, Places] = field(default_factory=dict)
    p95: float | None = 10.0
    usd: float | None = None
    tokens: float | None = None
    whole: float = 1.0
    unjudged: float = 0.0
    words: tuple[str, ...] = ()
    split: str = "test"
    is_old: bool = False

    @property
    def per_query(self) -> dict[str, dict[str, float]]:
        return self.judged(self.places)

    def judged(self, places: Places) -> dict[str, dict[str, float]]:
        return _judged(tuple(places))

    def content(self) -> dict[str, object]:
        mean = Measures(MEASURES).mean
        means = mean(self.per_query)
        timed = None if self.p95 is None else {"p50": self.p95 / 2, "p95": self.p95, "p99": self.p95 * 1.5}
        names = [*self.stages, "last"]
        content: dict[str, object] = {
            "metrics": means,
            "served": means,
            "baselines": {stage: mean(self.judged(places)) for stage, places in self.stages.items()},
            "n_queries": len(self.places),
            "work": {"ran": {}, "passed": {}, "scored": {}, "degraded": {}, "whole": self.whole},
            "latency_ms": timed,
            "stage_latency_ms": timed and {name: {**timed, "p50": timed["p50"] / len(names)} for name in names},
        }
        return content if self.is_old else {**content, **self._added(means)}

    def _added(self, means: Mapping[str, float]) -> dict[str, object]:
        null = next(iter(self.stages), None)
        oracle = dict.fromkeys(MEASURES, sum(place > 0 for place in self.places) / len(self.places))
        metrics = null and Measures(MEASURES).mean(self.judged(self.stages[null]))
        spent = {"tokens_per_query": self.tokens or 0.0, "cost_usd_per_query": self.usd or 0.0}
        return {
            "intervals": {name: [value - 0.05, value + 0.05] for name, value in means.items()},
            "oracle": oracle,
            "null": {"stage": null, "metrics": metrics} if null else None,
            "unjudged": {"10": self.unjudged},
            "comparisons": [],
            "words": list(self.words),
            **spent,
            "stages": {"last": spent},
            "corpus": {"name": "made", "content_hash": "abc", "split": self.split},
        }

    def write(self, folder: Path, overrides: Sequence[str] = ("task=evaluate",)) -> Path:
        files = {
            METRICS_FILE: json.dumps(self.content()),
            "per_query.json": json.dumps(self.per_query),
            "run.trec": run_text(ranking(self.places)),
            ".hydra/overrides.yaml": "".join(f"- {json.dumps(word)}\n" for word in overrides),
        }
        if not self.is_old:
            runs = {stage_file(stage): places for stage, places in {**self.stages, "last": self.places}.items()}
            runs["served"] = self.places
            files |= {f"runs/{name}.trec": run_text(ranking(places)) for name, places in runs.items()}
            files["qrels.trec"] = qrels_text(qrels(len(self.places)))
            texts = [{"query_id": query_id(n), "text": f"what is <{n}>?"} for n in range(len(self.places))]
            files["queries.jsonl"] = "".join(json.dumps(text) + "\n" for text in texts)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return folder


@lru_cache
def _judged(places: tuple[int, ...]) -> dict[str, dict[str, float]]:
    return Measures(MEASURES).per_query(qrels(len(places)), ranking(places))


Jobs = Mapping[str, Evaluation | str]
"""Overrides of a job, with spaces between them -> what it found, or why it failed."""


def write_sweep(folder: Path, jobs: Jobs, *, n_planned: int | None = None) -> Path:
    """A sweep's folder."""
    planned = [Job(num, ("task=evaluate", *words.split())) for num, words in enumerate(jobs)]
    more = [Job(num, ("task=evaluate", f"more={num}")) for num in range(len(planned), n_planned or 0)]
    write_plan(folder, [*planned, *more])
    for job, found in zip(planned, jobs.values(), strict=True):
        own = folder / str(job.num)
        failure = Failure(found, 1) if isinstance(found, str) else None
        if isinstance(found, Evaluation):
            found.write(own, job.overrides)
        write_outcome(own, job, 1.5, failure)
    return folder


def studied(folder: Path, measure: str | None = None, reference: str = "auto") -> Study:
    """What a report finds in a folder."""
    return with_queries(study_of(read_folders({"task.folder": folder}), measure, reference), None)


def sweep(tmp_path: Path, jobs: Jobs, n_planned: int | None = None) -> Path:
    """A sweep of these jobs, written."""
    return write_sweep(tmp_path / "sweep", jobs, n_planned=n_planned)


def said(study: Study) -> str:
    """The headline of a report in one piece."""
    return " ".join(one.text for one in headline(study))
