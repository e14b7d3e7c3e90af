"""The embedder and the cross-encoder by themselves, outside of any question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from orchestrator.calibration.ladder import CountTokens
from orchestrator.calibration.scale import Scale
from orchestrator.calibration.timed import Timed, model_of
from orchestrator.costs.cost import PAIR_TOKENS, Load
from orchestrator.costs.fit import Point
from orchestrator.costs.timing import Throughput, by_length, cut_texts, each_ms
from orchestrator.pipeline import Pipeline
from orchestrator.types import Call, Document, Query

_BATCH_TOKENS = 1024
"""Of a call, where a model does not say how large its batches are."""


def token_counter(pipeline: Pipeline) -> CountTokens:
    """Tokens of a text, by the embedder's tokenizer where it shows it; else a token for every four bytes."""
    spans = getattr(embedder_of(pipeline), "token_spans", None)
    return (lambda text: len(spans(text))) if spans else (lambda text: max(1, len(text.encode()) // 4))


def time_embedder(pipeline: Pipeline, count: CountTokens, timed: Timed, cards: Mapping[str, str], scale: Scale) -> None:
    """What a question takes to embed, and documents a second by length."""
    embedder, call = embedder_of(pipeline), Call()
    asked = pipeline.corpus.queries()
    runs = [partial(embedder.embed, [query.text], kind="query", call=call) for query in asked]
    each_ms(runs[:5], 0.1)
    times = each_ms(runs, scale.seconds)
    points = [Point(Load(1, count(query.text), count(query.text)), ms) for query, ms in zip(asked, times, strict=False)]
    name = model_of(embedder, cards)
    timed.keep(("embed", name), points, embedder)
    timed.cost_usd += call.cost_usd
    if (texts := texts_of(pipeline)) is None or name is None:
        return
    limit = getattr(embedder, "max_length_tokens", None) or scale.lengths[-1]
    lengths = [tokens for tokens in scale.lengths if tokens <= limit]
    reading = Call()
    batch = partial(embedder.embed, kind="document", call=reading)
    batch_tokens = getattr(embedder, "batch_tokens", _BATCH_TOKENS)
    for tokens, per_s, _ in by_length(batch, texts, lengths, batch_tokens, scale.seconds / 8):
        timed.throughputs.append(Throughput("embedder", name, tokens, per_s))
    timed.cost_usd += reading.cost_usd


def texts_of(pipeline: Pipeline) -> Any:
    """`texts(tokens, n)`, by the embedder's tokenizer; None where it does not show it."""
    spans = getattr(embedder_of(pipeline), "token_spans", None)
    if spans is None:
        return None
    text = " ".join(document.text for document, _ in zip(pipeline.corpus.documents(), range(60), strict=False))
    found = [(int(first), int(last)) for first, last in spans(text)]
    return lambda tokens, n: cut_texts(text, found, tokens, n)


def time_cross_encoder(pipeline: Pipeline, timed: Timed, cards: Mapping[str, str], scale: Scale) -> None:
    """What pairs of several lengths take, where the pipeline has a cross-encoder."""
    texts = texts_of(pipeline)
    if texts is None or all(node.name != "precise" for node in pipeline.graph.nodes):
        return
    stage, question = part_of(pipeline, "precise"), pipeline.corpus.queries()[0].text
    name = model_of(stage, cards)
    assert name is not None

    def read(documents: Sequence[str]) -> object:
        return stage.score([(Query("q", question), Document("d", text)) for text in documents], Call())

    asked = len(stage.token_spans(question)) + PAIR_TOKENS
    limit = getattr(stage, "max_length_tokens", None) or scale.lengths[-1]
    lengths = [tokens for tokens in scale.lengths if tokens + asked <= limit]
    for tokens, per_s, points in by_length(read, texts, lengths, _BATCH_TOKENS, scale.seconds / 4):
        timed.throughputs.append(Throughput("reranker", name, tokens, per_s))
        pairs = [Point(Load(p.load.documents, p.load.documents * (tokens + asked), asked), p.ms) for p in points]
        timed.keep(("cross_encoder", name), pairs, stage)


def embedder_of(pipeline: Pipeline) -> Any:
    """The embedder that every calibration has."""
    return part_of(pipeline, "dense")


def part_of(pipeline: Pipeline, stage: str) -> Any:
    """A stage, or the embedder of one that has it."""
    built = pipeline.graph[stage].stage
    return getattr(built, "embedder", built)
