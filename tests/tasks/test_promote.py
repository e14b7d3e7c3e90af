"""`promote=if_better`: a model serves only where it beats what serves, on queries that neither learned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

FAST = ["learner.rounds=40", "learner.early_stopping_rounds=15", "learner.learning_rate=0.3", "learner.max_depth=3"]
ASKED = ["held_out=test", "promote=if_better", "format=json"]


def words_for(corpus: Path, model: Path | None = None) -> list[str]:
    path = [f"pipeline.stages.fused.use.path={model}"] if model else []
    return ["pipeline=lexical", "corpus.language=en", f"corpus.path={corpus}", *path]


def promotion(done: object) -> dict:
    assert done.code == 0, done.err  # type: ignore[attr-defined]
    return json.loads(done.out)["promotion"]  # type: ignore[attr-defined]


def models(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.ubj")}


def test_the_first_has_to_beat_the_simpler_systems_and_the_next_the_first(
    orchestrate: Callable, write_judged: Callable, storage_root: Path
) -> None:
    words = ["train", "fusion", *words_for(write_judged()), *FAST, *ASKED]
    first = promotion(orchestrate(*words))
    assert first["promoted"]
    assert "the best of the rest (no model serves there)" in first["words"]
    kept = models(storage_root / "trained")
    assert len(kept) == 1
    second = promotion(orchestrate(*words, "seed=8"))
    assert not second["promoted"]
    assert (
        "is not better beyond chance: nDCG@10 1.0000 against 1.0000 of the model that serves on 20" in second["words"]
    )
    assert second["words"].endswith("The one that serves stays.")
    assert models(storage_root / "trained") == kept
    candidate = Path(second["candidate"])
    assert len(models(candidate)) == 1
    served = orchestrate("run", "tell me about zeta41x", *words[2:5], f"pipeline.stages.fused.use.path={candidate}")
    assert served.code == 0, served.err


def test_where_it_wins_nothing_there_is_still_none(
    orchestrate: Callable, write_judged: Callable, storage_root: Path
) -> None:
    words = words_for(write_judged(signal=False))
    done = orchestrate("train", "fusion", *words, *FAST, "held_out=test", "promote=if_better")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "It is not put there, and there is still none." in text
    assert "candidate, to try it: pipeline.stages.fused.use.path=" in text
    assert models(storage_root / "trained") == {}
    assert orchestrate("run", "tell me about zeta1x", *words).code == 1


def test_a_better_one_takes_the_place_of_what_serves(
    orchestrate: Callable, write_judged: Callable, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    poor = words_for(write_judged(signal=False, name="noise"), model)
    assert orchestrate("train", "fusion", *poor, *FAST).code == 0
    before = models(model)
    better = promotion(orchestrate("train", "fusion", *words_for(write_judged(name="signal"), model), *FAST, *ASKED))
    assert better["promoted"]
    assert "of the model that serves on 20 queries that neither learned from" in better["words"]
    assert models(model).keys() != before.keys()
    assert list(models(model).values()) == list(models(Path(better["candidate"])).values())


@pytest.mark.slow
def test_a_model_that_learned_from_the_queries_held_out_is_not_compared(
    orchestrate: Callable, write_judged: Callable, storage_root: Path
) -> None:
    words = words_for(write_judged())
    assert orchestrate("train", "fusion", *words, *FAST, "corpus.split=test", "held_out=0").code == 0
    kept = models(storage_root / "trained")
    found = promotion(orchestrate("train", "fusion", *words, *FAST, *ASKED))
    assert not found["promoted"]
    assert found["words"] == (
        "The model of 'fused' that serves stays: it learned from the queries held out, so that nothing compares them."
    )
    assert models(storage_root / "trained") == kept


def test_a_model_of_another_stack_is_left_alone(orchestrate: Callable, write_judged: Callable, tmp_path: Path) -> None:
    corpus, model = write_judged(), tmp_path / "model"
    words = words_for(corpus, model)
    assert orchestrate("train", "fusion", *words, *FAST, "pipeline.stages.bm25.use.k1=2.0").code == 0
    kept = models(model)
    found = promotion(orchestrate("train", "fusion", *words, *FAST, *ASKED))
    assert not found["promoted"]
    assert "a model for another stack lies there" in found["words"]
    assert "promote=always replaces it, or take another path (pipeline.stages.fused.use.path)." in found["words"]
    assert models(model) == kept
    assert len(models(Path(found["candidate"]))) == 1


@pytest.mark.slow
def test_a_damaged_model_is_no_rival(orchestrate: Callable, write_judged: Callable, tmp_path: Path) -> None:
    model = tmp_path / "model"
    words = words_for(write_judged(), model)
    assert orchestrate("train", "fusion", *words, *FAST).code == 0
    for path in models(model):
        path.write_bytes(b"no model")
    found = promotion(orchestrate("train", "fusion", *words, *FAST, *ASKED))
    assert found["promoted"]
    assert "(the model there cannot be read)" in found["words"]
    assert orchestrate("run", "tell me about zeta41x", *words).code == 0


@pytest.mark.parametrize("how", ["always", "if_better"])
def test_without_queries_held_out_nothing_is_known(
    how: str, orchestrate: Callable, write_judged: Callable, storage_root: Path
) -> None:
    done = orchestrate("train", "fusion", *words_for(write_judged()), *FAST, "held_out=0", f"promote={how}")
    assert done.code == 0, done.err
    assert bool(models(storage_root / "trained")) == (how == "always")
