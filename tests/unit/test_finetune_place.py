"""Where a tuned model is written, and what a half-written one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.finetune import place
from orchestrator.finetune.card import NOT_STATED, data_licence
from orchestrator.finetune.learning import prepare_work
from orchestrator.learned.record import learned_hashes, write_record
from orchestrator.models import Model
from orchestrator.models.files import needed_files

CARD = Model(role="reranker", name="org/base")


def test_the_folder_is_named_after_corpus_kind_and_base(tmp_path: Path) -> None:
    assert place.target_folder(tmp_path, "corpus-1", "cross_encoder", CARD, None) == (
        tmp_path / "tuned" / "corpus-1" / "cross_encoder-base"
    )
    assert place.target_folder(tmp_path, "corpus-1", "cross_encoder", CARD, str(tmp_path / "mine")) == tmp_path / "mine"


def tuned(folder: Path, mark: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mark").write_text(mark)
    write_record(folder, {"kind": "cross_encoder", "query_hashes": [mark]})
    return folder


def test_a_new_model_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    target = tuned(tmp_path / "model", "old")
    place.check_target(target, tmp_path / "base")
    with place.written(target) as partial:
        assert partial.name == target.name
        assert (target / "mark").read_text() == "old"
        tuned(partial, "new")
    assert (target / "mark").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_model(tmp_path: Path) -> None:
    target = tuned(tmp_path / "model", "old")
    stopped = KeyboardInterrupt()

    def write() -> None:
        with place.written(target) as partial:
            tuned(partial, "new")
            raise stopped

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (target / "mark").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    tuned(tmp_path / ".model.partial-1-a" / ".old", "old")
    with pytest.raises(KeyboardInterrupt), place.written(target):
        raise KeyboardInterrupt
    assert (target / "mark").read_text() == "old"


def test_other_peoples_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"holds notes\.txt; expected an empty folder"):
        place.check_target(tmp_path, tmp_path / "base")
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        place.check_target(tmp_path / "notes.txt", tmp_path / "base")
    with pytest.raises(ConfigError, match="holds the model that the training starts from"):
        place.check_target(tmp_path, tmp_path)


def test_the_record_is_no_part_of_the_model() -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "training.json", "README.md"]
    assert needed_files(names) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_stage_tells_what_its_model_learned_from(tmp_path: Path) -> None:
    class Holder:
        model = Model(role="reranker", path=str(tuned(tmp_path / "model", "hash")))

    class Stage:
        embedder = Holder()

    assert learned_hashes(Holder()) == learned_hashes(Stage()) == {"hash"}
    Holder.model = Model(role="reranker", path=str(tmp_path))
    assert learned_hashes(Holder()) == frozenset()


def test_a_checkpoint_goes_on_only_with_the_same_key_and_when_it_is_whole(tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert prepare_work(work, {"seed": 1}) is None
    for step, whole in ((4, True), (8, True), (12, False)):
        (work / f"checkpoint-{step}").mkdir()
        if whole:
            (work / f"checkpoint-{step}" / "trainer_state.json").write_text('{"global_step": 1}')
    assert prepare_work(work, {"seed": 1}) == work / "checkpoint-8"
    assert not (work / "checkpoint-12").exists()
    assert prepare_work(work, {"seed": 2}) is None
    assert not list(work.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("# x\n\n| licence | Apache-2.0 (repository); articles CC BY |\n", "Apache-2.0 (repository); articles CC BY"),
        ("# x\n\nLicense: MIT\n", "MIT"),
        ("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"),
        ("# Source and licence\n\nNothing said.\n", NOT_STATED),
        (None, NOT_STATED),
    ],
)
def test_the_licence_of_the_data_is_read_from_its_readme(readme: str | None, expected: str, tmp_path: Path) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert data_licence(tmp_path) == expected
