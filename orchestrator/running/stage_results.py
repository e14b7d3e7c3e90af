"""Results of stages, kept on disk between jobs and processes, so that a sweep costs what is different in its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.kept.entries import Entry
from orchestrator.kept.kept_file import KeptFile, check_above_zero, entries_of
from orchestrator.running.kept_answer import KeptAnswer, is_whole, pack, unpack
from orchestrator.running.limited import Outcome
from orchestrator.running.stage_key import result_key
from orchestrator.running.steps import Asked
from orchestrator.stack.graph import Node

FILE = "stages/results.sqlite"
_READ_BUSY_S = 5.0
"""No time is measured where results are used: waiting for them is cheaper than making them again."""


class StageResults(KeptFile):
    """What stages made of questions. Safe between threads, processes, and after a kill; never a reason to fail.

    Args:
        root: where state lives; the file is `root/stages/results.sqlite`.
        max_mb: the results used least recently go when the file grows beyond it; None for no limit.
        remote_days: how long results of remote stages are used.
    """

    def __init__(self, root: Path, max_mb: float | None = 1024, remote_days: float = 30.0) -> None:
        super().__init__(root / FILE, max_mb, remote_days, _READ_BUSY_S)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Key -> what is kept under it."""
        return self._find(keys, bool) if keys else {}

    def keep(self, results: Mapping[bytes, bytes], *, expires: bool) -> None:
        """Keep them, soon, in another thread.

        Args:
            results: key -> value.
            expires: whether they are used for `remote_days` only.
        """

        def change() -> tuple[list[Entry], list[bytes]]:
            return entries_of(results, results.values(), expires=expires), []

        self._behind.put(change)


@dataclass(frozen=True, slots=True)
class SharedResults:
    """The results of one pipeline's stages.

    Attributes:
        store: where they are kept.
        keys: stage -> its key (`stage_key`); None for a stage whose results are not kept.
    """

    store: StageResults
    keys: Mapping[str, str | None]

    def keys_of(self, node: Node, asked: Mapping[int, Asked], together: bytes) -> dict[int, bytes]:
        """Place of a question -> key of the stage's result for it; empty for a stage whose results are not kept.

        Args:
            node: the stage.
            asked: place -> question.
            together: see `result_key`.
        """
        key = self.keys.get(node.name)
        if key is None:
            return {}
        return {place: result_key(node, key, one.query, one.inputs, together) for place, one in asked.items()}

    def find(self, node: Node, asked: Mapping[int, Asked], keys: Mapping[int, bytes]) -> dict[int, KeptAnswer]:
        """Place of a question -> what is kept of it, for those of `keys`."""
        found = self.store.find(list(keys.values()))
        answers = {place: unpack(node, asked[place].inputs, found[key]) for place, key in keys.items() if key in found}
        return {place: answer for place, answer in answers.items() if answer is not None}

    def keep(
        self,
        node: Node,
        asked: Mapping[int, Asked],
        keys: Mapping[int, bytes],
        made: Mapping[int, tuple[Outcome, KeptAnswer]],
    ) -> None:
        """Keep what was made of questions, where it is whole."""
        results = {
            keys[place]: pack(node, asked[place].inputs, kept)
            for place, (outcome, kept) in made.items()
            if place in keys and is_whole(node, asked[place].inputs, kept.answer, outcome.call)
        }
        if results:
            self.store.keep(results, expires=node.is_remote)


def check_stage_limits(max_mb: object, path: str = "") -> None:
    """Nothing, where `max_mb` is a number above 0, or None.

    Raises:
        ConfigError: it is not; with its name, and `path` before it.
    """
    more = ", or null for no limit; cache.stages=false keeps none"
    check_above_zero(f"{path}stages_max_mb", max_mb, more, may_be_none=True)
