"""The figures of an evaluation as tables and lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.evaluation.by_language import by_language, shown_stages
from orchestrator.evaluation.sentences import difference, p_value, shown_spent
from orchestrator.evaluation.spent import Spent
from orchestrator.report.terminal import plain_table
from orchestrator.report.words import SHORTFALLS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from orchestrator.evaluation.findings import Findings
    from orchestrator.evaluation.latency import Latency
    from orchestrator.evaluation.quality import Quality

_TIMES = ("p50", "p95", "p99")
_FEW = 50


class _Rows:
    """Writes the rows of the table; columns that no row has anything for are left out."""

    def __init__(self, quality: Quality, latency: Latency | None) -> None:
        self._names, self._latency = list(quality.metrics), latency
        self._spent = shown_spent(quality, latency) or Spent()
        self._cutoff = next(iter(quality.handed_out.unjudged), None)
        self._tokens, self._usd = sum(self._spent.tokens.values()) > 0, self._spent.usd > 0
        rest = [f"unj.@{self._cutoff}"] if self._cutoff else []
        rest += [f"{name} ms" for name in _TIMES] if latency else []
        rest += ["tokens"] if self._tokens else []
        rest += ["$/1000"] if self._usd else []
        self.table: Table = plain_table("ending at", *self._names, *rest, right=[*self._names, *rest], is_close=True)

    def add(
        self,
        label: str,
        means: Mapping[str, float],
        unjudged: Mapping[int, float] | None = None,
        times: Sequence[str] = ("", "", ""),
        spent: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """One row: measures, and what else is known of it, blank where nothing is."""
        from rich.text import Text

        row: list[str] = [f"{means[name]:.4f}" for name in self._names]
        row += [f"{unjudged[self._cutoff]:.0%}" if unjudged else ""] if self._cutoff else []
        row += times if self._latency else ()
        tokens, usd = spent
        row += [f"{tokens:,.0f}" if tokens else ""] if self._tokens else []
        row += [f"{1000 * usd:.3g}" if usd else ""] if self._usd else []
        self.table.add_row(Text(label), *row)

    def add_stage(self, stage: str, means: Mapping[str, float], unjudged: Mapping[int, float] | None) -> None:
        """The row of a pipeline that ended at `stage`; one whose gate refused all that were timed has dashes."""
        times = self._latency.stages.get(stage) if self._latency else None
        spent = self._spent.stage_tokens(stage), self._spent.stage_usd(stage)
        self.add(stage, means, unjudged, _cells(times) if times else ["–"] * len(_TIMES), spent)

    def add_whole(self, quality: Quality) -> None:
        """The row of what is handed out, with the times and the cost of the whole."""
        spent = self._spent.tokens_per_query, self._spent.usd_per_query
        times = _cells(self._latency.total) if self._latency else ()
        self.add("whole, as served", quality.served, quality.handed_out.unjudged, times, spent)


def _cells(times: Mapping[str, float]) -> list[str]:
    return [f"{times[name]:.1f}" for name in _TIMES]


def evaluation_table(
    final: str, quality: Quality, latency: Latency | None, findings: Findings | None = None
) -> RenderableType:
    """One row a stage, as if the pipeline ended there, with its own time; then the whole, its bounds, and baselines.

    Args:
        final: the stage whose ranking is the whole pipeline's.
        quality: the figures.
        latency: times, where they were measured.
        findings: intervals and baselines, where there are some.
    """
    rows = _Rows(quality, latency)
    for stage, means in {**quality.baselines, final: quality.metrics}.items():
        system = quality.systems.get(stage)
        rows.add_stage(stage, means, system.unjudged if system else None)
    if findings is not None:
        for label, end in (("  95 % from", 0), ("       to", 1)):
            rows.add(label, {name: ends[end] for name, ends in findings.intervals.items()})
    rows.table.add_section()
    rows.add_whole(quality)
    if findings is not None:
        if quality.null is not None:
            null = quality.systems[quality.null]
            rows.add(f"null ({quality.null})", null.means, null.unjudged)
        rows.add("oracle", quality.oracle.means)
        for other in findings.baselines:
            rows.add(f"against {other.baseline.name}", other.ranked.means, other.ranked.unjudged)
    return rows.table


def legend_lines(quality: Quality, latency: Latency | None, depth: int, folds: int | None) -> Iterator[str]:
    """How the figures of the table came about, and what its columns and rows are."""
    held_out = f", each by models that did not learn from it ({folds} folds)" if folds else ""
    timed = f" Latency: {latency.n_queries} of them one at a time, warm; a stage's own." if latency else ""
    uncut = f"stages uncut (a recall ends at its top_k), to depth {depth}"
    yield f"{quality.n_queries} judged queries{held_out}; {uncut}.{timed}"
    cutoff = next(iter(quality.handed_out.unjudged), None)
    words = [f"unj.@{cutoff}: of the first {cutoff}, those that nobody judged"] if cutoff else []
    words += ["null: no rerank"] if quality.null is not None else []
    words.append("oracle: the best order of what the recalls found")
    spent = shown_spent(quality, latency) or Spent()
    words += ["tokens: a query"] if sum(spent.tokens.values()) else []
    words += ["$/1000: of a thousand queries"] if spent.usd else []
    yield f"{'; '.join(words)}."


def comparisons_table(findings: Findings) -> RenderableType:
    """One row a comparison on the first measure: difference, interval, wins, tests."""
    from rich.text import Text

    tests = ("difference", "95 % from", "to", "won/tied/lost", "p t-test", "p random.", "p Holm")
    table = plain_table(f"on {findings.measure}", *tests, right=tests, is_close=True)
    for one in findings.compared:
        found = one.comparison
        label = f"{'whole' if one.kind == 'baseline' else one.stage} over {found.other}"
        interval = [difference(end) for end in found.interval]
        ps = [p_value(p) for p in (found.p_t, found.p_randomization, found.p_holm)]
        counts = f"{found.wins}/{found.ties}/{found.losses}"
        table.add_row(Text(label), difference(found.difference), *interval, counts, *ps)
    return table


def language_table(quality: Quality, measure: str) -> RenderableType | None:
    """A row for the questions of each language: before any rerank, and after each; None where all are in one.

    Languages of fewer than one question in fifty stand together in the last row: of many questions a few are told to be
    in a language that they are not in.
    """
    from rich.text import Text

    found, stages = by_language(quality, measure), shown_stages(quality)
    if not found:
        return None
    table = plain_table(f"{measure} by language", "queries", *stages, right=["queries", *stages], is_close=True)
    few = [language for language, one in found.items() if one.n_queries * _FEW < len(quality.languages)]
    for language, one in found.items():
        if language not in few or len(few) == 1:
            table.add_row(Text(language), f"{one.n_queries:,}", *(f"{one.means[name]:.4f}" for name in stages))
    if len(few) > 1:
        rest = [found[language] for language in few]
        n = sum(one.n_queries for one in rest)
        means = [sum(one.means[name] * one.n_queries for one in rest) / n for name in stages]
        table.add_row(Text(f"{len(few)} others"), f"{n:,}", *(f"{mean:.4f}" for mean in means))
    return table


def changes_table(findings: Findings, text_chars: int = 60) -> RenderableType | None:
    """The queries that changed most; None where there are none to show."""
    from rich.markup import escape
    from rich.text import Text

    changes = findings.changes
    if changes is None or not (changes.up or changes.down):
        return None
    numbers = ("before", "after", "change")
    head = f"{findings.measure} changed most, against {escape(changes.against)}"
    table = plain_table(*numbers, head, right=numbers, is_close=True)
    for part in (changes.up, changes.down):
        for one in part:
            text = " ".join(one.text.split())
            text = text[: text_chars - 1] + "…" if len(text) > text_chars else text
            cell = Text.assemble((one.query_id, "bold"), f"  {text}")
            table.add_row(f"{one.before:.4f}", f"{one.after:.4f}", difference(one.difference), cell)
        table.add_section()
    return table


def work_lines(quality: Quality, latency: Latency | None, budget_ms: float | None) -> Iterator[str]:
    """What gates, cuts and the budget left out, a line each; none where all was done."""
    work = quality.work
    for stage, share in work.ran.items():
        yield f"{stage}: its gate let it run for {share:.0%} of the queries."
    for stage, (fewest, mean, most) in work.passed.items():
        yield f"{stage}: its cut passed on {mean:.1f} documents on average, {fewest} to {most}."
    if work.degraded:
        short = ", ".join(_shortfall_words(stage, quality) for stage in work.degraded)
        yield f"{1 - work.whole:.0%} of the answers fell short, and say so: {short}"
    if quality.reused.reused:
        counts = f"{quality.reused.reused:,} of {quality.reused.asked:,}"
        yield f"{counts} stage results were kept from earlier jobs (cache.stages=false makes all anew)."
    if latency is not None and latency.within_budget is not None and budget_ms is not None:
        yield f"{latency.within_budget:.0%} of the timed answers came within the budget of {budget_ms:g} ms."


def _shortfall_words(stage: str, quality: Quality) -> str:
    """`precise ran out of time in 40% (it scored 71% of all its documents)`."""
    reasons = quality.work.degraded[stage].items()
    words = f"{stage} " + " and ".join(f"{SHORTFALLS[reason]} in {share:.0%}" for reason, share in reasons)
    share = quality.work.scored.get(stage)
    return words if share is None else f"{words} (it scored {share:.0%} of all its documents)"
