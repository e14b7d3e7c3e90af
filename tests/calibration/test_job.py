"""A calibration from end to end, small: what is measured, what is said of what is not, and what plan makes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from orchestrator.calibration.corpora import write_made_up
from orchestrator.calibration.job import Calibrating
from orchestrator.calibration.networks import time_embedder
from orchestrator.calibration.random_vectors import RandomVectors
from orchestrator.calibration.scale import Scale
from orchestrator.calibration.timed import Timed
from orchestrator.config.words import quote
from orchestrator.costs.kept import Calibration
from orchestrator.costs.settings import BATCH_TOKENS, Part, choose
from orchestrator.costs.timing import by_length, cut_texts
from orchestrator.errors import ConfigError
from orchestrator.models import Model
from orchestrator.pipeline import Pipeline
from orchestrator.types import Call, Document, Query

CARDS = {"sentence-transformers/all-MiniLM-L6-v2": "minilm"}
LOCAL = ["model@models.embedder=local_embedder", "models.embedder.path=mine"]
BY_MODEL = ("embed", "dense", "bi_encoder", "late_interaction")


@pytest.fixture(scope="module")
def home(shared_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a name that Hydra's grammar takes only in quotes; models and vectors are those of the session."""
    root = tmp_path_factory.mktemp("calibrated") / "store (old), the reader's"
    root.mkdir()
    for name in ("models", "vectors"):
        (shared_root / name).mkdir(exist_ok=True)
        (root / name).symlink_to(shared_root / name)
    return root


@pytest.fixture(scope="module")
def measured(home: Path, small_sample: Path) -> tuple[Calibration, Calibrating]:
    corpus = f"corpus.path={small_sample}"
    with Pipeline.compose(["pipeline=bm25", f"storage.root={quote(str(home))}", corpus]) as own:
        words = ["models.embedder.batch_tokens=256"]
        job = Calibrating(words, [], CARDS, Scale(0.01, [corpus], (120,), texts=1, lengths=(16, 256)))
        return job.run(own), job


def test_every_kind_on_this_machine_has_a_row(measured: tuple[Calibration, Calibrating]) -> None:
    rows = {(row.kind, row.model): row for row in measured[0].rows}
    kinds = {"bm25", "dense", "fusion", "bi_encoder", "late_interaction", "ltr", "around"}
    assert set(rows) == {(kind, "minilm" if kind in BY_MODEL else None) for kind in {*kinds, "embed"}}
    for row in rows.values():
        assert row.p95_factor is not None
        assert row.p95_factor >= 1
        assert row.error is not None
    assert rows["embed", "minilm"].max_length_tokens == 256
    assert rows["embed", "minilm"].parameters_millions == 22.7


def test_a_row_says_with_which_settings_it_was_measured(measured: tuple[Calibration, Calibrating]) -> None:
    found, _ = measured
    (embed,) = (row for row in found.rows if row.kind == "embed")
    used = {"batch_tokens": 256, **found.settings[0].values}
    assert embed.settings == {name: value for name, value in used.items() if value is not None}
    assert all(f", {name}={value}" in embed.source for name, value in used.items()), embed.source
    assert (found.machine["device"], found.machine["backend"]) == ("cpu", "onnx")


def test_what_is_not_at_hand_is_said(measured: tuple[Calibration, Calibrating]) -> None:
    assert measured[1].timed.missing == {"cross_encoder": "cross-encoder/ms-marco-MiniLM-L6-v2 is not on this machine"}


def test_longer_documents_take_longer(measured: tuple[Calibration, Calibrating]) -> None:
    found = {one.tokens: one.per_s for one in measured[0].throughputs}
    assert set(found) == {16, 256}
    assert found[16] > found[256]


def test_settings_were_tried_and_lengths_counted(measured: tuple[Calibration, Calibrating]) -> None:
    (setting,) = measured[0].settings
    assert (setting.part, setting.model) == ("embedder", "minilm")
    assert "as configured" in setting.tried
    assert len(setting.tried) >= 5
    (corpus,) = measured[0].corpora.values()
    assert len(corpus.lengths.questions) == 60
    assert corpus.lengths.document(10) > corpus.lengths.question()


def test_made_up_corpora_leave_nothing_behind(measured: tuple[Calibration, Calibrating], home: Path) -> None:
    assert not list(home.glob("calibrate-*"))


def test_what_is_tried_goes_before_what_was_set(measured: tuple[Calibration, Calibrating], home: Path) -> None:
    job = Calibrating(["models.embedder.threads=2", f"storage.root={quote(str(home))}"], [], CARDS)
    for words, threads in ([], 2), (["models.embedder.threads=1"], 1):
        assert job._compose("pipeline=every_kind", *words).graph["dense"].stage.embedder.threads == threads


@pytest.mark.parametrize("words", [LOCAL, ["model@models.embedder=minilm"]])
def test_a_setting_is_tried_whether_the_card_has_its_key_or_not(home: Path, words: list[str]) -> None:
    job = Calibrating([*words, f"storage.root={quote(str(home))}"], [], CARDS)
    tried = Part("embedder", "m", "models.embedder", (), ["a"], "q").words({"threads": 3, "batch_tokens": 77})
    embedder = job._compose("pipeline=every_kind", *tried).graph["dense"].stage.embedder
    assert (embedder.threads, embedder.batch_tokens) == (3, 77)


def test_a_local_model_may_run_in_torch_which_has_no_threads_to_try(home: Path) -> None:
    words = [*LOCAL, "models.embedder._target_=orchestrator.plugins.embed.torch.TorchEmbed"]
    job = Calibrating([*words, f"storage.root={quote(str(home))}"], [], CARDS)
    embedder = job._compose("pipeline=every_kind").graph["dense"].stage.embedder
    assert type(embedder).__name__ == "TorchEmbed"
    assert not hasattr(embedder, "threads")


def test_a_remote_model_is_refused_where_no_service_may_be_asked(tmp_path: Path, small_sample: Path) -> None:
    words = ["model@models.embedder=openai_compatible", "models.embedder.base_url=http://localhost:1"]
    words.append("models.embedder.name=far")
    with Pipeline.compose(["pipeline=bm25", f"storage.root={tmp_path}", f"corpus.path={small_sample}"]) as own:
        job = Calibrating(words, [], CARDS, remotes=False)
        with pytest.raises(ConfigError, match=r"task\.remotes: found false, but .*dense \(far\)"):
            job.run(own)


def test_an_embedder_that_names_no_batches_is_timed() -> None:
    sample = SimpleNamespace(
        corpus=SimpleNamespace(queries=lambda: [Query(f"q{n}", "one two") for n in range(4)], documents=lambda: TEXTS),
        graph={"dense": SimpleNamespace(stage=SimpleNamespace(embedder=Bare()))},
    )
    timed = Timed()
    time_embedder(sample, len, timed, {}, Scale(0.01, lengths=(16,)))  # type: ignore[arg-type]
    assert [(one.model, one.tokens) for one in timed.throughputs] == [("bare", 16)]
    assert timed.cost_usd == pytest.approx(0.25 * Bare.n_asked), "questions and documents"


TEXTS = [Document(str(n), "word " * 40) for n in range(10)]


class Bare:
    """An embedder with a card and a tokenizer, and no batches."""

    model = Model(role="embedder", name="bare")
    n_asked = 0

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [(place, place + 4) for place in range(0, len(text), 5)]

    def embed(self, texts: list[str], kind: str, call: Call) -> None:
        Bare.n_asked += 1
        call.count(cost_usd=0.25)


class Slow:
    """Reads a text in a time that depends on its settings."""

    def __init__(self, batch_tokens: int = 1024, threads: int | None = None) -> None:
        self.batch_tokens, self.threads = batch_tokens, threads

    def embed(self, texts: list[str], kind: str, call: Call) -> None:
        rounds = 400 if getattr(self, "threads", None) == 1 or self.batch_tokens == 512 else 4000
        for _ in range(rounds):
            np.ones(64).sum()


def test_the_fastest_way_is_chosen_and_a_little_faster_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.costs.settings.thread_counts", lambda: [1, 2])
    monkeypatch.setattr("orchestrator.costs.settings.physical_cores", lambda: 2)
    part = Part("embedder", "m", "models.embedder", (), ["a", "b"], "q")
    found = choose(part, Slow(), lambda words: Slow(threads=1), 0.01)
    assert found.values["threads"] == 1
    assert found.gain > 2
    same = choose(part, Slow(batch_tokens=512, threads=1), lambda words: Slow(batch_tokens=512, threads=1), 0.01)
    assert not same.values or same.gain > 1.1


@pytest.mark.parametrize(
    ("configured", "tried"), [(None, [1, 2]), (1, [2, 4]), (2, [1, 4]), (4, [1, 2]), (3, [1, 2, 4])]
)
def test_every_number_of_threads_is_tried_but_the_configured_one(
    monkeypatch: pytest.MonkeyPatch, configured: int | None, tried: list[int]
) -> None:
    monkeypatch.setattr("orchestrator.costs.settings.physical_cores", lambda: 4)
    built: list[str] = []

    def build(words: Sequence[str]) -> Slow:
        built.extend(words)
        return Slow(threads=int(words[0].rpartition("=")[2]))

    found = choose(Part("embedder", "m", "models.embedder", (), ["a"], "q"), Slow(threads=configured), build, 0.0)
    assert built == [f"++models.embedder.threads={threads}" for threads in tried]
    assert next(iter(found.tried)) == "as configured"


def test_all_cores_are_found_faster_than_the_one_that_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.costs.settings.physical_cores", lambda: 4)

    class Parallel(Slow):
        def embed(self, texts: list[str], kind: str, call: Call) -> None:
            time.sleep(0.008 / self.threads)

    part = Part("embedder", "m", "models.embedder", (), ["a"], "q")
    found = choose(part, Parallel(threads=1), lambda words: Parallel(threads=int(words[0][-1])), 0.0)
    assert found.values["threads"] == 4
    assert found.gain > 2


def test_without_a_say_in_threads_batches_alone_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.costs.settings.thread_counts", lambda: [1, 2])
    threadless = Slow()
    del threadless.threads
    found = choose(Part("embedder", "m", "models.embedder", (), ["a"], "q"), threadless, never_built, 0.0)
    assert len(found.tried) == len(BATCH_TOKENS)
    assert set(found.values) <= {"batch_tokens"}


def never_built(words: Sequence[str]) -> Slow:
    raise AssertionError(words)


def test_beside_the_default_only_the_best_and_the_one_tried_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.costs.settings.thread_counts", lambda: [1, 2, 3, 4])
    monkeypatch.setattr("orchestrator.costs.settings.physical_cores", lambda: 4)
    alive: set[int] = set()
    most = []

    class Held(Slow):
        def close(self) -> None:
            alive.discard(self.number)

    def build(words: Sequence[str]) -> Held:
        one = Held(threads=1)
        one.number = len(most)
        alive.add(one.number)
        most.append(len(alive))
        return one

    choose(Part("embedder", "m", "models.embedder", ("openvino",), ["a"], "q"), Slow(), build, 0.0)
    assert most == [1, 2, 2, 2]
    assert not alive


def test_stretches_of_a_text_have_the_length_asked_for() -> None:
    words = [f"w{place:04d}" for place in range(500)]
    text, spans, start = " ".join(words), [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    cut = cut_texts(text, spans, 32, 7)
    assert [len(one.split()) for one in cut] == [32] * 7
    assert len(set(cut)) == 7
    found = list(by_length(lambda texts: None, lambda tokens, n: cut_texts(text, spans, tokens, n), (16, 64), 128, 0.0))
    assert [(tokens, points[0].load.documents, points[0].load.tokens) for tokens, _, points in found] == [
        (16, 8, 128),
        (64, 2, 128),
    ]


def test_a_text_too_short_gives_fewer_stretches_or_none() -> None:
    spans = [(place, place + 1) for place in range(20)]
    assert len(cut_texts("x" * 20, spans, 16, 100)) == 5
    assert cut_texts("x" * 20, spans, 32, 100) == []
    found = by_length(lambda texts: None, lambda tokens, n: cut_texts("x" * 20, spans, tokens, n), (16, 32), 64, 0.0)
    assert [tokens for tokens, _, _ in found] == [16]


def test_a_made_up_corpus_is_as_large_as_asked_and_the_same_each_time(tmp_path: Path) -> None:
    texts = ["The optic nerve carries signals from the eye. High pressure damages it for good."]
    for name in ("one", "two"):
        write_made_up(tmp_path / name, texts, 50)
    one, two = ((tmp_path / name / "corpus.jsonl").read_text() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 50


def test_random_vectors_depend_on_the_text_alone() -> None:
    embedder = RandomVectors(16)
    one, two, again = embedder.embed(["a", "b", "a"], kind="query", call=Call())
    assert np.array_equal(one, again)
    assert not np.array_equal(one, two)
    assert np.linalg.norm(one) == pytest.approx(1)
