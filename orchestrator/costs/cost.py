"""What stages cost: figures by kind and model, by tokens and depth. Measured ones go before reference ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from orchestrator.costs.lengths import Lengths
from orchestrator.errors import ConfigError, did_you_mean

PAIR_KINDS = frozenset({"cross_encoder", "api", "llm"})
"""Kinds of stages that read the question once more with every document."""
AROUND = "around"
"""The row of what a question takes beside its stages."""
REMOTE_KINDS = frozenset({"api", "llm"})
"""Kinds of stages that wait for somebody else's machine; their times spread more."""
_BY_SIZE = frozenset({"cross_encoder"})
"""Kinds of stages whose time goes with the size of their network; others only read its vectors."""
PAIR_TOKENS = 3
"""Special tokens around a query and a document in one BERT input: [CLS] query [SEP] document [SEP]."""


SETTINGS = ("backend", "device", "precision", "threads", "batch_tokens")
"""Attributes of a stage or an embedder that its time depends on."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the decision helper and the cost model know of a model: its card, as plain data.

    Attributes:
        name: its file in conf/model.
        languages: ISO 639-1 codes, `multilingual` for any; empty when not declared.
        parameters_millions: size, or None.
        max_length_tokens: where texts are cut, or None.
        local: whether its files are on this machine.
        is_remote: whether it runs on somebody else's machine, to which texts are sent.
    """

    name: str
    languages: tuple[str, ...] = ()
    parameters_millions: float | None = None
    max_length_tokens: int | None = None
    local: bool = False
    is_remote: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """Milliseconds of one query, half of all queries below `p50_ms`, 95 of 100 below `p95_ms`."""

    p50_ms: float
    p95_ms: float

    def __add__(self, other: Predicted) -> Predicted:
        # The sum of p95s is above the p95 of the sum, the careful side; not by much: a long question, or a machine that
        # is busy otherwise, slows all stages at once (benchmarks/results/plan.txt).
        return Predicted(self.p50_ms + other.p50_ms, self.p95_ms + other.p95_ms)


NOTHING = Predicted(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What a stage is given for one question.

    Attributes:
        documents: how many it reads; for recalls, how many the corpus has.
        tokens: of all that the model reads.
        query_tokens: of the question.
        results: how many documents a recall passes on; around the stages, how many these are.
    """

    documents: float = 0.0
    tokens: float = 0.0
    query_tokens: float = 0.0
    results: float = 0.0


@dataclass(frozen=True, slots=True)
class StageCost:
    """Cost of one kind of stage, with the model it was measured with where there is one.

    Attributes:
        kind: `bm25 dense embed fusion bi_encoder late_interaction ltr cross_encoder api llm`, or one of your own rules.
        source: where the figures come from.
        model: name of the model measured, or None.
        fixed_ms: of a call, whatever it reads.
        ms_per_document: of a document read; for recalls a document of the corpus.
        ms_per_token: of a token read, over all texts.
        ms_per_query_token: of a token of the question, where the stage reads that once by itself.
        ms_per_result: of a document that a recall passes on; around the stages, of a stage.
        parameters_millions: size of `model`; others are reckoned against it.
        max_length_tokens: where its model cuts what it reads; None is nowhere, or not known.
        p95_factor: p95 / p50 of work of one size; None is the `spread` of its place.
        error: of measured rows, how far off half of the predictions were of times that the row was not fitted to,
            as a share; None where nobody looked.
        settings: of what was measured: its backend, device, precision, threads, batch_tokens, as far as it has them.
    """

    kind: str
    source: str
    model: str | None = None
    fixed_ms: float = 0.0
    ms_per_document: float = 0.0
    ms_per_token: float = 0.0
    ms_per_query_token: float = 0.0
    ms_per_result: float = 0.0
    parameters_millions: float | None = None
    max_length_tokens: float | None = None
    p95_factor: float | None = None
    error: float | None = None
    settings: Mapping[str, str | int] = field(default_factory=dict)

    def ms(self, load: Load, work: float = 1.0) -> float:
        """Milliseconds for some work; `work` stretches what the model does."""
        by_model = self.ms_per_token * load.tokens + self.ms_per_query_token * load.query_tokens
        by_number = self.ms_per_document * load.documents + self.ms_per_result * load.results
        return self.fixed_ms + by_number + by_model * work

    def of_model(self, max_length_tokens: float | None, parameters_millions: float | None) -> StageCost:
        """The same, knowing where its model cuts what it reads, and how large it is."""
        return replace(self, max_length_tokens=max_length_tokens, parameters_millions=parameters_millions)

    def stretched(self, factor: float) -> StageCost:
        """The same on a machine that takes `factor` times as long."""
        times = {name: factor * getattr(self, name) for name in _TIMES}
        source = self.source if factor == 1 else f"{self.source}; times {factor:.2g}, as this machine embeds"
        return replace(self, source=source, **times)


@dataclass(frozen=True)
class CostModel:
    """Predicts what a stage costs. Made from data by `of`: shipped reference figures, or a calibration of this machine.

    Attributes:
        origin: in words, where the figures come from; shown with every prediction.
        stages: (kind, model or None) -> cost; a row of the model itself goes before one of its kind.
        work: model -> how much more it works than the model of its kind's row.
        device_factors: device -> kind -> factor on the time of the CPU.
        spread: `local` and `remote` -> p95 / p50.
        query_tokens: of a question.
        calibrated: whether rows that were measured on this machine go before these.
    """

    origin: str
    stages: Mapping[tuple[str, str | None], StageCost]
    work: Mapping[str, float]
    device_factors: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, float]
    query_tokens: int = 15
    calibrated: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> CostModel:
        """The cost model that a file of conf/cost holds.

        Raises:
            ConfigError: a key is unknown or missing, a number is none, or a figure has no source.
        """
        known = ["origin", "calibrated", "query_tokens", "stages", "models", "devices", "spread"]
        check_keys("cost", data, known, required=["origin", "stages", "spread"])
        rows = [row_of(f"cost.stages[{place}]", row) for place, row in enumerate(data["stages"])]
        devices = {
            str(device): _figures(f"cost.devices.{device}", kinds, "factor")
            for device, kinds in (data.get("devices") or {}).items()
        }
        spread = _figures("cost.spread", data["spread"], "factor")
        for where in ("local", "remote"):
            if where not in spread:
                raise ConfigError(f"cost.spread.{where}", "missing; expected a factor and its source")
        work = _figures("cost.models", data.get("models") or {}, "work")
        by_kind: dict[tuple[str, str | None], StageCost] = {(row.kind, None): row for row in reversed(rows)}
        by_kind |= {(row.kind, row.model): row for row in rows}
        query_tokens = _number("cost.query_tokens", data.get("query_tokens", cls.query_tokens))
        calibrated = data.get("calibrated", False)
        if not isinstance(calibrated, bool):
            raise ConfigError("cost.calibrated", f"found {calibrated!r}; expected true or false")
        return cls(str(data["origin"]), by_kind, work, devices, spread, int(query_tokens), calibrated)

    def predict(
        self,
        kind: str,
        documents: int,
        *,
        lengths: Lengths | None = None,
        results: int = 0,
        model: ModelInfo | None = None,
        device: str = "cpu",
    ) -> Predicted:
        """Time of one stage for one query.

        Args:
            kind: of the stage.
            documents: how many it reads; for recalls, how many the corpus has.
            lengths: of questions and documents, as the model counts; each is cut at the model's limit. None is the
                usual ones.
            results: how many documents a recall passes on.
            model: the model it runs, or whose vectors it reads; None is the usual one.
            device: `cpu` or `gpu`.

        Raises:
            ConfigError: nothing is known about such a stage.
        """
        row = self.row(kind, model)
        if device == "cpu" and _is_of_gpu(row) and not _is_of_gpu(usual := self.row(kind)):
            row = usual
        known = lengths or Lengths.even(self.query_tokens)
        most = row.max_length_tokens if model is None else model.max_length_tokens or row.max_length_tokens
        load = partial(_load, kind, documents, results, known, most)
        factor = 1.0 if _is_of_gpu(row) else self.device_factors.get(device, {}).get(kind, 1.0)
        work = self._work_of(row, model) if kind in _BY_SIZE else 1.0
        return self._predicted(row, load, known, work * factor, is_remote=kind in REMOTE_KINDS)

    def embed(self, model: ModelInfo | None, lengths: Lengths | None = None) -> Predicted:
        """Time to embed a question; that of a service that nobody measured is not known, and left out."""
        known, is_remote = lengths or Lengths.even(self.query_tokens), model is not None and model.is_remote
        if model is not None and is_remote and ("embed", model.name) not in self.stages:
            return NOTHING
        row = self.row("embed", model)
        work = self._work_of(row, model)
        return self._predicted(row, lambda share: Load(1, known.question(share)), known, work, is_remote=is_remote)

    def embed_document_ms(self, model: ModelInfo | None, lengths: Lengths | None = None) -> float:
        """Time to embed one document of the usual length, on this machine."""
        row = self.row("embed", model)
        most = (None if model is None else model.max_length_tokens) or row.max_length_tokens
        tokens = (lengths or Lengths.even()).document(1, 0.5, most)
        return row.ms(Load(1, tokens), self._work_of(row, model))

    def around(self, documents: int, stages: int) -> Predicted:
        """Time beside the stages, where it was measured: handing over, reading the answer's documents, the trace.

        Args:
            documents: the most that a stage reads.
            stages: how many there are.
        """
        row = self.stages.get((AROUND, None))
        if row is None:
            return NOTHING
        return self._predicted(row, lambda _: Load(documents, results=stages), Lengths.even(), 1.0, is_remote=False)

    def _predicted(
        self, row: StageCost, load: Callable[[float], Load], lengths: Lengths, work: float, *, is_remote: bool
    ) -> Predicted:
        """`load(share)`: what the stage is given where `share` of the questions give it less."""
        p50 = row.ms(load(0.5), work)
        spread = self.spread["remote" if is_remote else "local"]
        if row.p95_factor is None:
            return Predicted(p50, p50 * spread)
        reads = row.ms_per_token + row.ms_per_query_token > 0
        noise = row.p95_factor if lengths.are_known or not reads else max(row.p95_factor, spread)
        return Predicted(p50, p50 + math.hypot(row.ms(load(0.95), work) - p50, (noise - 1) * p50))

    def with_measured(self, rows: Sequence[StageCost], origin: str) -> CostModel:
        """The same with measured rows in the place of those of other machines.

        What was not measured is stretched by how much slower, or faster, this machine embeds than the one of the rows.
        One service says nothing of another: its row is for itself alone.

        Args:
            rows: measured on this machine.
            origin: in words, what was measured where.
        """
        speed = self._speed(rows)
        stages = {key: row if row.kind in REMOTE_KINDS else row.stretched(speed) for key, row in self.stages.items()}
        for row in rows:
            usual = self.stages.get((row.kind, None))
            stages[row.kind, row.model] = row
            if usual is None or (usual.model in (None, row.model) and row.kind not in REMOTE_KINDS):
                stages[row.kind, None] = row
        return replace(self, origin=origin, stages=stages)

    def _speed(self, rows: Sequence[StageCost]) -> float:
        """Time that this machine takes for a question over that of the machine of the rows; 1 where nobody knows."""
        for row in rows:
            usual = self.stages.get((row.kind, None))
            if row.kind == "embed" and usual is not None and usual.model == row.model:
                question = Load(1, self.query_tokens, self.query_tokens)
                return row.ms(question) / usual.ms(question)
        return 1.0

    def row(self, kind: str, model: ModelInfo | None = None) -> StageCost:
        """The figures that such a stage goes by.

        Raises:
            ConfigError: nothing is known about such a stage.
        """
        found = self.stages.get((kind, model.name if model else None)) or self.stages.get((kind, None))
        if found is None:
            kinds = list(dict.fromkeys(kind for kind, _ in self.stages))
            hint = did_you_mean(kind, kinds)
            raise ConfigError(
                "cost.stages", f"no figures for stages of kind '{kind}'; kinds: {', '.join(kinds)}.{hint}"
            )
        return found

    def knows(self, model: ModelInfo) -> bool:
        """Whether how much `model` works is known: measured, listed, or from the parameters of its card."""
        listed = any(name == model.name for _, name in self.stages) or model.name in self.work
        return listed or (model.parameters_millions is not None and not model.is_remote)

    def _work_of(self, row: StageCost, model: ModelInfo | None) -> float:
        if model is None or row.model in (None, model.name):
            return 1.0
        if model.name in self.work:
            return self.work[model.name]
        if model.parameters_millions is None or row.parameters_millions is None:
            return 1.0
        return model.parameters_millions / row.parameters_millions


def _load(kind: str, documents: int, results: int, lengths: Lengths, most: float | None, share: float) -> Load:
    """What a stage is given for a question of which `share` of all give it less."""
    if kind in PAIR_KINDS:  # the question is the smaller part of a pair, so that its own length is the usual one
        question = lengths.question() + PAIR_TOKENS
        room = None if most is None else max(0.0, most - question)
        return Load(documents, documents * (question + lengths.document(documents, share, room)), lengths.question())
    tokens = documents * lengths.document(documents, share, most) if results == 0 else 0.0
    return Load(documents, tokens, lengths.question(share), results)


def _is_of_gpu(row: StageCost) -> bool:
    return row.settings.get("device", "cpu") != "cpu"


_TIMES = ("fixed_ms", "ms_per_document", "ms_per_token", "ms_per_query_token", "ms_per_result")
_ROW_FIGURES = tuple(one.name for one in fields(StageCost) if one.name not in ("kind", "source", "model", "settings"))


def row_of(path: str, data: Mapping[str, Any]) -> StageCost:
    """A row of the cost model from its keys.

    Args:
        path: where it stands, for messages.
        data: its keys.

    Raises:
        ConfigError: a key is unknown or missing, or a number is none.
    """
    check_keys(path, data, [one.name for one in fields(StageCost)], required=["kind", "source"])
    numbers = {key: _number(f"{path}.{key}", data[key]) for key in _ROW_FIGURES if data.get(key) is not None}
    model = data.get("model")
    settings = data.get("settings") or {}
    check_keys(f"{path}.settings", settings, SETTINGS)
    named = None if model is None else str(model)
    return StageCost(str(data["kind"]), str(data["source"]), named, **numbers, settings=dict(settings))


def _figures(path: str, data: Mapping[str, Any], key: str) -> dict[str, float]:
    """By name, data[name][key], each with a source beside it."""
    for name, entry in data.items():
        check_keys(f"{path}.{name}", entry, [key, "source"], required=[key, "source"])
    return {str(name): _number(f"{path}.{name}.{key}", entry[key]) for name, entry in data.items()}


def _number(path: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(path, f"found {value!r}; expected a number of 0 or more")
    return float(value)


def check_keys(path: str, data: object, known: Sequence[str], required: Sequence[str] = ()) -> None:
    """Refuse data that is no mapping, has a key that nobody knows, or lacks a required one.

    Raises:
        ConfigError: with the path of the key.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(path, f"found {data!r}; expected keys: {', '.join(known)}")
    for key in data:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{path}.{key}", f"unknown key; keys: {', '.join(known)}.{hint}")
    for key in required:
        if data.get(key) in (None, "", [], {}):
            why = "no source, no number" if key == "source" else f"needed: {', '.join(required)}"
            raise ConfigError(f"{path}.{key}", f"missing; {why}")
