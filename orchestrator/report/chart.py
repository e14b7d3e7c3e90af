"""Charts in the folder of a run, where the extra `plots` is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from orchestrator.log import get_logger
from orchestrator.types import Scores, Vectors

log = get_logger()

_ROWS = 20
_SWARMS = 15
_POINTS = 1000


def bars(values: Mapping[str, float], label: str, path: Path) -> bool:
    """Draw the first 20 of `values` above 0 as horizontal bars; False with nothing to draw, or without matplotlib.

    Args:
        values: name -> length, in the order to draw.
        label: of the axis.
        path: the file; its suffix says the format, `.svg` or `.png`.
    """
    if not _can_draw(path):
        return False
    shown = {name: value for name, value in list(values.items())[:_ROWS] if value > 0}
    if not shown:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.28 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(shown), list(shown.values()), color="#4878a8")
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return True


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, path: Path) -> bool:
    """Draw lines through points, both axes logarithmic; False with nothing to draw, or without matplotlib.

    Args:
        lines: name -> points, none of them 0 or less.
        x: label of the horizontal axis.
        y: label of the vertical one.
        path: the file; its suffix says the format, `.svg` or `.png`.
    """
    if not lines or not _can_draw(path):
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in lines.items():
        axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xticks(sorted({point[0] for points in lines.values() for point in points}))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return True


def beeswarm(names: Sequence[str], values: Scores, colours: Vectors, label: str, path: Path) -> bool:
    """Draw a row of points for each name; False with nothing to draw, or without matplotlib.

    Points that lie together are spread upwards and downwards; their colour says how great the feature's value is
    there, grey where it is not known. As the beeswarm of Lundberg's `shap` draws it.

    Args:
        names: in the order to draw; the first 15 that ever differ from 0 are drawn.
        values: float64 [n_points, n_names], where each point lies.
        colours: float32 [n_points, n_names], from which its colour is taken; NaN is grey.
        label: of the axis.
        path: the file; its suffix says the format, `.svg` or `.png`.
    """
    shown = [place for place in range(len(names)) if np.any(values[:, place])][:_SWARMS]
    if not _can_draw(path) or not shown:
        return False
    from matplotlib.figure import Figure

    kept = np.unique(np.linspace(0, len(values) - 1, num=min(len(values), _POINTS)).astype(int))
    figure = Figure(figsize=(8, 1.4 + 0.34 * len(shown)), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    for row, place in enumerate(shown):
        x, colour = values[kept, place], _shares(colours[kept, place])
        y = row + _spread(x)
        grey = np.isnan(colour)
        axes.scatter(x[grey], y[grey], s=5, color="#bbbbbb", linewidths=0, rasterized=True)
        drawn = axes.scatter(
            x[~grey], y[~grey], c=colour[~grey], s=5, cmap="coolwarm", vmin=0, vmax=1, linewidths=0, rasterized=True
        )
    axes.set_yticks(range(len(shown)), [names[place] for place in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, ticks=[0, 1], aspect=40)
    bar.ax.set_yticklabels(["low", "high"])
    bar.set_label("value of the feature")
    figure.savefig(path)
    return True


def _can_draw(path: Path) -> bool:
    if find_spec("matplotlib") is None:
        log.info("chart.skipped", file=path.name, install="pip install 'rerank-orchestrator[plots]'")
        return False
    return True


def _shares(values: Vectors) -> Scores:
    """float64 [n]: 0 at the 5th percentile and below, 1 at the 95th and above; NaN kept."""
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return np.full(len(values), np.nan)
    low, high = np.percentile(known, [5, 95])
    if high <= low:
        low, high = known.min(), known.max()
    shares: Scores = np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0)
    return shares


def _spread(x: Scores) -> Scores:
    """float64 [n], within 0.4 of 0: points in the same hundredth of the span lie beside each other, by turns."""
    span = np.ptp(x) or 1.0
    bins = np.round((x - x.min()) / span * 99).astype(int)
    order = np.argsort(bins, kind="stable")
    in_order = bins[order]
    layer = np.arange(len(x)) - np.searchsorted(in_order, in_order)
    offsets = np.empty(len(x))
    offsets[order] = np.where(layer % 2, 1, -1) * ((layer + 1) // 2)
    return offsets * (0.4 / max(float(np.abs(offsets).max()), 8.0))
