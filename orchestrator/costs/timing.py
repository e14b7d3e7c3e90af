"""Models timed by themselves, over texts of known lengths: how long one call takes, and how many texts a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from orchestrator.costs.cost import Load
from orchestrator.costs.fit import Point

LENGTHS = (16, 32, 64, 128, 256, 512)
"""Tokens of a document."""
_LEAST_CALLS, _MOST_CALLS = 3, 40

Run = Callable[[Sequence[str]], object]


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast a model reads documents of one length.

    Attributes:
        part: `embedder` or `reranker`.
        model: its name.
        tokens: of a document.
        per_s: documents a second, in batches.
    """

    part: str
    model: str
    tokens: int
    per_s: float


def cut_texts(text: str, spans: Sequence[tuple[int, int]], tokens: int, n: int) -> list[str]:
    """`n` different stretches of `text` of so many tokens each; fewer, down to none, where the text is too short.

    Args:
        text: long.
        spans: first and one past the last character of each of its tokens.
        tokens: of a stretch.
        n: how many.
    """
    n = max(0, min(n, len(spans) - tokens + 1))
    step = max(1, (len(spans) - tokens) // max(1, n))
    firsts = [place * step for place in range(n)]
    return [text[spans[first][0] : spans[first + tokens - 1][1]] for first in firsts]


def calls_ms(run: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each call, one after the other until `seconds` are over; three at least, after one for warmth."""
    run()
    found: list[float] = []
    started = time.perf_counter()
    while len(found) < _LEAST_CALLS or (len(found) < _MOST_CALLS and time.perf_counter() - started < seconds):
        before = time.perf_counter()
        run()
        found.append((time.perf_counter() - before) * 1000)
    return found


def each_ms(runs: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Milliseconds of each run, once, until `seconds` are over; three at least."""
    found: list[float] = []
    started = time.perf_counter()
    for run in runs:
        if len(found) >= _LEAST_CALLS and time.perf_counter() - started > seconds:
            break
        before = time.perf_counter()
        run()
        found.append((time.perf_counter() - before) * 1000)
    return found


def by_length(
    run: Run, texts: Callable[[int, int], Sequence[str]], lengths: Sequence[int], batch_tokens: int, seconds: float
) -> Iterator[tuple[int, float, list[Point]]]:
    """For each length that there is text enough for: tokens, documents a second, and the times.

    Args:
        run: reads texts.
        texts: `texts(tokens, n)`.
        lengths: tokens of a document.
        batch_tokens: of one call, about.
        seconds: for each length.
    """
    for tokens in lengths:
        batch = texts(tokens, max(1, batch_tokens // tokens))
        if not (n := len(batch)):
            continue
        times = calls_ms(partial(run, batch), seconds)
        yield tokens, n / median(times) * 1000, [Point(Load(n, n * tokens, 0), ms) for ms in times]
