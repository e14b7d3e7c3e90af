"""CSV, TSV, JSON lines and Parquet with columns of the user's own; what is wrong is named by file and row."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.readers.columns import Columns, as_json
from orchestrator.corpora.readers.table import MAX_FIELD_CHARS, TableOptions
from orchestrator.errors import ConfigError, DataError, MissingExtraError
from orchestrator.types import Document

Open = Callable[..., DiskCorpus]
ROWS = [
    {"id": "a", "title": "Eye", "text": 'glaucoma, "so called"', "source": "x"},
    {"id": "b", "title": "", "text": "two\nlines 青光眼", "source": ""},
]
EXPECTED = [
    Document("a", 'glaucoma, "so called"', "Eye", {"source": "x"}),
    Document("b", "two\nlines 青光眼", "", {"source": ""}),
]


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """`rows` in the format that the name of `path` says, written by other programs than ours."""
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, dialect="excel" if path.suffix == ".csv" else "excel-tab")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def text_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=["docs.jsonl", "docs.ndjson", "docs.csv", "docs.tsv", "docs.parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_every_format_gives_the_same_documents(file: Path, opened: Open) -> None:
    corpus = opened(write(file, ROWS))
    assert list(corpus.documents()) == EXPECTED


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.csv", "docs.tsv"])
def test_text_may_be_compressed_and_begin_with_a_mark(name: str, opened: Open, tmp_path: Path) -> None:
    plain = write(tmp_path / name, ROWS)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    assert list(opened(packed).documents()) == EXPECTED


@pytest.mark.parametrize(("id_", "text"), [("_id", "body"), ("doc_id", "content"), ("id", "text")])
def test_usual_names_are_found(file: Path, opened: Open, id_: str, text: str) -> None:
    (document,) = opened(write(file, [{id_: "7", text: "t", "more": "m"}])).documents()
    assert document == Document("7", "t", "", {"more": "m"})


def test_columns_are_chosen_by_name(file: Path, opened: Open) -> None:
    rows = [{"key": "7", "name": "N", "a": "one", "b": "two", "of": "P", "keep": "k", "drop": "d"}]
    columns = Columns(id="key", title="name", text=("a", "b"), parent="of", metadata=("keep",))
    (document,) = opened(write(file, rows), columns=columns).documents()
    assert document == Document("7", "one\ntwo", "N", {"keep": "k", "parent_id": "P"})


def test_a_column_may_be_two_things(file: Path, opened: Open) -> None:
    (document,) = opened(write(file, [{"url": "u", "t": "x"}]), columns=Columns("url", "t", "t")).documents()
    assert document == Document("u", "x", "x", {})


def test_rows_are_numbered_only_when_asked_for(file: Path, opened: Open) -> None:
    write(file, [{"text": "x", "n": "1"}, {"text": "y", "n": "2"}])
    with pytest.raises((ConfigError, DataError), match=r"no _id or id or doc_id; (columns|keys): text, n.*null"):
        opened(file)
    corpus = opened(file, columns=Columns(id=None))
    assert [document.doc_id for document in corpus.documents()] == ["1", "2"]


def test_numbers_of_rows_in_several_files_do_not_clash(opened: Open, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [{"text": "x"}])
    write(tmp_path / "b.csv", [{"text": "y"}])
    corpus = opened(tmp_path, columns=Columns(id=None))
    assert [document.doc_id for document in corpus.documents()] == ["a.csv:1", "b.csv:1"]


@pytest.mark.parametrize("key", ["id", "text", "title", "parent", "metadata"])
def test_a_column_that_is_missing_is_named_with_the_choices(file: Path, opened: Open, key: str) -> None:
    write(file, ROWS)
    columns = Columns(**{key: ("sourc",) if key in ("metadata", "text") else "sourc"})  # type: ignore[arg-type]
    with pytest.raises((ConfigError, DataError)) as error:
        opened(file, columns=columns)
    message = str(error.value)
    assert "sourc" in message
    assert "id, title, text, source" in message
    assert str(file) in message
    if file.suffix not in (".jsonl", ".ndjson") or key not in ("id", "text"):
        assert message.startswith(f"corpus.columns.{key}: ")
        assert "Did you mean 'source'?" in message


def test_a_key_that_only_some_lines_have_is_fine(opened: Open, tmp_path: Path) -> None:
    file = text_file(tmp_path / "x.jsonl", '{"id": 1, "text": "a"}\n{"id": 2, "text": "b", "h": "H", "m": 3}\n')
    corpus = opened(file, columns=Columns(title="h", metadata=("m",)))
    assert list(corpus.documents()) == [Document("1", "a"), Document("2", "b", "H", {"m": 3})]


def test_shards_are_read_in_order_of_their_names(file: Path, opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    (folder / "more").mkdir(parents=True)
    for name, row in (("b", 0), ("more/a", 1)):
        write(folder / f"{name}{file.suffix}", [ROWS[row]])
    assert list(opened(folder).documents()) == EXPECTED
    assert list(opened(folder / f"**/*{file.suffix}").documents()) == EXPECTED
    assert [document.doc_id for document in opened(folder / f"*{file.suffix}").documents()] == ["a"]


def test_an_id_that_stands_twice_names_both_places(file: Path, opened: Open, tmp_path: Path) -> None:
    line = {".csv": 3, ".tsv": 3}.get(file.suffix, 2)
    same = [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]
    with pytest.raises(DataError, match=rf"{file.name}:{line}: id 'a' stands on line {line - 1} already"):
        opened(write(file, same))
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("one", "two"):
        write(folder / f"{name}{file.suffix}", same[:1])
    first, second = folder / f"one{file.suffix}", folder / f"two{file.suffix}"
    with pytest.raises(DataError, match=rf"^{second}:{line - 1}: id 'a' stands in {first}:{line - 1} already"):
        opened(folder)


BAD_ROWS = [
    ("id,text\n1,a\n2\n3,c\n", 3, "found 1 fields; expected 2: id, text"),
    ("id,text\n1,a\n2,b,\n3,c\n", 3, "found 3 fields; expected 2: id, text"),
    ('id,text\n1,"a\nb"\n2,"b"x\n3,c\n', 4, "is no CSV"),
    ("id,text\n1,a\n,b\n3,c\n", 3, "found an empty string as id"),
    ("id,text\n1,a\n2,caf\udce9\n3,c\n", 3, "found 0xe9 at byte 6 of the line, which is no UTF-8"),
    ('id,text\n1,a\n2,"x\ncaf\udce9"\n3,c\n', 3, "found 0xe9 at byte 4 of the line, which is no UTF-8"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD_ROWS, ids=[message for *_, message in BAD_ROWS])
def test_a_bad_row_is_named_by_its_first_line_and_can_be_left_out(
    text: str, line: int, message: str, opened: Open, tmp_path: Path
) -> None:
    file = tmp_path / "docs.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as error:
        opened(file)
    assert str(error.value).startswith(f"{file}:{line}: {message}")
    with structlog.testing.capture_logs() as logs:
        corpus = opened(file, on_bad_line="skip")
    assert [document.doc_id for document in corpus.documents()] == ["1", "3"]
    assert (corpus.skipped, [log["source"] for log in logs]) == (1, [f"{file}:{line}"])


def test_a_quote_that_is_never_closed_takes_no_file_in(opened: Open, tmp_path: Path) -> None:
    file = text_file(tmp_path / "docs.csv", 'id,text\n1,a\n2,"never\n3,c\n')
    for on_bad_line in ("fail", "skip"):
        with pytest.raises(DataError, match=r"docs.csv:3: the quote that is opened here is never closed; .*quote=null"):
            opened(file, on_bad_line=on_bad_line)
    corpus = opened(file, csv=TableOptions(quote=None))
    assert [document.text for document in corpus.documents()] == ["a", '"never', "c"]
    text_file(file, 'id,text\n1,"' + "x" * (MAX_FIELD_CHARS + 1) + '"\n')
    with pytest.raises(DataError, match=r"docs.csv:2: a field has more than 16,777,216 characters"):
        opened(file)


def test_a_field_may_be_longer_than_the_csv_module_takes_by_itself(opened: Open, tmp_path: Path) -> None:
    text = "word " * 100_000
    (document,) = opened(write(tmp_path / "docs.csv", [{"id": "1", "text": text}])).documents()
    assert document.text == text


def test_delimiter_quote_and_header_can_be_given(opened: Open, tmp_path: Path) -> None:
    file = text_file(tmp_path / "docs.csv", "id;text\n1;'a;b'\n")
    with pytest.raises(ConfigError, match=r"columns: id;text.*It looks cut by ';': corpus\.csv\.delimiter"):
        opened(file)
    (document,) = opened(file, csv=TableOptions(";", "'")).documents()
    assert document.text == "a;b"
    marco = text_file(tmp_path / "collection.tsv", '0\tThe "first" passage\n1\t"quoted" at its start\n')
    corpus = opened(marco, csv=TableOptions(quote=None, header=("id", "text")))
    assert [document.text for document in corpus.documents()] == ['The "first" passage', '"quoted" at its start']


@pytest.mark.parametrize(
    ("options", "key"),
    [({"delimiter": ";;"}, "delimiter"), ({"quote": ""}, "quote"), ({"delimiter": "\n"}, "delimiter")],
)
def test_a_wrong_delimiter_is_refused(options: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"corpus\.csv\.{key}: .*expected one character"):
        TableOptions(**options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a line with the names of the columns"),
        (b"id,text\n", "holds no documents"),
        (b"id,text,id\n1,2,3\n", "column 'id' stands twice"),
        (b"PAR1....", "found a Parquet file"),
        (gzip.compress(b"id,text\n1,a\n"), "found a gzip file, whose name should end in .gz"),
        ("id,text\n1,a\n".encode("utf-16"), "found UTF-16 text; expected UTF-8 text"),
        (b"PK\x03\x04....", "found a zip file, as .xlsx and .docx are"),
    ],
)
def test_a_file_that_is_no_csv_says_what_it_is(content: bytes, message: str, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "docs.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(file)


def test_a_name_that_tells_nothing_can_be_read_by_force(opened: Open, tmp_path: Path) -> None:
    file = text_file(tmp_path / "docs.data", "id\ttext\n1\ta\n")
    with pytest.raises(ConfigError, match=r"tells no format; .*corpus\.format=jsonl\|csv\|tsv"):
        opened(file)
    assert list(opened(file, format="tsv").documents()) == [Document("1", "a")]
    with pytest.raises(ConfigError, match=r"corpus\.format: found 'xml'; choices: auto, beir, jsonl"):
        opened(file, format="xml")


def test_parquet_of_many_row_groups_and_types(opened: Open, tmp_path: Path) -> None:
    n = 2500
    table = pa.table(
        {
            "id": pa.array(range(n), pa.int64()),
            "text": pa.array([f"text {i}" for i in range(n)], pa.large_string()),
            "title": pa.array([None if i % 2 else "T" for i in range(n)]).dictionary_encode(),
            "score": pa.array([float("nan")] * n),
            "day": pa.array([datetime.date(2020, 1, 2)] * n),
            "tags": pa.array([["a", None]] * n),
            "image": pa.array([{"bytes": b"\xff", "path": "x"}] * n),
        }
    )
    pq.write_table(table, tmp_path / "docs.parquet", row_group_size=300)
    with structlog.testing.capture_logs() as logs:
        corpus = opened(tmp_path / "docs.parquet")
    documents = list(corpus.documents())
    assert [document.text for document in documents] == [f"text {i}" for i in range(n)]
    assert [document.title for document in documents[:2]] == ["T", ""]
    assert documents[7] == Document("7", "text 7", "", {"score": None, "day": "2020-01-02", "tags": ["a", None]})
    assert [(log["event"], log["columns"]) for log in logs] == [("corpus.binary_columns_left_out", "image")]


@pytest.mark.parametrize(
    ("columns", "key", "found"),
    [
        ({"id": ["1"], "text": [3]}, "text", "column 'text' holds int64; expected strings. Columns that fit: id"),
        ({"id": [0.5], "text": ["x"]}, "id", "column 'id' holds double; expected strings or whole numbers"),
        ({"id": ["1"], "text": ["x"], "title": [["x"]]}, "title", "column 'title' holds list<"),
    ],
)
def test_a_parquet_column_of_a_wrong_type_is_named(
    columns: dict[str, list[object]], key: str, found: str, opened: Open, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "docs.parquet")
    with pytest.raises(ConfigError) as error:
        opened(tmp_path / "docs.parquet")
    assert str(error.value).startswith(f"corpus.columns.{key}: {tmp_path}/docs.parquet: {found}")


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.parquet"])
def test_a_null_text_is_a_bad_row(name: str, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / name
    write(file, [{"id": "1", "text": "a"}, {"id": "2", "text": None}])
    with pytest.raises(DataError, match=rf"{file.name}:2: found null as text; expected text, a string"):
        opened(file)
    with structlog.testing.capture_logs():
        assert len(opened(file, on_bad_line="skip")) == 1
    joined = opened(write(file, [{"id": "1", "text": None, "b": "x"}]), columns=Columns(text=("text", "b")))
    assert [document.text for document in joined.documents()] == ["x"]


def test_a_damaged_parquet_file_is_named(opened: Open, tmp_path: Path) -> None:
    file = write(tmp_path / "docs.parquet", [{"id": str(i), "text": f"text {i}" * 20} for i in range(3000)])
    data = bytearray(file.read_bytes())
    data[200:2000] = b"\xff" * 1800
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"docs.parquet:1: the file is damaged in or after this row"):
        opened(file)
    file.write_bytes(b"id,text\n1,a\n")
    with pytest.raises(DataError, match=r"docs.parquet: is no Parquet file"):
        opened(file)


def test_parquet_without_pyarrow_names_the_extra(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "docs.parquet", ROWS)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"rerank-orchestrator\[parquet\]"):
        opened(file)


def test_other_settings_are_another_store_and_the_same_is_reused(opened: Open, tmp_path: Path) -> None:
    file = write(tmp_path / "docs.csv", ROWS)
    first, other, again = opened(file), opened(file, columns=Columns(text="source")), opened(file)
    assert first.key == again.key != other.key
    assert [document.text for document in other.documents()] == ["x", ""]
    stores = list((tmp_path / "storage" / "corpora").glob("*/*/state.json"))
    assert len(stores) == 2


def test_metadata_is_what_json_can_hold() -> None:
    value = {
        1: [decimal.Decimal("1.50"), float("inf"), b"x"],
        "t": (datetime.datetime(2020, 1, 2, 3), datetime.timedelta(1)),
    }
    assert as_json(value) == {"1": ["1.50", None, None], "t": ["2020-01-02T03:00:00", "1 day, 0:00:00"]}


def test_no_text_column_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"corpus\.columns\.text: names no column"):
        CorpusSpec("x", "y", columns=Columns(text=()))
