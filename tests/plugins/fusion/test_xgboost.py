"""Learned fusion: the contract over a trained model, vectors, what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, IndexStateError, MissingExtraError
from orchestrator.plugins.fusion.xgboost import XGBoostFusion
from orchestrator.plugins.learned.boosting import LambdaMart
from orchestrator.plugins.learned.parameters import Parameters
from orchestrator.plugins.rerank.ltr import LTRRerank
from orchestrator.stage import Indexed, Trainable, no_progress
from orchestrator.testing import FusionContract, ListRerankContract, ranked
from orchestrator.types import Call, Document, Example, Query, TextKind, Vectors

OPTIONS = {"rounds": 20, "early_stopping_rounds": 20, "learning_rate": 0.5, "max_depth": 3, "min_child_weight": 0.0}


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> DiskCorpus:
    """A document for every letter of the alphabet."""
    folder = tmp_path_factory.mktemp("letters")
    rows = [{"_id": letter, "title": "", "text": f"the letter {letter} stands here"} for letter in "abcdwxyz"]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_corpus(CorpusSpec("letters", str(folder)), folder / "root")


def trained(stage: XGBoostFusion | LTRRerank, corpus: DiskCorpus, folder: Path) -> XGBoostFusion | LTRRerank:
    """The stage with a model that learned to like what the list `a` puts first."""
    stage.load()
    if not folder.exists():
        folder.mkdir()
        stage.index(corpus, folder, no_progress)
    stage.open(corpus, folder)
    stage.bind(["a", "b"])
    examples = []
    for place in range(40):
        n = 3 + place % 4
        columns = ranked([*"abcdxyz"][:n], np.linspace(3, 1, n).tolist())
        lists = columns if isinstance(stage, LTRRerank) else {"a": columns, "b": columns.head(2)}
        ids, features = stage.features(Query("q", "letter"), lists, Call())
        grades = np.array([1.0, *[0.0] * (len(ids) - 1)], dtype=np.float32)
        examples.append(Example(str(place), tuple(ids), features, grades))
    stage.fit(examples[:30], examples[30:], OPTIONS, no_progress)
    return stage


class TestFusionContract(FusionContract):
    @pytest.fixture(autouse=True)
    def _corpus(self, letters: DiskCorpus) -> None:
        self.corpus = letters

    def make(self) -> XGBoostFusion:
        return trained(XGBoostFusion("en"), self.corpus, self.corpus.source.folder / "index")  # type: ignore[return-value]


class TestListRerankContract(ListRerankContract):
    @pytest.fixture(autouse=True)
    def _corpus(self, letters: DiskCorpus) -> None:
        self.corpus = letters

    def make(self) -> LTRRerank:
        return trained(LTRRerank("en"), self.corpus, self.corpus.source.folder / "index")  # type: ignore[return-value]


class Axis:
    """Texts with an x point one way, the others another."""

    dim, model_id, similarity, languages = 2, "axis", "cosine", ("en",)

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        return np.array([[3.0, 0.0] if "x" in text else [1.0, 1.0] for text in texts], dtype=np.float32)


def test_is_what_the_core_asks_for() -> None:
    assert isinstance(XGBoostFusion("en"), Trainable)
    assert isinstance(XGBoostFusion("en"), Indexed)
    assert XGBoostFusion("en").needs == {"scores", "statistics"}
    assert XGBoostFusion("en", Axis()).needs == {"scores", "statistics", "vectors"}


def test_with_an_embedder_the_cosine_of_every_candidate_is_a_feature(letters: DiskCorpus) -> None:
    stage = XGBoostFusion("en", Axis())
    stage.load()
    trained(XGBoostFusion("en"), letters, letters.source.folder / "index")
    stage.open(letters, letters.source.folder / "index")
    documents = {
        "x": Document("x", "", vector=np.array([3, 0], np.float32)),
        "y": Document("y", "", vector=np.array([1, 1], np.float32)),
    }
    query = Query("q", "letter x", vector=np.array([2, 0], np.float32))
    stage.bind(["a"])
    _, features = stage.features(query, {"a": ranked(["x", "y"], [2, 1])}, Call(documents=documents))
    assert features[:, -2].tolist() == pytest.approx([1.0, 1 / np.sqrt(2)])
    assert stage.feature_names()[-2:] == ["vectors.cosine", "vectors.cosine_normalised"]


def test_a_candidate_without_its_vector_is_named(letters: DiskCorpus) -> None:
    stage = XGBoostFusion("en", Axis())
    query = Query("q", "letter x", vector=np.array([2, 0], np.float32))
    with pytest.raises(ValueError, match="'x' came without its vector"):
        stage.features(query, {"a": ranked(["x"], [2])}, Call(documents={"x": Document("x", "")}))


def test_scores_before_a_model_say_what_is_missing() -> None:
    with pytest.raises(IndexStateError, match="no model is open"):
        XGBoostFusion("en").predict(np.zeros((1, 3), dtype=np.float32))


def test_a_model_read_again_gives_the_same_scores(letters: DiskCorpus, tmp_path: Path) -> None:
    stage = trained(XGBoostFusion("en"), letters, letters.source.folder / "index")
    stage.write_model(tmp_path)
    again = LambdaMart.read(tmp_path)
    rows = np.random.default_rng(0).normal(size=(50, len(stage.feature_names()))).astype(np.float32)
    np.testing.assert_array_equal(again.predict(rows), stage.predict(rows))


def _fitted(names: Sequence[str], rows: Sequence[Sequence[float]], grades: Sequence[float]) -> LambdaMart:
    examples = [
        Example(f"q{place}", tuple(f"d{row}" for row in range(len(rows))), np.array(rows, np.float32), np.array(grades))
        for place in range(30)
    ]
    options = {"rounds": 20, "early_stopping_rounds": 20, "learning_rate": 0.3, "column_share": 1.0, "subsample": 1.0}
    return LambdaMart.fit(examples, examples, names, Parameters.of(options), lambda *_: None)[0]


def test_a_stage_that_missed_a_document_never_speaks_for_it() -> None:
    names = ["bm25.score", "bm25.rank", "lists.rrf"]
    model = _fitted(names, [[9, 1, 0.1], [7, 2, 0.1], [3, 3, 0.1], [1, 4, 0.1]], [1, 1, 0, 0])
    found, missed, last = model.predict(np.array([[8, 1, 0.1], [np.nan, np.nan, 0.1], [1, 4, 0.1]], np.float32))
    assert found > missed == last, "as the worst of what the trees have seen"


def test_what_the_trees_cannot_tell_apart_is_ordered_by_fused_ranks() -> None:
    names = ["bm25.score", "lists.rrf"]
    model = _fitted(names, [[9, 0.01], [8, 0.01], [3, 0.01], [2, 0.01]], [1, 1, 0, 0])
    scores = model.predict(np.array([[8.5, 0.016], [8.6, 0.033], [2.5, 0.05]], np.float32))
    assert scores[1] > scores[0] > scores[2]
    assert scores[1] - scores[0] == pytest.approx(1e-8 * (0.033 - 0.016), rel=1e-3)


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(b"not a model")
    with pytest.raises(IndexStateError, match=r"model\.ubj: .*Train again"):
        LambdaMart.read(tmp_path)


def test_without_xgboost_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.plugins.learned.boosting.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"rerank-orchestrator\[ltr\]"):
        XGBoostFusion("en").load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, "learning_rate: found 0; expected a number from 1e-06 to 1"),
        ({"max_depth": 2.5}, "max_depth: found 2.5; expected a whole number from 1"),
        ({"subsample": True}, "subsample: found True"),
        ({"rouns": 3}, r"rouns: LambdaMART has no such option; .*Did you mean 'rounds'"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Parameters.of(options)
