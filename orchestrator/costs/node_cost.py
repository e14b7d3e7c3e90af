"""What the stages of a graph cost by a cost model: each says under which kind it is reckoned (`cost_kind`)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchestrator.costs.cost import NOTHING, SETTINGS, CostModel, ModelInfo, Predicted
from orchestrator.costs.lengths import Lengths
from orchestrator.costs.use import corpus_figures, measured_here
from orchestrator.errors import ConfigError
from orchestrator.models.card import Model
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.passages import LEAD_TOKENS, UNLIMITED_TOKENS, Passages
from orchestrator.stage import is_remote

_NULL_IS_A_SETTING = ("threads", "batch_tokens")
"""Where null means one thing on one machine; elsewhere it is what loading finds out."""


class NodeCosts:
    """Predicts the stages of one graph.

    Args:
        graph: the stages: the first one that needs an embedder's vector of the question pays for it.
        cost: the figures.
        cards: name of a model on the hub -> name of its card in conf/model, as the figures name it.
        lengths: of questions and documents; None is the usual ones.
    """

    def __init__(
        self, graph: StageGraph, cost: CostModel, cards: Mapping[str, str], lengths: Lengths | None = None
    ) -> None:
        self._cost, self._cards, self._lengths = cost, cards, lengths or Lengths.even(cost.query_tokens)
        self._nodes, self._embeds = graph.nodes, _first_to_embed(graph)

    @classmethod
    def reference(cls, graph: StageGraph, lengths: Lengths | None = None) -> NodeCosts:
        """By the shipped figures, conf/cost/reference.yaml."""
        return cls(graph, reference_costs(), shipped_cards(reference_costs()), lengths)

    @classmethod
    def of_machine(
        cls, graph: StageGraph, root: Path, corpus: str | None, content_hash: str | None = None
    ) -> NodeCosts:
        """By what was measured on this machine, and the shipped figures for what was not.

        Args:
            graph: the stages.
            root: where state lives.
            corpus: key of the corpus; None where it is not found.
            content_hash: of its documents; None where they were not read yet.
        """
        cost = measured_here(reference_costs(), root, corpus, content_hash)
        own = corpus_figures(root, corpus, content_hash) if corpus else None
        return cls(graph, cost, shipped_cards(cost), own.lengths if own else None)

    @property
    def figures(self) -> str:
        """Where the figures come from, and what they take for granted."""
        return "; ".join([self._cost.origin, self._lengths.source, *self._set_otherwise()])

    def predicted_ms(self, node: Node, n_documents: int) -> Predicted | None:
        """What the stage takes for one question; None where its class names no kind, or the figures lack it.

        Args:
            node: the stage.
            n_documents: how many it reads; for a recall, how many the corpus has.
        """
        embedder = self._embeds.get(node.name)
        embedded = self._embedding(embedder) if embedder is not None else None
        own = self._own(node, n_documents)
        if own is None and embedded is None:
            return None
        return (own or NOTHING) + (embedded or NOTHING)

    def around_ms(self, most: int, n_stages: int) -> Predicted:
        """What a question takes beside its stages, as far as that was measured.

        Args:
            most: documents of the largest list that a stage reads or finds.
            n_stages: how many there are.
        """
        return self._cost.around(most, n_stages)

    def _set_otherwise(self) -> Iterator[str]:
        """Of what was measured with other settings than it runs with here: which ones."""
        for node in self._nodes:
            for kind, part in self._parts(node):
                model = self._info(part)
                with contextlib.suppress(ConfigError):  # without a row there are no figures of it either
                    settings = self._cost.row(kind, model).settings
                    if other := ", ".join(_other_settings(kind, part, settings)):
                        yield f"{node.name} was measured with {other}"

    def _parts(self, node: Node) -> Iterator[tuple[str, object]]:
        """The stage, and the embedder whose vector of the question it pays for, each with the kind of its row."""
        yield str(getattr(node.stage, "cost_kind", None)), node.stage
        if (embedder := self._embeds.get(node.name)) is not None:
            yield "embed", embedder

    def _own(self, node: Node, n_documents: int) -> Predicted | None:
        kind = getattr(node.stage, "cost_kind", None)
        device = _device(node.stage)
        if kind is None or device is None or not any(known == kind for known, _ in self._cost.stages):
            return None
        model, results = self._info(node.stage), node.top_k if node.kind == "recall" else 0
        lengths, each = _as_read(node.passages, self._lengths, None if model is None else model.max_length_tokens)
        read = round(n_documents * each)
        return self._cost.predict(str(kind), read, lengths=lengths, results=results, model=model, device=device)

    def _embedding(self, embedder: object) -> Predicted | None:
        model = self._info(embedder)
        knows = model is not None if is_remote(embedder) else callable(getattr(embedder, "at_hand", None))
        if not knows:  # one of somebody else's making, which may do anything
            return None
        try:
            found = self._cost.embed(model, self._lengths)
        except ConfigError:  # these figures have no row for it
            return None
        return None if found == NOTHING else found

    def _info(self, owner: object) -> ModelInfo | None:
        """The model of a stage, or that whose vectors it reads."""
        part = getattr(owner, "encoder", None) or getattr(owner, "embedder", None) or owner
        card = getattr(part, "model", None)
        if not isinstance(card, Model):
            return None
        known = card.languages, card.parameters_millions, card.max_length_tokens
        return ModelInfo(known_as(card, self._cards), *known, is_remote=is_remote(part))


def known_as(card: Model, cards: Mapping[str, str]) -> str:
    """What the figures call a model: its folder, where it has one; else its card, else its name on the hub.

    Args:
        card: of the model.
        cards: name on the hub -> name of the card.
    """
    return str(card.path) if card.path else cards.get(card.name or "", card.label)


def _as_read(policy: Passages, lengths: Lengths, limit: int | None) -> tuple[Lengths, float]:
    """How long the texts are that a stage reads of documents, and how many of them it reads of each."""
    if not policy.cuts:
        return lengths, 1.0
    room = UNLIMITED_TOKENS if limit is None else max(1, int(limit - lengths.question()))
    size = policy.size or (LEAD_TOKENS if policy.how == "title_lead" else room)
    if policy.how != "windows" or policy.aggregate == "first":
        return lengths.cut(size), 1.0
    windows = lengths.in_windows(size, min(policy.stride or max(1, size * 3 // 4), size), policy.max_windows)
    return windows, sum(map(len, windows.documents)) / sum(map(len, lengths.documents))


def _other_settings(kind: str, part: object, measured: Mapping[str, str | int]) -> Iterator[str]:
    """Settings that were other ones when `part` was measured; none where nobody kept them."""
    for name in SETTINGS if measured else ():
        if name == "batch_tokens" and kind != "cross_encoder":  # one question is one batch
            continue
        then, now = measured.get(name), getattr(part, name, None)
        is_known = hasattr(part, name) if name in _NULL_IS_A_SETTING else None not in (then, now)
        if is_known and then != now:
            yield f"{name}={'null' if then is None else then}, not {'null' if now is None else now}"


def _device(stage: object) -> str | None:
    """`cpu`, `gpu`, or None where the machine that it runs on decides, which nothing tells before it is loaded."""
    device = getattr(stage, "device", None)
    if device is not None:
        return "cpu" if device == "cpu" else "gpu"
    if getattr(stage, "precision", None) in ("fp16", "bf16"):  # no CPU computes these in earnest
        return "gpu"
    return None if getattr(stage, "backend", None) == "torch" else "cpu"


def _first_to_embed(graph: StageGraph) -> dict[str, object]:
    found: dict[int, tuple[str, object]] = {}
    for node in graph.nodes:
        embedder = getattr(node.stage, "embedder", None)
        if "vectors" in node.needs and embedder is not None:
            found.setdefault(id(embedder), (node.name, embedder))
    return dict(found.values())


@functools.cache
def reference_costs() -> CostModel:
    """The shipped figures, conf/cost/reference.yaml."""
    return CostModel.of(_shipped("cost", "reference"))


def shipped_cards(cost: CostModel) -> dict[str, str]:
    """Hub name -> card, of the shipped cards that `cost` has figures of."""
    return {hub: name for name in sorted(_models(cost)) if (hub := _hub_name(name)) is not None}


def has_other_cards(cost: CostModel) -> bool:
    """Whether `cost` has figures of a card that is not shipped; a folder, or a name on the hub, is none."""
    return any("/" not in name and _hub_name(name) is None for name in _models(cost))


def _models(cost: CostModel) -> set[str]:
    return {model for _, model in cost.stages if model is not None} | set(cost.work)


@functools.cache
def _hub_name(card: str) -> str | None:
    """Of a shipped card; None of a name that is none, such as a folder or one of the hub itself."""
    is_shipped = "/" not in card and (files("orchestrator.conf") / "model" / f"{card}.yaml").is_file()
    name = _shipped("model", card).get("name") if is_shipped else None
    return None if name is None else str(name)


def _shipped(group: str, name: str) -> dict[str, Any]:
    import yaml

    text = (files("orchestrator.conf") / group / f"{name}.yaml").read_text(encoding="utf-8")
    # libyaml's parser takes a tenth of the time, where it was built in.
    found: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found
