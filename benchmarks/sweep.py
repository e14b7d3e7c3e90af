"""What a sweep of 64 configurations costs when its jobs share results of stages, against the same 64 apart.

    python benchmarks/sweep.py [DATA_DIR | sample [QUERIES]]

2 recalls x 2 fusions x 4 depths of the shortlist x 4 final depths, over BM25, a second recall, late interaction and a
bi-encoder. DATA_DIR is a collection in BEIR layout, by default the sample; QUERIES is how many questions are asked.
Apart means that every job finds nothing of the others (cache.stages=false). Models stay loaded and indexes are there in
both, so that the ratio is that of the work alone; each of the 64 in a process of its own would take longer still.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage import default_root

STACK = ["pipeline=three_stage", "rerank@pipeline.stages.precise.use=bi_encoder"]
SWEPT = [
    "recall@pipeline.stages.dense.use=qdrant,qdrant_sparse",
    "fusion@pipeline.stages.fused.use=rrf,weighted",
    "pipeline.stages.shortlist.top_k=10,20,50,100",
    "pipeline.stages.precise.top_k=3,5,10,20",
]
TIMES = ("latency_ms", "stage_latency_ms", "reused")
KEPT_APART = ("stages", "scores.sqlite")


@dataclass(frozen=True)
class Swept:
    """What one sweep did.

    Attributes:
        wall_s: of the whole command, start and loading included.
        jobs: job by job, the content of its metrics.json and of its run.trec.
    """

    wall_s: float
    jobs: list[tuple[dict[str, Any], str]]

    def work(self, key: str) -> int:
        """A figure of `reused`, over all jobs."""
        return sum(int(figures["reused"][key]) for figures, _ in self.jobs)

    @property
    def executions(self) -> int:
        """How often a stage was really asked, each question counting once."""
        return self.work("asked") - self.work("reused")

    @property
    def found(self) -> list[tuple[dict[str, Any], str]]:
        """All figures but times, and the rankings."""
        return [({key: value for key, value in one.items() if key not in TIMES}, run) for one, run in self.jobs]


def sweep(corpus: Sequence[str], root: Path, *words: str) -> Swept:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "orchestrator", "-m", "evaluate", "latency_queries=0", *STACK, *SWEPT, *corpus]
        environment = {**os.environ, "ORCHESTRATOR_HOME": str(root)}
        started = time.perf_counter()
        subprocess.run(
            [*command, "cache.scores=false", *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        wall_s = time.perf_counter() - started
        (jobs,) = Path(folder).glob("multirun/*/*")
        folders = sorted((path.parent for path in jobs.glob("*/metrics.json")), key=lambda path: int(path.name))
        found = [(json.loads((job / "metrics.json").read_text()), (job / "run.trec").read_text()) for job in folders]
    return Swept(wall_s, found)


def fresh_root(folder: Path) -> Path:
    """A storage root with the models, vectors and indexes of the usual one, and nothing kept of stages or scores."""
    usual = default_root()
    usual.mkdir(parents=True, exist_ok=True)
    for path in usual.iterdir():
        if not path.name.startswith(KEPT_APART):
            (folder / path.name).symlink_to(path)
    return folder


def prepare(corpus: Sequence[str]) -> None:
    """Export models, embed the collection and build the indexes, which no sweep is to pay for."""
    for recall in ("qdrant", "qdrant_sparse"):
        words = ["index", *STACK, f"recall@pipeline.stages.dense.use={recall}", *corpus]
        subprocess.run([sys.executable, "-m", "orchestrator", *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    corpus = [f"corpus.path={sys.argv[1]}"] if len(sys.argv) > 1 and sys.argv[1] != "sample" else []
    if len(sys.argv) > 2:
        corpus.append(f"corpus.max_queries={sys.argv[2]}")
    load = os.getloadavg()[0]
    prepare(corpus)
    with tempfile.TemporaryDirectory() as folder:
        root = fresh_root(Path(folder))
        shared = sweep(corpus, root)
        again = sweep(corpus, root)
        apart = sweep(corpus, root, "cache.stages=false")
    assert len(apart.jobs) == 64
    assert shared.found == again.found == apart.found, "figures and rankings differ"
    name = Path(sys.argv[1]).name if len(sys.argv) > 1 else "sample"
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} threads, load {load:.1f} before")
    print(f"{name}, {apart.jobs[0][0]['n_queries']} queries, 64 configurations: {' '.join(SWEPT)}")
    print("figures and rankings of all 64 are the same, to the last digit\n")
    print(f"{'':<46} {'apart':>12} {'shared':>12} {'ratio':>7} {'shared again':>13}")
    rows = [
        ("stages asked, each question counting once", *(one.executions for one in (apart, shared, again))),
        ("documents scored by reranks", *(one.work("documents_scored") for one in (apart, shared, again))),
    ]
    for what, alone, together, later in rows:
        print(f"{what:<46} {alone:>12,} {together:>12,} {alone / together:>7.1f} {later:>13,}")
    times = f"{apart.wall_s:>12.1f} {shared.wall_s:>12.1f} {apart.wall_s / shared.wall_s:>7.1f} {again.wall_s:>13.1f}"
    print(f"{'seconds, start and loading of models included':<46} {times}")


if __name__ == "__main__":
    main()
