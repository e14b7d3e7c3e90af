"""What a calibration found, as tables, a plot and sentences for the terminal, and as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.report.terminal import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.costs.cost import StageCost
    from orchestrator.costs.kept import Calibration, Setting
    from orchestrator.costs.timing import Throughput

_BAR = 40
_NAME = 40


def calibration_report(found: Calibration, missing: Mapping[str, str]) -> Iterator[RenderableType]:
    """Everything, in the order to print it.

    Args:
        found: the calibration.
        missing: kind of stage -> why it was not measured.
    """
    machine = found.machine
    ran = f"device {machine['device']}, backend {machine['backend']}"
    yield f"{machine['processor']}, {machine['cores']} cores, {ran}; measured in {found.seconds:.0f} s"
    yield _rows_table(found.rows)
    yield "docs: that a stage reads, of recalls those of the corpus; p95/p50: of questions that give a stage the same"
    yield "work; error: half of the times that the figures were not fitted to lie nearer to them"
    if found.throughputs:
        yield _throughput_table(found.throughputs)
    for one in found.settings:
        yield f"- {_setting(one)}"
    for corpus in found.corpora.values():
        lengths = corpus.lengths
        yield (
            f"- {corpus.name}: questions of {lengths.question():.0f} tokens (95 of 100 at most "
            f"{lengths.question(0.95):.0f}), the first hundred documents found {lengths.document(100):.0f} on average "
            f"({lengths.document(100, 0.95):.0f})"
        )
    for kind, why in missing.items():
        yield f"- {kind} was not measured: {why}. {_instead(kind)}"


def _instead(kind: str) -> str:
    """What predictions go by, where nothing measured a kind here before."""
    from orchestrator.costs.cost import REMOTE_KINDS
    from orchestrator.costs.node_cost import reference_costs

    if kind in REMOTE_KINDS:
        return "Unless it was measured before, published figures stand in for it"
    if any(kind == known for known, _ in reference_costs().stages):
        return "Unless it was measured before, reference figures, stretched to this machine, stand in for it"
    return "Predictions leave it out"


def _rows_table(rows: Sequence[StageCost]) -> RenderableType:
    numbers = ["fixed ms", "ms/1000 docs", "ms/1000 tokens", "ms/query token", "p95/p50", "error"]
    table = plain_table("stage", *numbers, right=numbers)
    for row in rows:
        name = row.kind if row.model is None else f"{row.kind} {_short(row.model)}"
        documents = 1000 * row.ms_per_document
        figures = row.fixed_ms, documents, 1000 * row.ms_per_token, row.ms_per_query_token
        shares = f"{row.p95_factor or 0:.2f}", "" if row.error is None else f"{row.error:.0%}"
        table.add_row(name, *(f"{value:.3g}" if value else "" for value in figures), *shares)
    return table


def _throughput_table(throughputs: Sequence[Throughput]) -> RenderableType:
    table = plain_table("model", "tokens", "documents/s", "", right=["tokens", "documents/s"])
    most = max(one.per_s for one in throughputs)
    before = ""
    for one in throughputs:
        name = f"{one.part} {_short(one.model)}"
        bar = "█" * max(1, round(_BAR * one.per_s / most))
        table.add_row("" if name == before else name, str(one.tokens), f"{one.per_s:,.1f}", bar)
        before = name
    return table


def _setting(one: Setting) -> str:
    what = f"{one.part} {_short(one.model)}"
    best = max(one.tried, key=lambda words: one.tried[words])
    if not one.values:
        return f"{what}: as it is configured it is as fast as in any other way tried here ({len(one.tried)} ways)"
    values = ", ".join(f"{key}={value}" for key, value in one.values.items())
    return f"{what}: {values} ({best}) reads {one.gain:.2f} times as many documents a second as it is configured"


def _short(model: str | None) -> str:
    model = model or ""
    return model if len(model) <= _NAME else f"…{model[1 - _NAME :]}"


def throughput_chart(found: Calibration, path: Path) -> bool:
    """Draw documents a second by length, both axes logarithmic; False with nothing to draw, or without matplotlib."""
    from orchestrator.report.chart import curves

    lines: dict[str, list[tuple[float, float]]] = {}
    for one in found.throughputs:
        lines.setdefault(f"{one.part} {_short(one.model)}", []).append((one.tokens, one.per_s))
    return curves(lines, "tokens of a document", "documents a second", path)
