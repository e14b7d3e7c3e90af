"""Documents embedded a second: ours on ONNX Runtime against sentence-transformers, in turn, in one process.

    python benchmarks/embed.py

Same model (the packaged MiniLM), same texts of the shipped sample, same number of threads. Ratios are per round, since
machines differ and are busy; the largest difference of any component is printed beside.
"""

from __future__ import annotations

import platform
import statistics
import time

import numpy as np

from orchestrator import Pipeline
from orchestrator.models.session import physical_cores
from orchestrator.types import Call

ROUNDS = 5


def main() -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    pipeline = Pipeline.compose(["pipeline=dense"])
    texts = [document.full_text for document in pipeline.corpus.documents()]
    ours = pipeline.graph["dense"].stage.embedder  # type: ignore[union-attr]
    ours.load()
    from orchestrator.models import resolve

    torch.set_num_threads(physical_cores())
    theirs = SentenceTransformer(str(resolve(ours.model)), device="cpu")
    print(f"Python {platform.python_version()}, {platform.machine()}, {physical_cores()} threads, {ROUNDS} rounds")
    print(f"{'texts':<22}{'ours/s':>8}{'theirs/s':>10}{'ratio':>7}{'difference':>12}")
    batches = {"about 200 words": texts[:200], "about 20 words": [" ".join(text.split()[:20]) for text in texts[:600]]}
    for name, batch in batches.items():
        rounds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            left = ours.embed(batch, kind="document", call=Call())
            between = time.perf_counter()
            right = theirs.encode(batch, batch_size=32)
            rounds.append((between - started, time.perf_counter() - between))
        ratio = statistics.median(their / our for our, their in rounds)
        speeds = [len(batch) / statistics.median(times) for times in zip(*rounds, strict=True)]
        print(
            f"{name:<22}{speeds[0]:>8.0f}{speeds[1]:>10.0f}{ratio:>7.2f}{np.abs(left - right).max():>12.1e}", flush=True
        )


if __name__ == "__main__":
    main()
