"""Every lexical feature beside a slow formula over lists of words, English and Chinese; columns of earlier stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis import analyzer
from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import IndexStateError
from orchestrator.plugins.fusion.xgboost import XGBoostFusion
from orchestrator.plugins.learned.columns import normalised, of_lists
from orchestrator.plugins.rerank.ltr import LTRRerank
from orchestrator.ranking import partly_rescored, rescored, unscored
from orchestrator.stage import no_progress
from orchestrator.testing import ranked
from orchestrator.types import Call, Document, Query, RankedList

DOCUMENTS = {
    "en": [
        ("Glaucoma and the optic nerve", "Glaucoma damages the optic nerve. The nerve is optic, the eye is not."),
        ("", "Pressure inside the eye, high pressure, and then some more pressure damages a nerve of the optic kind."),
        ("The Great Wall", "The wall is long."),
        ("Nerve", ""),
        ("Eye pressure", "optic nerve optic nerve optic nerve damage"),
    ],
    "zh": [
        ("青光眼", "青光眼会损害视神经，眼压升高是主要原因。"),
        ("", "高血压损害心脏和肾脏，也会损害眼睛。"),
        ("长城", "长城很长。"),
        ("视神经", ""),
        ("眼压", "视神经损害，视神经损害，眼压升高。"),
    ],
}
QUERIES = {
    "en": ["optic nerve damage", "pressure", "nerve optic nerve pressure eye", "nothing known here", "the of"],
    "zh": ["青光眼损害视神经吗？", "眼压", "视神经损害 眼压升高 损害", "完全未知", "？"],
}
CASES = [(language, query) for language in DOCUMENTS for query in QUERIES[language]]


def write(folder: Path, language: str) -> CorpusSpec:
    import json

    folder.mkdir()
    rows = [{"_id": f"d{i}", "title": a, "text": b} for i, (a, b) in enumerate(DOCUMENTS[language])]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CorpusSpec(language, str(folder), language)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], tuple[XGBoostFusion, DiskCorpus]]]:
    corpora: list[DiskCorpus] = []

    def make(language: str) -> tuple[XGBoostFusion, DiskCorpus]:
        corpus = open_corpus(write(tmp_path / language, language), tmp_path / "root")
        corpora.append(corpus)
        stage = XGBoostFusion(language)
        stage.load()
        (tmp_path / "index").mkdir()
        stage.index(corpus, tmp_path / "index", no_progress)
        stage.open(corpus, tmp_path / "index")
        return stage, corpus

    yield make
    for corpus in corpora:
        corpus.close()


class Slow:
    """The definitions, word by word, over one query and a whole collection."""

    def __init__(self, language: str, query: str) -> None:
        analyse = analyzer(language)
        self.query = analyse(query)
        self.terms = list(dict.fromkeys(self.query))
        self.title = [analyse(title) for title, _ in DOCUMENTS[language]]
        self.body = [analyse(body) for _, body in DOCUMENTS[language]]
        self.text = [a + b for a, b in zip(self.title, self.body, strict=True)]

    def idf(self, term: str, field: Sequence[list[str]]) -> float:
        df = sum(term in words for words in field)
        return math.log(1 + (len(field) - df + 0.5) / (df + 0.5))

    def bm25(self, field: list[list[str]], words: list[str]) -> float:
        average = sum(map(len, field)) / len(field)
        norm = 0.9 * (1 - 0.4 + 0.4 * len(words) / average)
        tf = {term: words.count(term) for term in self.terms}
        return sum(self.idf(term, field) * tf[term] / (tf[term] + norm) for term in self.query if tf[term])

    def idf_coverage(self, words: list[str]) -> float:
        weights = {term: self.idf(term, self.text) for term in self.terms}
        return sum(weights[term] for term in self.terms if term in words) / (sum(weights.values()) or 1)

    def bigrams(self, words: list[str]) -> float:
        wanted = set(itertools.pairwise(self.query))
        return len(wanted & set(itertools.pairwise(words))) / len(wanted) if wanted else math.nan

    def phrase(self, words: list[str]) -> float:
        wanted = set(itertools.pairwise(self.query))
        runs = [
            stop - start
            for start, stop in itertools.combinations(range(len(words) + 1), 2)
            if words[start] in self.terms and all(pair in wanted for pair in itertools.pairwise(words[start:stop]))
        ]
        return min(max(runs, default=0) / len(self.query), 1) if wanted else math.nan

    def window(self, words: list[str]) -> float:
        matched = set(self.terms) & set(words)
        spans = itertools.combinations(range(len(words) + 1), 2)
        sizes = [stop - start for start, stop in spans if matched <= set(words[start:stop])]
        return len(matched) / min(sizes) if len(matched) > 1 else math.nan

    def distance(self, words: list[str]) -> float:
        places = [place for place, word in enumerate(words) if word in self.terms]
        gaps = [b - a for a, b in itertools.pairwise(places) if words[a] != words[b]]
        return sum(gaps) / len(gaps) if gaps else math.nan

    def first(self, words: list[str]) -> float:
        places = [place for place, word in enumerate(words) if word in self.terms]
        return places[0] / len(words) if places else math.nan


def matrix_of(stage: XGBoostFusion, language: str, query: str, call: Call | None = None) -> dict[str, list[float]]:
    everything = ranked([f"d{i}" for i in range(5)], [5, 4, 3, 2, 1])
    stage.bind(["bm25"])
    ids, matrix = stage.features(Query("q", query), {"bm25": everything}, call or Call())
    assert list(ids) == list(everything.doc_ids)
    assert matrix.dtype == np.float32
    return {name: matrix[:, place].tolist() for place, name in enumerate(stage.feature_names())}


@pytest.mark.parametrize(("language", "query"), CASES)
def test_lexical_features_are_their_slow_formulas(language: str, query: str, opened: Callable) -> None:
    stage, _ = opened(language)
    found, slow = matrix_of(stage, language, query), Slow(language, query)
    for name, field in (("title", slow.title), ("body", slow.body)):
        expected = {
            "bm25": [slow.bm25(field, words) for words in field],
            "tf_sum": [sum(math.log1p(words.count(term)) for term in slow.terms) for words in field],
            "tf_max": [max((math.log1p(words.count(term)) for term in slow.terms), default=0) for words in field],
            "coverage": [len(set(slow.terms) & set(words)) / max(len(slow.terms), 1) for words in field],
            "idf_coverage": [slow.idf_coverage(words) for words in field],
            "bigrams": [slow.bigrams(words) for words in field],
            "phrase": [slow.phrase(words) for words in field],
            "window": [slow.window(words) for words in field],
            "distance": [slow.distance(words) for words in field],
            "first": [slow.first(words) for words in field],
            "length": [math.log1p(len(words)) for words in field],
        }
        for feature, values in expected.items():
            np.testing.assert_allclose(found[f"{name}.{feature}"], values, rtol=1e-5, err_msg=f"{name}.{feature}")
    np.testing.assert_allclose(found["text.bm25"], [slow.bm25(slow.text, words) for words in slow.text], rtol=1e-5)
    np.testing.assert_allclose(found["text.idf_coverage"], [slow.idf_coverage(words) for words in slow.text], rtol=1e-5)
    idf = [slow.idf(term, slow.text) for term in slow.terms]
    assert found["query.idf_sum"][0] == pytest.approx(sum(idf))
    assert found["query.idf_max"][0] == pytest.approx(max(idf, default=0))
    assert found["query.tokens"][0] == len(slow.query)
    unknown = [term for term in slow.terms if not any(term in words for words in slow.text)]
    assert found["query.unknown"][0] == pytest.approx(len(unknown) / max(len(slow.terms), 1))


@pytest.mark.parametrize("language", DOCUMENTS)
def test_documents_brought_by_the_caller_have_the_same_features(language: str, opened: Callable) -> None:
    stage, _ = opened(language)
    given = {f"d{i}": Document(f"d{i}", body, title) for i, (title, body) in enumerate(DOCUMENTS[language])}
    for query in QUERIES[language]:
        theirs = matrix_of(stage, language, query, Call(documents=given, in_corpus=False))
        ours = matrix_of(stage, language, query)
        for name, values in ours.items():
            np.testing.assert_allclose(theirs[name], values, rtol=1e-6, err_msg=name)


def test_without_an_index_the_documents_given_are_the_collection_and_the_trace_says_so(opened: Callable) -> None:
    stage, _ = opened("en")
    alone = XGBoostFusion("en")
    alone.load()
    given = {f"d{i}": Document(f"d{i}", body, title) for i, (title, body) in enumerate(DOCUMENTS["en"])}
    call = Call(documents=given, in_corpus=False)
    theirs = matrix_of(alone, "en", "optic nerve damage", call)
    for name, values in matrix_of(stage, "en", "optic nerve damage").items():
        np.testing.assert_allclose(theirs[name], values, rtol=1e-6, err_msg=name)
    assert "the corpus has no index of them" in call.notes[1]


def test_candidates_of_a_corpus_need_an_open_index() -> None:
    with pytest.raises(IndexStateError, match=r"expected open\(\) before"):
        matrix_of(XGBoostFusion("en"), "en", "optic")


def test_columns_of_a_fusion_are_scores_ranks_and_what_is_missing(opened: Callable) -> None:
    stage, _ = opened("en")
    stage.bind(["bm25", "dense"])
    lists = {
        "bm25": ranked(["d1", "d0"], [9.0, 3.0], stage="bm25"),
        "dense": ranked(["d2", "d1", "d4"], [0.9, 0.5, 0.1], "cosine", "dense"),
    }
    ids, matrix = stage.features(Query("q", "eye"), lists, Call())
    rows = dict(zip(ids, matrix, strict=True))
    names = stage.feature_names()

    def of(doc_id: str, name: str) -> float:
        return float(rows[doc_id][names.index(name)])

    assert of("d1", "bm25.score") == 9.0
    assert of("d1", "dense.rank") == 2
    assert of("d1", "dense.reciprocal_rank") == pytest.approx(1 / 2)
    assert of("d1", "dense.normalised") == pytest.approx((0.5 - 0.1) / (0.9 - 0.1))
    assert of("d1", "lists.count") == 2
    assert of("d1", "lists.rrf") == pytest.approx(1 / (60 + 1) + 1 / (60 + 2))
    assert math.isnan(of("d2", "bm25.score"))
    assert math.isnan(of("d2", "bm25.rank"))
    assert (of("d2", "bm25.missing"), of("d2", "bm25.reciprocal_rank"), of("d2", "dense.missing")) == (1, 0, 0)


def test_what_another_stage_scored_is_no_score_of_this_one() -> None:
    came = ranked(["d1", "d0"], [9.0, 3.0], stage="bm25")
    stand_in = rescored("precise~1", came, np.array([0.2, 0.7]), "cosine")
    part = partly_rescored("precise", came, np.arange(1), np.array([0.4]), "logit")
    for listed, scores in ((unscored(came), [np.nan] * 2), (stand_in, [np.nan] * 2), (part, [0.4, np.nan])):
        _, columns = of_lists({"precise": listed}, ["precise"])
        np.testing.assert_array_equal(columns["precise"].score, scores)
        np.testing.assert_array_equal(columns["precise"].rank, [1, 2])


def test_columns_of_a_list_come_from_the_scores_it_carries(opened: Callable) -> None:
    _, corpus = opened("en")
    stage = LTRRerank("en")
    stage.load()
    stage.open(corpus, Path(corpus.source.folder).parent / "index")
    stage.bind(["bm25", "dense", "fused"])
    columns = {"bm25": np.array([1.0, np.nan, 7.0]), "fused": np.array([0.3, 0.2, 0.1])}
    _, matrix = stage.features(
        Query("q", "eye"), RankedList(("d0", "d1", "d2"), columns["fused"], "rrf", columns), Call()
    )
    found = {name: matrix[:, place] for place, name in enumerate(stage.feature_names())}
    np.testing.assert_array_equal(found["bm25.rank"], [2, np.nan, 1])
    np.testing.assert_array_equal(found["fused.rank"], [1, 2, 3])
    np.testing.assert_array_equal(found["dense.missing"], [1, 1, 1])


def test_normalised_is_min_max_within_the_query() -> None:
    np.testing.assert_array_equal(normalised(np.array([2.0, np.nan, 4.0, 3.0])), [0, np.nan, 1, 0.5])
    np.testing.assert_array_equal(normalised(np.array([2.0, 2.0])), [1, 1])
    assert normalised(np.empty(0)).shape == (0,)


def test_a_damaged_index_is_named(tmp_path: Path, opened: Callable) -> None:
    stage, corpus = opened("en")
    path = tmp_path / "index" / "body.u32"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(IndexStateError, match=r"lexical index in .*Build it again"):
        stage.open(corpus, tmp_path / "index")
