"""What a report says first, in words: what is best, by how much, whether beyond chance, what it costs, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.evaluation.sentences import FEW_QUERIES
from orchestrator.study.beside import BEFORE, null_of
from orchestrator.study.entry import Entry
from orchestrator.study.marks import Mark
from orchestrator.study.numbers import difference_words, ms_words, p_words, rows_words, usd_words
from orchestrator.study.study import Study

_NEARLY = 0.02
"""A row that is not told apart from the best is recommended in its place where it loses at most this share of it."""
_FASTER = 1.2

Tone = Literal["good", "trouble", ""]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing to know.

    Attributes:
        text: plain words.
        tone: `good` for what to do, `trouble` for what to beware of.
    """

    text: str
    tone: Tone = ""


def headline(study: Study) -> list[Sentence]:
    """The sentences in the order to read them."""
    about = _of_one_run(study) if study.is_single else _of_several(study)
    return [*about, *_costs(study), *_candidates(study), *_words(study), *_cautions(study)]


def _of_several(study: Study) -> Iterator[Sentence]:
    best, others = study.best, [row for row in study.comparable if row.name != study.best.name]
    if not others:
        yield Sentence(f"Only {best.title} can be judged: {_value(best, study.measure)}.")
        return
    equal = [row for row in others if row.mean(study.measure) == best.mean(study.measure)]
    beside = (
        f"; {rows_words([row.name for row in equal], 4)} reach{'es' if len(equal) == 1 else ''} the same"
        if equal
        else ""
    )
    yield Sentence(
        f"Best of {len(others) + 1} by {study.measure}: {best.title}, {_value(best, study.measure)}{beside}."
    )
    yield from _beyond_chance(study, others)
    yield from _advice(study, others)


def _beyond_chance(study: Study, others: Sequence[Entry]) -> Iterator[Sentence]:
    """How many of the others are told apart from the best."""
    if not _is_against_best(study):
        if study.reference is not None:
            yield _against(study, study.best, study.reference)
        return
    found = [mark for row in others if (mark := _mark(study, row)) is not None]
    if not found:
        return
    worse = sum(mark.word == "worse" for mark in found)
    same = len(found) - worse
    test = (
        f"paired randomization test over {_n_queries(study.best)} queries, corrected for {len(study.marks)} comparisons"
    )
    if not same:
        yield Sentence(f"It is better than every other row beyond chance ({test}).")
    elif not worse:
        which = "The other row is not" if same == 1 else f"None of the other {same} rows is"
        yield Sentence(f"{which} told apart from it ({test}){_more(study)}.", "trouble")
    else:
        lost = f"{worse} other {'row is' if worse == 1 else 'rows are'} worse beyond chance"
        yield Sentence(f"{lost}, {same} {'is' if same == 1 else 'are'} not told apart from it ({test}){_more(study)}.")


def _more(study: Study) -> str:
    return "; queries are few, and more may decide" if _n_queries(study.best) < FEW_QUERIES else ""


def _advice(study: Study, others: Sequence[Entry]) -> Iterator[Sentence]:
    """The fastest of those that are as good as can be told, where it is clearly faster than the best.

    Nothing where no row was tested against the best: another row is the reference, or single queries are not known.
    """
    if not _is_against_best(study) or not any(_mark(study, row) for row in others):
        return
    best, p95 = study.best, study.best.latency()
    top = best.mean(study.measure) or 0.0
    alike = [row for row in others if _is_as_good(study, row, top)]
    timed = [row for row in alike if row.latency() is not None]
    if p95 is None:
        return
    quick = min(timed, key=lambda row: row.latency() or 0.0, default=best)
    quickest = quick.latency() or p95
    if p95 / quickest < _FASTER:
        alone = f"no row that is not told apart from it and within {_NEARLY:.0%} of it is clearly faster"
        yield Sentence(f"Take {best.title}: {alone}.", "good")
    else:
        loss = (quick.mean(study.measure) or 0.0) - top
        yield Sentence(
            f"Take {quick.title} unless {difference_words(loss)} {study.measure} matters: not told apart from the "
            f"best, and p95 is {ms_words(quickest)} in place of {ms_words(p95)} ({p95 / quickest:.1f} times as fast).",
            "good",
        )
    yield from _cheapest(study, [best, *alike])


def _cheapest(study: Study, alike: Sequence[Entry]) -> Iterator[Sentence]:
    """The row that costs least money among those that are as good as can be told."""
    priced = [row for row in alike if row.usd is not None]
    if not study.best.usd or not priced:
        return
    cheap = min(priced, key=lambda row: row.usd or 0.0)
    if study.best.usd > _FASTER * (cheap.usd or 0.0):
        yield Sentence(
            f"Where money matters: {cheap.title} costs {usd_words(cheap.usd)} per 1,000 questions in place of "
            f"{usd_words(study.best.usd)}, and is not told apart from the best.",
            "good",
        )


def _is_as_good(study: Study, row: Entry, top: float) -> bool:
    mark, mean = _mark(study, row), row.mean(study.measure)
    return mean is not None and mean >= top * (1 - _NEARLY) and mark is not None and mark.word == "same"


def _of_one_run(study: Study) -> Iterator[Sentence]:
    whole, best = study.whole, study.best
    yield Sentence(f"The whole pipeline reaches {study.measure} {_value(whole, study.measure)}.")
    if study.reference is not None:
        yield _against(study, whole, study.reference)
    top, own = best.mean(study.measure) or 0.0, whole.mean(study.measure) or 0.0
    if best.name != whole.name and top > own:
        text = f"A pipeline that ended at {best.name} would reach {top:.4f}, more than the whole"
        more = "what comes after it costs time and does not pay on these queries. Leave it out, or measure on more."
        yield Sentence(f"{text}: {more}", "trouble")


def _against(study: Study, row: Entry, reference: Entry) -> Sentence:
    """How `row` stands to the reference, with its p."""
    is_null = _is_null(study, reference)
    before = "the ranking before reranking" if is_null else "the reference"
    title = reference.name if is_null else reference.title
    mark, mean, own = _mark(study, row), reference.mean(study.measure), row.mean(study.measure)
    if mean is None or own is None:
        return Sentence(f"{before.capitalize()}, {title}, has no {study.measure}.", "trouble")
    told = f"{difference_words(own - mean)} beside {before}, {title} ({mean:.4f})"
    if mark is None:
        return Sentence(f"{told}; not tested, since the values of its single queries are not known.")
    counts = f"{mark.wins} queries won, {mark.ties} tied, {mark.losses} lost, {p_words(mark.p)}"
    if mark.word == "same":
        return Sentence(f"{told}, which is within chance ({counts}).", "trouble")
    return Sentence(f"{told}, {mark.word} beyond chance ({counts}).", "good" if mark.word == "better" else "trouble")


def _is_null(study: Study, row: Entry) -> bool:
    return row.kind == "null" or (study.is_single and row.words == BEFORE)


def _costs(study: Study) -> Iterator[Sentence]:
    row = study.subject
    if row.figures is None or not row.figures.latency_ms:
        return
    times = ", ".join(f"{name} {ms_words(value)}" for name, value in row.figures.latency_ms.items())
    spent = f"; {row.tokens:,.0f} tokens a question" if row.tokens else ""
    spent += f"; {usd_words(row.usd)} per 1,000 questions" if row.usd else ""
    yield Sentence(
        f"What {'it' if study.is_single else 'the best'} costs: {times} a question, asked one at a time{spent}."
    )


def _candidates(study: Study) -> Iterator[Sentence]:
    """What reranking brought to the best of several; how far its candidates would reach, `evaluate` says in words."""
    figures, own = study.subject.figures, study.subject.mean(study.measure) or 0.0
    null = figures.null.get(study.measure) if figures is not None else None
    if figures is not None and null is not None and not study.is_single:
        mark = _mark_of_null(study)
        told = f", {'within' if mark.word == 'same' else 'beyond'} chance ({p_words(mark.p)})" if mark else ""
        stood = f"before reranking its candidates stood at {null:.4f} ({figures.null_stage})"
        yield Sentence(f"In the best row, {stood}: {difference_words(own - null)}{told}.")


def _mark_of_null(study: Study) -> Mark | None:
    """How the ranking before reranking of the best stands to it, where that was tested."""
    null = null_of(study.best, study.beside) if _is_against_best(study) else None
    return _mark(study, null) if null is not None else None


def _words(study: Study) -> Iterator[Sentence]:
    """What `evaluate` itself said: of stages and baselines, the best order, what nobody judged, money."""
    for words in study.subject.figures.words if study.subject.figures else ():
        yield Sentence(words)


def _cautions(study: Study) -> Iterator[Sentence]:
    n, figures = _n_queries(study.subject), study.subject.figures
    if not study.is_single and len(study.comparable) > 1:
        yield Sentence(
            "The best was chosen on the queries it was measured on: expect somewhat less of it on new ones.", "trouble"
        )
    if figures and figures.whole is not None and figures.whole < 1:
        yield Sentence(f"{1 - figures.whole:.0%} of its answers fell short of the whole stack.", "trouble")
    if figures and not figures.words and 0 < n < FEW_QUERIES:  # else `evaluate`, of this version, told of that
        yield Sentence(f"{n} queries are few: only large differences can be told from chance.", "trouble")


def _is_against_best(study: Study) -> bool:
    return study.reference is not None and study.reference.name == study.best.name


def _mark(study: Study, row: Entry) -> Mark | None:
    return study.marks.get(row.name, {}).get(study.measure)


def _n_queries(row: Entry) -> int:
    return row.figures.n_queries if row.figures else 0


def _value(row: Entry, measure: str) -> str:
    ends = row.figures.intervals.get(measure) if row.figures else None
    interval = f" (95 % interval {ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
    return f"{row.mean(measure):.4f}{interval} over {_n_queries(row)} queries"
