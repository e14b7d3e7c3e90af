"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def measure_words(value: float | None) -> str:
    """`0.6109`, or a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def difference_words(value: float) -> str:
    """`+0.0123`, `−0.0040`, `0`: with a minus as wide as the plus."""
    return "0" if abs(value) < 5e-5 else f"{value:+.4f}".replace("-", "−")


def p_words(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.095 else f"p = {p:.2f}"


def ms_words(value: float | None) -> str:
    """`12.3 ms`, from a second on `1.23 s`; empty where there is none."""
    if value is None:
        return ""
    return f"{value:,.1f} ms" if value < 1000 else f"{value / 1000:,.2f} s"


def usd_words(usd: float | None) -> str:
    """What 1,000 questions cost, for what one does: `$1.2`; empty where it is not known."""
    return "" if usd is None else f"${1000 * usd:,.3g}"


def tokens_words(tokens: float | None) -> str:
    """`1,234`; empty where it is not known."""
    return "" if tokens is None else f"{tokens:,.0f}"


def rows_words(names: Sequence[str], most: int) -> str:
    """`row 3`, or `rows 0, 1 and 5 more` where there are more than `most`."""
    shown = ", ".join(names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{'row' if len(names) == 1 else 'rows'} {shown}{more}"


def amount_words(value: float) -> str:
    """`18,000`, `103.2`, `0.0025`: four figures where it is small, all of them before the point where it is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share_words(share: float | None) -> str:
    """`12%`; empty where it is not known."""
    return "" if share is None else f"{share:.0%}"
