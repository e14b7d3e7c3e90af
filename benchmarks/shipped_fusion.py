"""Trains the learned rerank that comes with the package, for the English stack of `+scenario=balanced`.

    python benchmarks/shipped_fusion.py DATA_DIR [--to plugins/learned/shipped/english]

DATA_DIR holds selqa, nq-qed and xquad-en in BEIR layout: collections that may be redistributed (Apache-2.0 and
CC BY-SA). At most 500 queries of each, drawn by the seed. What comes out is nine or so weights and a manifest; no text.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator import Pipeline
from orchestrator.learned.manifest import Manifest
from orchestrator.learned.trained import query_hashes
from orchestrator.learning import training
from orchestrator.stage import Json, no_progress
from orchestrator.types import Example, Query

SETS = {"selqa": "train", "nq-qed": "test", "xquad-en": "test"}
LICENCES = {
    "selqa": "annotations Apache-2.0, sentences of Wikipedia CC BY-SA",
    "nq-qed": "CC BY-SA 3.0",
    "xquad-en": "CC BY-SA 4.0",
}
STAGE = "precise"
OPTIONS: dict[str, Json] = {"model": "linear", "l2": 0.03}
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--queries", type=int, default=500, help="of each set, at most")
    parser.add_argument("--to", type=Path, default=Path("plugins/learned/shipped/english"))
    arguments = parser.parse_args()
    examples: list[Example] = []
    asked: list[Query] = []
    for name, split in SETS.items():
        found, queries = collected(arguments.data_dir / name, split, arguments.queries)
        print(f"{name} ({split}): {len(queries)} queries, {len(found)} with a relevant candidate", flush=True)
        examples += found
        asked += queries
    fit_and_write(arguments.data_dir / "selqa", examples, asked, arguments.to)


def stack(folder: Path, split: str) -> list[str]:
    model = f"pipeline.stages.{STAGE}.use.shipped=null"
    return ["pipeline=late_interaction", f"corpus.path={folder}", f"corpus.split={split}", "log.level=warning", model]


def collected(folder: Path, split: str, most: int) -> tuple[list[Example], Sequence[Query]]:
    with Pipeline.compose(stack(folder, split)) as pipeline:
        topics = pipeline.corpus.topics
        judged = [q for q in topics.queries if any(grade > 0 for grade in topics.qrels.get(q.query_id, {}).values())]
        drawn = np.random.default_rng(SEED).permutation(len(judged))[:most]
        queries = [judged[place] for place in sorted(drawn.tolist())]
        place = pipeline.place_of_model(STAGE)
        assert place is not None
        collector = training.Collector(place.stage, topics.qrels)
        pool = training.collect(pipeline.upstream(STAGE, collector), collector, queries, depth=100, batch_queries=32)
        return pool.useful(query.query_id for query in queries), queries


def fit_and_write(folder: Path, examples: list[Example], asked: Sequence[Query], target: Path) -> None:
    drawn = np.random.default_rng(SEED).permutation(len(examples)).tolist()
    n = len(examples) // 5
    with Pipeline.compose(stack(folder, "train")) as pipeline:
        place = pipeline.place_of_model(STAGE)
        assert place is not None
        pipeline.upstream(STAGE, training.Collector(place.stage, {}))
        train, validation = [examples[i] for i in drawn[n:]], [examples[i] for i in drawn[:n]]
        fitted = place.stage.fit(train, validation, {**OPTIONS, "seed": SEED}, no_progress)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        place.stage.write_model(target)
        about: dict[str, Json] = {
            "versions": {"rerank-orchestrator": importlib.metadata.version("rerank-orchestrator")},
            "parameters": OPTIONS,
            "command": "python benchmarks/shipped_fusion.py DATA_DIR",
            "licences": LICENCES,
            "validation": fitted.validation,
            "queries": {"train": len(train), "validation": len(validation)},
            "importances": dict(fitted.importances),
            "query_hashes": query_hashes(asked),
        }
        name = ", ".join(f"{key} ({split})" for key, split in SETS.items())
        Manifest(place.settings(pipeline.loaded), name, "", 0, about=about).write(target, ())
    print(f"nDCG@10 {fitted.validation:.4f} on the candidates of {n} queries held out; weights by size:")
    print("\n".join(f"  {feature:24} {share:.3f}" for feature, share in fitted.importances.items()))


if __name__ == "__main__":
    main()
