"""What is computed once for a text and kept: rows of a RowFile found by the key of their text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from orchestrator import storage
from orchestrator.keys import Keys, KeyTable, first_of_each
from orchestrator.row_file import Array, RowFile
from orchestrator.stage import Progress
from orchestrator.types import Document


class TextSource(Protocol):
    """What a corpus offers for embedding."""

    @property
    def text_keys(self) -> Keys:
        """uint8 [n_documents, 16]: the key of each document's full text."""

    def at(self, ordinals: npt.NDArray[np.int64]) -> list[Document]:
        """Documents in the order of `ordinals`."""


class TextRows:
    """Rows by text. Safe between threads and processes.

    Args:
        file: where they lie.

    Attributes:
        file: the same.
        lock: held around reading `file`, whose columns another thread may map anew.
    """

    def __init__(self, file: RowFile) -> None:
        self.file = file
        self.lock = threading.RLock()
        self._table: KeyTable | None = None

    def __len__(self) -> int:
        return len(self.file.keys)

    @property
    def directory(self) -> Path:
        """The folder of the rows."""
        return self.file.directory

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """int64 [n_keys]: the row of each key, -1 where there is none."""
        with self.lock:
            if self.file.refresh():
                self._table = None
            start = _start_of_run(self.file.keys, keys) if self._table is None else None
            if start is not None:
                return np.arange(start, start + len(keys), dtype=np.int64)
            self._table = self._table or KeyTable(self.file.keys)
            return self._table.find(keys)

    def missing(self, keys: Keys) -> npt.NDArray[np.int64]:
        """int64: places in `keys` of those that have no row yet, each key once."""
        absent = np.flatnonzero(self.find(keys) < 0)
        return absent[first_of_each(keys[absent])]

    def append(self, keys: Keys, columns: Mapping[str, Array]) -> None:
        """Keep rows under `keys`; a key that is there already keeps its row. No column is ragged."""
        with self.lock, storage.locked(self.file.write_lock):
            new = self._new(keys)
            if len(new):
                self.file.append(keys[new], {name: values[new] for name, values in columns.items()})
                self._table = None

    def append_ragged(self, keys: Keys, columns: Mapping[str, list[Array]]) -> None:
        """The same for columns that are all ragged: one array a text."""
        with self.lock, storage.locked(self.file.write_lock):
            new = self._new(keys)
            if len(new):
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
    ) -> npt.NDArray[np.int64]:
        """int64 [n_documents]: the row of each document of `source`; missing rows are computed first, each text once.

        Finished windows stay when the process is killed. Processes that want the same rows share the work, window by
        window.

        Args:
            source: the corpus.
            window: texts computed between two appends: what a kill can lose, and how far they are sorted by length.
            compute: given keys, texts and a function to tell how many are done; appends their rows.
            progress: told ("embed", texts done, texts that were missing).
        """
        keys = source.text_keys
        missing = self.missing(keys)
        for start in range(0, len(missing), window):
            report = _Shifted(progress, start, len(missing))
            self._fill_window(source, keys, missing[start : start + window], compute, report)
        return self.find(keys)

    def _fill_window(
        self,
        source: TextSource,
        keys: Keys,
        window: npt.NDArray[np.int64],
        compute: Callable[[Keys, list[str], Callable[[int], None]], None],
        report: _Shifted,
    ) -> None:
        with storage.locked(self.directory / "embed.lock"):
            absent = window[self.find(keys[window]) < 0]
            if len(absent):
                compute(keys[absent], [document.full_text for document in source.at(absent)], report)
        report(len(window))

    def verify(self) -> None:
        """Read every row again and compare with the checksums kept when it was written.

        Raises:
            IndexStateError: rows changed since they were written.
        """
        with self.lock:
            self.file.verify()

    def _new(self, keys: Keys) -> npt.NDArray[np.int64]:
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
