"""Vectors are computed once per text and model, survive kills, and damage is found."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.sources import GivenDocuments
from orchestrator.errors import CallCancelledError, DataError, StageError
from orchestrator.keys import KeyTable, as_keys, first_of_each, text_keys
from orchestrator.rows.vectors import VectorStore, open_vectors, vectors_for_texts
from orchestrator.types import Call, Document

Embedder = Any  # TrigramEmbed of conftest.py, which importlib mode does not let a test import
Make = Callable[..., DiskCorpus]


@pytest.fixture
def make_corpus(write_corpus: Callable[..., Path], storage_root: Path, request: pytest.FixtureRequest) -> Make:
    def make(texts: list[str], name: str = "beir") -> DiskCorpus:
        folder = write_corpus([{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)], name=name)
        corpus = open_corpus(CorpusSpec(name, str(folder)), storage_root)
        request.addfinalizer(corpus.close)
        return corpus

    return make


def texts(n: int, word: str = "text") -> list[str]:
    return [f"{word} number {i} " * (1 + i % 7) for i in range(n)]


def expected(embedder: Embedder, of: list[str]) -> np.ndarray:
    return np.stack([embedder.vector(text) for text in of])


def all_rows(vectors: Any, size: int) -> np.ndarray:
    starts, blocks = zip(*vectors.blocks(size), strict=True)
    assert list(starts) == list(range(0, len(vectors), size))
    return np.concatenate(blocks)


def test_each_row_belongs_to_its_document(make_corpus: Make, embedder: Embedder) -> None:
    wanted = texts(2500)
    corpus = make_corpus(wanted)
    vectors = corpus.vectors(embedder)
    assert (vectors.dim, len(vectors)) == (32, 2500)
    for size in (1, 1000, 2500, 9999):
        np.testing.assert_array_equal(all_rows(vectors, size), expected(embedder, wanted))
    some = np.array([2499, 0, 7, 7])
    np.testing.assert_array_equal(vectors.rows(some), expected(embedder, [wanted[i] for i in some]))
    np.testing.assert_array_equal(vectors.take(["d9", "d1"]), expected(embedder, [wanted[9], wanted[1]]))
    with pytest.raises(DataError, match="1 of 2 ids unknown: 'nobody'"):
        vectors.take(["d1", "nobody"])


def test_blocks_of_a_fresh_corpus_are_views_and_rows_are_copies(make_corpus: Make, embedder: Embedder) -> None:
    vectors = make_corpus(texts(50)).vectors(embedder)
    blocks = [block for _, block in vectors.blocks(20)]
    whole = next(iter(vectors.blocks(50)))[1]
    assert all(np.shares_memory(whole, block) for block in blocks)
    assert not whole.flags.writeable
    assert vectors.rows(np.array([1])).flags.writeable


def test_equal_texts_are_embedded_once_and_share_a_row(make_corpus: Make, embedder: Embedder) -> None:
    wanted = [*texts(30), *texts(30)[::-1], "one more"]
    vectors = make_corpus(wanted).vectors(embedder)
    assert sorted(embedder.seen) == sorted({*wanted})
    np.testing.assert_array_equal(all_rows(vectors, 8), expected(embedder, wanted))


def test_only_new_texts_are_embedded_after_a_change(make_corpus: Make, embedder: Embedder) -> None:
    before = texts(40)
    make_corpus(before).vectors(embedder)
    embedder.seen.clear()
    after = [before[5], "changed", *before[20:], "added", before[0]]
    vectors = make_corpus(after).vectors(embedder)
    assert sorted(embedder.seen) == ["added", "changed"]
    np.testing.assert_array_equal(all_rows(vectors, 3), expected(embedder, after))


def test_vectors_are_kept_for_the_next_process(make_corpus: Make, embedder: Embedder, storage_root: Path) -> None:
    corpus = make_corpus(texts(40))
    corpus.vectors(embedder)
    embedder.seen.clear()
    again = VectorStore(storage_root, embedder.model_id, embedder.dim).ensure(corpus, embedder)
    assert embedder.seen == []
    np.testing.assert_array_equal(all_rows(again, 7), expected(embedder, texts(40)))


def test_another_model_has_other_vectors(make_corpus: Make, make_embedder: Callable[..., Embedder]) -> None:
    corpus = make_corpus(texts(5))
    small, large = make_embedder(8, "small"), make_embedder(64, "large")
    assert corpus.vectors(small).dim == 8
    assert corpus.vectors(large).dim == 64
    np.testing.assert_array_equal(all_rows(corpus.vectors(small), 5), expected(small, texts(5)))


def test_long_names_that_begin_alike_do_not_collide(storage_root: Path) -> None:
    folders = {VectorStore(storage_root, "x" * 200 + end, 4).directory for end in "ab"}
    assert len(folders) == 2


def test_progress_ends_at_the_total_and_counts_missing_texts(make_corpus: Make, embedder: Embedder) -> None:
    told: list[tuple[str, int, int]] = []
    make_corpus(texts(2500)).vectors(embedder, lambda *step: told.append(step))
    assert told[-1] == ("embed", 2500, 2500)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert len(told) >= 2500 // 256


def test_batches_hold_texts_of_like_length(make_corpus: Make, embedder: Embedder) -> None:
    make_corpus(texts(1000)).vectors(embedder)
    lengths = [len(text) for text in embedder.seen]
    assert lengths == sorted(lengths)


def test_ctrl_c_keeps_the_finished_windows(make_corpus: Make, embedder: Embedder) -> None:
    wanted = texts(3000)
    corpus = make_corpus(wanted)
    embedder.fail_after = 2048
    with pytest.raises(KeyboardInterrupt):
        corpus.vectors(embedder)
    embedder.fail_after = None
    embedder.seen.clear()
    vectors = corpus.vectors(embedder)
    assert len(embedder.seen) == 3000 - 2048
    np.testing.assert_array_equal(all_rows(vectors, 999), expected(embedder, wanted))


def test_texts_in_no_corpus_are_looked_up_embedded_and_kept(
    make_corpus: Make, embedder: Embedder, storage_root: Path
) -> None:
    make_corpus(texts(5)).vectors(embedder)
    embedder.seen.clear()
    asked = ["mine", texts(5)[3], "mine", "yours"]
    np.testing.assert_array_equal(vectors_for_texts(storage_root, embedder, asked), expected(embedder, asked))
    assert sorted(embedder.seen) == ["mine", "yours"]
    vectors_for_texts(storage_root, embedder, asked, Call())
    assert len(embedder.seen) == 2
    assert vectors_for_texts(storage_root, embedder, []).shape == (0, 32)


def test_embedding_what_a_caller_brings_ends_with_its_call_and_keeps_what_is_done(
    embedder: Embedder, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = GivenDocuments([Document(str(i), text) for i, text in enumerate(texts(1000))], storage_root)
    ids, embed = [str(i) for i in range(1000)], embedder.embed

    def counted(of: list[str], *, kind: str, call: Call) -> np.ndarray:
        call.count(tokens=len(of))
        if call.tokens > 300:
            call.cancel()
        return embed(of, kind=kind, call=call)  # type: ignore[no-any-return]

    monkeypatch.setattr(embedder, "embed", counted)
    call = Call()
    with pytest.raises(CallCancelledError, match=r"of 1000 texts were embedded"):
        brought.vectors(embedder, ids, call)
    assert 300 < call.tokens < 1000
    first, rest = [str(i) for i in range(call.tokens)], Call()
    np.testing.assert_array_equal(brought.vectors(embedder, first, rest), expected(embedder, texts(1000))[: len(first)])
    assert rest.tokens == 0, "kept"


def folder_of(root: Path, embedder: Embedder) -> Path:
    return VectorStore(root, embedder.model_id, embedder.dim).directory


@pytest.mark.parametrize("name", ["vectors.f32", "keys.bin", "blocks.bin"])
def test_a_torn_tail_is_not_seen_and_cut_off(
    make_corpus: Make, embedder: Embedder, storage_root: Path, name: str
) -> None:
    make_corpus(texts(10)).vectors(embedder)
    folder = folder_of(storage_root, embedder)
    for torn in ("vectors.f32", "keys.bin", name):
        with open(folder / torn, "ab") as file:
            file.write(b"\x01" * 13)
    more = texts(25)
    vectors = make_corpus(more, "second").vectors(embedder)
    np.testing.assert_array_equal(all_rows(vectors, 25), expected(embedder, more))
    store = VectorStore(storage_root, embedder.model_id, embedder.dim)
    assert store.verify() is None
    assert (folder / "vectors.f32").stat().st_size == len(store) * 32 * 4
    assert len(store) == 25


def test_a_last_record_of_zeros_counts_as_torn(make_corpus: Make, embedder: Embedder, storage_root: Path) -> None:
    make_corpus(texts(10)).vectors(embedder)
    with open(folder_of(storage_root, embedder) / "blocks.bin", "ab") as file:
        file.write(bytes(24))
    assert len(VectorStore(storage_root, embedder.model_id, embedder.dim)) == 10


def test_what_others_have_mapped_is_not_overwritten_where_the_last_record_is_damaged(
    make_corpus: Make, embedder: Embedder, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.rows.text_rows._READ_WHOLE", -1)
    mapped = make_corpus(texts(10)).vectors(embedder)
    with open(folder_of(storage_root, embedder) / "blocks.bin", "r+b") as file:
        file.write(b"\x55")
    other = VectorStore(storage_root, embedder.model_id, embedder.dim)
    assert len(other) == 0
    other.append(text_keys(texts(10, "another")), np.ones((10, 32), np.float32))
    np.testing.assert_array_equal(all_rows(mapped, 10), expected(embedder, texts(10)))
    assert len(VectorStore(storage_root, embedder.model_id, embedder.dim)) == 10


_KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from orchestrator.keys import text_keys
from orchestrator.rows.vectors import VectorStore
store = VectorStore(Path(sys.argv[1]), "model", 4)
number = 0
while True:
    names = [f"{number}-{row}" for row in range(50)]
    store.append(text_keys(names), np.full((50, 4), number, dtype=np.float32))
    number += 1
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_of_appending_leaves_whole_blocks(storage_root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(storage_root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        finished = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.send_signal(signal.SIGKILL)
    store = VectorStore(storage_root, "model", 4)
    assert store.verify() is None
    assert len(store) % 50 == 0
    assert len(store) >= finished * 50
    rows = store.find(text_keys([f"{number}-{row}" for number in range(finished) for row in range(50)]))
    assert rows.tolist() == list(range(finished * 50))


def test_two_writers_at_once_keep_every_text_once(storage_root: Path) -> None:
    def write(store: VectorStore, start: int) -> None:
        for first in range(start, start + 200, 10):
            names = [str(number) for number in range(first, first + 10)]
            store.append(text_keys(names), np.array([[float(name)] * 4 for name in names], dtype=np.float32))

    stores = [VectorStore(storage_root, "model", 4) for _ in range(2)]
    threads = [threading.Thread(target=write, args=(store, 100 * place)) for place, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(VectorStore(storage_root, "model", 4)), *map(len, stores)][0] == 300
    for store in stores:
        assert store.verify() is None
        rows = store.find(text_keys([str(number) for number in range(300)]))
        assert sorted(rows.tolist()) == list(range(300))


def test_changed_bytes_are_told_by_verify_and_only_their_append_is_embedded_again(
    make_corpus: Make, embedder: Embedder, storage_root: Path
) -> None:
    wanted = texts(2000)
    corpus = make_corpus(wanted)
    before = corpus.vectors(embedder)
    store = open_vectors(storage_root, embedder)
    assert store.verify() is None
    with open(store.directory / "vectors.f32", "r+b") as file:
        file.seek(1500 * 32 * 4)
        file.write(b"\xff\xff\xff\x7f")
    with capture_logs() as events:
        assert store.verify() == "rows 1024 to 1999 are not what was written"
    assert [(event["event"], event["kept"]) for event in events] == [("vectors.rebuilt", 1024)]
    assert store.verify() is None
    embedder.seen.clear()
    corpus.forget_vectors()
    np.testing.assert_array_equal(all_rows(corpus.vectors(embedder), 999), expected(embedder, wanted))
    assert sorted(embedder.seen) == sorted(wanted[1024:])
    assert not np.isfinite(all_rows(before, 999)).all(), "who has the old rows mapped keeps them"


@pytest.mark.parametrize(
    ("name", "content", "reason", "kept"),
    [
        ("vectors.f32", b"", r"vectors.f32 has 0 bytes; expected at least 3200", 0),
        ("vectors.f32", bytes(1280), r"vectors.f32 has 1280 bytes; expected at least 3200", 0),
        ("vectors.f32", bytes(3200), r"rows 0 to 9 are not what was written", 0),
        ("keys.bin", b"x" * 399, r"keys.bin has 399 bytes; expected at least 400", 0),
        ("blocks.bin", b"x" * 72, r"record 0 of blocks.bin is not what was written", 0),
        ("meta.json", b"{", r"meta.json cannot be read .*", 25),
        ("meta.json", b'{"dim": 3}', r"meta.json says {'dim': 3}; expected {'format': 1, .*'dim': 32}", 0),
        (".", b"", r"a file; expected a folder", 0),
    ],
)
def test_a_damaged_store_is_opened_without_what_is_damaged(
    make_corpus: Make, embedder: Embedder, storage_root: Path, name: str, content: bytes, reason: str, kept: int
) -> None:
    make_corpus(texts(10)).vectors(embedder)
    make_corpus(texts(25), "more").vectors(embedder)
    folder = folder_of(storage_root, embedder)
    if name == ".":
        shutil.rmtree(folder)
    elif name == "vectors.f32":
        content += (folder / name).read_bytes()[len(content) :] if len(content) > 1280 else b""
    (folder / name).write_bytes(content)
    with capture_logs() as events:
        store = VectorStore(storage_root, embedder.model_id, embedder.dim)
    (event,) = events
    assert (event["event"], event["log_level"], event["folder"]) == ("vectors.rebuilt", "warning", str(folder))
    assert re.fullmatch(reason, event["reason"])
    assert (event["kept"], len(store)) == (kept, kept)
    embedder.seen.clear()
    corpus = make_corpus(texts(25), "again")
    np.testing.assert_array_equal(all_rows(store.ensure(corpus, embedder), 9), expected(embedder, texts(25)))
    assert len(embedder.seen) == 25 - kept
    assert store.verify() is None
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(f".{folder.name}")] == [
        folder.name
    ]


def test_rows_before_and_after_the_damage_are_kept(make_corpus: Make, embedder: Embedder, storage_root: Path) -> None:
    for n in (10, 20, 30, 40):
        make_corpus(texts(n), f"first {n}").vectors(embedder)
    folder = folder_of(storage_root, embedder)
    with open(folder / "blocks.bin", "r+b") as file:
        file.seek(24 + 3)
        file.write(b"\x55")
    with capture_logs() as events:
        store = VectorStore(storage_root, embedder.model_id, embedder.dim)
    assert [(event["reason"], event["kept"]) for event in events] == [
        ("record 1 of blocks.bin is not what was written", 30)
    ]
    found = store.find(text_keys(texts(40)))
    assert (found[:10] >= 0).all()
    assert (found[10:20] == -1).all()
    assert (found[20:] >= 0).all()


def test_damage_is_noticed_by_one_who_has_the_store_open(
    make_corpus: Make, embedder: Embedder, storage_root: Path
) -> None:
    make_corpus(texts(10)).vectors(embedder)
    store, other = (VectorStore(storage_root, embedder.model_id, embedder.dim) for _ in range(2))
    other.append(text_keys(["one more"]), np.ones((1, 32), np.float32))
    (store.directory / "vectors.f32").write_bytes(b"short")
    with capture_logs() as events:
        assert store.find(text_keys(texts(10))).tolist() == [-1] * 10
    assert [event["event"] for event in events] == ["vectors.rebuilt"]
    corpus = make_corpus(texts(10), "again")
    for each in (store, other):
        np.testing.assert_array_equal(all_rows(each.ensure(corpus, embedder), 9), expected(embedder, texts(10)))


def test_a_store_that_was_replaced_is_never_mixed_with_the_old_one(embedder: Embedder, storage_root: Path) -> None:
    """Also where the new files were given the old ones' numbers by the file system."""
    old, new = (VectorStore(storage_root, embedder.model_id, embedder.dim) for _ in range(2))
    for turn in range(5):
        mine, others = [f"old {turn} {i}" for i in range(20)], [f"new {turn} {i}" for i in range(30)]
        np.testing.assert_array_equal(old.vectors_for_texts(mine, embedder), expected(embedder, mine))
        shutil.rmtree(old.directory)
        np.testing.assert_array_equal(new.vectors_for_texts(others, embedder), expected(embedder, others))
        both = [*mine, *others]
        np.testing.assert_array_equal(old.vectors_for_texts(both, embedder), expected(embedder, both))


def test_a_store_that_vanishes_while_it_is_filled_is_filled_again(
    make_corpus: Make, embedder: Embedder, storage_root: Path
) -> None:
    wanted, vanished = texts(2500), []

    def vanish(what: str, done: int, total: int) -> None:
        if done > 1100 and not vanished:
            vanished.append(done)
            shutil.rmtree(folder_of(storage_root, embedder))

    vectors = make_corpus(wanted).vectors(embedder, vanish)
    assert vanished
    np.testing.assert_array_equal(all_rows(vectors, 999), expected(embedder, wanted))


def test_the_day_of_the_last_use_is_noted(make_corpus: Make, embedder: Embedder, storage_root: Path) -> None:
    corpus = make_corpus(texts(3))
    corpus.vectors(embedder)
    used = folder_of(storage_root, embedder) / "used"
    VectorStore(storage_root, embedder.model_id, embedder.dim).find(corpus.text_keys)
    os.utime(used, (1e9, 1e9))
    VectorStore(storage_root, embedder.model_id, embedder.dim).find(corpus.text_keys)
    assert time.time() - used.stat().st_mtime < 60


def test_verify_tells_what_was_damaged_and_has_it_computed_again(
    make_corpus: Make, embedder: Embedder, storage_root: Path
) -> None:
    """As `orchestrate index verify=true` does, which then builds the indexes with what is whole."""
    from orchestrator.pipeline import Pipeline
    from orchestrator.plugins.recall.bm25 import BM25Recall
    from orchestrator.plugins.rerank.bi_encoder import BiEncoderRerank
    from orchestrator.stack.graph import StageGraph, StageSpec

    wanted = texts(30)
    specs = [StageSpec("bm25", BM25Recall("en"), 30), StageSpec("near", BiEncoderRerank(embedder), 5, ("bm25",))]
    with Pipeline(StageGraph.of(specs), make_corpus(wanted).spec, storage_root) as pipeline:
        before = pipeline.search("text number 7").ranked
        path = folder_of(storage_root, embedder) / "vectors.f32"
        data = bytearray(path.read_bytes())
        data[70:74] = b"\xff\xff\x7f\x7f"
        path.write_bytes(data)
        embedder.seen.clear()
        with capture_logs() as events:
            pipeline.load(force=True, verify=True)
        reasons = [event["reason"] for event in events if event["event"] == "vectors.rebuilt"]
        assert reasons == ["rows 0 to 29 are not what was written"]
        assert sorted(embedder.seen) == sorted(wanted)
        after = pipeline.search("text number 7").ranked
    assert after.doc_ids == before.doc_ids
    assert after.scores.tolist() == before.scores.tolist()


def test_a_folder_removed_meanwhile_is_filled_again(make_corpus: Make, embedder: Embedder, storage_root: Path) -> None:
    store = open_vectors(storage_root, embedder)
    store.vectors_for_texts(["a text", "another"], embedder)
    shutil.rmtree(store.directory)
    np.testing.assert_array_equal(
        store.vectors_for_texts(["another", "third"], embedder), expected(embedder, ["another", "third"])
    )
    assert len(VectorStore(storage_root, embedder.model_id, embedder.dim)) == 2


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((1, 5), np.float32), r"array of shape \[1, 5\]; expected \[1, 4\]"),
        (np.zeros((2, 4), np.float32), r"array of shape \[2, 4\]; expected \[1, 4\]"),
        (np.full((1, 4), np.nan, np.float32), "NaN or infinity for 1 of 1 texts"),
    ],
)
def test_unusable_vectors_are_refused(storage_root: Path, vectors: np.ndarray, message: str) -> None:
    store = VectorStore(storage_root, "model", 4)
    with pytest.raises(StageError, match=message):
        store.append(text_keys(["a"]), vectors)
    assert len(store) == 0


def test_key_table_finds_rows_of_keys_that_end_in_zeros() -> None:
    keys = as_keys(b"".join([b"\x01" + bytes(15), bytes(16), b"\x01\x00\x02" + bytes(13), bytes(15) + b"\x01"]))
    table = KeyTable(keys)
    assert table.find(keys).tolist() == [0, 1, 2, 3]
    assert table.find(as_keys(b"\x02" + bytes(15))).tolist() == [-1]
    assert KeyTable(keys[:0]).find(keys).tolist() == [-1] * 4


def test_first_of_each_key_in_order() -> None:
    assert first_of_each(text_keys(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 3]
