"""How fast each stage is on this machine: learned while it answers, kept between runs.

Every stage has a `Pace`. It learns from questions answered one at a time, never from kept scores and never from
batches, and predicts what the next piece of work will take. The figures of a machine lie in one file,
`cost/<machine>.json`.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.log import get_logger
from orchestrator.stack.graph import Node
from orchestrator.stage import Json
from orchestrator.storage import stable_hash, write_atomic
from orchestrator.types import Document, Query

log = get_logger()

_FORMAT = 1
_REMEMBERED = 64
"""Observations that count: enough to see through noise, few enough to follow a machine that has become busier."""
_RECENT = 8
_FEW = 16
"""So many observations are looked at one by one; of more, the line is drawn anew for every eighth."""
_CHANGE = (0.5, 4.0)
"""How far the last few observations may move a prediction away from what the others say."""
_MOST_SPREAD = 3.0
"""A stage that is slower still one time in ten is not waited for by all others."""
_DOUBT = 0.9
"""A stage that was not tried, since it would have taken too long, is expected to take so much of it the next time."""
_BYTES_PER_TOKEN = 4
"""Of English 4 to 5, of Chinese about 3; what is learned is time by this size, so that a steady error does no harm."""
_MOST_DOUBT = 0.01
_SAVE_EVERY = 32
_MOST_STAGES = 500
"""Kept on disk, those asked last: stages and settings come and go, and the file is read by every process."""


@dataclass(frozen=True, slots=True)
class Line:
    """seconds = fixed + per_unit * units, and how far a slow observation, nine in ten below it, lies above that."""

    fixed: float
    per_unit: float
    spread: float

    @classmethod
    def through(cls, units: Sequence[float], seconds: Sequence[float]) -> Line:
        """The line of Theil and Sen: the median of the slopes of all pairs, deaf to a quarter of wild observations.

        Of pairs in which one is twice the other: between sizes that are nearly equal a slope is noise, and the cost of
        one document, far outside of them, could come out as that of all. A negative slope or intercept, which no stage
        has, is 0.
        """
        x, y = np.asarray(units, np.float64), np.asarray(seconds, np.float64)
        first, second = np.triu_indices(len(x), 1)
        run = x[second] - x[first]
        apart = np.abs(run) >= 0.5 * np.maximum(np.maximum(x[first], x[second]), 1e-12)
        per_unit = float(np.median((y[second] - y[first])[apart] / run[apart])) if apart.any() else 0.0
        per_unit = min(max(per_unit, 0.0), float(np.median(y / np.maximum(x, 1e-12))))
        fixed = max(0.0, float(np.median(y - per_unit * x)))
        if not apart.any():  # about one size only: what grows with it cannot be told from what does not
            per_unit, fixed = float(np.median(y / np.maximum(x, 1e-12))), 0.0
        expected = np.maximum(fixed + per_unit * x, 1e-9)
        return cls(fixed, per_unit, float(np.clip(np.quantile(y / expected, 0.9), 1.0, _MOST_SPREAD)))

    def at(self, units: float) -> float:
        """Seconds for `units`."""
        return self.fixed + self.per_unit * units


class _Series:
    """Observations of one kind of work, and the line through them."""

    def __init__(self, kept: object = None) -> None:
        self.work: deque[tuple[float, float]] = deque(_pairs(kept), _REMEMBERED)
        self._line: Line | None = None
        self._change = 1.0
        self._new = 0

    def add(self, units: float, seconds: float) -> None:
        """One more observation."""
        self.work.append((units, seconds))
        self._new += 1

    def fitted(self) -> tuple[Line, float] | None:
        """The line, and how far the last few observations lie from it; None where nothing was observed."""
        if not self.work:
            return None
        if self._line is None or self._new >= (1 if len(self.work) <= _FEW else _FEW // 2):
            self._new = 0
            units, seconds = zip(*self.work, strict=True)
            self._line = Line.through(units, seconds)
            recent = list(self.work)[-_RECENT:]
            ratios = [taken / max(self._line.at(size), 1e-9) for size, taken in recent]
            self._change = float(np.clip(np.median(ratios), *_CHANGE)) if len(recent) == _RECENT else 1.0
        return self._line, self._change


class Pace:
    """What one stage takes: seconds by the size of what it reads. Safe to use from several threads.

    What a stage does for a question in several pieces is learned apart: only the first piece reads the question.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        kept = kept or {}
        self._first, self._later = _Series(kept.get("work")), _Series(kept.get("later"))
        self._around: deque[float] = deque(_numbers(kept.get("around")), _REMEMBERED)
        self._sizes: deque[tuple[float, float]] = deque(_pairs(kept.get("sizes")), _REMEMBERED)
        self._typical: tuple[float, float] | None = None
        self._at_least: tuple[float, float] | None = None
        self._doubt = 1.0
        self._lock = threading.Lock()

    @property
    def is_known(self) -> bool:
        """Whether anything has been observed."""
        return bool(self._first.work)

    def observe(self, units: float, seconds: float, *, later: bool = False) -> None:
        """Learn that work of this size took so long; of no work at all nothing is learned.

        Args:
            units: its size.
            seconds: what it took.
            later: whether it was a piece after the first of the same question.
        """
        if units <= 0:
            return
        with self._lock:
            (self._later if later else self._first).add(units, seconds)
            self._doubt, self._at_least = 1.0, None

    def observe_at_least(self, units: float, seconds: float) -> None:
        """Learn that work of this size would have taken longer than `seconds`, after which it was stopped.

        Until it is seen to end, it is expected to take twice as long.
        """
        longer = units > 0 and seconds > self.seconds(units, doubted=False)
        with self._lock:
            self._doubt = 1.0  # it was tried, and did not prove to be faster
            if longer:
                self._at_least = units, 2 * seconds

    def observe_stage(self, n: int, units: float, around_s: float) -> None:
        """Learn how large `n` documents were, and what the stage took beside its scoring: reading, ordering."""
        with self._lock:
            self._typical = None
            self._around.append(max(0.0, around_s))
            if n:
                self._sizes.append((float(n), units))

    def was_left_out(self) -> None:
        """Doubt what is known a little: a stage that is never tried could never prove to have become faster."""
        with self._lock:
            self._doubt = max(_MOST_DOUBT, self._doubt * _DOUBT)

    def seconds(self, units: float, *, doubted: bool = True, later: bool = False) -> float:
        """What work of this size usually takes; 0 where nothing is known.

        Args:
            units: its size.
            doubted: less what it is doubted by for not having been tried; what is kept for it is not.
            later: as a piece after the first of the same question.
        """
        with self._lock:
            floor = 0.0 if self._at_least is None else self._at_least[1] * units / self._at_least[0]
            return max(self._expected(units, later), floor) * (self._doubt if doubted else 1.0)

    def careful_seconds(self, units: float, *, doubted: bool = True, later: bool = False) -> float:
        """What work of this size takes at most, nine times in ten; 0 where nothing is known."""
        with self._lock:
            fitted = self._first.fitted()
        return self.seconds(units, doubted=doubted, later=later) * (1.0 if fitted is None else fitted[0].spread)

    def _expected(self, units: float, later: bool) -> float:
        """By what was observed. `_lock` is held."""
        fitted = self._first.fitted()
        if fitted is None:
            return 0.0
        line, change = fitted
        if not later:
            return line.at(units) * change
        again = self._later.fitted()
        return line.per_unit * units * change if again is None else again[0].at(units) * again[1]

    def stage_seconds(self, n: int, *, careful: bool = False) -> float:
        """What the whole stage usually takes for `n` documents of the usual size; `careful`: nine times in ten."""
        seconds = self.careful_seconds if careful else self.seconds
        around, size = self._usual()
        return around + (seconds(n * size, doubted=False) if n else 0.0)

    def _usual(self) -> tuple[float, float]:
        """What a stage takes beside its scoring, and the size of a document."""
        with self._lock:
            if self._typical is None:
                around = float(np.median(self._around)) if self._around else 0.0
                counted, sized = (sum(row) for row in zip(*self._sizes, strict=True)) if self._sizes else (1.0, 1.0)
                self._typical = around, sized / counted
            return self._typical

    def as_json(self) -> dict[str, Json]:
        """What is kept."""
        with self._lock:
            return {
                "work": [list(pair) for pair in self._first.work],
                "later": [list(pair) for pair in self._later.work],
                "around": list(self._around),
                "sizes": [list(pair) for pair in self._sizes],
            }


class Paces:
    """The paces of this machine, by stage.

    A file that cannot be read is begun anew: it only holds what a few questions teach again. A process keeps the stages
    of others that it finds there; of the same stage, or written in the same moment, the last one wins.

    Args:
        root: where state lives; None keeps nothing on disk.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._path = None if root is None else root / "cost" / f"{machine()}.json"
        self._kept = self._read()
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()
        self._asked = 0

    def of(self, key: str) -> Pace:
        """The pace kept under `key`; a new one where there is none."""
        with self._lock:
            if key not in self._paces:
                self._paces[key] = Pace(self._kept.get(key))
            return self._paces[key]

    def learned(self) -> None:
        """Told after each question: now and then what was learned is written, in a thread of its own."""
        self._asked += 1
        if self._path is not None and self._asked % _SAVE_EVERY == 0:
            threading.Thread(target=self.save, name="orchestrator-pace", daemon=True).start()

    def save(self) -> None:
        """Write what was learned."""
        if self._path is None:
            return
        with self._lock:
            mine = {key: pace.as_json() for key, pace in self._paces.items() if pace.is_known}
        try:
            if mine:
                others = {key: value for key, value in self._read().items() if key not in mine}
                latest = dict([*others.items(), *mine.items()][-_MOST_STAGES:])  # those asked last stand last
                write_atomic(self._path, json.dumps({"format": _FORMAT, "stages": latest}) + "\n")
        except OSError as error:
            log.warning("pace.not_kept", path=str(self._path), reason=str(error))

    def _read(self) -> dict[str, Mapping[str, Any]]:
        if self._path is None:
            return {}
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            stages = kept["stages"] if kept["format"] == _FORMAT else {}
            return {str(key): dict(value) for key, value in stages.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("pace.unreadable", path=str(self._path), reason=str(error))
            return {}


@lru_cache(maxsize=4)
def shared_paces(root: Path) -> Paces:
    """The paces kept under `root`, one object a process."""
    return Paces(root)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_paces.cache_clear)  # a lock may be held by a thread that the child lacks


def pace_key(node: Node, corpus: str = "") -> str:
    """Names what a stage's time depends on: its class, model and settings; of a recall also corpus and `top_k`."""
    kind = type(node.stage)
    facts: dict[str, Json] = {"class": f"{kind.__module__}.{kind.__qualname__}", "passages": asdict(node.passages)}
    for name in ("model_id", "threads", "batch_tokens", "window"):
        value = getattr(node.stage, name, None)
        facts[name] = value if isinstance(value, str | int | None) else None
    if node.kind == "recall":
        facts |= {"corpus": corpus, "top_k": node.top_k}
    for name in ("embedder", "encoder"):
        if (held := getattr(node.stage, name, None)) is not None:
            # Vectors of documents that a caller brings may have to be computed first.
            facts |= {name: str(getattr(held, "model_id", "")), "are_kept": bool(corpus)}
    return f"{node.name}-{stable_hash(facts)}"


def sizes(node: Node, pairs: Sequence[tuple[Query, Document]]) -> list[float]:
    """Roughly how many tokens a stage reads for each pair; 1 each where it reads no text."""
    if "text" not in node.needs:
        return [1.0] * len(pairs)
    most = _most_tokens(node)
    return [min(sum(map(_tokens, (query.text, found.title, found.text))), most) for query, found in pairs]


def _most_tokens(node: Node) -> float:
    """Where a document's text ends to cost anything, as far as the stage says."""
    longest = getattr(node.stage, "max_length_tokens", None) or getattr(node.stage, "max_document_tokens", None)
    size = node.passages.size or longest if node.passages.cuts else longest
    if size is None:
        return float("inf")
    return float(size * (node.passages.max_windows or 64) if node.passages.how == "windows" else size)


def _tokens(text: str) -> float:
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) / _BYTES_PER_TOKEN


@lru_cache(maxsize=1)
def machine() -> str:
    """Names this machine by its processor and how many of its cores may be used; the same in every container on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return stable_hash([platform.machine(), processor(), cores], 12)


def processor() -> str:
    """The processor's name; empty where nothing tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _pairs(value: object) -> list[tuple[float, float]]:
    rows = value if isinstance(value, list) else []
    return [(row[0], row[1]) for row in rows if isinstance(row, list) and len(row) == 2 and len(_numbers(row)) == 2]


def _numbers(value: object) -> list[float]:
    found = value if isinstance(value, list) else []
    return [float(number) for number in found if isinstance(number, int | float) and 0 <= number < float("inf")]
