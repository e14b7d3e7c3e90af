"""Languages in gates: which codes may stand there, which languages they cover, and what a question is in."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator

from orchestrator.analysis import meant_code
from orchestrator.detection import detect, script_language, told_by_script
from orchestrator.errors import ConfigError, MissingExtraError
from orchestrator.languages import ISO_639_1, MIXED, TOLD, UNDETERMINED
from orchestrator.log import get_logger
from orchestrator.types import Query

log = get_logger()
_EXPECTED = f"expected ISO 639-1 codes, {MIXED} (Chinese with English in it) or {UNDETERMINED} (told by nothing)"


def codes_of(key: str, given: object) -> tuple[str, ...]:
    """The codes of one condition: one code, or a list of them; none for None. A region or script is left out.

    Args:
        key: of the condition, for messages.
        given: what stands there.

    Raises:
        ConfigError: it is something else, or a code that no question is told to be in.
    """
    if given is None:
        return ()
    if isinstance(given, list | tuple):
        return tuple(dict.fromkeys(_code(f"{key}[{place}]", word) for place, word in enumerate(given)))
    return (_code(key, given),)


def _code(path: str, word: object) -> str:
    if word is False:
        raise ConfigError(path, "found false, which YAML makes of a bare no; expected 'no' in quotes, for Norwegian")
    tag = str(word).replace("_", "-").lower()
    code = tag if tag == MIXED else tag.partition("-")[0]
    if not isinstance(word, str) or code not in TOLD:
        shown = f"'{word}'" if isinstance(word, str) else repr(word)
        raise ConfigError(path, f"found {shown}; {_EXPECTED}, for example zh or [zh, ja].{meant_code(tag, ISO_639_1)}")
    return code


def covers(code: str, language: str) -> bool:
    """Whether a question in `language` is one of `code`: the same, or with more after it (RFC 4647, basic filtering).

    So `zh` covers `zh-hant`, and `zh-en` too: Chinese with English words in it is Chinese, and not English.
    """
    return language == code or language.startswith(f"{code}-")


@functools.cache
def let_through(codes: tuple[str, ...], left_out: tuple[str, ...]) -> frozenset[str]:
    """Of all that a question can be told to be in, what is let through: one of `codes`, where there are any."""
    return frozenset(language for language in TOLD if not why_refused(language, codes, left_out))


def why_refused(language: str, codes: Collection[str], left_out: Collection[str]) -> str | None:
    """Why a question in `language` is not let through, in a few words; None where it is."""
    if codes and not any(covers(code, language) for code in codes):
        return f"question in {language}, not in language [{', '.join(codes)}]"
    if any(covers(code, language) for code in left_out):
        return f"question in {language}, in not_language [{', '.join(left_out)}]"
    return None


def language_of(query: Query, asked: Collection[str] = ()) -> str:
    """What a question is in: what it says itself (`language` in a file of questions), else as its text tells.

    Args:
        query: the question.
        asked: the codes that it is asked for. Where a script tells each of them, no language identifier is needed:
            without one a question in another script is `und`.

    Raises:
        MissingExtraError: the identifier is needed and not installed.
    """
    said = (query.language or "").replace("_", "-").lower()
    if said.partition("-")[0] in ISO_639_1:
        return said
    if said not in ("", "auto", UNDETERMINED):
        _unknown_language(said)
    try:
        return detect(query.text)
    except MissingExtraError:
        if asked and all(map(told_by_script, asked)):
            return script_language(query.text) or UNDETERMINED
        raise


@functools.cache
def _unknown_language(said: str) -> None:
    """Tell once of a language that questions say they are in, and that is none."""
    log.warning("question.language", found=said, expected=f"ISO 639-1 code, or {MIXED}", instead="told by the text")


def shown_languages(languages: Collection[str], *, most: int = 12) -> str:
    """`de, fr, ...`, or `any language but en, zh` where nearly all are meant."""
    left = sorted(TOLD - set(languages) - {UNDETERMINED})
    if len(left) <= most < len(languages):
        return f"any language but {', '.join(left)}" if left else "any language"
    return ", ".join(sorted(languages))


def languages_in(corpus: str) -> Iterator[str]:
    """What questions over a corpus of language `corpus` are in, where that is known: none for `und`."""
    code = corpus.replace("_", "-").lower()
    if code == MIXED:
        yield from ("zh", "en", MIXED)
    elif code.partition("-")[0] != UNDETERMINED:
        yield code.partition("-")[0]
