"""Questions to whole stacks: every kind of stage in one chain, and searches over many documents."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from orchestrator.calibration.corpora import write_made_up
from orchestrator.calibration.ladder import CountTokens, climb
from orchestrator.calibration.networks import embedder_of
from orchestrator.calibration.scale import Scale
from orchestrator.calibration.timed import Timed, model_of, row_key
from orchestrator.config.words import quote
from orchestrator.costs.cost import AROUND
from orchestrator.pipeline import Pipeline
from orchestrator.types import Query

Compose: TypeAlias = Callable[[Sequence[str]], Pipeline]
"""Words to a pipeline, without those that the user has set: made-up documents are embedded by nobody's model."""
_DEPTHS = (10, 30, 100, 200)
_DEEP = (30, 100, 300, 1000)
_PAIRS = (1, 4, 12)
_RANDOM = ["model@models.embedder=random_vectors", "cache.scores=false", "budget_ms=null"]


def time_chain(pipeline: Pipeline, count: CountTokens, timed: Timed, cards: Mapping[str, str], scale: Scale) -> None:
    """Every kind of stage at several depths, in questions as a user asks them."""
    names = [node.name for node in pipeline.graph.nodes if node.name != "precise"]
    dear = [node.name for node in pipeline.graph.nodes if node.name == "precise"]
    steps = []
    for place, depth in enumerate(_DEPTHS):
        depths = dict.fromkeys(names, depth)
        if dear:  # what the cross-encoder reads is what the stage before it passes on
            depths[names[-1]] = min(depth, _PAIRS[place % len(_PAIRS)])
        steps.append(depths)
    found = climb(pipeline, steps, pipeline.corpus.queries(), count, 3 * scale.seconds)
    timed.cost_usd += found.cost_usd
    for node in pipeline.graph.nodes:
        if node.name not in ("bm25", "dense"):  # of searches, those over many documents tell more
            timed.keep(row_key(node, cards), found.points[node.name], node.stage)
    timed.keep((AROUND, None), found.points[AROUND])


def time_searches(sample: Pipeline, compose: Compose, timed: Timed, cards: Mapping[str, str], scale: Scale) -> None:
    """Searches, fusion and dot products over made-up documents, in a folder that is removed afterwards."""
    texts = [document.full_text for document in sample.corpus.documents()]
    dim, model = embedder_of(sample).dim, model_of(embedder_of(sample), cards)
    sample.storage_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=sample.storage_root) as scratch:
        for size in scale.made_up:
            folder = Path(scratch) / str(size)
            write_made_up(folder, texts, size)
            words = [*_RANDOM, f"models.embedder.dim={dim}", "pipeline=many_documents"]
            words += [f"corpus.path={quote(str(folder))}", f"storage.root={quote(str(folder / 'home'))}"]
            with compose(words) as pipeline:
                pipeline.load()
                asked = [Query(f"q{place}", " ".join(text.split()[:9])) for place, text in enumerate(texts[:60])]
                steps = [dict.fromkeys(("bm25", "dense", "fused"), depth) for depth in _DEEP if depth < size]
                found = climb(pipeline, steps, asked, lambda text: len(text) // 4, scale.seconds).points
                for node in pipeline.graph.nodes:
                    kind = row_key(node, cards)[0]
                    timed.keep((kind, model if hasattr(node.stage, "embedder") else None), found[node.name])
                timed.keep((AROUND, None), found[AROUND])
