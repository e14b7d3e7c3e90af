"""A calibration from end to end, small: what is measured, what is said of what is not, and what plan makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.calibration.corpora import write_made_up
from orchestrator.calibration.job import Calibrating, Scale
from orchestrator.calibration.kept import Calibration
from orchestrator.calibration.random_vectors import RandomVectors
from orchestrator.calibration.settings import Part, choose
from orchestrator.calibration.timing import by_length, cut_texts
from orchestrator.pipeline import Pipeline
from orchestrator.types import Call

CARDS = {"sentence-transformers/all-MiniLM-L6-v2": "minilm"}


@pytest.fixture(scope="module")
def measured(shared_root: Path, small_sample: Path) -> tuple[Calibration, Calibrating]:
    storage, corpus = f"storage.root={shared_root}", f"corpus.path={small_sample}"
    with Pipeline.compose(["pipeline=bm25", storage, corpus]) as own:
        job = Calibrating([storage], [], CARDS, Scale(0.1, [corpus], (150, 600)))
        return job.run(own, [corpus]), job


def test_every_kind_on_this_machine_has_a_row(measured: tuple[Calibration, Calibrating]) -> None:
    rows = {(row.kind, row.model): row for row in measured[0].rows}
    kinds = {"bm25", "dense", "fusion", "bi_encoder", "late_interaction", "ltr", "around"}
    assert set(rows) == {(kind, None) for kind in kinds} | {("embed", "minilm")}
    for row in rows.values():
        assert row.p95_factor is not None
        assert row.p95_factor >= 1
        assert row.error is not None
    assert rows["embed", "minilm"].max_length_tokens == 256
    assert rows["embed", "minilm"].parameters_millions == 22.7


def test_what_is_not_at_hand_is_said(measured: tuple[Calibration, Calibrating]) -> None:
    assert measured[1].timed.missing == {"cross_encoder": "cross-encoder/ms-marco-MiniLM-L6-v2 is not on this machine"}


def test_longer_documents_take_longer(measured: tuple[Calibration, Calibrating]) -> None:
    found = {one.tokens: one.per_s for one in measured[0].throughputs}
    assert set(found) == {16, 32, 64, 128, 256}
    assert found[16] > found[256]


def test_settings_were_tried_and_lengths_counted(measured: tuple[Calibration, Calibrating]) -> None:
    (setting,) = measured[0].settings
    assert (setting.part, setting.model) == ("embedder", "minilm")
    assert "as shipped" in setting.tried
    assert len(setting.tried) >= 5
    (corpus,) = measured[0].corpora.values()
    assert len(corpus.lengths.questions) == 60
    assert corpus.lengths.document(10) > corpus.lengths.question()


def test_made_up_corpora_leave_nothing_behind(measured: tuple[Calibration, Calibrating], shared_root: Path) -> None:
    assert not list(shared_root.glob("calibrate-*"))


class Slow:
    """Reads a text in a time that depends on its settings."""

    def __init__(self, batch_tokens: int = 1024, threads: int | None = None) -> None:
        self.batch_tokens, self.threads = batch_tokens, threads

    def embed(self, texts: list[str], kind: str, call: Call) -> None:
        rounds = 400 if self.threads == 1 or self.batch_tokens == 512 else 4000
        for _ in range(rounds):
            np.ones(64).sum()


def test_the_fastest_way_is_chosen_and_a_little_faster_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.calibration.settings.thread_counts", lambda: [1, 2])
    part = Part("embedder", "m", "models.embedder", (), ["a", "b"], "q")
    found = choose(part, lambda words: Slow(threads=1 if words else None), 0.01)
    assert found.values["threads"] == 1
    assert found.gain > 2
    same = choose(part, lambda words: Slow(batch_tokens=512, threads=1), 0.01)
    assert not same.values or same.gain > 1.1


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
