"""From the files of a corpus to the document store: read once, kept until a file changes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator import storage
from orchestrator.corpora.documents import DocumentStore, DocumentWriter
from orchestrator.corpora.locate import EXPECTED, Source, SourceFile
from orchestrator.corpora.readers import Reader
from orchestrator.errors import DataError, IndexStateError
from orchestrator.lines import BadLines, OnBadLine
from orchestrator.log import get_logger
from orchestrator.stage import Progress
from orchestrator.types import Document

log = get_logger()

_FORMAT = 2
_STATE = "state.json"

Cut = Callable[[SourceFile, Document], Iterable[Document]]
"""`cut(file, document)`: the documents to keep of one that was read."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What can be told of files without reading them: their sizes in all, and a hash of names, sizes and times."""

    size: int
    digest: str

    @classmethod
    def of(cls, source: Source) -> Listing:
        """Of the files as they lie there now."""
        digest, size = hashlib.blake2b(digest_size=16), 0
        for file in source.files():
            stat = file.path.stat()
            size += stat.st_size
            digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return cls(size, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a document store was made from and what it holds; lies beside it as JSON.

    Attributes:
        source: the file or folder.
        size: of all files, in bytes.
        listing: hash of the files' names, sizes and times.
        digest: of the files' names and bytes, as they were read.
        n_documents: how many it held.
        skipped: how many bad lines were left out.
        content_hash: of ids, titles, texts, metadata and their order.
        format: of the store.
    """

    source: str
    size: int
    listing: str
    digest: str
    n_documents: int
    skipped: int
    content_hash: str
    format: int = _FORMAT


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a corpus become documents.

    Attributes:
        source: the files.
        reader: makes the reader of their format; called only when they are read.
        cut: what becomes of each document, or None to keep it as it is.
        on_bad_line: `fail` or `skip`.
    """

    source: Source
    reader: Callable[[], Reader]
    cut: Callable[[], Cut] | None
    on_bad_line: OnBadLine


def open_documents(reading: Reading, parent: Path, progress: Progress) -> tuple[DocumentStore, StoreState]:
    """The documents of a corpus, read into a new generation under `parent` unless one of these files is there.

    Raises:
        DataError: a file is empty or wrong, or changes while it is read.
    """
    opened = _open_current(parent, reading)
    if opened is not None:
        storage.note_use(parent)
        return opened
    with storage.locked(parent / storage.LOCK):
        opened = _open_current(parent, reading)
        if opened is None:
            _ingest(reading, parent, progress)
            opened = _open_current(parent, reading)
    if opened is None:
        raise _changed(reading.source)
    return opened


def stored_documents(reading: Reading, parent: Path) -> tuple[DocumentStore, StoreState] | None:
    """The documents of a corpus whose files were read before, and by names, sizes and times are the same; else None."""
    return _open_current(parent, reading, _looks_like)


_IsCurrent = Callable[[StoreState, Source, Path], bool]


def _looks_like(state: StoreState, source: Source, _: Path) -> bool:
    with _readable(source):
        now = Listing.of(source)
    return (state.source, state.size, state.listing) == (str(source.root), now.size, now.digest)


def _open_current(
    parent: Path, reading: Reading, is_current: _IsCurrent | None = None
) -> tuple[DocumentStore, StoreState] | None:
    is_of = is_current or _is_of

    def use(directory: Path) -> tuple[DocumentStore, StoreState] | None:
        state = _read_state(directory)
        if state is None or (state.skipped and reading.on_bad_line == "fail"):
            return None
        if not is_of(state, reading.source, directory):
            return None
        return DocumentStore(directory, state.n_documents), state

    try:
        return storage.use_current(parent, use)
    except IndexStateError as error:
        log.warning("corpus.damaged", error=str(error))
        return None


def _read_state(directory: Path) -> StoreState | None:
    try:
        state = StoreState(**json.loads((directory / _STATE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return state if state.format == _FORMAT else None


def _is_of(state: StoreState, source: Source, directory: Path) -> bool:
    """True when no file of `source` changed since, going by names, sizes and times, or else by content."""
    with _readable(source):
        now = Listing.of(source)
        if (state.source, state.size) != (str(source.root), now.size):
            return False
        if state.listing == now.digest:
            return True
        if state.digest != _digest(source):
            return False
    with contextlib.suppress(OSError):  # only saves the next start from reading the files again
        _write_state(directory, dataclasses.replace(state, listing=now.digest))
    return True


def _digest(source: Source) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in source.files():
        digest.update(f"{file.name}\0{storage.file_digest(file.path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _write_state(directory: Path, state: StoreState) -> None:
    storage.write_atomic(directory / _STATE, json.dumps(dataclasses.asdict(state)))


def _ingest(reading: Reading, parent: Path, progress: Progress) -> None:
    source = reading.source
    if source.left_out:
        log.info("corpus.other_files", folder=str(source.root), read=len(source.names), left_out=source.left_out)
    with _readable(source), storage.new_generation(parent) as directory:
        before, bad = Listing.of(source), BadLines(reading.on_bad_line)
        with DocumentWriter(directory) as writer:
            for place, number, document in _documents(reading, bad, partial(progress, "read"), before.size):
                writer.add(document, number, place)
            n_documents = len(writer)
            content_hash = writer.finish([file.path for file in source.files()])
        _refuse_empty(source, n_documents, bad.count)
        digest = _digest(source)
        if Listing.of(source) != before:
            raise _changed(source)
        made_from = (str(source.root), before.size, before.digest, digest)
        _write_state(directory, StoreState(*made_from, n_documents, bad.count, content_hash))
    progress("read", before.size, before.size)


def _documents(
    reading: Reading, bad: BadLines, report: Callable[[int, int], None], total_bytes: int
) -> Iterator[tuple[int, int, Document]]:
    """(place of the file, line, document) of everything that is kept."""
    reader, cut, done = reading.reader(), reading.cut() if reading.cut else None, 0

    def on_bytes(read: int) -> None:
        report(done + read, total_bytes)

    for place, file in enumerate(reading.source.files()):
        _refuse_odd_name(file)
        for number, document in reader.read(file, bad, on_bytes):
            for kept in cut(file, document) if cut else (document,):
                yield place, number, kept
        done += file.path.stat().st_size
        on_bytes(0)


def _refuse_odd_name(file: SourceFile) -> None:
    try:
        file.name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(file.path).decode(errors="backslashreplace")
        raise DataError(shown, None, "the name of the file is no UTF-8; expected one that can be an id") from error


def _refuse_empty(source: Source, n_documents: int, n_skipped: int) -> None:
    if not n_documents:
        left_out = f" ({n_skipped} bad lines left out)" if n_skipped else ""
        raise DataError(str(source.root), None, f"holds no documents{left_out}; expected {EXPECTED}")


@contextlib.contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turns what the system says of a file of `source` into an error of the user's data."""
    try:
        yield
    except OSError as error:
        folder = str(source.folder.absolute())
        if error.filename is None or not str(error.filename).startswith(folder):
            raise
        if isinstance(error, FileNotFoundError):
            raise _changed(source) from error
        raise DataError(str(error.filename), None, f"cannot be read ({error.strerror})") from error


def _changed(source: Source) -> DataError:
    return DataError(str(source.root), None, "changed while it was read; try again once it is written")
