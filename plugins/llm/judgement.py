"""What a language model said about one document: the probability of its yes, or a grade. Never a made-up one."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestrator.services.replies import find

from .chat import Answer
from .reply import json_values, spoken, whole_number

_AROUND_A_WORD = " \t\r\n▁ĠĊ\"'`*.,:;!。，：！"
"""Also the signs that stand for a space in vocabularies: some servers give a token as it stands there."""
_DASH = "-\u2010-\u2015\u2212\uff0d"
_RANGE = re.compile(
    rf"(?:(?:on a )?scale (?:of |from )?|from |从)?(?<![{_DASH}\w.,/])(\d{{1,9}})"
    rf"\s*(?:[{_DASH}~～〜]+|\.{{2,3}}|…|to|through|至|到)\s*(\d{{1,9}})(?![A-Za-z\d]|[.,]\d)(?:\s*scale)?",
    re.IGNORECASE,
)
"""`0-3`, `from 0 to 3`: a scale, or an undecided model, and never a grade."""
_NUMBERS = re.compile(rf"[{_DASH}]?[.,]?\d+(?:[.,]\d+)*")
_AROUND = r"[\s*_`\"'“”()\[\]{}（）【】:：=]{0,20}"
_END = rf"(?:\.0+)?\s{{0,9}}分?[ \t*_`\"'“”)\]}}）】]*(?:\Z|\n|[.,;:!(，。；：！（、](?!\d)|[{_DASH}]\s)"
_NAMED = re.compile(
    rf"(?:\A|[\n.!;。！；])[\s#>*_`\"'“({{-]{{0,20}}(?:(?:the|my|final|overall|relevance|最终|相关性)\s{{0,9}}){{0,4}}"
    rf"(?:grade|score|rating|评分|得分|等级|分数)(?:\s+is\b|是|为)?{_AROUND}(\d{{1,9}}){_END}",
    re.IGNORECASE,
)
"""`Grade: 2` at the beginning of a sentence, with nothing after the number that could take it back."""
_ALONE = re.compile(rf"\A{_AROUND}(\d{{1,9}})(?:\.0+)?\s{{0,9}}分?[\s*_`\"'“”()\[\]{{}}（）【】.。!！]*\Z")


def grade_schema(max_grade: int) -> Mapping[str, Any]:
    """JSON schema of `{"grade": 0 to max_grade}`."""
    return {
        "title": "grade",
        "type": "object",
        "additionalProperties": False,
        "required": ["grade"],
        "properties": {"grade": {"type": "integer", "enum": list(range(max_grade + 1))}},
    }


def read_grade(answer: Answer, max_grade: int) -> tuple[float | None, str]:
    """The grade, or None and what was wrong.

    Args:
        answer: JSON with a `grade`, JSON amid prose, `Grade: 2`, `2/3` of `max_grade` 3, or one number alone. What
            names several different numbers is not read, ranges such as `0-3` aside.
        max_grade: the best; 0 is the worst.

    Returns:
        grade: 0 to `max_grade`, or None.
        trouble: `refusal`, `empty`, `truncated`, `unparsed` or `out_of_range`; empty with a grade.
    """
    if answer.trouble:
        return None, answer.trouble
    found = _grade(spoken(answer.content), answer.complete, max_grade)
    if found is None:
        return None, "unparsed" if answer.complete else "truncated"
    return (float(found), "") if 0 <= found <= max_grade else (None, "out_of_range")


def _grade(content: str, complete: bool, max_grade: int) -> int | None:
    objects = [found for found in json_values(content) if isinstance(found, Mapping)]
    entries = [next((found[key] for key in ("grade", "score") if key in found), None) for found in objects]
    grades = {whole_number(entry) for entry in entries if entry is not None}
    if grades:
        return grades.pop() if len(grades) == 1 else None
    return _grade_in_prose(content, max_grade) if complete else None  # a number at the cut may be half of another


def _grade_in_prose(content: str, max_grade: int) -> int | None:
    text = _RANGE.sub(lambda found: " " if int(found[1]) < int(found[2]) else found[0], content)
    text = re.sub(rf"(\d)\s*(?:/|／|out of)\s*{max_grade}(?![A-Za-z\d]|[.,]\d)", r"\1", text)
    different = {re.sub(r"\.0+\Z", "", number) for number in _NUMBERS.findall(text)}
    named = _ALONE.search(text) or _NAMED.search(text)
    return int(named[1]) if named and len(different) == 1 else None


def yes_probability(answer: Answer, yes: Collection[str], no: Collection[str]) -> float | None:
    """p(yes) / (p(yes) + p(no)) of the answer's first token, 0 to 1; None where neither is among its alternatives.

    Spellings of a word (`Yes`, ` yes`, `YES`) are added up. A word that is not among the alternatives has less than the
    least of them and counts as 0. The softmax of the two, as Qwen3-Reranker scores (Zhang et al. 2025, "Qwen3
    Embedding"), from log-probabilities, so that it is exact for the smallest of them too.

    Args:
        answer: with `logprobs` as OpenAI gives them.
        yes: words that say yes, in small letters.
        no: words that say no.
    """
    alternatives = [(_word(token), logprob) for token, logprob in first_token(answer).items()]
    p_yes, p_no = (_log_sum([logprob for word, logprob in alternatives if word in words]) for words in (yes, no))
    if p_yes == p_no == -math.inf:
        return None
    difference = p_no - p_yes
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700 else 0.0


def first_token(answer: Answer) -> dict[str, float]:
    """Token -> log-probability of the alternatives for the answer's first token; empty where a server tells none."""
    content = find(answer.logprobs, "content")
    if not isinstance(content, list) or not content:
        return {}
    listed = find(content[0], "top_logprobs")
    found: dict[str, float] = {}
    for entry in [*(listed if isinstance(listed, list) else []), content[0]]:
        token, logprob = find(entry, "token"), find(entry, "logprob")
        is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
        if isinstance(token, str) and is_number and not math.isnan(logprob):
            found.setdefault(token, float(logprob))
    return found


def _word(token: str) -> str:
    return token.strip(_AROUND_A_WORD).casefold()


def _log_sum(logprobs: Sequence[float]) -> float:
    """log(sum(exp(x))), without underflow; -inf for none."""
    top = max(logprobs, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(logprob - top) for logprob in logprobs))
