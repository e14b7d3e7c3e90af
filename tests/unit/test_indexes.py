"""An index is built when it has to be, told why, switched whole, and never replaces something else."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import storage
from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import IndexStateError
from orchestrator.learned.indexes import OpenedIndex, open_index
from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.types import Call, Query

TEXTS = ["glaucoma harms the optic nerve", "vitamin C and the eye", "pressure in the eye, glaucoma and glaucoma"]
WriteCorpus = Callable[..., Path]


@pytest.fixture
def corpora(write_corpus: WriteCorpus, storage_root: Path) -> Iterator[Callable[..., DiskCorpus]]:
    opened: list[DiskCorpus] = []

    def open_(texts: list[str] = TEXTS, name: str = "small") -> DiskCorpus:
        folder = write_corpus([{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)])
        opened.append(open_corpus(CorpusSpec(name, str(folder)), storage_root))
        return opened[-1]

    yield open_
    for corpus in opened:
        corpus.close()


class Opened:
    """A BM25 stage opened over a corpus, with what was told on the way."""

    def __init__(self, corpus: DiskCorpus, root: Path, k1: float = 0.9, **options: Any) -> None:
        self.reasons: list[str] = []
        self.recall = BM25Recall("en", k1=k1)
        self.recall.load()
        self.index: OpenedIndex = open_index(self.recall, corpus, root, "bm25", on_build=self.reasons.append, **options)

    def search(self, text: str) -> list[str]:
        return [doc_id for doc_id, _ in self.recall.retrieve(Query("q", text), 10, Call())]


def test_a_missing_index_is_built_once(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    first = Opened(corpus, storage_root)
    assert (first.reasons, first.index.built) == (["missing"], "missing")
    assert first.search("glaucoma") == ["d2", "d0"]
    second = Opened(corpus, storage_root, verify=True)
    assert (second.reasons, second.index.built) == ([], None)
    assert second.index.directory == first.index.directory
    assert second.search("glaucoma") == ["d2", "d0"]


def test_other_settings_are_another_index_beside_it(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    first, other = Opened(corpus, storage_root), Opened(corpus, storage_root, k1=1.2)
    assert other.reasons == ["missing"]
    assert other.index.directory.parent != first.index.directory.parent
    assert Opened(corpus, storage_root).reasons == []


def test_a_changed_corpus_is_indexed_again(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    old = Opened(corpora(), storage_root)
    new = Opened(corpora([*TEXTS, "glaucoma, glaucoma, glaucoma"]), storage_root)
    assert new.reasons == ["the corpus changed"]
    assert new.search("glaucoma") == ["d3", "d2", "d0"]
    assert not old.index.directory.exists()
    # What is open stays usable although its folder is gone.
    assert old.search("glaucoma") == ["d2", "d0"]


def test_force_builds_again(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    first, forced = Opened(corpus, storage_root), Opened(corpus, storage_root, force=True)
    assert forced.reasons == ["forced"]
    assert forced.index.directory != first.index.directory
    assert Opened(corpus, storage_root).reasons == []


def files_of(index: OpenedIndex) -> list[Path]:
    files = (path for path in index.directory.rglob("*") if path.is_file())
    return sorted(path for path in files if path.name != "manifest.json")


def test_every_missing_or_cut_file_is_noticed_and_built_again(
    corpora: Callable[..., DiskCorpus], storage_root: Path
) -> None:
    corpus = corpora()
    names = [path.name for path in files_of(Opened(corpus, storage_root).index)]
    assert len(names) > 3
    (Opened(corpus, storage_root).index.directory / "manifest.json").write_text("{")
    assert Opened(corpus, storage_root).reasons == ["damaged: no manifest that this version can read"]
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])):
        for name in names:
            damage(Opened(corpus, storage_root).index.directory / name)
            again = Opened(corpus, storage_root)
            assert len(again.reasons) == 1
            assert again.reasons[0].startswith("damaged: ")
            assert name in again.reasons[0]
            assert again.search("glaucoma") == ["d2", "d0"]


def test_changed_bytes_are_noticed_with_verify(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    largest = max(files_of(Opened(corpus, storage_root).index), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 0x01
    largest.write_bytes(content)
    assert Opened(corpus, storage_root, verify=True).reasons == [f"damaged: {largest.name} is not what was written"]


def test_an_index_that_does_not_open_is_built_again(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    directory = Opened(corpus, storage_root).index.directory
    for path in directory.glob("*.npy"):
        path.write_bytes(b"\x00" * path.stat().st_size)
    again = Opened(corpus, storage_root)
    assert again.reasons[0].startswith(f"damaged: BM25 index in {directory}")
    assert again.search("glaucoma") == ["d2", "d0"]


def test_a_path_of_the_users_holds_the_index(
    corpora: Callable[..., DiskCorpus], storage_root: Path, tmp_path: Path
) -> None:
    corpus, path = corpora(), tmp_path / "mine"
    first = Opened(corpus, storage_root, path=path)
    assert first.index.directory.parent == path
    assert Opened(corpus, storage_root, path=path).reasons == []
    assert Opened(corpora([*TEXTS, "eye"]), storage_root, path=path).reasons == ["the corpus changed"]


def test_an_index_of_other_settings_in_a_path_is_named_and_kept(
    corpora: Callable[..., DiskCorpus], storage_root: Path, tmp_path: Path
) -> None:
    corpus, path = corpora(), tmp_path / "mine"
    kept = Opened(corpus, storage_root, path=path).index.directory
    with pytest.raises(IndexStateError) as error:
        Opened(corpora(name="other"), storage_root, k1=1.2, path=path)
    lines = str(error.value).splitlines()
    assert lines == [
        f"pipeline.stages.bm25.use.path: {path} holds an index of other settings",
        "  k1: found 0.9, expected 1.2",
        '  corpus: found "small", expected "other"',
        "choices: another path, or replace it with 'orchestrate index force=true'",
    ]
    assert kept.is_dir()
    assert Opened(corpus, storage_root, k1=1.2, path=path, force=True).reasons == ["forced"]


@pytest.mark.parametrize("content", ["thesis.doc", "pictures/cat.jpg"])
def test_a_path_with_other_things_in_it_is_refused(
    corpora: Callable[..., DiskCorpus], storage_root: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "documents"
    (path / content).parent.mkdir(parents=True)
    (path / content).write_text("precious")
    for force in (False, True):
        with pytest.raises(IndexStateError, match=f"holds {content.split('/')[0]}; expected an empty folder"):
            Opened(corpora(), storage_root, path=path, force=force)
    assert [entry.name for entry in path.iterdir()] == [content.split("/")[0]]
    with pytest.raises(IndexStateError, match="is a file; expected a folder"):
        Opened(corpora(), storage_root, path=path / content)


class Interrupted(BM25Recall):
    """Stops when the index is written but not yet complete."""

    def index(self, *args: Any) -> None:
        super().index(*args)
        raise KeyboardInterrupt


def test_ctrl_c_during_a_build_leaves_the_old_index(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    first = Opened(corpus, storage_root)
    with pytest.raises(KeyboardInterrupt):
        open_index(Interrupted("en"), corpus, storage_root, "bm25", force=True)
    again = Opened(corpus, storage_root, verify=True)
    assert (again.reasons, again.index.directory) == ([], first.index.directory)


_KILLED = """
import sys, time
from pathlib import Path
from orchestrator.corpora.corpus import open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.learned.indexes import open_index
from orchestrator.plugins.recall.bm25 import BM25Recall
class Slow(BM25Recall):
    def index(self, *args):
        super().index(*args)
        print("written", flush=True)
        time.sleep(60)
recall = Slow("en")
recall.load()
corpus = open_corpus(CorpusSpec(sys.argv[3], sys.argv[2]), Path(sys.argv[1]))
open_index(recall, corpus, Path(sys.argv[1]), "bm25", force=True)
"""


def test_a_kill_during_a_build_leaves_the_old_index(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    first = Opened(corpus, storage_root)
    command = [sys.executable, "-c", _KILLED, str(storage_root), str(corpus.source.root), corpus.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    again = Opened(corpus, storage_root, verify=True)
    assert (again.reasons, again.index.directory) == ([], first.index.directory)
    Opened(corpus, storage_root, force=True)
    assert len([path for path in first.index.directory.parent.iterdir() if path.is_dir()]) == 1


def test_readers_and_builders_at_once_all_get_a_whole_index(
    corpora: Callable[..., DiskCorpus], storage_root: Path
) -> None:
    corpus = corpora()
    Opened(corpus, storage_root)
    wrong: list[object] = []

    def work(force: bool) -> None:
        try:
            for _ in range(6):
                found = Opened(corpus, storage_root, force=force, verify=True).search("glaucoma")
                if found != ["d2", "d0"]:
                    wrong.append(found)
        except BaseException as error:  # noqa: BLE001 - a thread would swallow it
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(place == 0,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_manifest_says_what_the_index_is(corpora: Callable[..., DiskCorpus], storage_root: Path) -> None:
    corpus = corpora()
    directory = Opened(corpus, storage_root).index.directory
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["settings"]["k1"] == 0.9
    assert (manifest["corpus"], manifest["content_hash"], manifest["n_documents"]) == ("small", corpus.content_hash, 3)
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"size": (directory / name).stat().st_size, "digest": storage.file_digest(directory / name)}
    shutil.rmtree(directory)
    assert Opened(corpus, storage_root).reasons == ["missing"]
