"""What a calibration has measured so far, by row of the cost model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.calibration.ladder import RowKey
from orchestrator.costs.cost import SETTINGS, StageCost
from orchestrator.costs.fit import Point, fit
from orchestrator.costs.kept import Setting
from orchestrator.costs.node_cost import known_as
from orchestrator.costs.timing import Throughput
from orchestrator.models.card import Model
from orchestrator.stack.graph import Node

_LEAST_POINTS = 2


@dataclass
class Timed:
    """What was measured so far.

    Attributes:
        points: row of the cost model -> times.
        limits: row -> where its model cuts what it reads.
        parameters: row -> size of its model in millions.
        ways: row -> the settings that it was measured with.
        absent: rows whose model is not on this machine.
        missing: kinds that could not be measured, and why.
        throughputs: documents a second by length.
        settings: how models run fastest.
        cost_usd: what services took.
    """

    points: dict[RowKey, list[Point]] = field(default_factory=lambda: defaultdict(list))
    limits: dict[RowKey, float] = field(default_factory=dict)
    parameters: dict[RowKey, float] = field(default_factory=dict)
    ways: dict[RowKey, dict[str, str | int]] = field(default_factory=dict)
    absent: set[RowKey] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    throughputs: list[Throughput] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    cost_usd: float = 0.0

    def keep(self, key: RowKey, points: Sequence[Point], part: object = None) -> None:
        """Add times of a row, and what `part`, the stage or the embedder measured, says of itself."""
        self.points[key] += points
        limit = getattr(part, "max_length_tokens", None)
        if limit is not None:
            self.limits[key] = float(limit)
        card = getattr(part, "model", None)
        if isinstance(card, Model) and card.parameters_millions is not None:
            self.parameters[key] = card.parameters_millions
        if part is not None:
            found = {name: getattr(part, name, None) for name in SETTINGS}
            self.ways[key] = {name: value for name, value in found.items() if value is not None}

    def is_measured(self, key: RowKey) -> bool:
        """Whether there are times enough for a row."""
        return len(self.points.get(key, ())) >= _LEAST_POINTS

    def rows(self, day: str) -> Iterator[StageCost]:
        """A row of the cost model for each key with times enough."""
        for key in filter(self.is_measured, self.points):
            points, ways = self.points[key], self.ways.get(key, {})
            said = "".join(f", {name}={value}" for name, value in ways.items())
            row = fit(*key, points, f"calibrate, {len(points)} times on {day}{said}", ways)
            yield row.of_model(self.limits.get(key), self.parameters.get(key))


def model_of(part: object, cards: Mapping[str, str]) -> str | None:
    """What the figures call the model of a stage, or of its encoder or embedder; None where it has none.

    Args:
        part: a stage or an embedder.
        cards: name of a model on the hub -> name of its card.
    """
    part = getattr(part, "encoder", None) or getattr(part, "embedder", None) or part
    card = getattr(part, "model", None)
    return known_as(card, cards) if isinstance(card, Model) else None


def row_key(node: Node, cards: Mapping[str, str]) -> RowKey:
    """Kind of a stage, its name where its class says none, and its model: vectors of another length cost otherwise."""
    return str(getattr(node.stage, "cost_kind", None) or node.name), model_of(node.stage, cards)
