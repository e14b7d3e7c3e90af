"""What only the configured pipeline has: services that answer and that do not, models of other names, own classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.calibration.corpora import questions
from orchestrator.calibration.own import Ways, time_own_stages
from orchestrator.calibration.timed import Timed
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, TransientError
from orchestrator.models import Model
from orchestrator.pipeline import Pipeline
from orchestrator.plugins.rerank.mmr import MMRRerank
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stack.policy import OnError
from orchestrator.types import Call, Document, Query

MODEL = Model(role="reranker", name="served")
API = ("api", "served")


class Reads:
    """A pointwise rerank of one's own."""

    score_kind = "logit"

    def __init__(self, fails: bool = False, **attributes: Any) -> None:
        self.fails, self.n_asked, self.most = fails, 0, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def load(self) -> None:
        """Nothing to load."""

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Any:
        self.n_asked += 1
        self.most = max(self.most, len(pairs))
        if self.fails:
            raise TransientError("served", "no connection")
        call.count(tokens=1, cost_usd=0.5)
        return np.zeros(len(pairs))


def service(fails: bool = False) -> Reads:
    return Reads(fails, cost_kind="api", is_remote=True, model=MODEL)


@pytest.fixture(scope="module")
def bm25(shared_root: Path, small_sample: Path) -> Iterator[Pipeline]:
    with Pipeline.compose(
        ["pipeline=bm25", "cache.scores=false", f"storage.root={shared_root}", f"corpus.path={small_sample}"]
    ) as pipeline:
        yield pipeline


def timed_with(
    bm25: Pipeline,
    *stages: Any,
    change: Callable[[StageSpec], StageSpec] = lambda spec: spec,
    remotes: bool = True,
    **given: Any,
) -> Timed:
    timed = Timed(**given)
    specs = [StageSpec("bm25", bm25.graph["bm25"].stage, 20)]
    specs += [change(StageSpec(f"own{place}", stage, 20)) for place, stage in enumerate(stages)]
    with Pipeline(StageGraph.of(specs), bm25.corpus_spec, bm25.storage_root) as own:
        time_own_stages(own, bm25.graph["bm25"], timed, Ways({}, lambda text: len(text) // 4, 0.01, remotes))
    return timed


def test_a_service_is_timed_under_its_model_and_all_that_it_took_is_counted(bm25: Pipeline) -> None:
    stage = service()
    timed = timed_with(bm25, stage)
    assert timed.is_measured(API)
    assert timed.missing == {}
    assert timed.cost_usd == pytest.approx(0.5 * stage.n_asked), "the questions for warmth too"


def test_the_time_of_a_failure_is_not_taken_for_that_of_an_answer(bm25: Pipeline) -> None:
    timed = timed_with(bm25, service(fails=True))
    assert not timed.points[API]
    assert "none of the questions" in timed.missing["api"]
    assert "no connection" in timed.missing["api"]


def test_a_stage_is_timed_whatever_its_gate_lets_through(bm25: Pipeline) -> None:
    stage = Reads(cost_kind="mine")
    timed = timed_with(bm25, stage, change=partial(replace, when=Gate(min_candidates=1000)))
    assert timed.is_measured(("mine", None))
    assert timed.missing == {}
    assert stage.most == 20, "the deeper of both steps"


def test_a_stage_is_timed_to_its_end_and_without_its_stand_in(bm25: Pipeline) -> None:
    stage, stand_in = service(), Reads(cost_kind="mine")
    late = partial(replace, max_ms=0.001, on_error=OnError("fallback", (stand_in,)))  # type: ignore[arg-type]
    timed = timed_with(bm25, stage, change=late)
    assert timed.is_measured(API)
    assert timed.missing == {}
    assert stand_in.n_asked == 0


def test_each_is_timed_by_itself_and_one_that_fails_leaves_the_others(bm25: Pipeline) -> None:
    timed = timed_with(bm25, Reads(fails=True, cost_kind="mine"), service())
    assert timed.is_measured(API)
    assert not timed.is_measured(("mine", None))
    assert set(timed.missing) == {"mine"}
    assert "no connection" in timed.missing["mine"]


class Paid:
    """Somebody else's embedder."""

    is_remote, dim, similarity, model_id = True, 4, "cosine", "paid"
    n_asked = 0

    def load(self) -> None:
        """Asks what the model is."""
        self.n_asked += 1

    def embed(self, texts: Sequence[str], *, kind: str, call: Call) -> Any:
        self.n_asked += 1
        return np.ones((len(texts), self.dim), np.float32)


class Keeps(Reads):
    """Keeps an index of the corpus."""

    def index_settings(self) -> dict[str, str]:
        return {"engine": "of one's own"}

    def index(self, corpus: object, directory: Path, progress: object) -> None:
        raise AssertionError(directory)

    def open(self, corpus: object, directory: Path) -> None:
        raise AssertionError(directory)


def test_of_the_corpus_nothing_but_words_is_indexed_and_nothing_embedded(bm25: Pipeline) -> None:
    embedder = Paid()
    vectors = Reads(cost_kind="bi", needs=frozenset({"vectors"}), embedder=embedder)
    scores = Reads(cost_kind="learns", needs=frozenset({"text", "scores"}))
    stages = [MMRRerank(embedder), vectors, Keeps(cost_kind="keeps"), scores, service()]
    timed = timed_with(bm25, *stages)
    assert embedder.n_asked == vectors.n_asked == scores.n_asked == 0
    assert timed.missing["bi"].startswith("it reads vectors of the whole corpus, of which calibrate embeds nothing; ")
    assert timed.missing["keeps"].startswith("it reads an index of the whole corpus, of which calibrate builds BM25's")
    assert timed.missing["learns"].startswith("it reads scores of the stages before it, and ")
    assert timed.is_measured(API), "a stage after them is timed by itself"


def test_no_service_is_asked_where_that_is_switched_off(bm25: Pipeline) -> None:
    stage = service()
    timed = timed_with(bm25, stage, remotes=False)
    assert stage.n_asked == 0
    assert timed.missing == {"api": "it asks own0 (served), and task.remotes=false"}


def test_stages_of_this_machine_are_timed_beside_a_service_that_may_not_be_asked(bm25: Pipeline) -> None:
    timed = timed_with(bm25, service(), Reads(cost_kind="mine"), remotes=False)
    assert timed.is_measured(("mine", None))
    assert set(timed.missing) == {"api"}


def test_it_is_told_before_that_a_service_is_asked(bm25: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    stage = service()

    def note(event: str, **facts: Any) -> None:
        told.append((facts["service"], facts["most_questions"], stage.n_asked))

    monkeypatch.setattr("orchestrator.calibration.own.log.info", note)
    timed_with(bm25, stage)
    ((name, most, asked_before),) = told
    assert (name, asked_before) == ("own0 (served)", 0)
    assert stage.n_asked <= most == 2 * (3 + 12)


def test_another_model_of_a_measured_or_missing_kind_is_timed(bm25: Pipeline) -> None:
    other = Reads(cost_kind="cross_encoder", model=MODEL)
    missing = {"cross_encoder": "default is not on this machine"}
    timed = timed_with(bm25, other, missing=missing, absent={("cross_encoder", "default")})
    assert timed.is_measured(("cross_encoder", "served"))
    assert timed.missing == {}


def test_a_class_without_a_kind_is_said_and_not_timed(bm25: Pipeline) -> None:
    stage = Reads()
    timed = timed_with(bm25, stage)
    assert timed.missing == {"own0": "its class, Reads, names no cost_kind"}
    assert (stage.n_asked, dict(timed.points)) == (0, {})


@pytest.mark.parametrize("change", [{"queries": "typo.jsonl"}, {"split": "nowhere"}])
def test_questions_that_are_named_and_not_there_are_an_error(bm25: Pipeline, change: dict[str, str]) -> None:
    spec: CorpusSpec = replace(bm25.corpus_spec, **change)
    with Pipeline(bm25.graph, spec, bm25.storage_root) as own, pytest.raises(ConfigError, match=r"corpus\."):
        questions(own)


def test_without_questions_the_first_words_of_documents_stand_in(bm25: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"_id": "a", "text": "one two three"}\n')
    with Pipeline(bm25.graph, CorpusSpec("mine", str(tmp_path / "mine.jsonl")), tmp_path / "home") as own:
        asked, are_real = questions(own)
    assert ([query.text for query in asked], are_real) == (["one two three"], False)
