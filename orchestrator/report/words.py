"""What stages tell of themselves, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.answers.flow import Flow, FlowStage, Way
    from orchestrator.answers.trace import Degraded, Shortfall, StageTrace

SHORTFALLS: Mapping[Shortfall, str] = {
    "deadline": "ran out of time",
    "no_time": "was not begun, for lack of time",
    "late": "was left behind, since another recall had answered",
    "error": "failed",
    "circuit_open": "was not asked, since it had failed before",
}
"""Why a stage gave less than it was asked for, after its name."""


def shortfall_sentence(shortfall: Degraded, kind: str) -> str:
    """One plain sentence on what the answer lacks.

    Args:
        shortfall: what was left out.
        kind: of its stage.
    """
    words = f"{shortfall.stage} {SHORTFALLS[shortfall.reason]}"
    if shortfall.of and (shortfall.scored or shortfall.reason == "deadline"):
        done = "found" if kind == "recall" else "scored"
        words += f", {shortfall.scored} of {shortfall.of} documents {done}"
    return f"{words}: {shortfall.detail}" if shortfall.detail else words


def size_words(stage: FlowStage) -> str:
    """`200 → 10`: documents received and passed on."""
    received = stage.trace.n_in if stage.trace else 0
    return f"{received} → {stage.n_out}" if received else f"→ {stage.n_out}"


def told_by(stage: FlowStage) -> list[tuple[str, bool]]:
    """(words, whether they tell of trouble) of a stage, each only where there is something to tell."""
    trace = stage.trace
    if trace is None:
        return [("brought by the caller", False)]
    told = []
    if trace.skipped is not None:
        told.append((f"skipped: {trace.skipped}", True))
    elif stage.n_scored < stage.n_seen:
        told.append((f"{stage.n_scored} of {stage.n_seen} scored", True))
    if stage.degraded is not None:
        allowed = "" if trace.allowed_ms is None else f", allowed {trace.allowed_ms:.3g} ms"
        told.append((stage.degraded.reason.replace("_", " ") + allowed, True))
    kept = [f"{trace.cache_hits} from the cache"] if trace.cache_hits else []
    read = [f"{trace.passages} passages of {trace.n_in} documents"] if trace.passages else []
    kinds = ", ".join(f"{times} {kind.replace('_', ' ')}" for kind, times in trace.repairs.items())
    mended = [f"repaired: {kinds}"] if kinds else []
    return told + [(words, False) for words in [*kept, *read, *spent([trace]), *mended, *trace.notes]]


def spent(stages: Iterable[StageTrace]) -> list[str]:
    """Tokens and money of some stages together, each only where there are some."""
    stages = list(stages)
    tokens, usd = sum(stage.tokens for stage in stages), sum(stage.cost_usd for stage in stages)
    return [*([f"{tokens:,} tokens"] if tokens else []), *([f"${usd:.2g}"] if usd else [])]


def moved_words(moved: int | None) -> str:
    """`▲9` for nine ranks up, `▼2` for two down; empty where nothing moved."""
    return "" if not moved else f"▲{moved}" if moved > 0 else f"▼{-moved}"


def cut_words(stage: FlowStage) -> str:
    """Why a stage passed on no more: `top_k 100`, or `cut to 7 of top_k 100` where its scores said so."""
    if stage.skipped is not None and stage.n_out == stage.n_seen:
        return "did not run"
    if stage.top_k is None or stage.n_out == stage.top_k:
        return f"top_k {stage.top_k}"
    return f"cut to {stage.n_out} of top_k {stage.top_k}"


def way_words(flow: Flow, way: Way) -> str:
    """The whole way: `found by bm25 at 41, fused 30, dropped by shortlist at 130 (top_k 100)`."""
    found = f"found by {' and '.join(f'{name} at {way.steps[name].rank}' for name in way.found_by)}"
    between = [f"{name} {step.rank}" for name, step in way.steps.items() if name not in way.found_by]
    if way.dropped_by is None:
        return ", ".join([found, *between]) + ": in the answer"
    last = way.steps.get(way.dropped_by)
    if last is None:
        return ", ".join([found, *between, f"left out by {way.dropped_by}, which did not run"])
    if way.dropped_by not in way.found_by:
        between.pop()
    unscored = ", which had not scored it" if last.score is None else ""
    end = f"dropped by {way.dropped_by} at {last.rank} ({cut_words(flow[way.dropped_by])}){unscored}"
    return ", ".join([found, *between, end])


def nowhere_words(flow: Flow) -> str:
    """That no recall found a document: `no recall found it: bm25 (200 found), dense (200 found)`."""
    recalls = [stage for stage in flow.stages if not stage.inputs]
    return "no recall found it: " + ", ".join(f"{stage.name} ({stage.n_seen} found)" for stage in recalls)
