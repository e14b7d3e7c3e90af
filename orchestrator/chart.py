"""Charts in the folder of a run, where the extra `plots` is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from orchestrator.log import get_logger

log = get_logger()

_ROWS = 20


def bars(values: Mapping[str, float], label: str, path: Path) -> bool:
    """Draw the first 20 of `values` above 0 as horizontal bars; False with nothing to draw, or without matplotlib.

    Args:
        values: name -> length, in the order to draw.
        label: of the axis.
        path: the file; its suffix says the format, `.svg` or `.png`.
    """
    if find_spec("matplotlib") is None:
        log.info("chart.skipped", file=path.name, install="pip install 'rerank-orchestrator[plots]'")
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
