"""Grades and probabilities are read from a reply, or nothing is: never a number that was not meant."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plugins.llm.chat import Answer
from orchestrator.plugins.llm.judgement import read_grade, yes_probability
from orchestrator.plugins.llm.reply import read_order


def answer(*tokens: tuple[str, float]) -> Answer:
    top = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    return Answer(tokens[0][0], logprobs={"content": [{**top[0], "top_logprobs": top}]})


YES, NO = ("yes", "是"), ("no", "否", "不")


@pytest.mark.parametrize(
    ("found", "probability"),
    [
        (answer(("yes", math.log(0.6)), ("no", math.log(0.2))), 0.6 / (0.6 + 0.2)),
        (answer((" Yes", math.log(0.3)), ("YES", math.log(0.1)), ("No.", math.log(0.4))), 0.4 / (0.4 + 0.4)),
        (answer(("▁yes", math.log(0.3)), ("Ġno", math.log(0.1))), 0.3 / (0.3 + 0.1)),
        (answer(("是", math.log(0.9)), ("否", math.log(0.05)), ("不", math.log(0.05))), 0.9),
        (answer(('"yes', -1.0), ("**No**", -1.0)), 0.5),
        (answer(("yes", -0.1), ("maybe", -3.0)), 1.0),
        (answer(("The", -0.1), ("no", -9.0)), 0.0),
        (answer(("no", -1e-9), ("yes", -600.0)), math.exp(-600)),
        (answer(("no", 0.0), ("yes", -9999.0)), 0.0),
        (answer(("yes", 0.0), ("no", -9999.0)), 1.0),
        (answer(("The", -0.1), ("yesterday", -0.2), ("Not", -3)), None),
        (answer(("yes", math.nan)), None),
        (Answer("yes"), None),
        (Answer("yes", logprobs={"content": []}), None),
        (Answer("yes", logprobs={"content": [{"token": "yes", "logprob": "0"}]}), None),
        (Answer("yes", logprobs={"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": None}]}), 1.0),
    ],
)
def test_probabilities_are_read_from_the_alternatives(found: Answer, probability: float | None) -> None:
    read = yes_probability(found, YES, NO)
    assert read == (None if probability is None else pytest.approx(probability, rel=1e-9))


@given(
    logprobs=st.dictionaries(
        st.sampled_from(["yes", " Yes", "YES", "no", "No", "否", "other"]), st.floats(-500, 0), min_size=1
    )
)
def test_a_probability_is_the_share_of_yes_whatever_the_scale(logprobs: dict[str, float]) -> None:
    """Compared with the plain sum of exponentials, shifted so that the largest is 1."""
    words = {token: token.strip().lower() for token in logprobs}
    top = max((value for token, value in logprobs.items() if words[token] != "other"), default=0.0)
    p = {
        kind: sum(math.exp(value - top) for token, value in logprobs.items() if words[token] in kinds)
        for kind, kinds in (("yes", ["yes"]), ("no", ["no", "否"]))
    }
    read = yes_probability(answer(*logprobs.items()), YES, NO)
    if p["yes"] + p["no"] == 0:
        assert read is None
    else:
        assert read == pytest.approx(p["yes"] / (p["yes"] + p["no"]), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("content", "grade", "trouble"),
    [
        ('{"grade": 2}', 2, ""),
        ('```json\n{"grade": 0}\n```', 0, ""),
        ('{"reason": "it says [3] > [1]", "grade": 3}', 3, ""),
        ('{"score": 1}', 1, ""),
        ('{"grade": "3"}', 3, ""),
        ('{"grade": 2.0}', 2, ""),
        ('<think>{"grade": 0}?</think> {"grade": 2}', 2, ""),
        ("2", 2, ""),
        (" [2]. ", 2, ""),
        ("Grade: 2.", 2, ""),
        ("##final score: 3", 3, ""),
        ("Not relevant. Grade = 0", 0, ""),
        ("评分：2", 2, ""),
        ('{"grade": 2.5}', None, "unparsed"),
        ("Grade: 2.5", None, "unparsed"),
        ('{"grade": null}', None, "unparsed"),
        ('{"grade": true}', None, "unparsed"),
        ('{"verdict": 2}', None, "unparsed"),
        ("Document 2 answers the question.", None, "unparsed"),
        ("relevant", None, "unparsed"),
        ('{"grade": 4}', None, "out_of_range"),
        ('{"grade": -1}', None, "out_of_range"),
        ("Grade: 10", None, "out_of_range"),
        ("", None, "empty"),
        (" \n", None, "empty"),
    ],
)
def test_grades_are_read(content: str, grade: int | None, trouble: str) -> None:
    assert read_grade(Answer(content), 3) == (grade, trouble)


@pytest.mark.parametrize(
    ("content", "grade"),
    [
        ("Grade (0-3): 2", 2),
        ("Grade [0-3]: 3", 3),
        ("**Grade (0-3)**: 2", 2),
        ("- **Grade**: 2", 2),
        ("Relevance grade (0 to 3): 3", 3),
        ("Score (0–3): 1", 1),
        ("Score (0 - 3) = 1", 1),
        ("Grade (on a scale of 0 to 3): 2", 2),
        ("Grade (0-3 scale): 2", 2),
        ("分数（0-3）：2", 2),
        ("等级（0到3）：3", 3),
        ("评分：2分", 2),
        ("得分为 1。", 1),
        ("2/3", 2),
        ("Score: 3 out of 3", 3),
        ("Grade: 2 (scale 0-3)", 2),
        ("Grade: 2 - it holds a part", 2),
        ("Grade: 2\n\nGrade: 2", 2),
        ("The grade is 2.", 2),
        ("2.0", 2),
        ("２", 2),
        ("```\n2\n```", 2),
        ("<think>Grade: 1? Or 3?</think>\nGrade: 2", 2),
        ('so {"grade": 0}</think> {"grade": 2}', 2),
    ],
)
def test_grades_are_read_from_prose_beside_their_scale(content: str, grade: int) -> None:
    assert read_grade(Answer(content), 3) == (grade, "")


@pytest.mark.parametrize(
    "content",
    [
        "-1",
        "−1",
        "grade: -1",
        "Grade [0-3]: -1",
        "分数：-1",
        "Grade: minus 1",
        "Grade: 2-3",
        "1-3",
        "Grade: 2 or 3",
        "Not a 1. Grade = 3",
        "Grade: 1. It would be 3 if it said why.",
        "Grade (3-0): 2",
        "2/10",
        "Grade: 2/2",
        "Score: 1/30",
        "Grade (0-3): 2.5",
        ".5",
        "Grade: .5",
        "Grade: 2,5",
        "Grade: 2½",
        "Grade: 2%",
        "Grade: 2+",
        "Grade: >2",
        "~2",
        "Grade: 2?",
        "Grade: 1e3",
        "Grade: 1 000",
        "Grade: 2nd",
        "Grade: 2 would be too good for it",
        "“Grade: 3” is what the document claims.",
        "Not a grade: 3",
        "The maximum grade is 3.",
        '{"max_grade": 3}',
        '{"grade": 0-3}',
        '{"grade": "-1"}',
        '{"grade": 1} or {"grade": 3}',
        "<think>Grade: 2",
    ],
)
def test_what_may_be_no_grade_is_not_read_as_one(content: str) -> None:
    assert read_grade(Answer(content), 3) == (None, "unparsed")


@given(number=st.integers(0, 3), low=st.integers(0, 5), more=st.integers(1, 9), dash=st.sampled_from("-–—−~至到"))
def test_a_scale_is_never_the_grade(number: int, low: int, more: int, dash: str) -> None:
    scale = f"{low}{dash}{low + more}"
    assert read_grade(Answer(f"Grade ({scale}): {number}"), 3) == (number, "")
    assert read_grade(Answer(f"Grade ({scale}): -{number}"), 3) == (None, "unparsed")
    assert read_grade(Answer(f"Grade: {scale}"), 3) == (None, "unparsed")


@pytest.mark.parametrize("part", ["1", "\n the", "1-", "(", "\n", "**", "grade "])
def test_a_reply_that_goes_on_and_on_is_read_at_once(part: str) -> None:
    said = part * 20_000
    started = time.perf_counter()
    for text in (said, f"1{said}x"):
        assert read_grade(Answer(text), 3) == (None, "unparsed" if text.strip() else "empty")
        assert read_order(text, 9)[0] in (None, list(range(9)))
    assert time.perf_counter() - started < 5.0, "milliseconds, where a pattern that tries every start takes minutes"


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ('{"grade": 2', (None, "truncated")),
        ("Grade: 2", (None, "truncated")),
        ("", (None, "truncated")),
        ('{"grade": 2} and', (2.0, "")),
    ],
)
def test_a_grade_at_the_cut_may_be_half_of_another(content: str, read: Any) -> None:
    assert read_grade(Answer(content, "length"), 3) == read


@given(content=st.text() | st.integers(-5, 99).map(str) | st.floats().map(str), complete=st.booleans())
def test_a_grade_is_in_range_or_there_is_none(content: str, complete: bool) -> None:
    for said in (content, json.dumps({"grade": content}), f'{{"grade": {content}}}'):
        grade, trouble = read_grade(Answer(said, "stop" if complete else "length"), 3)
        assert grade in (None, 0.0, 1.0, 2.0, 3.0)
        assert (grade is None) == (trouble in ("unparsed", "out_of_range", "empty", "truncated"))
