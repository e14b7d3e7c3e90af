"""Batches of what comes in slowly: whatever is there goes together, and nothing waits for a batch to fill."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """Stands after the last item, with what ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def as_they_come(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Batches of 1 to `size` items, in order; an error among the items is raised after those before it.

    A thread reads ahead, at most `size` items. It dies with the process, so a reader that waits for input that never
    comes does not keep the program from ending.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=size)
    threading.Thread(target=_read, args=(items, waiting), daemon=True).start()
    while True:
        batch, end = _batch(waiting, size)
        if batch:
            yield batch
        if end is not None:
            if end.error is not None:
                raise end.error
            return


def _read(items: Iterable[Item], waiting: queue.Queue[Item | _End]) -> None:
    try:
        for item in items:
            waiting.put(item)
    except BaseException as error:  # noqa: BLE001 - raised again where the items are asked for
        waiting.put(_End(error))
    else:
        waiting.put(_End(None))


def _batch(waiting: queue.Queue[Item | _End], size: int) -> tuple[list[Item], _End | None]:
    """What is there, waiting only for the first; and the end, where that is among it."""
    batch: list[Item] = []
    while len(batch) < size:
        try:
            item = waiting.get(block=not batch)
        except queue.Empty:
            break
        if isinstance(item, _End):
            return batch, item
        batch.append(item)
    return batch, None
