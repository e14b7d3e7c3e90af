import gzip
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from pathlib import Path

import bm25s.stopwords
import jieba
import pytest
import Stemmer
from bm25s.tokenization import Tokenizer

from orchestrator.analysis import analyzer, languages
from orchestrator.errors import ConfigError
from orchestrator.languages import ISO_639_1, STEMMERS, STOP_WORDS_EN

CASES = {
    # English: stop words go, words become stems, an apostrophe ends a word.
    ("en", "The running dogs aren't in the café"): ["run", "dog", "aren", "t", "café"],
    ("en", "snake_case COVID-19 3.14"): ["snake_cas", "covid", "19", "3", "14"],
    ("de", "Die Straße, DIE STRASSE: Häuser"): ["die", "strass", "die", "strass", "haus"],
    ("el", "ΟΔΟΣ οδός"): ["οδ", "οδ"],
    ("ru", "книгами книги"): ["книг", "книг"],
    # Turkish folds I to ı and İ to i, so that these two match what is written small.
    ("tr", "IŞIK ışık İZMİR izmir"): ["ışık", "ışık", "izmir", "izmir"],
    # Vowel signs stay in the word, also those after a virama.
    ("hi", "हिन्दी में किताबें"): ["हिन्द", "म", "किताब"],
    ("mr", "मराठी भाषा"): ["मराठी", "भाषा"],
    ("bn", "বাংলা ভাষা"): ["বাংলা", "ভাষা"],
    # Vowel points, the article and tatweel go in the stemmer: they do not cut the word.
    ("ar", "الْكِتَابُ كتـاب"): ["كتاب", "كتاب"],
    ("vi", "Tiếng Việt"): ["tiếng", "việt"],
    # Thai: pairs of what a reader sees as characters, marks inside; Latin words and numbers whole.
    ("th", "สวัสดี COVID 19"): ["สวั", "วัส", "สดี", "covid", "19"],
    # NFKC takes this vowel apart; what is left of it stays with its consonant.
    ("th", "น้ำ"): ["น้\u0e4dา"],
    ("ja", "東京都はTokyoで2020年"): ["東京", "京都", "都は", "tokyo", "で", "2020", "年"],
    ("ja", "ｶﾞｲﾄﾞ ー 猫"): ["ガイ", "イド", "ー", "猫"],
    ("km", "ភាសា"): ["ភាសា"],
    # Chinese: jieba's search mode gives the words inside words too.
    ("zh", "我爱北京天安门"): ["我", "爱", "北京", "天安", "天安门"],
    ("zh", "新冠COVID-19疫苗，café！"): ["新冠", "covid", "19", "疫苗", "café"],
    ("zh-Hant", "臺灣大學2020年"): ["臺", "灣大學", "2020", "年"],
    # Chinese in a text of another language is still cut, not one endless word.
    ("en", "the 北京大学 campus"): ["北京", "京大", "大学", "campus"],
    ("ko", "한국어 문장"): ["한국어", "문장"],
    # Unicode: full width, ligatures, composed and decomposed letters are one.
    ("und", "ＡＢＣ ﬁn e\u0301té été"): ["abc", "fin", "été", "été"],
    # Joiners and soft hyphens are invisible, and so is their absence.
    ("und", "co\u00adop می\u200cخواهم"): ["coop", "میخواهم"],
    # Emoji, with skin tones, joiners and variation selectors, and lone marks are no words.
    ("en", "👍🏽 👨‍👩‍👧 ❤️ \u0301 pain 🤕"): ["pain"],
    ("en", ""): [],
    ("en", " \n\t…!?"): [],
    ("en", "the of and"): [],
    ("zh", "，。"): [],
    # Half of a surrogate pair, as "\\ud83d" alone gives it in JSON.
    ("und", "a\ud83db"): ["a", "b"],
}


@pytest.mark.parametrize(("language", "text"), CASES)
def test_tokens(language: str, text: str) -> None:
    assert analyzer(language)(text) == CASES[language, text]


def sample_texts() -> list[str]:
    with as_file(files("orchestrator") / "sample" / "corpus.jsonl.gz") as path, gzip.open(path, "rt") as file:
        return [json.loads(line)["text"] for line in file]


def test_english_equals_the_tokenizer_of_bm25s_on_real_text() -> None:
    texts = [text for text in sample_texts() if text.isascii()]
    reference = Tokenizer(splitter=r"\w+", stopwords="en", stemmer=Stemmer.Stemmer("english"))
    expected = reference.tokenize(texts, return_as="string", show_progress=False, allow_empty=False)
    assert len(texts) > 500
    assert list(map(analyzer("en"), texts)) == expected


def test_text_that_is_not_ascii_gives_the_same_words_as_text_that_is() -> None:
    texts = [text for text in sample_texts() if text.isascii()][:200]
    assert [analyzer("en")(text + " é") for text in texts] == [[*analyzer("en")(text), "é"] for text in texts]


def test_chinese_equals_search_mode_of_jieba() -> None:
    text = "小明硕士毕业于中国科学院计算所后在日本京都大学深造"
    jieba.setLogLevel("ERROR")
    assert analyzer("zh")(text) == jieba.lcut_for_search(text)


def test_stop_words_are_those_of_lucene() -> None:
    assert frozenset(bm25s.stopwords.STOPWORDS_EN) == STOP_WORDS_EN


def test_every_snowball_stemmer_has_its_language() -> None:
    assert set(STEMMERS.values()) == set(Stemmer.algorithms()) - {"porter", "dutch_porter"}


@pytest.mark.parametrize("code", languages())
def test_language_with_rules_is_an_iso_code_and_loads(code: str) -> None:
    chosen = analyzer(code)
    chosen.load()
    assert code in ISO_639_1
    assert chosen("2024 abc")[0] == "2024"


@pytest.mark.parametrize("code", ["en-US", "en_gb", "EN"])
def test_region_does_not_matter(code: str) -> None:
    assert analyzer(code) is analyzer("en")


@pytest.mark.parametrize("code", ["mr", "uk", "ko", "vi", "und"])
def test_language_without_rules_gets_the_unicode_analyzer(code: str) -> None:
    assert analyzer(code).settings() == analyzer("und").settings()


@pytest.mark.parametrize(
    ("wrong", "hint"), [("english", "'en'"), ("Chinese", "'zh'"), ("auto", "und"), ("", "und"), ("xx", "und")]
)
def test_unknown_language_names_the_choices(wrong: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)^language: unknown language '{wrong}'.* ar, az, ca.*{hint}") as caught:
        analyzer(wrong)
    assert caught.value.path == "language"


def test_chinese_can_be_cut_to_pairs_of_characters() -> None:
    assert analyzer("zh", "pairs")("青光眼 MRI") == ["青光", "光眼", "mri"]
    assert analyzer("zh", "pairs").settings()["segmenter"] == "pairs"
    assert analyzer("zh", "jieba") is analyzer("zh")
    with pytest.raises(ConfigError, match="segmenter: found 'words'; choices: pairs, jieba"):
        analyzer("zh", "words")  # type: ignore[arg-type]


def test_settings_tell_analyzers_apart_and_are_json() -> None:
    distinct = {json.dumps(analyzer(code).settings(), sort_keys=True) for code in languages()}
    # nb, nn and no share one stemmer; ja, km, lo, my and th share the character pairs.
    assert len(distinct) == len(languages()) - 2 - 4


def test_settings_name_the_versions_that_shape_tokens() -> None:
    assert Stemmer.version() in str(analyzer("fr").settings()["stemmer"])
    assert jieba.__version__ in str(analyzer("zh").settings()["segmenter"])


def test_threads_get_the_tokens_a_single_thread_gets() -> None:
    words = [f"{stem}{i}{ending}" for i in range(300) for stem in ("walk", "nation") for ending in ("ing", "s", "ly")]
    texts = [" ".join(words[start:]) for start in range(0, len(words), 40)]
    expected = [Stemmer.Stemmer("french").stemWords(text.split()) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(analyzer("fr"), texts)) == expected


def test_endless_word_is_cut_at_255_characters() -> None:
    assert [len(token) for token in analyzer("und")("A" * 600)] == [255, 255, 90]
    assert [len(token) for token in analyzer("und")("é" * 600)] == [255, 255, 90]


@pytest.mark.parametrize("unit", ["fever and cough ", "ß", "東京", "สวัสดี", "हिन्दी ", "👍", "e\u0301"])
def test_very_long_text_takes_linear_time(unit: str) -> None:
    chosen, text = analyzer("ja"), unit * 20_000
    chosen(text[:100])
    started = time.perf_counter()
    chosen(text)
    assert time.perf_counter() - started < 5.0


QUIET = """
import sys
from orchestrator.analysis import analyzer
chosen = analyzer("zh")
chosen.settings()
assert not {"jieba", "Stemmer", "regex"} & sys.modules.keys(), "imported before it was needed"
assert chosen("北京大学") == ["北京", "大学", "北京大学"]
"""


def test_jieba_is_imported_late_and_leaves_neither_log_lines_nor_files(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", QUIET]
    done = subprocess.run(
        command, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
