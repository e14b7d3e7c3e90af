"""The decision helper's rules: a table of stacks and of models by language, read from data and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from orchestrator.costs.cost import check_keys
from orchestrator.deciding.gains import Gain, Gains, Like, Priority
from orchestrator.deciding.gains_table import read_expected, read_gains
from orchestrator.errors import ConfigError, did_you_mean

Device = Literal["cpu", "gpu"]
Allowance = Literal["hub", "api", "llm", "trained"]
Slot = Literal["embedder", "reranker"]

SLOT_OF_KIND: Mapping[str, Slot] = {"dense": "embedder", "bi_encoder": "embedder", "cross_encoder": "reranker"}
"""Which model a kind of stage runs."""
RECALL_KINDS = frozenset({"bm25", "dense"})
"""Kinds of stages that search the corpus; the others read what stands above them."""
RERANK_KINDS = frozenset({"bi_encoder", "late_interaction", "cross_encoder", "api", "llm"})
"""Kinds of stages that read candidates again; a learned fusion or rerank only weighs the scores of others."""
OTHER = "other"
"""The row of languages that have none of their own."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `first` to `last`, both included; no `last` is no end."""

    first: int = 0
    last: int | None = None

    def __contains__(self, value: float) -> bool:
        return self.first <= value and (self.last is None or value <= self.last)

    def __str__(self) -> str:
        return f"{self.first} or more" if self.last is None else f"{self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class StageRule:
    """One stage of a stack.

    Attributes:
        name: in the pipeline.
        kind: how its cost is reckoned.
        top_k: what the stack's own configuration sets.
        follows_candidates: whether it passes on as many as `need.candidates`.
        solved: the depths to choose from, or None.
        model: what the figures call the model of somebody else that it asks, or None.
    """

    name: str
    kind: str
    top_k: int
    follows_candidates: bool = False
    solved: Range | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class StackRule:
    """One row of the table: a stack, and when it may serve. How good it is expected to be stands in `Rules.gains`.

    Attributes:
        name: what messages call it.
        overrides: what makes it on the command line.
        stack: in words.
        because: what it is for, in a sentence.
        stages: in order.
        candidates: how many candidates it is for.
        latency_ms: the budgets it is for.
        priorities: the priorities it is for.
        devices: the devices it is for.
        languages: the languages it is for; empty for all.
        needs: what `allow` must hold.
        on_gpu: overrides added on a GPU.
    """

    name: str
    overrides: tuple[str, ...]
    stack: str
    because: str
    stages: tuple[StageRule, ...]
    candidates: Range = Range()
    latency_ms: Range = Range()
    priorities: tuple[str, ...] = get_args(Priority)
    devices: tuple[str, ...] = get_args(Device)
    languages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    on_gpu: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The models it runs, each once, in the order of the stages."""
        return tuple(dict.fromkeys(SLOT_OF_KIND[stage.kind] for stage in self.stages if stage.kind in SLOT_OF_KIND))

    @property
    def reranks(self) -> bool:
        """Whether a stage reads candidates again."""
        return any(stage.kind in RERANK_KINDS for stage in self.stages)

    def reads(self, top_ks: Mapping[str, int]) -> int:
        """How many candidates the last stage that reads them again is given; 0 where none does.

        Args:
            top_ks: how many each stage passes on.
        """
        places = [place for place, stage in enumerate(self.stages) if stage.kind in RERANK_KINDS]
        return top_ks[self.stages[places[-1] - 1].name] if places and places[-1] > 0 else 0


@dataclass(frozen=True, slots=True)
class LanguageRule:
    """Which models may serve a language, and why; of those that are expected to do as well, the first one listed."""

    because: str
    embedder: tuple[str, ...] = ()
    reranker: tuple[str, ...] = ()

    def models(self, slot: Slot) -> tuple[str, ...]:
        """Names for one slot, in their order."""
        return self.embedder if slot == "embedder" else self.reranker


@dataclass(frozen=True)
class Rules:
    """The whole table."""

    stacks: tuple[StackRule, ...]
    languages: Mapping[str, LanguageRule]
    gains: Gains

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Rules:
        """The rules that a file of conf/decision holds.

        Raises:
            ConfigError: a key is unknown or missing, or a value is none of its choices.
        """
        needed = ["stacks", "languages", "quality"]
        check_keys("decision", data, [*needed, "depth", "models"], needed)
        stacks = tuple(_stack(f"decision.stacks[{place}]", row) for place, row in enumerate(data["stacks"]))
        names = [stack.name for stack in stacks]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ConfigError(f"decision.stacks[{place}].name", f"'{name}' stands twice")
        rows = {str(code): _language(f"decision.languages.{code}", row) for code, row in data["languages"].items()}
        if OTHER not in rows:
            raise ConfigError("decision.languages.other", "missing; it serves the languages without a row of their own")
        return cls(stacks, rows, read_gains(data, _expected(data["stacks"])))

    def language(self, code: str) -> LanguageRule:
        """The row of a language, or the one of all others."""
        return self.languages.get(code, self.languages[OTHER])


def _expected(rows: Sequence[Mapping[str, Any]]) -> dict[str, Gain | Like]:
    """By name of the stack; one without `expected` is the reference, or not known."""
    return {
        str(row["name"]): read_expected(f"decision.stacks[{place}].expected", row["expected"])
        for place, row in enumerate(rows)
        if row.get("expected") is not None
    }


def _stack(path: str, data: Mapping[str, Any]) -> StackRule:
    known = [field.name for field in fields(StackRule)]
    check_keys(path, data, [*known, "expected"], ["name", "overrides", "stack", "because", "stages"])
    given: dict[str, Any] = {key: str(data[key]) for key in ("name", "stack", "because")}
    given["stages"] = _stages(f"{path}.stages", data["stages"])
    for key in ("candidates", "latency_ms"):
        if key in data:
            given[key] = _range(f"{path}.{key}", data[key])
    for key in ("overrides", "languages", "on_gpu"):
        given[key] = _words(f"{path}.{key}", data.get(key, ()))
    for key, choices in (("priorities", Priority), ("devices", Device), ("needs", Allowance)):
        if key in data:
            given[key] = _words(f"{path}.{key}", data[key], get_args(choices))
    return StackRule(**given)


def _stages(path: str, data: Mapping[str, Any]) -> tuple[StageRule, ...]:
    if not isinstance(data, Mapping):
        raise ConfigError(path, f"found {data!r}; expected name: {{kind: ..., top_k: ...}} for each stage")
    stages = []
    for name, row in data.items():
        where = f"{path}.{name}"
        check_keys(where, row, ["kind", "top_k", "set", "model"], ["kind", "top_k"])
        setting = row.get("set")
        solved = None if setting in (None, "candidates") else _depths(f"{where}.set", setting)
        top_k = _whole(f"{where}.top_k", row["top_k"], least=1)
        model = None if row.get("model") is None else str(row["model"])
        stages.append(StageRule(str(name), str(row["kind"]), top_k, setting == "candidates", solved, model))
    if sum(stage.solved is not None for stage in stages) > 1:
        raise ConfigError(path, "two stages with a depth to solve; expected one at most")
    return tuple(stages)


def _language(path: str, data: Mapping[str, Any]) -> LanguageRule:
    check_keys(path, data, ["embedder", "reranker", "because"], ["because"])
    embedder, reranker = (_words(f"{path}.{slot}", data.get(slot, ())) for slot in ("embedder", "reranker"))
    return LanguageRule(str(data["because"]), embedder, reranker)


def _range(path: str, data: object) -> Range:
    check_keys(path, data, ["from", "to"], [])
    assert isinstance(data, Mapping)
    last = data.get("to")
    return Range(_whole(f"{path}.from", data.get("from", 0)), None if last is None else _whole(f"{path}.to", last))


def _depths(path: str, data: object) -> Range:
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) != 2:
        raise ConfigError(path, f"found {data!r}; expected candidates, or [least, most] such as [10, 50]")
    least, most = (_whole(f"{path}[{place}]", value, least=1) for place, value in enumerate(data))
    if least > most:
        raise ConfigError(path, f"found [{least}, {most}]; expected the smaller first")
    return Range(least, most)


def _whole(path: str, value: object, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(path, f"found {value!r}; expected a whole number of {least} or more")
    return value


def _words(path: str, data: object, choices: Sequence[str] = ()) -> tuple[str, ...]:
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise ConfigError(path, f"found {data!r}; expected a list")
    words = tuple(map(str, data))
    for place, word in enumerate(words):
        if choices and word not in choices:
            hint = did_you_mean(word, choices)
            raise ConfigError(f"{path}[{place}]", f"found '{word}'; choices: {', '.join(choices)}.{hint}")
    return words
