"""The report as one page for a browser: nothing is fetched, and every picture also stands in words or in a table."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from string import Template

from orchestrator.report.page import look
from orchestrator.report.study.changed import pairs
from orchestrator.report.study.stage_costs import stage_costs
from orchestrator.report.study.swept import effects_section, fronts
from orchestrator.report.study.table import table
from orchestrator.study.headline import headline
from orchestrator.study.study import Study

_TEMPLATE = "page.html"


def page(study: Study, title: str) -> str:
    """The whole page as HTML.

    Args:
        study: what to tell.
        title: of the page, for example the name of the folder.
    """
    sections = list(_sections(study))
    template = Template(files("orchestrator.report.study").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.substitute(
        look=look(),
        title=escape(title),
        summary=escape(summary(study)),
        headline="\n".join(f'<li class="{one.tone}">{escape(one.text)}</li>' for one in headline(study)),
        gaps=_gaps(study),
        table=table(study),
        nav="".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections),
        sections="\n".join(_section(*section) for section in sections),
    )


def summary(study: Study) -> str:
    """How much is compared, in one line."""
    figures = study.subject.figures
    n_queries = figures.n_queries if figures else 0
    if study.is_single:
        rows = f"one run, {len(study.rows) - 1} stages beside it"
    else:
        failed = sum(bool(row.failure) for row in study.rows)
        rows = f"{len(study.rows)} jobs" + (f", {failed} failed" if failed else "")
    corpus = (figures.corpus if figures else {}).get("name", "")
    return " · ".join(
        part for part in (rows, corpus, f"{n_queries} judged queries", f"judged by {study.measure}") if part
    )


def _gaps(study: Study) -> str:
    items = "".join(f"<li>{escape(gap)}</li>" for gap in study.gaps)
    return f'<h2>What this report cannot tell</h2>\n<ul class="gaps">{items}</ul>' if items else ""


def _sections(study: Study) -> Iterator[tuple[str, str, str]]:
    """Id, heading and content of each part below the table."""
    if not study.is_single:
        yield "front", "Quality against cost", fronts(study)
        told = "Means over the jobs with each value: main effects, averaged over all other settings here, not causes."
        yield "effects", "What each swept key did", f"<p>{told}</p>\n{effects_section(study)}"
    yield "stages", "What each stage takes", stage_costs(study)
    told = pairs(study) or "<p>The values of single queries are not known for two rows.</p>"
    yield "queries", "Query by query", told


def _section(name: str, head: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(head)}</h2>\n{content}\n</section>'
