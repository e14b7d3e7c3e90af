"""The jobs of a sweep side by side: one row a job, as a table and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from orchestrator.jobs import Job, Outcome

_PREFIXES = ("pipeline.stages.", "models.", "task.")
_LATENCIES = ("p50", "p95")


@dataclass(frozen=True, slots=True)
class SweepTable:
    """What varied between the jobs of a sweep, and what came of it.

    Attributes:
        swept: override keys that have more than one value among the jobs -> their short names.
        measures: of the uncut rankings, in the order asked for.
        outcomes: the jobs that have ended, in the order in which they were to run.
    """

    swept: Mapping[str, str]
    measures: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], plan: Sequence[Job] = ()) -> SweepTable:
        """The table of `outcomes`.

        Args:
            outcomes: jobs that have ended.
            plan: all jobs of the sweep, where known: what was swept does not depend on how far it came.
        """
        jobs = list(plan) or [outcome.job for outcome in outcomes]
        measures = dict.fromkeys(name for outcome in outcomes for name in outcome.figures.get("metrics") or {})
        return cls(short_names(swept_keys(jobs)), tuple(measures), tuple(outcomes))

    def describe(self, job: Job) -> str:
        """What sets one job apart from the others: `precise.top_k=5 reranker=minilm`."""
        return " ".join(f"{short}={value}" for short, value in self.settings(job).items())

    def settings(self, job: Job) -> dict[str, str]:
        """The same as short name -> value; empty for a key that the job was not given."""
        values = settings_of(job)
        return {short: values.get(key, "") for key, short in self.swept.items()}

    def best(self) -> dict[str, float]:
        """Column -> its best value: the highest measure, the lowest latency. Not where all jobs are alike."""
        found: dict[str, float] = {}
        for column in self._columns():
            values = [row[column] for row in map(self._figures, self.outcomes) if column in row]
            if len(set(values)) > 1:
                found[column] = min(values) if column.endswith(" ms") else max(values)
        return found

    def text(self) -> str:
        """One row a job, `*` marks the best of a column; a failed job has its reason in place of figures."""
        best = self.best()
        shown = [name for name in self._columns() if name in self._shown()]
        head = [*self.swept.values()], [f"{name} " for name in shown]
        rows = [self._row(outcome, shown, best) for outcome in self.outcomes]
        widths = [max(map(cell_len, column)) for column in zip(head[0], *(row[0] for row in rows), strict=True)]
        figures = [
            max(map(cell_len, column)) for column in zip(head[1], *(row[1] for row in rows if row[1]), strict=True)
        ]
        lines = [_line("job", *head, widths, figures)]
        lines.append("─" * cell_len(lines[0]))
        for outcome, (values, cells) in zip(self.outcomes, rows, strict=True):
            line = _line(str(outcome.job.num), values, cells, widths, figures)
            lines.append(f"{line}  {note}" if (note := _note(outcome)) else line)
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _row(self, outcome: Outcome, shown: Sequence[str], best: Mapping[str, float]) -> tuple[list[str], list[str]]:
        values, figures = settings_of(outcome.job), self._figures(outcome)
        cells = [] if outcome.failure else [_cell(name, figures.get(name), best.get(name)) for name in shown]
        return [values.get(key, "") for key in self.swept], cells

    def csv(self) -> str:
        """Every figure of every job in full precision, with its folder; measures `served X` are at its top_k.

        `oracle X` is the best that its recalls allow, `null X` what it gives without any rerank.
        """
        beside = [_beside(outcome) for outcome in self.outcomes]
        columns = [*self._columns(), *dict.fromkeys(name for row in beside for name in row)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        told = ["n_queries", "whole answers", "seconds", "folder", "reason"]
        writer.writerow(["job", *self.swept.values(), "status", *columns, *told])
        for outcome, more in zip(self.outcomes, beside, strict=True):
            values, figures = settings_of(outcome.job), self._figures(outcome) | more
            status = "failed" if outcome.failure else "done"
            row = [outcome.job.num, *(values.get(key, "") for key in self.swept), status]
            row += [figures.get(name, "") for name in columns]
            row += [outcome.figures.get("n_queries", ""), _whole(outcome), outcome.seconds, outcome.folder]
            writer.writerow([*row, outcome.failure.reason if outcome.failure else ""])
        return text.getvalue()

    def _columns(self) -> list[str]:
        served = [f"served {name}" for name in self.measures]
        timed = any(outcome.figures.get("latency_ms") for outcome in self.outcomes)
        return [*self.measures, *served, *(f"{name} ms" for name in _LATENCIES if timed)]

    def _shown(self) -> set[str]:
        """All but the measures at the served depth, of which the first stands for the others."""
        hidden = {f"served {name}" for name in self.measures[1:]}
        return set(self._columns()) - hidden

    def _figures(self, outcome: Outcome) -> dict[str, float]:
        figures = outcome.figures
        row = dict(figures.get("metrics") or {})
        row |= {f"served {name}": value for name, value in (figures.get("served") or {}).items()}
        latency = figures.get("latency_ms") or {}
        return row | {f"{name} ms": latency[name] for name in _LATENCIES if name in latency}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Override keys whose value differs between jobs; of a single job all of them."""
    values: dict[str, set[str | None]] = {}
    for job in jobs:
        for key in settings_of(job):
            values.setdefault(key, set())
    for key, found in values.items():
        found.update(settings_of(job).get(key) for job in jobs)
    return [key for key, found in values.items() if len(found) > 1 or (len(jobs) == 1 and key != "task")]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> a name short enough for a column; where two would be equal, the whole key."""
    names = {key: _short(key) for key in keys}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else key for key, name in names.items()}


def _short(key: str) -> str:
    """`pipeline.stages.fused.use.k` -> `fused.k`, `model@models.reranker` -> `reranker`."""
    name = key.rpartition("@")[2]
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return ".".join(part for part in name.split(".") if part != "use") or key


def settings_of(job: Job) -> dict[str, str]:
    """Key without its `+` -> value without its quotes."""
    found = {}
    for word in job.overrides:
        key, _, value = word.lstrip("+").partition("=")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[key] = value[1:-1] if quoted else value
    return found


def _beside(outcome: Outcome) -> dict[str, float]:
    """Figures of a job for which the table has no room; empty for those that its metrics.json lacks."""
    figures: Mapping[str, Any] = outcome.figures
    row = {f"oracle {name}": value for name, value in (figures.get("oracle") or {}).items()}
    null = figures.get("null") or {}
    row |= {f"null {name}": value for name, value in (null.get("metrics") or {}).items()}
    latency = figures.get("latency_ms") or {}
    row |= {"p99 ms": latency["p99"]} if "p99" in latency else {}
    names = {"tokens a query": "tokens_per_query", "usd a query": "cost_usd_per_query", "usd": "cost_usd"}
    return row | {column: figures[key] for column, key in names.items() if figures.get(key) is not None}


def _note(outcome: Outcome) -> str:
    """What a row says beside its figures: why the job failed, or how many answers lack something."""
    if outcome.failure:
        return f"failed: {outcome.failure.reason}"
    whole = _whole(outcome)
    return f"{1 - whole:.0%} of the answers fell short" if isinstance(whole, float) and whole < 1 else ""


def _whole(outcome: Outcome) -> float | str:
    """Share of the answers in which nothing was left out; empty where a job has no such figure."""
    whole = (outcome.figures.get("work") or {}).get("whole")
    return "" if whole is None else float(whole)


def _cell(column: str, value: float | None, best: float | None) -> str:
    if value is None:
        return "– "
    text = f"{value:.1f}" if column.endswith(" ms") else f"{value:.4f}"
    return text + ("*" if value == best else " ")


def _line(
    job: str, values: Sequence[str], figures: Sequence[str], widths: Sequence[int], figure_widths: Sequence[int]
) -> str:
    """Values to the left of their columns, figures to the right; wide characters count double."""
    cells = [f"{job:>3}", *(text + " " * (width - cell_len(text)) for text, width in zip(values, widths, strict=True))]
    cells += [f"{text:>{width}}" for text, width in zip(figures, figure_widths, strict=False)]
    return "  ".join(cells)
