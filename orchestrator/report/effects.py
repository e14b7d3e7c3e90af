"""What features did to a learned stage's scores, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.report.tables import importances_table
from orchestrator.report.terminal import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.learning.contributions import Contributions, Told


def effects_table(
    contributions: Contributions | None, importances: Mapping[str, float], rows: int = 15
) -> RenderableType:
    """The features that moved scores most, on queries held out, beside their share of the model's gain.

    Args:
        contributions: of the queries held out; None shows the shares of gain alone.
        importances: feature -> share of gain.
        rows: how many features.
    """
    if contributions is None:
        return importances_table(importances, rows)
    numbers = ("share of gain", "mean |SHAP|", "r")
    table = plain_table("feature", *numbers, "", right=numbers)
    for effect in contributions.effects()[:rows]:
        if not effect.size:
            break
        share = importances.get(effect.feature)
        shown = "" if share is None else f"{share:.3f}"
        table.add_row(effect.feature, shown, f"{effect.size:.4f}", f"{effect.direction:+.2f}", effect.words)
    return table


def effects_line(contributions: Contributions) -> str:
    """What the columns of `effects_table` say."""
    return (
        f"SHAP: how far a feature moves the score of a document, on the {len(contributions.values):,} candidates of "
        f"{contributions.n_queries} queries held out; r: correlation with the feature's value."
    )


def told_table(told: Told, rows: int = 10) -> RenderableType:
    """What made the score of one document at one learned stage: the greatest contributions, then the sum."""
    table = plain_table(f"{told.stage}: feature", "value", "added", right=["value", "added"])
    shown = [(name, pair) for name, pair in told.features.items() if pair[1]][:rows]
    for name, (value, added) in shown:
        table.add_row(name, "–" if value != value else f"{value:.4g}", f"{added:+.4f}")
    rest = told.score - told.start - sum(added for _, (_, added) in shown)
    table.add_row("all other features", "", f"{rest:+.4f}")
    table.add_row("where every score starts", "", f"{told.start:+.4f}", end_section=True)
    table.add_row("score", "", f"{told.score:.4f}")
    return table
