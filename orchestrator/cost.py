"""What stages cost: figures by kind and model, by tokens and depth. Measured ones go before reference ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.errors import ConfigError, did_you_mean

REMOTE_KINDS = frozenset({"api", "llm"})
"""Kinds of stages that wait for somebody else's machine; their times spread more."""
PAIR_TOKENS = 3
"""Special tokens around a query and a document in one BERT input: [CLS] query [SEP] document [SEP]."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the decision helper and the cost model know of a model: its card, as plain data.

    Attributes:
        name: its file in conf/model.
        languages: ISO 639-1 codes, `multilingual` for any; empty when not declared.
        parameters_millions: size, or None.
        max_length_tokens: where texts are cut, or None.
        local: whether its files are on this machine.
    """

    name: str
    languages: tuple[str, ...] = ()
    parameters_millions: float | None = None
    max_length_tokens: int | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """Milliseconds of one query, half of all queries below `p50_ms`, 95 of 100 below `p95_ms`."""

    p50_ms: float
    p95_ms: float

    def __add__(self, other: Predicted) -> Predicted:
        # The sum of p95s is above the p95 of the sum: the careful side.
        return Predicted(self.p50_ms + other.p50_ms, self.p95_ms + other.p95_ms)


NOTHING = Predicted(0.0, 0.0)


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
        parameters_millions: size of `model`; others are reckoned against it.
    """

    kind: str
    source: str
    model: str | None = None
    fixed_ms: float = 0.0
    ms_per_document: float = 0.0
    ms_per_token: float = 0.0
    parameters_millions: float | None = None

    def ms(self, documents: float, tokens: float, work: float = 1.0) -> float:
        """Milliseconds for `tokens` tokens in `documents` documents; `work` stretches what the model does."""
        return self.fixed_ms + self.ms_per_document * documents + self.ms_per_token * tokens * work


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
    """

    origin: str
    stages: Mapping[tuple[str, str | None], StageCost]
    work: Mapping[str, float]
    device_factors: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, float]
    query_tokens: int = 15

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> CostModel:
        """The cost model that a file of conf/cost holds.

        Raises:
            ConfigError: a key is unknown or missing, a number is none, or a figure has no source.
        """
        known = ["origin", "query_tokens", "stages", "models", "devices", "spread"]
        check_keys("cost", data, known, required=["origin", "stages", "spread"])
        rows = [_row(f"cost.stages[{place}]", row) for place, row in enumerate(data["stages"])]
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
        return cls(str(data["origin"]), by_kind, work, devices, spread, int(query_tokens))

    def predict(
        self, kind: str, documents: int, *, doc_tokens: int = 0, model: ModelInfo | None = None, device: str = "cpu"
    ) -> Predicted:
        """Time of one stage for one query.

        Args:
            kind: of the stage.
            documents: how many it reads; for recalls, how many the corpus has.
            doc_tokens: average length of a document, as the model counts; each is cut at the model's limit.
            model: the model it runs, for stages that run one.
            device: `cpu` or `gpu`.

        Raises:
            ConfigError: nothing is known about such a stage.
        """
        row = self._row(kind, model)
        pair = self.query_tokens + doc_tokens + PAIR_TOKENS
        if model is not None and model.max_length_tokens is not None:
            pair = min(pair, model.max_length_tokens)
        factor = self.device_factors.get(device, {}).get(kind, 1.0)
        p50 = factor * row.ms(documents, documents * pair, self._work_of(row, model))
        return Predicted(p50, p50 * self.spread["remote" if kind in REMOTE_KINDS else "local"])

    def embed(self, model: ModelInfo | None, tokens: int | None = None) -> Predicted:
        """Time to embed one text of `tokens` tokens; without them, a question."""
        row = self._row("embed", model)
        p50 = row.ms(1, self.query_tokens if tokens is None else tokens, self._work_of(row, model))
        return Predicted(p50, p50 * self.spread["local"])

    def knows(self, model: ModelInfo) -> bool:
        """Whether how much `model` works is known: measured, listed, or from the parameters of its card."""
        listed = any(name == model.name for _, name in self.stages) or model.name in self.work
        return listed or model.parameters_millions is not None

    def _row(self, kind: str, model: ModelInfo | None) -> StageCost:
        found = self.stages.get((kind, model.name if model else None)) or self.stages.get((kind, None))
        if found is None:
            kinds = list(dict.fromkeys(kind for kind, _ in self.stages))
            hint = did_you_mean(kind, kinds)
            raise ConfigError(
                "cost.stages", f"no figures for stages of kind '{kind}'; kinds: {', '.join(kinds)}.{hint}"
            )
        return found

    def _work_of(self, row: StageCost, model: ModelInfo | None) -> float:
        if model is None or row.model in (None, model.name):
            return 1.0
        if model.name in self.work:
            return self.work[model.name]
        if model.parameters_millions is None or row.parameters_millions is None:
            return 1.0
        return model.parameters_millions / row.parameters_millions


_ROW_FIGURES = ("fixed_ms", "ms_per_document", "ms_per_token", "parameters_millions")


def _row(path: str, data: Mapping[str, Any]) -> StageCost:
    check_keys(path, data, [field.name for field in fields(StageCost)], required=["kind", "source"])
    numbers = {key: _number(f"{path}.{key}", data[key]) for key in _ROW_FIGURES if key in data}
    model = data.get("model")
    return StageCost(str(data["kind"]), str(data["source"]), None if model is None else str(model), **numbers)


def _figures(path: str, data: Mapping[str, Any], key: str) -> dict[str, float]:
    """By name, data[name][key], each with a source beside it."""
    for name, entry in data.items():
        check_keys(f"{path}.{name}", entry, [key, "source"], required=[key, "source"])
    return {str(name): _number(f"{path}.{name}.{key}", entry[key]) for name, entry in data.items()}


def _number(path: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(path, f"found {value!r}; expected a number of 0 or more")
    return float(value)


def check_keys(path: str, data: object, known: Sequence[str], required: Sequence[str]) -> None:
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
