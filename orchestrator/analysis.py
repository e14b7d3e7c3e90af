"""Texts to tokens, by language: what BM25 counts, and what features and gates measure.

Every language goes the same three steps; only the tables below differ.
1. Fold: Unicode NFKC, case folded, invisible joiners removed.
2. Split: a word starts with a letter, digit or underscore and keeps its combining marks, so that Hindi vowel signs,
   Arabic vowels and Thai tones stay inside. Scripts written without spaces are cut to pairs of neighbouring
   characters, or to words by jieba where the language is Chinese; Latin words and numbers among them stay whole.
3. Reduce: English stop words are dropped, words become Snowball stems where there is a stemmer.

Measured with benchmarks/bm25_agreement.py: keeping combining marks lifts nDCG@10 of xquad-hi from 0.768 to 0.956 and of
xquad-th from 0.890 to 0.962; jieba's search mode lifts Recall@100 of zh-medical-qa from 0.424 to 0.455.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import re
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.languages import ISO_639_1, STEMMERS, STOP_WORDS_EN
from orchestrator.stage import Json

# Part of every index's settings: raise it when the same text would give other tokens.
_VERSION = 1

_UNDETERMINED = "und"  # BCP 47's own code for "not known, or several"

_JOINERS = re.compile("[\u00ad\u200c\u200d\u2060\ufe00-\ufe0f]")
_ASCII_WORD = re.compile(r"\w{1,255}", re.ASCII)
# 255 characters: Lucene's longest token; a longer run is cut there, so that no base64 blob becomes one huge token.
# regex's \w holds the combining marks, re's does not; without a letter before it a mark is no word.
_WORD = r"[\w--\p{M}]\w{0,254}"
# Letters and marks of the scripts that put no space between words. (Tibetan marks every syllable: it is not one.)
_NO_SPACES = r"[[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&\w]"
_STEMS_KEPT = 500_000
_BY_NAME = {name: code for code, name in STEMMERS.items()} | {"chinese": "zh", "japanese": "ja", "thai": "th"}
_BY_NAME |= {"korean": "ko", "cn": "zh", "jp": "ja", "cz": "cs", "gr": "el", "multilingual": _UNDETERMINED}

Segmenter = Literal["pairs", "jieba"]


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str:  # noqa: N802 (PyStemmer's name)
        """The stem of `word`."""


class Analyzer:
    """Turns a text into tokens. Cheap to make; libraries and dictionaries come with `load()` or the first text.

    Safe to use from several threads. For many texts use `map(analyzer, texts)`: stems are kept by word, so that a
    call costs little more than finding the words.

    Args:
        language: the code it serves.
        stemmer: name of a Snowball algorithm, or None to keep words as they are.
        stop_words: folded words to drop.
        segmenter: how scripts without spaces are cut.
        dotless_i: fold I to ı and İ to i, as Turkish and Azerbaijani do.
    """

    def __init__(
        self, language: str, stemmer: str | None, stop_words: frozenset[str], segmenter: Segmenter, dotless_i: bool
    ) -> None:
        self.language = language
        self._stemmer, self._stop_words = stemmer, stop_words
        self._segmenter, self._dotless_i = segmenter, dotless_i
        self._reduced = _Reduced(stemmer, stop_words) if stemmer or stop_words else None

    def __call__(self, text: str) -> list[str]:
        """The tokens of `text` in order, repeats included; empty when it holds no word."""
        words = self._words(self._fold(text))
        if self._reduced is None:
            return words
        return list(filter(None, map(self._reduced.__getitem__, words)))

    def load(self) -> None:
        """Bring stemmer, patterns and dictionary into memory; does nothing the second time."""
        self("words \u0e01\u0e01 \u4e2d\u6587")

    def settings(self) -> Mapping[str, Json]:
        """What shapes the tokens, versions of the libraries included: another value means other tokens."""
        stemmer = f"{self._stemmer} PyStemmer {_version('PyStemmer')}" if self._stemmer else None
        segmenter = f"jieba search {_version('jieba')}" if self._segmenter == "jieba" else "pairs"
        return {
            "version": _VERSION,
            "fold": "nfkc casefold" + (" dotless-i" if self._dotless_i else ""),
            "segmenter": segmenter,
            "stemmer": stemmer,
            "stop_words": sorted(self._stop_words),
        }

    def _fold(self, text: str) -> str:
        if not text.isascii():
            text = _JOINERS.sub("", unicodedata.normalize("NFKC", text))
        if self._dotless_i:
            text = text.replace("İ", "i").replace("I", "ı")
        return text.casefold()

    def _words(self, text: str) -> list[str]:
        if text.isascii():
            return _ASCII_WORD.findall(text)
        patterns = _patterns()
        if patterns.no_spaces(text) is None:
            return patterns.words(text)
        cut = _jieba_words if self._segmenter == "jieba" else _pairs
        found: list[str] = []
        for run, word in patterns.runs_and_words(text):
            found.extend(cut(run) if run else (word,))
        return found


def analyzer(language: str, segmenter: Segmenter | None = None) -> Analyzer:
    """The analyzer for `language`; the same object each time, so that its stems are shared.

    Args:
        language: an ISO 639-1 code, with or without a region or script (`pt-BR`, `zh-Hant`); `und` for texts of an
            unknown language or of several. Codes without rules of their own get the Unicode analyzer.
        segmenter: how scripts without spaces are cut: `pairs` of characters, or `jieba`; None for the language's own.

    Raises:
        ConfigError: no such code, or no such segmenter.
    """
    if segmenter not in (None, *get_args(Segmenter)):
        raise ConfigError("segmenter", f"found {segmenter!r}; choices: {', '.join(get_args(Segmenter))}")
    code = language.replace("_", "-").lower().split("-")[0]
    if code not in ISO_639_1 and code != _UNDETERMINED:
        raise ConfigError("language", _unknown(language))
    return _analyzer(code, segmenter or _segmenter(code))


def count_words(text: str) -> int:
    """How many words `text` has, about; needs no dictionary and no language, and takes microseconds.

    In scripts without spaces every two characters are one, which is what Chinese words have on average.
    """
    if text.isascii():
        return len(_ASCII_WORD.findall(text))
    runs_and_words = _patterns().runs_and_words(unicodedata.normalize("NFKC", text))
    return sum(-(-len(_clusters()(run)) // 2) if run else 1 for run, _ in runs_and_words)


def languages() -> tuple[str, ...]:
    """Codes with rules of their own, sorted. Every other ISO 639-1 code is accepted too."""
    return tuple(sorted({*STEMMERS, "az", "ja", "km", "lo", "my", "th", "zh"}))


@functools.cache
def _analyzer(code: str, segmenter: Segmenter) -> Analyzer:
    stop_words = STOP_WORDS_EN if code == "en" else frozenset[str]()
    return Analyzer(code, STEMMERS.get(code), stop_words, segmenter, dotless_i=code in ("tr", "az"))


def _segmenter(code: str) -> Segmenter:
    return "jieba" if code == "zh" else "pairs"


def _unknown(language: str) -> str:
    return (
        f"unknown language '{language}'; expected an ISO 639-1 code. With rules of their own: {', '.join(languages())};"
        f" any other code, and '{_UNDETERMINED}' for unknown or several, gets the Unicode analyzer."
        f"{meant_code(language, languages())}"
    )


def meant_code(word: str, codes: Collection[str]) -> str:
    """` Did you mean 'zh'?` for `chinese`, the country `cn`, ISO 639-3's `zho`, or a typo of one of `codes`; or ``."""
    word = word.lower()
    named = _BY_NAME.get(word) or (word[:2] if len(word) == 3 and word[:2] in codes else None)
    return f" Did you mean '{named}'?" if named else did_you_mean(word, codes)


class _Reduced(dict[str, str]):
    """Word to token, filled as words are met; a stop word maps to nothing. Lookup of a known word runs in C."""

    def __init__(self, stemmer: str | None, stop_words: frozenset[str]) -> None:
        self._name, self._stop_words = stemmer, stop_words
        self._stemmer: _Stemmer | None = None
        # One stemmer object must not be used by two threads at once.
        self._lock = threading.Lock()

    def __missing__(self, word: str) -> str:
        with self._lock:
            if len(self) >= _STEMS_KEPT:
                self.clear()
            token = self[word] = "" if word in self._stop_words else self._stem(word)
            return token

    def _stem(self, word: str) -> str:
        if self._name is None:
            return word
        if self._stemmer is None:
            import Stemmer

            self._stemmer = Stemmer.Stemmer(self._name, 0)
        return self._stemmer.stemWord(word)


@dataclass(frozen=True)
class _Patterns:
    """Bound methods of compiled patterns. Splitting by script is three times slower, hence the search before it."""

    words: Callable[[str], list[str]]
    no_spaces: Callable[[str], object]
    runs_and_words: Callable[[str], list[tuple[str, str]]]


@functools.cache
def _patterns() -> _Patterns:
    import regex

    run = rf"{_NO_SPACES}[{_NO_SPACES}\p{{M}}]*"
    word = rf"[\w--\p{{M}}--{_NO_SPACES}][\w--{_NO_SPACES}]{{0,254}}"
    return _Patterns(
        words=regex.compile(_WORD, regex.VERSION1).findall,
        no_spaces=regex.compile(_NO_SPACES, regex.VERSION1).search,
        runs_and_words=regex.compile(f"({run})|({word})", regex.VERSION1).findall,
    )


@functools.cache
def _clusters() -> Callable[[str], list[str]]:
    import regex

    find: Callable[[str], list[str]] = regex.compile(r"\X").findall
    return find


def _pairs(run: str) -> Sequence[str]:
    # A character is what a reader sees as one, its marks included: on xquad-th nDCG@10 0.962, by code points 0.918.
    characters = list(run) if run.isalpha() else _clusters()(run)
    return [a + b for a, b in itertools.pairwise(characters)] or characters


def _jieba_words(run: str) -> Iterable[str]:
    with _JIEBA_LOCK:
        cut = _jieba()
    return cut(run)


_JIEBA_LOCK = threading.Lock()


@functools.cache
def _jieba() -> Callable[[str], Iterable[str]]:
    import warnings

    with warnings.catch_warnings():
        # jieba 0.42.1 holds invalid escape sequences, and asks for pkg_resources where setuptools has it.
        warnings.simplefilter("ignore")
        import jieba

        tokenizer = jieba.Tokenizer()
        # Not `initialize()`: it logs to stderr and shares a cache file in the temporary folder with everyone.
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    cut: Callable[[str], Iterable[str]] = tokenizer.cut_for_search
    return cut


@functools.cache
def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)
