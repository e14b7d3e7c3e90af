"""From corpus.jsonl to the document store: read once, kept until the file changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator import beir, storage
from orchestrator.documents import DocumentStore, DocumentWriter
from orchestrator.errors import DataError, IndexStateError
from orchestrator.log import get_logger
from orchestrator.stage import Progress

log = get_logger()

_FORMAT = 1
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a document store was made from and what it holds; lies beside it as JSON.

    Attributes:
        source: the corpus file, with `size` in bytes, `mtime_ns`, and `digest` of its bytes, as it was read.
        n_documents: how many it held.
        skipped: how many bad lines were left out.
        content_hash: of ids, titles, texts, metadata and their order.
        format: of the store.
    """

    source: str
    size: int
    mtime_ns: int
    digest: str
    n_documents: int
    skipped: int
    content_hash: str
    format: int = _FORMAT


def open_documents(
    source: Path, parent: Path, on_bad_line: beir.OnBadLine, progress: Progress
) -> tuple[DocumentStore, StoreState]:
    """The documents of `source`, read into a new generation under `parent` unless one of this file is there.

    Raises:
        DataError: the file is empty or wrong, or changes while it is read.
    """
    opened = _open_current(parent, source, on_bad_line)
    if opened is not None:
        return opened
    with storage.locked(parent / storage.LOCK):
        opened = _open_current(parent, source, on_bad_line)
        if opened is None:
            _ingest(source, parent, on_bad_line, progress)
            opened = _open_current(parent, source, on_bad_line)
    if opened is None:
        raise _changed(source)
    return opened


def _open_current(parent: Path, source: Path, on_bad_line: beir.OnBadLine) -> tuple[DocumentStore, StoreState] | None:
    def use(directory: Path) -> tuple[DocumentStore, StoreState] | None:
        state = _read_state(directory)
        if state is None or (state.skipped and on_bad_line == "fail") or not _is_of(state, source, directory):
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


def _is_of(state: StoreState, source: Path, directory: Path) -> bool:
    """True when `source` did not change since, going by size and time, or else by content."""
    stat = source.stat()
    if (state.source, state.size) != (str(source), stat.st_size):
        return False
    if state.mtime_ns == stat.st_mtime_ns:
        return True
    if state.digest != storage.file_digest(source):
        return False
    with contextlib.suppress(OSError):  # only saves the next start from reading the file again
        _write_state(directory, dataclasses.replace(state, mtime_ns=stat.st_mtime_ns))
    return True


def _write_state(directory: Path, state: StoreState) -> None:
    storage.write_atomic(directory / _STATE, json.dumps(dataclasses.asdict(state)))


def _ingest(source: Path, parent: Path, on_bad_line: beir.OnBadLine, progress: Progress) -> None:
    before, skipped = source.stat(), beir.Skipped(source)
    with storage.new_generation(parent) as directory:
        with DocumentWriter(directory) as writer:
            report = partial(_report, progress, before.st_size)
            for line, document in beir.read_rows(source, beir.parse_document, on_bad_line, skipped, report):
                writer.add(document, line)
            n_documents, content_hash = len(writer), writer.finish(source)
        _refuse_empty(source, n_documents, skipped.count)
        digest, after = storage.file_digest(source), source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _changed(source)
        made_from = (str(source), after.st_size, after.st_mtime_ns, digest)
        _write_state(directory, StoreState(*made_from, n_documents, skipped.count, content_hash))
    progress("read", before.st_size, before.st_size)


def _report(progress: Progress, total_bytes: int, done_bytes: int) -> None:
    progress("read", done_bytes, total_bytes)


def _refuse_empty(source: Path, n_documents: int, n_skipped: int) -> None:
    if not n_documents:
        left_out = f" ({n_skipped} bad lines left out)" if n_skipped else ""
        raise DataError(str(source), None, f"holds no documents{left_out}; expected {beir.LAYOUT}")


def _changed(source: Path) -> DataError:
    return DataError(str(source), None, "changed while it was read; try again once it is written")
