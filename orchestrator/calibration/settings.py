"""Which backend, how many threads and how large batches run a model fastest on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from orchestrator.calibration.kept import Setting
from orchestrator.calibration.timing import calls_ms
from orchestrator.models.session import physical_cores
from orchestrator.types import Call, Document, Query

BATCH_TOKENS = (256, 512, 1024, 2048, 4096)
_WORTH_IT = 1.1
"""So much faster than the defaults a setting has to be, for somebody to write it down."""

Build = Callable[[Sequence[str]], Any]
"""`build(words)`: the loaded part, of a pipeline with these further words of the command line."""


@dataclass(frozen=True, slots=True)
class Part:
    """A model whose settings are tried.

    Attributes:
        name: `embedder` or `reranker`.
        model: its name in the figures.
        prefix: where its settings stand in the configuration.
        backends: what it can run on beside the default.
        texts: documents as a search finds them.
        question: one question.
    """

    name: str
    model: str
    prefix: str
    backends: Sequence[str]
    texts: Sequence[str]
    question: str

    def read(self, built: Any) -> object:
        """One call over all texts."""
        if self.name == "embedder":
            return built.embed(self.texts, kind="document", call=Call())
        return built.score([(Query("q", self.question), Document("d", text)) for text in self.texts], Call())


def backends() -> list[str]:
    """Those that a cross-encoder could run on here beside the default, ONNX: OpenVINO where it is installed."""
    return ["openvino"] if find_spec("openvino") is not None else []


def thread_counts() -> list[int]:
    """Numbers of threads worth trying: one, half of the cores, and all of them; the default, all, comes last."""
    cores = physical_cores()
    return sorted({1, max(1, cores // 2), cores})


def choose(part: Part, build: Build, seconds: float) -> Setting:
    """The fastest of the ways to run `part`, one choice after the other: backend and threads, then batches.

    Args:
        part: the model.
        build: builds it with other settings.
        seconds: for each way.
    """
    tried: dict[str, float] = {}
    built: dict[str, Any] = {}
    values: dict[str, dict[str, str | int]] = {}

    def time(words: str, one: Any, setting: Mapping[str, str | int]) -> None:
        # The fastest call of each: what else the machine does now and then is nothing of the setting's.
        tried[words] = len(part.texts) / min(calls_ms(lambda: part.read(one), seconds)) * 1000
        built[words], values[words] = one, dict(setting)

    default = "as shipped"
    time(default, build([]), {})
    for words, setting in _ways(part):
        time(words, build([f"{part.prefix}.{key}={value}" for key, value in setting.items()]), setting)
    first = max(tried, key=lambda words: tried[words])
    for batch_tokens in BATCH_TOKENS:
        if batch_tokens != built[first].batch_tokens:
            other = copy.copy(built[first])
            other.batch_tokens = batch_tokens
            time(f"{first}, batches of {batch_tokens} tokens", other, {**values[first], "batch_tokens": batch_tokens})
    best = max(tried, key=lambda words: tried[words])
    best = best if tried[best] >= _WORTH_IT * tried[default] else default
    return Setting(part.name, part.model, values[best], tried, tried[best] / tried[default])


def _ways(part: Part) -> Iterator[tuple[str, dict[str, str | int]]]:
    for threads in thread_counts()[:-1]:
        yield f"{threads} thread{'s' if threads > 1 else ''}", {"threads": threads}
    for backend in part.backends:
        yield backend, {"backend": backend}
