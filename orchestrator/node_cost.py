"""What the stages of a graph cost by a cost model: each says under which kind it is reckoned (`cost_kind`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from orchestrator.cost import NOTHING, CostModel, ModelInfo, Predicted
from orchestrator.errors import ConfigError
from orchestrator.graph import Node, StageGraph
from orchestrator.models.card import Model

USUAL_DOC_TOKENS = 140
"""Of a document, where nobody says; as `need.doc_tokens`."""


class NodeCosts:
    """Predicts the stages of one graph.

    Args:
        graph: the stages: the first one that needs an embedder's vector of the question pays for it.
        cost: the figures.
        cards: name of a model on the hub -> name of its card in conf/model, as the figures name it.
        doc_tokens: average length of a document.
    """

    def __init__(
        self, graph: StageGraph, cost: CostModel, cards: Mapping[str, str], doc_tokens: int = USUAL_DOC_TOKENS
    ) -> None:
        self._cost, self._cards, self._doc_tokens = cost, cards, doc_tokens
        self._embeds = _first_to_embed(graph)

    @classmethod
    def reference(cls, graph: StageGraph, doc_tokens: int = USUAL_DOC_TOKENS) -> NodeCosts:
        """By the shipped figures, conf/cost/reference.yaml."""
        return cls(graph, *_reference(), doc_tokens)

    @property
    def figures(self) -> str:
        """Where the figures come from, and what they take for granted."""
        return f"{self._cost.origin}; documents of {self._doc_tokens} tokens (need.doc_tokens)"

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

    def _own(self, node: Node, n_documents: int) -> Predicted | None:
        kind = getattr(node.stage, "cost_kind", None)
        device = _device(node.stage)
        if kind is None or device is None or not any(known == kind for known, _ in self._cost.stages):
            return None
        stage_model = self._info(node.stage) if kind == "cross_encoder" else None
        tokens = min(self._doc_tokens, node.passages.size or self._doc_tokens)
        return self._cost.predict(str(kind), n_documents, doc_tokens=tokens, model=stage_model, device=device)

    def _embedding(self, embedder: object) -> Predicted | None:
        # A server's time is its own: no figure is known, where it costs nothing here.
        local = callable(getattr(embedder, "at_hand", None))
        try:
            return self._cost.embed(self._info(embedder)) if local else None
        except ConfigError:  # these figures have no row for it
            return None

    def _info(self, owner: object) -> ModelInfo | None:
        card = getattr(owner, "model", None)
        if not isinstance(card, Model):
            return None
        name = self._cards.get(card.name or "", card.label)
        return ModelInfo(name, card.languages, card.parameters_millions, card.max_length_tokens)


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


def shipped_cards(cost: CostModel) -> dict[str, str]:
    """Hub name -> card, of the shipped cards that `cost` has figures of."""
    names = {model for _, model in cost.stages if model is not None} | set(cost.work)
    return {str(_shipped("model", name).get("name")): name for name in sorted(names) if _is_shipped("model", name)}


@functools.cache
def _reference() -> tuple[CostModel, Mapping[str, str]]:
    cost = CostModel.of(_shipped("cost", "reference"))
    return cost, shipped_cards(cost)


def _is_shipped(group: str, name: str) -> bool:
    return (files("orchestrator.conf") / group / f"{name}.yaml").is_file()


def _shipped(group: str, name: str) -> dict[str, Any]:
    import yaml

    text = (files("orchestrator.conf") / group / f"{name}.yaml").read_text(encoding="utf-8")
    # libyaml's parser takes a tenth of the time, where it was built in.
    found: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found
