"""What each stage takes, as one bar of parts; places are percentages, so that the bar is as wide as its cell."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from orchestrator.report.picture import HUE_STEP
from orchestrator.study.numbers import amount_words


def hue(place: int) -> str:
    """The colour of the stage at `place`, from 0."""
    return f"--h:{(200 + place * HUE_STEP) % 360:.0f}"


def stack(parts: Mapping[str, float], longest: float, places: Mapping[str, int], unit: str) -> str:
    """The `<svg>` of one row.

    Args:
        parts: stage -> how much of it.
        longest: what the whole width stands for.
        places: stage -> its place, which is its colour.
        unit: of the parts, for example `ms`.
    """
    told = ", ".join(f"{stage} {amount_words(value)} {unit}" for stage, value in parts.items())
    rects, left = [], 0.0
    for stage, value in parts.items():
        width = 100 * value / longest if longest > 0 else 0.0
        tip = escape(f"{stage}: {amount_words(value)} {unit}")
        at = f'x="{left:.2f}%" width="{width:.2f}%" height="16"'
        rects.append(f'<rect class="part" style="{hue(places[stage])}" {at}><title>{tip}</title></rect>')
        left += width
    return f'<svg class="stack" width="100%" height="16" role="img" aria-label="{escape(told)}">{"".join(rects)}</svg>'


def key(places: Mapping[str, int]) -> str:
    """Which colour is which stage, as a list."""
    items = (
        f'<li><span class="swatch" style="{hue(place)}"></span>{escape(stage)}</li>' for stage, place in places.items()
    )
    return f'<ul class="key">{"".join(items)}</ul>'
