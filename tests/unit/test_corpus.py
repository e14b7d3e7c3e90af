"""A folder in BEIR layout becomes documents by id, queries and judgements; what is wrong is named by line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, DataError, OrchestratorError

DOCUMENTS = [
    {"_id": "a", "title": "Eye", "text": "glaucoma", "metadata": {"year": 1999}, "source": "x"},
    {"_id": 7, "text": "青光眼 \U0001f441 'quoted'"},
    {"_id": "b", "title": None, "text": ""},
    {"_id": "c", "title": "", "text": "eye\x00nul", "url": "http://x"},
]
QUERIES = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(4)]
HEADER = "query-id\tcorpus-id\tscore\n"
WriteCorpus = Callable[..., Path]
Open = Callable[..., DiskCorpus]


def generations(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "storage" / "corpora").glob("*/*") if path.is_dir()]


def test_documents_come_back_as_they_stand_in_the_file(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS))
    documents = list(corpus.documents())
    assert [document.doc_id for document in documents] == ["a", "7", "b", "c"]
    assert [document.text for document in documents] == [row["text"] for row in DOCUMENTS]
    assert [document.title for document in documents] == ["Eye", "", "", ""]
    assert [dict(document.metadata) for document in documents] == [
        {"year": 1999, "source": "x"},
        {},
        {},
        {"url": "http://x"},
    ]
    assert len(corpus) == 4


def test_documents_are_read_by_id_in_the_order_asked_for(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS))
    assert [document.doc_id for document in corpus.get(["c", "a", "c", "7"])] == ["c", "a", "c", "7"]
    assert corpus.ordinals(["c", "a", "7"]).tolist() == [3, 0, 1]
    assert corpus.doc_ids(np.array([3, 0, 1])) == ["c", "a", "7"]
    assert corpus.get([]) == []


def test_a_sample_is_taken_at_even_distances(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus([{"_id": f"d{n}", "text": f"text {n}"} for n in range(9)]))
    assert [document.doc_id for document in corpus.sample(3)] == ["d0", "d4", "d8"]
    assert [document.doc_id for document in corpus.sample(99)] == [f"d{n}" for n in range(9)]


def test_many_documents_cross_the_batches(write_corpus: WriteCorpus, opened: Open) -> None:
    n = 2501
    corpus = opened(write_corpus([{"_id": f"d{i}", "text": f"text {i}"} for i in range(n)]))
    assert [document.text for document in corpus.documents()] == [f"text {i}" for i in range(n)]
    order = np.random.default_rng(0).permutation(n).tolist()
    assert [document.text for document in corpus.get([f"d{i}" for i in order])] == [f"text {i}" for i in order]


def test_unknown_ids_are_counted_and_named(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS))
    with pytest.raises(DataError, match=r"corpus 'test': 4 of 5 ids unknown: 'w', 'x', 'y', \.\.\."):
        corpus.get(["a", "w", "x", "y", "z"])


def test_text_keys_are_blake2b_of_title_and_text(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS))
    expected = hashlib.blake2b(b"Eye\nglaucoma", digest_size=16).digest()
    assert corpus.text_keys[0].tobytes() == expected
    assert corpus.text_keys.shape == (4, 16)


def test_gz_and_bom_and_blank_lines_and_crlf_read_the_same(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus(DOCUMENTS)
    plain = opened(folder)
    data = (folder / "corpus.jsonl").read_bytes().replace(b"\n", b"\r\n\r\n  \r\n")
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + data))
    packed = opened(folder)
    assert list(packed.documents()) == list(plain.documents())
    assert packed.content_hash == plain.content_hash


def test_the_store_is_reused_while_the_file_is_unchanged(
    write_corpus: WriteCorpus, opened: Open, tmp_path: Path
) -> None:
    folder = write_corpus(DOCUMENTS)
    first = opened(folder)
    before = generations(tmp_path)
    assert opened(folder).content_hash == first.content_hash
    state = next((tmp_path / "storage").rglob("state.json"))
    listing = json.loads(state.read_text())["listing"]
    os.utime(folder / "corpus.jsonl", ns=(1, 1))
    assert opened(folder).content_hash == first.content_hash
    assert json.loads(state.read_text())["listing"] != listing, "the new time is kept: no reading at the next start"
    assert generations(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows, {"_id": "new", "text": "x"}],
        lambda rows: rows[:-1],
        lambda rows: rows[::-1],
        lambda rows: [{**rows[0], "title": "Eye\nglau", "text": "coma"}, *rows[1:]],
        lambda rows: [{**rows[0], "source": "y"}, *rows[1:]],
    ],
    ids=["added", "removed", "reordered", "title moved into text", "metadata"],
)
def test_any_change_makes_a_new_store_and_content_hash(
    write_corpus: WriteCorpus, opened: Open, tmp_path: Path, change: Callable[[list[object]], list[object]]
) -> None:
    first = opened(write_corpus(DOCUMENTS))
    changed = opened(write_corpus(change(DOCUMENTS)))
    assert changed.content_hash != first.content_hash
    assert len(generations(tmp_path)) == 1
    # The first still reads the generation that it has open.
    assert [document.doc_id for document in first.documents()] == ["a", "7", "b", "c"]


def test_a_damaged_store_is_made_again(write_corpus: WriteCorpus, opened: Open, tmp_path: Path) -> None:
    folder = write_corpus(DOCUMENTS)
    first = opened(folder)
    for name in ("ids.utf8", "ids.i64", "texts.b16", "documents.sqlite", "state.json"):
        path = next((tmp_path / "storage").rglob(name))
        path.unlink()
        with structlog.testing.capture_logs():
            assert list(opened(folder).documents()) == list(first.documents())


BAD_LINES = [
    ("{", "is no JSON"),
    ("[1]", "found a list; expected a JSON object"),
    ('{"_id": "x"}', "found no text; keys: _id"),
    ('{"_id": "x", "text": 3}', "found a number as text"),
    ('{"id": "x", "text": "t"}', "found no _id; keys: id, text; expected _id"),
    ('{"_id": null, "text": "t"}', "found null as _id"),
    ('{"_id": "", "text": "t"}', "found an empty string as _id"),
    ('{"_id": true, "text": "t"}', "found a boolean as _id"),
    ('{"_id": "x", "text": "t", "title": ["a"]}', "'title' of 'x' is a list"),
    ('{"_id": "x", "text": "\\ud800"}', "surrogate"),
    ('{"_id": "x", "text": "t", "score": NaN}', "NaN is no JSON"),
    ("[" * 100_000, "is no JSON"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[message for _, message in BAD_LINES])
def test_a_bad_line_is_named_and_can_be_left_out(
    write_corpus: WriteCorpus, opened: Open, line: str, message: str
) -> None:
    folder = write_corpus([DOCUMENTS[0], "", line, DOCUMENTS[1]])
    with pytest.raises(DataError) as error:
        opened(folder)
    assert error.value.line == 3
    assert str(error.value).startswith(f"{folder}/corpus.jsonl:3: ")
    assert message in str(error.value)
    with structlog.testing.capture_logs() as logs:
        corpus = opened(folder, on_bad_line="skip")
    assert (len(corpus), corpus.skipped) == (2, 1)
    assert [log["event"] for log in logs] == ["corpus.line_skipped"]
    assert opened(folder, on_bad_line="skip").skipped == 1
    with pytest.raises(DataError):
        opened(folder)


def test_bytes_that_are_no_utf8_are_named_by_line(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus(DOCUMENTS)
    with open(folder / "corpus.jsonl", "ab") as file:
        file.write(b'{"_id": "l", "text": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"corpus.jsonl:5: found 0xe9 at byte 26 of the line, which is no UTF-8"):
        opened(folder)


def test_duplicate_ids_name_both_lines(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus([*DOCUMENTS, {"_id": "7", "text": "again"}])
    with pytest.raises(DataError, match=r"corpus.jsonl:5: id '7' stands on line 2 already"):
        opened(folder, on_bad_line="skip")


@pytest.mark.parametrize("cut", [30, -9])
def test_a_cut_gz_is_an_error_even_when_bad_lines_are_skipped(
    write_corpus: WriteCorpus, opened: Open, cut: int
) -> None:
    folder = write_corpus([{"_id": str(i), "text": hashlib.sha256(str(i).encode()).hexdigest()} for i in range(99)])
    data = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(data[:cut])
    with pytest.raises(DataError, match="cut short or damaged"):
        opened(folder, on_bad_line="skip")


def test_a_damaged_gz_is_an_error(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus(DOCUMENTS)
    data = bytearray(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    data[len(data) // 2] ^= 0xFF
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(data)
    with pytest.raises(DataError):
        opened(folder)


def test_an_empty_corpus_and_missing_places_say_what_is_expected(
    write_corpus: WriteCorpus, opened: Open, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"holds no documents; expected a file \.jsonl"):
        opened(write_corpus([]))
    with pytest.raises(
        ConfigError, match=r"corpus\.path: .*nothing there; expected a file \.jsonl, .*with corpus\.jsonl"
    ):
        opened(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"corpus\.format: beir is a folder with corpus\.jsonl"):
        opened(write_corpus(DOCUMENTS) / "corpus.jsonl", format="beir")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "docs.json").touch()
    with pytest.raises(DataError, match=r"found docs.json; expected a file .jsonl"):
        opened(tmp_path / "other")
    with pytest.raises(DataError, match=r"found docs.json; expected corpus.jsonl or corpus.jsonl.gz"):
        opened(tmp_path / "other", format="beir")
    (tmp_path / "other" / "queries.jsonl").touch()
    with pytest.raises(DataError, match=r"expected corpus.jsonl or corpus.jsonl.gz"):
        opened(tmp_path / "other")
    with pytest.raises(ConfigError, match="no package 'no_such_package'"):
        opened("pkg://no_such_package/sample")
    with pytest.raises(ConfigError, match="package 'orchestrator' holds no 'nothing'"):
        opened("pkg://orchestrator/nothing")


def test_the_sample_is_found_inside_the_package(opened: Open) -> None:
    corpus = opened("pkg://orchestrator/sample")
    assert len(corpus) > 100
    assert set(corpus.qrels()) == {query.query_id for query in corpus.queries()}
    assert (corpus.unknown_qrels.query_ids, corpus.unknown_qrels.doc_ids) == (0, 0)


def test_queries_are_the_judged_ones_in_file_order_and_then_cut(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus(DOCUMENTS, QUERIES, {"test": HEADER + "q3\ta\t1\nq1\t7\t2\nq1\tb\t0\n"})
    assert [query.query_id for query in opened(folder).queries()] == ["q1", "q3"]
    assert opened(folder).qrels() == {"q1": {"7": 2, "b": 0}, "q3": {"a": 1}}
    cut = opened(folder, max_queries=1)
    assert [query.text for query in cut.queries()] == ["question 1"]
    assert cut.qrels() == {"q1": {"7": 2, "b": 0}}


def test_without_qrels_all_queries_count(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus(DOCUMENTS, QUERIES), max_queries=3)
    assert [query.query_id for query in corpus.queries()] == ["q0", "q1", "q2"]
    assert corpus.qrels() == {}


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "q1\ta\t1\nq2\tb\t0\n",
        "q1\ta\t1\r\nq2\tb\t0\r\n",
        "q1 0 a 1\nq2 0 b 0\n",
        "q1\tQ0\ta\t1\nq2\tQ0\tb\t0.0\n\n",
        "query_id iter doc_id relevance\nq1 0 a 1\nq2 0 b 0\nq2 0 b 0\n",
    ],
)
def test_all_qrels_layouts_read_the_same(write_corpus: WriteCorpus, opened: Open, text: str) -> None:
    corpus = opened(write_corpus(DOCUMENTS, QUERIES, {"test": text}))
    assert corpus.qrels() == {"q1": {"a": 1}, "q2": {"b": 0}}


def test_the_split_is_chosen_or_named(write_corpus: WriteCorpus, opened: Open) -> None:
    rows = {"train": "q0 0 a 1\n", "dev": "q1 0 a 1\n", "odd": "q2 0 a 1\n"}
    folder = write_corpus(DOCUMENTS, QUERIES, rows)
    assert list(opened(folder).qrels()) == ["q1"]
    assert list(opened(folder, split="odd").qrels()) == ["q2"]
    with pytest.raises(ConfigError, match=r"corpus.split: no 'tran'; splits: dev, odd, train. Did you mean 'train'"):
        opened(folder, split="tran").queries()
    (folder / "qrels" / "dev.tsv").unlink()
    (folder / "qrels" / "train.tsv").rename(folder / "qrels" / "other.tsv")
    with pytest.raises(ConfigError, match="auto finds none of test, dev, validation, train; splits: odd, other"):
        opened(folder).qrels()
    (folder / "qrels" / "other.tsv").unlink()
    assert list(opened(folder).qrels()) == ["q2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\ta\t1\nq1\ta\n", "test.tsv:2: found 2 columns"),
        ("q1\ta\t1\nq2\tb\tmuch\n", "test.tsv:2: found 'much' as score"),
        ("q1\ta\t1\nq2\tb\t0.5\n", "test.tsv:2: found '0.5' as score"),
        ("q1\ta\t1\nq2\tb\t0\nq1\ta\t2\n", "test.tsv:3: query 'q1' and document 'a' have score 2 here and 1 above"),
        ("q8\ta\t1\nq9\ta\t1\n", "none of its 2 query ids stands in"),
    ],
)
def test_wrong_qrels_are_named(write_corpus: WriteCorpus, opened: Open, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        opened(write_corpus(DOCUMENTS, QUERIES, {"test": text})).qrels()
    assert message in str(error.value)


def test_bad_lines_of_queries_and_qrels_are_skipped_and_counted(write_corpus: WriteCorpus, opened: Open) -> None:
    folder = write_corpus(DOCUMENTS, [*QUERIES, "{}"], {"test": "q1\ta\t1\nq2\n"})
    corpus = opened(folder, on_bad_line="skip")
    with structlog.testing.capture_logs():
        assert list(corpus.qrels()) == ["q1"]
    assert corpus.skipped == 2


def test_qrels_naming_unknown_ids_are_counted_and_warned_of_once(write_corpus: WriteCorpus, opened: Open) -> None:
    text = "q1\ta\t1\nq1\tgone\t1\nq2\tgone\t1\nghost\ta\t1\n"
    corpus = opened(write_corpus(DOCUMENTS, QUERIES, {"test": text}))
    with structlog.testing.capture_logs() as logs:
        assert corpus.qrels() == {"q1": {"a": 1, "gone": 1}, "q2": {"gone": 1}}
        assert (corpus.unknown_qrels.query_ids, corpus.unknown_qrels.doc_ids) == (1, 1)
    assert [(log["event"], log["query_ids"], log["doc_ids"]) for log in logs] == [("corpus.unknown_qrels", 1, 1)]


def test_missing_queries_and_duplicate_query_ids_are_named(write_corpus: WriteCorpus, opened: Open) -> None:
    with pytest.raises(DataError, match=r"expected queries\.jsonl or queries\.jsonl\.gz"):
        opened(write_corpus(DOCUMENTS)).queries()
    with pytest.raises(DataError, match=r"queries.jsonl:5: id 'q0' stands above already"):
        opened(write_corpus(DOCUMENTS, [*QUERIES, QUERIES[0]])).queries()


@pytest.mark.parametrize("wrong", [{"max_queries": 0}, {"max_queries": -1}, {"on_bad_line": "ignore"}])
def test_wrong_settings_are_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"corpus.{next(iter(wrong))}"):
        CorpusSpec("x", "y", **wrong)  # type: ignore[arg-type]


def test_ctrl_c_while_reading_leaves_the_old_store(write_corpus: WriteCorpus, opened: Open, tmp_path: Path) -> None:
    first = opened(write_corpus(DOCUMENTS))
    before = generations(tmp_path)
    folder = write_corpus([{"_id": str(i), "text": "x"} for i in range(600)])

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_corpus(CorpusSpec("test", str(folder)), tmp_path / "storage", interrupt)
    assert generations(tmp_path) == before
    assert len(list(first.documents())) == 4
    assert len(opened(folder)) == 600


def test_a_file_that_changes_while_it_is_read_is_refused(write_corpus: WriteCorpus, tmp_path: Path) -> None:
    folder = write_corpus([{"_id": str(i), "text": "x"} for i in range(600)])

    def append(what: str, done: int, total: int) -> None:
        with open(folder / "corpus.jsonl", "a") as file:
            file.write(json.dumps({"_id": f"late-{file.tell()}", "text": "y"}) + "\n")

    with pytest.raises(OrchestratorError, match="changed while it was read"):
        open_corpus(CorpusSpec("test", str(folder)), tmp_path / "storage", append)
    assert generations(tmp_path) == []


def test_reading_from_several_threads(write_corpus: WriteCorpus, opened: Open) -> None:
    corpus = opened(write_corpus([{"_id": f"d{i}", "text": f"text {i}"} for i in range(500)]))
    wrong: list[object] = []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(50):
            wanted = generator.integers(0, 500, 20).tolist()
            texts = [document.text for document in corpus.get([f"d{i}" for i in wanted])]
            if texts != [f"text {i}" for i in wanted]:
                wrong.append(texts)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
