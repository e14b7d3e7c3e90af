import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bm25s
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.analysis import analyzer
from orchestrator.errors import ConfigError, IndexStateError, MissingExtraError
from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.stage import DocumentVectors, Embed, Indexed, Progress, no_progress
from orchestrator.types import Call, Document, Query

ANIMALS = ["red fox", "brown bear and red fox", "fox fox fox", "a bear", "whale in the blue sea", "", "sea"]
VARIANTS = ["lucene", "robertson", "atire", "bm25l", "bm25+"]


class ListCorpus:
    """A corpus of a few texts in memory; ids tell nothing about the order."""

    name, language, content_hash = "animals", "und", "none"

    def __init__(self, texts: Sequence[str]) -> None:
        self._documents = [Document(f"id-{len(texts) - i}", text) for i, text in enumerate(texts)]

    def __len__(self) -> int:
        return len(self._documents)

    def documents(self) -> Iterator[Document]:
        return iter(self._documents)

    def doc_ids(self, ordinals: npt.NDArray[np.int64]) -> list[str]:
        return [self._documents[ordinal].doc_id for ordinal in ordinals.tolist()]

    def vectors(self, embedder: Embed, progress: Progress = no_progress) -> DocumentVectors:
        raise NotImplementedError


def opened(directory: Path, texts: Sequence[str] = ANIMALS, stage: BM25Recall | None = None) -> BM25Recall:
    stage, corpus = stage or BM25Recall("und"), ListCorpus(texts)
    stage.load()
    stage.index(corpus, directory, no_progress)
    stage.open(corpus, directory)
    return stage


def found(stage: BM25Recall, text: str, top_k: int = 10) -> list[tuple[str, float]]:
    return [*stage.retrieve(Query("q", text), top_k, Call())]


def lucene(texts: Sequence[str], query: str, k1: float, b: float) -> dict[int, float]:
    """Lucene's BM25 as its documentation writes it, without the factor k1 + 1."""
    documents = [Counter(text.split()) for text in texts]
    avgdl = sum(map(Counter.total, documents)) / len(documents)
    scores: dict[int, float] = {}
    for term in query.split():
        df = sum(term in document for document in documents)
        idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
        for ordinal, document in enumerate(documents):
            if tf := document[term]:
                part = tf / (tf + k1 * (1 - b + b * document.total() / avgdl))
                scores[ordinal] = scores.get(ordinal, 0.0) + idf * part
    return scores


def by_id(texts: Sequence[str], scores: dict[int, float]) -> dict[str, float]:
    return {f"id-{len(texts) - ordinal}": score for ordinal, score in scores.items()}


def test_is_an_indexed_recall() -> None:
    stage = BM25Recall("en")
    assert (stage.score_kind, stage.needs) == ("bm25", frozenset())
    assert isinstance(stage, Indexed)


@pytest.mark.parametrize("query", ["fox", "red bear", "fox fox", "sea whale unicorn"])
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (0.0, 0.0), (2.0, 1.0)])
def test_scores_are_those_of_the_formula(tmp_path: Path, query: str, k1: float, b: float) -> None:
    stage = opened(tmp_path, stage=BM25Recall("und", k1=k1, b=b))
    expected = by_id(ANIMALS, lucene(ANIMALS, query, k1, b))
    assert dict(found(stage, query)) == pytest.approx(expected, rel=1e-5)


def test_title_and_text_are_one_field(tmp_path: Path) -> None:
    corpus = ListCorpus(["", "blue whale"])
    corpus._documents[0] = Document("titled", "red fox", title="blue whale")
    stage = BM25Recall("und", k1=0.9, b=1.0)
    stage.index(corpus, tmp_path, no_progress)
    stage.open(corpus, tmp_path)
    expected = lucene(["blue whale red fox", "blue whale"], "whale", 0.9, 1.0)
    assert dict(found(stage, "whale")) == pytest.approx({"titled": expected[0], "id-1": expected[1]}, rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_the_scores_of_bm25s(tmp_path: Path, variant: str) -> None:
    texts = [*ANIMALS, *(f"sea filler{i}" for i in range(2)), *(f"filler{i}" for i in range(6))]
    stage = opened(tmp_path, texts, BM25Recall("und", 1.2, 0.75, variant, delta=0.7))  # type: ignore[arg-type]
    reference = bm25s.BM25(1.2, 0.75, 0.7, variant)
    reference.index(list(map(analyzer("und"), texts)), show_progress=False)
    for query in ("fox", "red sea", "bear fox whale"):
        words = query.split()
        scores = reference.get_scores(words).tolist()
        matches = {i: scores[i] for i, text in enumerate(texts) if set(words) & set(text.split())}
        assert dict(found(stage, query, 50)) == pytest.approx(by_id(texts, matches), rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 5, 100])
def test_top_k_is_the_head_of_the_whole_ranking(tmp_path: Path, top_k: int) -> None:
    texts = ["x y", "x", "y y", "x x", "x", "x", "z", "x"]
    whole = lucene(texts, "x", 0.9, 0.4)
    # Best first; equal scores in corpus order, whatever the ids.
    order = sorted(whole, key=lambda ordinal: (-round(whole[ordinal], 6), ordinal))
    expected = [f"id-{len(texts) - ordinal}" for ordinal in order][:top_k]
    assert [doc_id for doc_id, _ in found(opened(tmp_path, texts), "x", top_k)] == expected


def test_ties_at_the_cut_go_to_the_earlier_documents(tmp_path: Path) -> None:
    stage = opened(tmp_path, ["same words"] * 1000)
    assert [doc_id for doc_id, _ in found(stage, "words", 3)] == ["id-1000", "id-999", "id-998"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_without_a_query_word_are_never_returned(tmp_path: Path, variant: str) -> None:
    stage = opened(tmp_path, stage=BM25Recall("und", variant=variant))  # type: ignore[arg-type]
    assert [doc_id for doc_id, _ in found(stage, "whale", 100)] == ["id-3"]


@pytest.mark.parametrize("query", ["", "   ", "unicorn", "?!", "👍", "null", "\ud800"])
def test_query_without_known_words_finds_nothing(tmp_path: Path, query: str) -> None:
    assert found(opened(tmp_path), query) == []


def test_corpus_without_any_word_can_be_indexed_and_searched(tmp_path: Path) -> None:
    assert found(opened(tmp_path, ["", "...", "👍"]), "fox") == []


def test_corpus_of_one_document(tmp_path: Path) -> None:
    expected = math.log(1 + 0.5 / 1.5) * 1 / (1 + 0.9)
    assert dict(found(opened(tmp_path, ["fox"]), "fox")) == pytest.approx({"id-1": expected})


def test_language_decides_the_tokens(tmp_path: Path) -> None:
    stage = opened(tmp_path, ["The foxes", "the owl"], BM25Recall("en"))
    assert [doc_id for doc_id, _ in found(stage, "a fox in the")] == ["id-2"]


def test_very_long_query_is_answered(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    once = dict(found(stage, "fox"))
    assert dict(found(stage, "fox " * 20_000)) == pytest.approx({k: v * 20_000 for k, v in once.items()}, rel=1e-3)


def test_same_answer_from_many_threads(tmp_path: Path) -> None:
    stage, queries = opened(tmp_path), ["fox", "red bear", "sea", "whale fox"] * 50
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda text: found(stage, text), queries)) == [found(stage, text) for text in queries]


def test_numba_gives_the_same_answers(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    stage = opened(tmp_path)
    fast = BM25Recall("und", backend="numba")
    fast.open(ListCorpus(ANIMALS), tmp_path)
    for text in ("fox", "red bear", "unicorn"):
        assert found(fast, text) == found(stage, text)


def test_missing_numba_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingExtraError, match="'numba' is not installed") as caught:
        BM25Recall("en", backend="numba").load()
    assert caught.value.extra == "numba"


def test_backend_shares_the_index_and_constants_do_not() -> None:
    settings = BM25Recall("en").index_settings()
    assert BM25Recall("en", backend="numba").index_settings() == settings
    assert BM25Recall("en", delta=3.0).index_settings() == settings
    others = [
        BM25Recall("de"), BM25Recall("en", k1=1.0), BM25Recall("en", b=0.5), BM25Recall("en", variant="atire"),
        BM25Recall("en", variant="bm25+"), BM25Recall("en", variant="bm25+", delta=0.5), BM25Recall("en"),
    ]  # fmt: skip
    assert len({json.dumps(stage.index_settings(), sort_keys=True) for stage in others}) == 7


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    BM25Recall("und").index(ListCorpus(["x"] * 1200), tmp_path, lambda *step: told.append(step))
    assert told == [
        ("analyze", 0, 1200), ("analyze", 500, 1200), ("analyze", 1000, 1200), ("analyze", 1200, 1200),
        ("weigh", 0, 1200), ("weigh", 1200, 1200),
    ]  # fmt: skip


def test_nothing_is_written_to_the_screen_or_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        found(opened(tmp_path), "fox")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_search_without_an_index_says_so(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    stage.close()
    for unopened in (stage, BM25Recall("en")):
        with pytest.raises(IndexStateError, match=r"open\(\)"):
            found(unopened, "fox")


FILES = ["data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy", "params.index.json", "vocab.index.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "garbage", "other"])
def test_damaged_index_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    opened(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    contents = {"empty": b"", "short": whole[:-4], "garbage": b"\x00garbage" * 40, "other": b"[1, 2]"}
    path.unlink()
    if damage != "missing":
        path.write_bytes(contents[damage])
    with pytest.raises(IndexStateError, match=str(tmp_path)):
        BM25Recall("und").open(ListCorpus(ANIMALS), tmp_path)


def test_index_of_another_corpus_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(IndexStateError, match=r"7 documents; expected an index of 2 documents"):
        BM25Recall("und").open(ListCorpus(["fox", "bear"]), tmp_path)


@pytest.mark.parametrize("posting", [7, -1])
def test_posting_outside_the_corpus_is_refused(tmp_path: Path, posting: int) -> None:
    opened(tmp_path)
    path = tmp_path / "indices.csc.index.npy"
    indices = np.load(path)
    indices[2] = posting
    np.save(path, indices)
    with pytest.raises(IndexStateError, match="postings outside the corpus"):
        BM25Recall("und").open(ListCorpus(ANIMALS), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": -1}, "k1: found -1; expected a number, 0 or more"),
        ({"k1": math.nan}, "k1: found nan"),
        ({"k1": math.inf}, "k1: found inf"),
        ({"k1": "0.9"}, "k1: found '0.9'"),
        ({"b": 1.5}, "b: found 1.5; expected a number, 0 to 1"),
        ({"b": True}, "b: found True"),
        ({"delta": -0.1}, "delta: found -0.1"),
        ({"variant": "lucen"}, "variant: found 'lucen'; choices: lucene, .*Did you mean 'lucene'"),
        ({"backend": "cuda"}, "backend: found 'cuda'; choices: numpy, numba"),
        ({"language": "klingon"}, "language: unknown language 'klingon'"),
    ],
)
def test_wrong_argument_is_named_with_its_choices(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BM25Recall(**({"language": "en"} | arguments))  # type: ignore[arg-type]
