"""Which backend, how many threads and how large batches run a model fastest on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from orchestrator.costs.kept import Setting
from orchestrator.costs.timing import calls_ms
from orchestrator.models.session import physical_cores
from orchestrator.types import Call, Document, Query

BATCH_TOKENS = (256, 512, 1024, 2048, 4096)
_WORTH_IT = 1.1
"""So much faster than what is configured a setting has to be, for somebody to write it down."""

_CONFIGURED = "as configured"

Build = Callable[[Sequence[str]], Any]
"""`build(words)`: the loaded part, of a pipeline with these further words of the command line."""


@dataclass(frozen=True, slots=True)
class Part:
    """A model whose settings are tried.

    Attributes:
        name: `embedder` or `reranker`.
        model: its name in the figures.
        prefix: where its settings stand in the configuration.
        backends: what it can run on beside the one that is configured.
        texts: documents as a search finds them.
        question: one question.
    """

    name: str
    model: str
    prefix: str
    backends: Sequence[str]
    texts: Sequence[str]
    question: str

    def words(self, setting: Mapping[str, str | int]) -> list[str]:
        """Of the command line, that set it; a card need not have these keys."""
        return [f"++{self.prefix}.{key}={value}" for key, value in setting.items()]

    def read(self, built: Any) -> object:
        """One call over all texts."""
        if self.name == "embedder":
            return built.embed(self.texts, kind="document", call=Call())
        return built.score([(Query("q", self.question), Document("d", text)) for text in self.texts], Call())


@dataclass(frozen=True, slots=True)
class _Tried:
    """One way: in words, the loaded model, its settings, and documents a second."""

    words: str
    built: Any
    setting: Mapping[str, str | int]
    per_s: float


def backends() -> list[str]:
    """Those that a cross-encoder could run on here beside the default, ONNX: OpenVINO where it is installed."""
    return ["openvino"] if find_spec("openvino") is not None else []


def thread_counts() -> list[int]:
    """Numbers of threads worth trying: one, half of the cores, and all of them, which null means."""
    cores = physical_cores()
    return sorted({1, max(1, cores // 2), cores})


def choose(part: Part, configured: Any, build: Build, seconds: float) -> Setting:
    """The fastest of the ways to run `part`, one choice after the other: backend and threads, then batches.

    Beside the configured one no more than the best so far and the one that is tried are loaded at once: models are
    large.

    Args:
        part: the model.
        configured: it as configured, loaded; it stays so.
        build: builds it with other settings.
        seconds: for each way.
    """
    best = _Tried(_CONFIGURED, configured, {}, _per_s(part, configured, seconds))
    tried = {_CONFIGURED: best.per_s}
    for words, setting in _ways(part, configured):
        one = build(part.words(setting))
        other = _Tried(words, one, setting, _per_s(part, one, seconds))
        tried[words] = other.per_s
        best, worse = (other, best) if other.per_s > best.per_s else (best, other)
        if worse.built is not configured:
            _close(worse.built)
        del one, other, worse
    found = best
    for batch_tokens in BATCH_TOKENS:
        if batch_tokens != best.built.batch_tokens:
            one = copy.copy(best.built)
            one.batch_tokens = batch_tokens
            setting = {**best.setting, "batch_tokens": batch_tokens}
            words = f"{best.words}, batches of {batch_tokens} tokens"
            other = _Tried(words, one, setting, _per_s(part, one, seconds))
            tried[words] = other.per_s
            found = other if other.per_s > found.per_s else found
    if best.built is not configured:
        _close(best.built)
    is_worth_it = found.per_s >= _WORTH_IT * tried[_CONFIGURED]
    values: Mapping[str, str | int] = found.setting if is_worth_it else {}
    gain = found.per_s / tried[_CONFIGURED] if is_worth_it else 1.0
    return Setting(part.name, part.model, values, tried, gain)


def _per_s(part: Part, built: Any, seconds: float) -> float:
    """Documents a second, by the fastest call: what else the machine does now and then is nothing of the setting's."""
    return len(part.texts) / min(calls_ms(lambda: part.read(built), seconds)) * 1000


def _close(built: Any) -> None:
    close = getattr(built, "close", None)
    if close is not None:
        close()


def _ways(part: Part, configured: Any) -> Iterator[tuple[str, dict[str, str | int]]]:
    for threads in thread_counts() if hasattr(configured, "threads") else ():  # not every class has a say in them
        if threads != (configured.threads or physical_cores()):
            yield f"{threads} thread{'s' if threads > 1 else ''}", {"threads": threads}
    for backend in part.backends:
        yield backend, {"backend": backend}
