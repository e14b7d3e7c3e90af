"""A model serves only what it was trained for; each difference is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, IndexStateError, ModelNotFoundError
from orchestrator.learned.manifest import Manifest
from orchestrator.learned.trained import ModelPlace, query_hashes
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stage import Json
from orchestrator.types import Call, Query, RankedList

WORDS = ["pipeline=mine", "corpus.path=my docs"]


class Source:
    def __init__(self, kind: str = "bm25", model_id: str | None = None) -> None:
        self.score_kind = kind
        if model_id:
            self.model_id = model_id

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return []


class OtherSource(Source):
    pass


class Learner:
    """Has a model of one line, and settings of a test's choosing."""

    score_kind = "ltr"

    def __init__(self, path: str | None = None, **settings: Json) -> None:
        self.model_path = path
        self.settings = {"features": ["a", "b"], "analyzer": {"stemmer": "english"}, **settings}
        self.line = "untrained"

    def bind(self, inputs: Sequence[str]) -> None:
        self.inputs = inputs

    def model_settings(self) -> Mapping[str, Json]:
        return self.settings

    def features(self, query: Query, candidates: object, call: Call) -> tuple[list[str], np.ndarray]:
        return [], np.empty((0, 2), np.float32)

    def fit(self, *_: object) -> None:
        raise NotImplementedError

    def predict(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]

    def write_model(self, directory: Path) -> None:
        (directory / "model.txt").write_text(self.line)

    def open_model(self, directory: Path) -> None:
        self.line = (directory / "model.txt").read_text()

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> list[tuple[str, float]]:
        return []


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusSpec:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "corpus.jsonl").write_text('{"_id": "d1", "text": "one"}\n')
    return CorpusSpec("docs", str(tmp_path / "docs"))


def place_of(
    corpus: CorpusSpec, root: Path, learner: Learner, sources: Mapping[str, Source] | None = None
) -> ModelPlace:
    inputs = sources or {"bm25": Source(), "dense": Source("cosine", "minilm")}
    specs = [StageSpec(name, source, 5) for name, source in inputs.items()]  # type: ignore[arg-type]
    specs.append(StageSpec("fused", learner, 5, tuple(inputs)))  # type: ignore[arg-type]
    graph = StageGraph.of(specs)
    return ModelPlace(graph["fused"], graph, corpus, root, WORDS)


def train(place: ModelPlace, line: str = "trained", loaded: Sequence[str] = ("bm25", "dense")) -> Path:
    place.stage.line = line  # type: ignore[attr-defined]
    about = {"query_hashes": query_hashes([Query("q", "what?")])}
    return place.write(Manifest(place.settings(loaded), "docs", "hash-1", 7, about=about))


def opened(place: ModelPlace, loaded: Sequence[str] = ("bm25", "dense")) -> str:
    place.open(loaded, "hash-1")
    return place.stage.line  # type: ignore[attr-defined, no-any-return]


def test_a_model_is_found_again_and_a_new_one_takes_its_place(corpus: CorpusSpec, tmp_path: Path) -> None:
    folder = train(place_of(corpus, tmp_path, Learner()))
    assert folder.parent.parent == tmp_path / "trained"
    again = place_of(corpus, tmp_path, Learner())
    assert opened(again) == "trained"
    assert again.learned_from == set(query_hashes([Query("other id", "what?")]))
    train(place_of(corpus, tmp_path, Learner()), "newer")
    assert opened(place_of(corpus, tmp_path, Learner())) == "newer"
    assert len([entry for entry in folder.iterdir() if entry.is_dir()]) == 1


def test_no_model_names_place_and_command(corpus: CorpusSpec, tmp_path: Path) -> None:
    place = place_of(corpus, tmp_path, Learner())
    with pytest.raises(ModelNotFoundError) as caught:
        opened(place)
    assert str(place.folder) in str(caught.value)
    assert "train it: orchestrate train fusion pipeline=mine 'corpus.path=my docs'" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"features": ["a", "c"]}, "features: lacks c; has besides b"),
        ({"features": ["b", "a"]}, "features: the same in another order"),
        ({"analyzer": {"stemmer": "german"}}, 'analyzer.stemmer: found "english", expected "german"'),
        ({"embedder": "minilm"}, 'embedder: found nothing, expected "minilm"'),
    ],
)
def test_each_difference_of_the_stage_is_named(
    settings: dict[str, Json], difference: str, corpus: CorpusSpec, tmp_path: Path
) -> None:
    train(place_of(corpus, tmp_path, Learner()))
    with pytest.raises(ConfigError) as caught:
        opened(place_of(corpus, tmp_path, Learner(**settings)))
    assert caught.value.path == "pipeline.stages.fused.use.path"
    assert f"\n  {difference}\n" in str(caught.value)
    assert "train it again (orchestrate train fusion pipeline=mine" in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "difference"),
    [
        (
            {"bm25": Source(), "dense": Source("dot", "minilm")},
            'inputs.dense.score_kind: found "cosine", expected "dot"',
        ),
        (
            {"bm25": Source(), "dense": Source("cosine", "bge")},
            'inputs.dense.model_id: found "minilm", expected "bge"',
        ),
    ],
)
def test_each_difference_of_an_input_is_named(
    sources: dict[str, Source], difference: str, corpus: CorpusSpec, tmp_path: Path
) -> None:
    train(place_of(corpus, tmp_path, Learner()))
    with pytest.raises(ConfigError) as caught:
        opened(place_of(corpus, tmp_path, Learner(), sources))
    assert f"\n  {difference}\n" in str(caught.value)


def test_other_inputs_have_a_place_of_their_own_and_are_named_where_a_path_says_otherwise(
    corpus: CorpusSpec, tmp_path: Path
) -> None:
    sources = {"bm25": Source(), "sparse": OtherSource()}
    assert place_of(corpus, tmp_path, Learner(), sources).folder != place_of(corpus, tmp_path, Learner()).folder
    path = str(tmp_path / "mine")
    train(place_of(corpus, tmp_path, Learner(path)))
    with pytest.raises(ConfigError) as caught:
        opened(place_of(corpus, tmp_path, Learner(path), sources), ["bm25", "sparse"])
    assert 'inputs.dense.score_kind: found "cosine", expected nothing' in str(caught.value)
    assert 'inputs.sparse.score_kind: found nothing, expected "bm25"' in str(caught.value)


def test_inputs_that_are_not_loaded_are_not_compared(corpus: CorpusSpec, tmp_path: Path) -> None:
    train(place_of(corpus, tmp_path, Learner()))
    sources = {"bm25": Source(), "dense": Source("dot")}
    assert opened(place_of(corpus, tmp_path, Learner(), sources), ["bm25"]) == "trained"


def test_a_damaged_model_is_named_and_not_served(corpus: CorpusSpec, tmp_path: Path) -> None:
    folder = train(place_of(corpus, tmp_path, Learner()))
    (model,) = folder.rglob("model.txt")
    model.write_text("tampere")
    with pytest.raises(IndexStateError, match=r"model\.txt is not what was written\. Train it again: orchestrate"):
        opened(place_of(corpus, tmp_path, Learner()))


def test_a_folder_with_something_else_is_never_written_to(corpus: CorpusSpec, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex; expected an empty folder, a model, or nothing yet"):
        train(place_of(corpus, tmp_path, Learner(str(tmp_path / "mine"))))
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_manifest_keeps_how_the_model_came_to_be_without_comparing_it(corpus: CorpusSpec, tmp_path: Path) -> None:
    a = Manifest({"x": 1}, "docs", "h", 1, about={"seed": 1})
    assert a.differences(dataclasses.replace(a, about={"seed": 2})) == []
