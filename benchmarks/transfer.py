"""Does a learned rerank beat the stages that it learns from, in collections that it never saw, and in its own?

    python benchmarks/transfer.py DATA_DIR [SET ...] [--queries 150] > benchmarks/results/transfer.txt

DATA_DIR holds one folder a collection in BEIR layout; up to 150 judged queries of the split `test` of each, drawn by
the seed. Candidates: BM25 100 + MiniLM 100 -> RRF 100 -> late interaction, as in `+scenario=balanced`; the learned
stage sees the scores of all four and the words. It is trained twice: `other` on up to 60 queries of each of the other
sets, and tried on a set that it never saw; `own` on the set's own queries in 5 folds, each query judged by a model
that did not learn from it. Learners: a weighted sum (linear), LambdaMART (trees), and LambdaMART whose scores and
matches may only lift and whose ranks and distances may only lower (mono).

nDCG@10. The mean gives each set the same weight, and so does its test: paired randomization over all queries, each
weighing as its set does, Holm-corrected over all pairs of a learned and a simpler system. Sets that all-MiniLM-L6-v2
was trained on (MS MARCO, Natural Questions, SQuAD) have no part in it: its scores on them say too much. No
cross-encoder is among the rivals: none comes with the package.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures, Qrels, Rankings
from orchestrator.evaluation.significance import ALPHA, holm, paired_randomization
from orchestrator.learning import training
from orchestrator.stage import Json, Trainable
from orchestrator.types import Example

SETS = (
    *("cacm", "chunkeval", "cisi", "covidqa", "cranfield", "dbpedia-mini", "financebench"),
    *("policyqa", "pubmedqa", "rag-product-docs", "selqa", "vaswani"),
)
RIVALS = {"bm25": "BM25", "dense": "dense", "fused": "RRF", "shortlist": "late int."}
_TREES: dict[str, Json] = {"model": "trees", "rounds": 200, "early_stopping_rounds": 20, "learning_rate": 0.1}
"""Fewer trees at twice the rate of the defaults: there are some 200 trainings."""
LEARNERS: Mapping[str, dict[str, Json]] = {
    "linear": {"model": "linear"},
    "trees": {**_TREES, "monotone": "off"},
    "mono": {**_TREES, "monotone": "auto"},
}
LEARNED = tuple(f"{learner} {where}" for where in ("other", "own") for learner in LEARNERS)
STAGE, SEED, FOLDS, VALIDATION, DEPTH = "precise", 7, 5, 0.2, 100
Values = dict[str, np.ndarray]


@dataclass
class Collection:
    """What the stages found for the queries of one set."""

    pool: training.Pool
    qrels: Qrels
    texts: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--queries", type=int, default=150, help="of each set, at most")
    parser.add_argument("--learn", type=int, default=60, help="of each other set, at most, to learn from")
    arguments = parser.parse_args()
    print(header(), flush=True)
    found: dict[str, Collection] = {}
    for name in arguments.sets:
        found[name], stage = collected(arguments.data_dir / name, arguments.queries)
        print(f"{name}: {len(found[name].texts)} queries", file=sys.stderr, flush=True)
    columns = [*RIVALS.values(), *LEARNED]
    print(f"\n{'set':17} {'queries':>7} " + " ".join(f"{name:>12}" for name in columns))
    values = {}
    for name in found:
        row = values[name] = measured(stage, name, found, arguments.learn)
        line(name, len(row["bm25"]), {system: float(numbers.mean()) for system, numbers in row.items()})
    conclude(values)


def header() -> str:
    names = ("rerank-orchestrator", "xgboost-cpu", "onnxruntime", "bm25s", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"


def collected(folder: Path, most: int) -> tuple[Collection, Trainable]:
    """Candidates, features and rankings of up to `most` queries; and the stage that learns from them."""
    words = ["pipeline=late_interaction", f"corpus.path={folder}", "corpus.split=test", "corpus.language=en"]
    with Pipeline.compose([*words, f"pipeline.stages.{STAGE}.use.shipped=null", "log.level=warning"]) as pipeline:
        topics = pipeline.corpus.topics
        judged = [q for q in topics.queries if any(grade > 0 for grade in topics.qrels.get(q.query_id, {}).values())]
        drawn = np.random.default_rng(SEED).permutation(len(judged))[:most]
        queries = [judged[place] for place in sorted(drawn.tolist())]
        place = pipeline.place_of_model(STAGE)
        assert place is not None
        collector = training.Collector(place.stage, topics.qrels)
        pool = training.collect(pipeline.upstream(STAGE, collector), collector, queries, depth=DEPTH, batch_queries=32)
    texts = {query.query_id: query.text for query in queries}
    return Collection(pool, {key: topics.qrels[key] for key in texts}, texts), place.stage


def measured(stage: Trainable, name: str, found: Mapping[str, Collection], most: int) -> Values:
    """System -> float64 [n_queries], nDCG@10 of each query of the set `name`."""
    own, measures = found[name], Measures(["nDCG@10"])
    rankings = {system: own.pool.rankings[system] for system in RIVALS}
    others = [collection for other, collection in found.items() if other != name]
    for learner, options in LEARNERS.items():
        rankings[f"{learner} other"] = from_others(stage, own, others, most, {**options, "seed": SEED})
        rankings[f"{learner} own"] = from_itself(stage, own, {**options, "seed": SEED})
    rows = {system: measures.per_query(own.qrels, ranked) for system, ranked in rankings.items()}
    return {system: np.array([row[key]["nDCG@10"] for key in own.qrels]) for system, row in rows.items()}


def from_others(
    stage: Trainable, own: Collection, others: Sequence[Collection], most: int, options: Mapping[str, Json]
) -> Rankings:
    """The rankings of a model that learned from all the other sets."""
    asked = {training.same_words(text) for text in own.texts.values()}
    examples = [example for other in others for example in _useful(other, asked)[:most]]
    drawn = np.random.default_rng(SEED).permutation(len(examples)).tolist()
    n = round(VALIDATION * len(examples))
    stage.fit([examples[i] for i in drawn[n:]], [examples[i] for i in drawn[:n]], options, lambda *_: None)
    return training.ordered(stage, own.pool, own.qrels, DEPTH)


def _useful(other: Collection, asked: set[str]) -> list[Example]:
    keys = [key for key, text in other.texts.items() if training.same_words(text) not in asked]
    return other.pool.useful(keys)


def from_itself(stage: Trainable, own: Collection, options: Mapping[str, Json]) -> Rankings:
    """The rankings of five models, each for the queries that it did not learn from."""
    rankings: Rankings = {}
    for split in training.split_queries(list(own.qrels), 0.0, VALIDATION, SEED, FOLDS)[:-1]:
        training.fit(stage, own.pool, training.apart(split, own.texts), options)
        rankings |= training.ordered(stage, own.pool, split.held_out, DEPTH)
    return rankings


def line(name: str, queries: int, means: Mapping[str, float]) -> None:
    figures = " ".join(f"{means[system]:12.4f}" for system in (*RIVALS, *LEARNED))
    print(f"{name:17} {queries:7} {figures}", flush=True)


def conclude(values: Mapping[str, Values]) -> None:
    """The mean over the sets, and for each learned system its difference to each simpler one with its p."""
    systems = (*RIVALS, *LEARNED)
    means = {system: float(np.mean([row[system].mean() for row in values.values()])) for system in systems}
    line("mean", sum(len(row["bm25"]) for row in values.values()), means)
    pairs = [(system, rival) for system in LEARNED for rival in RIVALS]
    corrected = holm([paired_randomization(_weighted(values, *pair), seed=SEED) for pair in pairs])
    p_of = dict(zip(pairs, corrected, strict=True))
    best = max(RIVALS, key=means.__getitem__)
    print(
        f"\n{'':13} {'mean':>7} {'sets won':>9}  difference to the simpler systems, p corrected over {len(pairs)} pairs"
    )
    for system in LEARNED:
        won = sum(row[system].mean() > max(row[rival].mean() for rival in RIVALS) for row in values.values())
        told = ", ".join(
            f"{RIVALS[rival]} {means[system] - means[rival]:+.4f} (p {p_of[system, rival]:.2g})" for rival in RIVALS
        )
        print(f"{system:13} {means[system]:7.4f} {f'{won} of {len(values)}':>9}  {told}")
    print(f"\nBest of the simpler systems on the mean: {RIVALS[best]} ({means[best]:.4f}).")
    for system in LEARNED:
        lower = [RIVALS[rival] for rival in RIVALS if means[system] <= means[rival] or p_of[system, rival] >= ALPHA]
        print(f"{system}: " + (f"not beyond chance above {', '.join(lower)}" if lower else "beats all four"))
    mono = {where: means[f"mono {where}"] - means[f"trees {where}"] for where in ("other", "own")}
    p_mono = holm([paired_randomization(_weighted(values, f"mono {w}", f"trees {w}"), seed=SEED) for w in mono])
    for (where, difference), p in zip(mono.items(), p_mono, strict=True):
        print(f"monotone trees beside free ones, {where}: {difference:+.4f} (p {p:.2g}, corrected over both)")


def _weighted(values: Mapping[str, Values], system: str, rival: str) -> np.ndarray:
    """float64 [all queries]: the differences, so weighted that their mean is the mean over the sets."""
    n = sum(len(row[system]) for row in values.values())
    return np.concatenate([(row[system] - row[rival]) * n / len(values) / len(row[system]) for row in values.values()])


if __name__ == "__main__":
    main()
