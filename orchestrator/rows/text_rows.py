"""What is computed once for a text and kept: rows of a RowFile found by the key of their text."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.errors import IndexStateError
from orchestrator.keys import Keys, KeyTable, first_of_each
from orchestrator.rows.row_file import Array, Column, RowFile, lock_of
from orchestrator.rows.row_repair import remove, repaired
from orchestrator.stage import Json, Progress
from orchestrator.types import Document

_NOTE_S = 3600.0
_READ_WHOLE = 16 << 20
"""Bytes up to which a folder is compared with its checksums when it is opened: some 15 ms."""
_RACES = 20
"""How often rows are added again that somebody removed meanwhile; one is already rare."""

T = TypeVar("T")


class TextSource(Protocol):
    """What a corpus offers for embedding."""

    @property
    def text_keys(self) -> Keys:
        """uint8 [n_documents, 16]: the key of each document's full text."""

    def at(self, ordinals: npt.NDArray[np.int64]) -> list[Document]:
        """Documents in the order of `ordinals`."""


class TextRows:
    """Rows by text. Safe between threads and processes. A damaged folder loses its damaged rows, with a warning.

    Args:
        directory: where they lie; made by the first append.
        meta: what they are.
        columns: name -> what a file holds.
        beside: other files of the folder, which a repair keeps.

    Attributes:
        file: the rows as they are mapped; read it inside `take` of `filled` or `fill`, or with `lock` held.
        lock: held around reading `file`, which another thread may map anew.
    """

    def __init__(
        self, directory: Path, meta: Mapping[str, Json], columns: Mapping[str, Column], beside: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self._repaired = partial(repaired, directory, dict(meta), dict(columns), tuple(beside))
        self._holds_file_lock = False
        self._table: KeyTable | None = None
        self._noted = 0.0
        self._whose = ""
        try:
            self.file = RowFile(directory, meta, columns)
        except IndexStateError:
            self.file = self._repair()[0]
        if self.file.n_bytes <= _READ_WHOLE:
            self.verify()

    def __len__(self) -> int:
        return len(self.file.keys)

    def note_model(self, model: object) -> None:
        """Whose the rows are, for people who list what is kept: the `model_id` is a digest."""
        self._whose = str(getattr(getattr(model, "model", None), "label", ""))

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """int64 [n_keys]: the row of each key, -1 where there is none."""
        with self.lock:
            self._refresh()
            start = _start_of_run(self.file.keys, keys) if self._table is None else None
            if start is not None:
                return np.arange(start, start + len(keys), dtype=np.int64)
            self._table = self._table or KeyTable(self.file.keys)
            return self._table.find(keys)

    def filled(
        self,
        keys: Keys,
        add: Callable[[npt.NDArray[np.int64]], None],
        take: Callable[[npt.NDArray[np.int64]], T | None],
    ) -> T:
        """What `take` makes of the rows of `keys`, with `file` held still; missing rows are added first.

        Args:
            keys: whose rows.
            add: given the places of keys that have no row, each key once; appends their rows.
            take: given int64 [n_keys], the row of each key; None asks for another round.

        Raises:
            IndexStateError: rows vanish as fast as they are added.
        """
        for _ in range(_RACES):
            with self.lock:
                rows = self.find(keys)
                absent = np.flatnonzero(rows < 0)
                taken = take(rows) if not len(absent) else None
            if taken is not None:
                return taken
            if len(absent):
                add(absent[first_of_each(keys[absent])])
        raise IndexStateError(f"{self.directory}: removed {_RACES} times while being filled; does a loop clear it?")

    def append(self, keys: Keys, columns: Mapping[str, Array]) -> None:
        """Keep rows under `keys`; a key that is there already keeps its row. No column is ragged."""
        with self.exclusive():
            new = self._new(keys)
            if len(new):
                self.file.append(keys[new], {name: values[new] for name, values in columns.items()})
                self._table = None

    def append_ragged(
        self, keys: Keys, columns: Mapping[str, list[Array]], fits: Callable[[], bool] = lambda: True
    ) -> None:
        """The same for columns that are all ragged: one array a text. Nothing is kept unless `fits()`, in the end."""
        with self.exclusive():
            new = self._new(keys)
            if len(new) and fits():
                kept = {name: [values[place] for place in new.tolist()] for name, values in columns.items()}
                lengths = [len(value) for value in next(iter(kept.values()))]
                joined = {name: np.concatenate(values) for name, values in kept.items()}
                self.file.append(keys[new], joined, lengths)
                self._table = None

    def fill(
        self,
        source: TextSource,
        window: int,
        compute: Callable[[Keys, list[str], Callable[[int], None]], None],
        progress: Progress,
        take: Callable[[npt.NDArray[np.int64]], T | None],
    ) -> T:
        """What `take` makes of the row of each document of `source`; missing rows are computed first, each text once.

        Finished windows stay when the process is killed. Processes that want the same rows share the work, window by
        window.

        Args:
            source: the corpus.
            window: texts computed between two appends: what a kill can lose, and how far they are sorted by length.
            compute: given keys, texts and a function to tell how many are done; appends their rows.
            progress: told ("embed", texts done, texts that were missing).
            take: as `filled` takes it.
        """
        keys = source.text_keys

        def add(missing: npt.NDArray[np.int64]) -> None:
            for start in range(0, len(missing), window):
                report = _Shifted(progress, start, len(missing))
                self._fill_window(source, keys, missing[start : start + window], compute, report)

        return self.filled(keys, add, take)

    def _fill_window(
        self,
        source: TextSource,
        keys: Keys,
        window: npt.NDArray[np.int64],
        compute: Callable[[Keys, list[str], Callable[[int], None]], None],
        report: _Shifted,
    ) -> None:
        with storage.locked(lock_of(self.directory, "embed")):
            absent = window[self.find(keys[window]) < 0]
            if len(absent):
                compute(keys[absent], [document.full_text for document in source.at(absent)], report)
        report(len(window))

    def verify(self) -> str | None:
        """What is wrong with the rows, every one of them read again; None when nothing is.

        Damaged rows are dropped, so that they are computed again when next needed.
        """
        with self.lock:
            try:
                self.file.verify()
            except IndexStateError:
                self.file, fault = self._repair(verify=True)
                return fault
        return None

    def discard(self) -> None:
        """Remove all rows, and what lies beside them."""
        with self.exclusive():
            remove(self.directory)
            self._refresh()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """The rows are this thread's alone, to write or replace."""
        with self.lock, contextlib.nullcontext() if self._holds_file_lock else storage.locked(self._write_lock):
            before, self._holds_file_lock = self._holds_file_lock, True
            try:
                yield
            finally:
                self._holds_file_lock = before

    @property
    def _write_lock(self) -> Path:
        return lock_of(self.directory, "write")

    def _repair(self, verify: bool = False) -> tuple[RowFile, str | None]:
        with self.exclusive():
            self._table = None
            return self._repaired(verify=verify)

    def _refresh(self) -> None:
        self._note_use()
        try:
            if self.file.refresh():
                self._table = None
        except IndexStateError:
            self.file, _ = self._repair()

    def _note_use(self) -> None:
        if not self._noted or time.monotonic() - self._noted > _NOTE_S:
            self._noted = time.monotonic() if storage.note_use(self.directory, self._whose) else 0.0

    def _new(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Places of the keys that have no row, with `file` ready to be appended to."""
        self._refresh()
        if self.file.ends_badly:
            self.file, _ = self._repair(verify=True)
        first = first_of_each(keys)
        return first[self.find(keys[first]) < 0]


class _Shifted:
    """Progress of one window of a longer job."""

    def __init__(self, progress: Progress, done_before: int, total: int) -> None:
        self._progress, self._done_before, self._total = progress, done_before, total

    def __call__(self, done: int) -> None:
        self._progress("embed", self._done_before + done, self._total)


def _start_of_run(stored: Keys, wanted: Keys) -> int | None:
    """Where `wanted` stands in `stored` as one run, as an unchanged corpus does: found without sorting."""
    if not len(wanted) or len(wanted) > len(stored):
        return None
    heads = stored.view(np.uint64)[:, 0]
    first = np.flatnonzero(heads == wanted[:1].view(np.uint64)[0, 0])[:1].tolist()
    if first and np.array_equal(stored[first[0] : first[0] + len(wanted)], wanted):
        return int(first[0])
    return None


def spans_of(ends: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [n_rows, 2]: where the values of the texts in `rows` start and end in ragged columns."""
    starts = np.where(rows > 0, ends[np.maximum(rows - 1, 0)], 0)
    return np.stack([starts, ends[rows]], axis=1)
