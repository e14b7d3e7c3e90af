"""Small pictures inside tables: the differences of all queries, and where the jobs of one value lie."""

from __future__ import annotations

from collections.abc import Sequence

HEIGHT = 160.0


def difference_bars(differences: Sequence[float]) -> str:
    """A bar a query, gains above the line and losses below it, as the list has them; stretched to the width there is.

    Args:
        differences: one a query, the greatest gain first.
    """
    most = max((abs(value) for value in differences), default=0.0) or 1.0
    middle = HEIGHT / 2
    up, down = [], []
    for place, value in enumerate(differences):
        length = middle * abs(value) / most
        if value > 0:
            up.append(f"M{place + 0.1:.1f} {middle:.1f}v{-length:.1f}h.8v{length:.1f}z")
        elif value < 0:
            down.append(f"M{place + 0.1:.1f} {middle:.1f}v{length:.1f}h.8v{-length:.1f}z")
    n = max(len(differences), 1)
    told = f"{len(up)} queries gain, {len(differences) - len(up) - len(down)} stay, {len(down)} lose"
    size = f'viewBox="0 0 {n} {HEIGHT:.0f}" preserveAspectRatio="none" width="100%" height="{HEIGHT:.0f}"'
    paths = f'<path class="gain" d="{"".join(up)}"/><path class="loss" d="{"".join(down)}"/>'
    return (
        f'<svg class="differences" {size} role="img" aria-label="{told}">{paths}'
        f'<path class="zero" d="M0 {middle:.1f}H{n}"/></svg>'
    )


def spread_bar(low: float, mean: float, high: float, ends: tuple[float, float]) -> str:
    """A line from `low` to `high` with a dot at `mean`, in a cell that stands for `ends`."""
    at_low, at_mean, at_high = (_percent(value, ends) for value in (low, mean, high))
    told = f"{mean:.4f}, from {low:.4f} to {high:.4f}"
    return (
        f'<svg class="spread" width="100%" height="16" role="img" aria-label="{told}">'
        f'<line class="rail" x1="0%" x2="100%" y1="8" y2="8"/>'
        f'<line class="reach" x1="{at_low}" x2="{at_high}" y1="8" y2="8"/>'
        f'<circle class="mean" cx="{at_mean}" cy="8" r="5"/></svg>'
    )


def _percent(value: float, ends: tuple[float, float]) -> str:
    """Between 2 and 98, so that a dot at an end is whole."""
    low, high = ends
    share = (value - low) / (high - low) if high > low else 0.5
    return f"{2 + 96 * share:.2f}%"
