"""`orchestrate cache prune` and `clear`: which of the things that are kept go, and what that frees."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.holdings.holdings import (
    ENTRIES,
    KINDS,
    LEARNED,
    NAMED_ONLY,
    VECTORS,
    Holding,
    entries_bytes,
    holdings,
    remove_holding,
)
from orchestrator.kept.entries import Entries, open_entries, today

_MB = 1 << 20
_DAY_S = 86_400
GROUPS = {"vectors": VECTORS, "all": tuple(kind for kind in KINDS if kind not in (*LEARNED, *NAMED_ONLY))}
"""Words that stand for several kinds."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Something that went, or would go.

    Attributes:
        holding: all of it, as it was before.
        reason: why.
        entries: how many of its entries; None where nothing is counted.
        n_bytes: what that freed, or would free, about.
    """

    holding: Holding
    reason: str
    entries: int | None
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What may stay.

    Attributes:
        max_mb: of all that is looked at together; None is no limit.
        older_than_days: what was last used before goes; None is nothing for its age.
        max_entries_mb: kind whose entries go one by one (scores, stages) -> of those, whatever else there is.
        remote_days: scores and results of remote models that are older go.
    """

    max_mb: float | None = None
    older_than_days: float | None = None
    max_entries_mb: Mapping[str, float | None] = field(default_factory=dict)
    remote_days: float = 30.0


def chosen_kinds(what: object) -> tuple[str, ...]:
    """The kinds that `task.what` names, each once.

    Raises:
        ConfigError: a name is unknown, or of models that are never removed.
    """
    names = [what] if isinstance(what, str) else list(what) if isinstance(what, Sequence) else []
    choices = [kind for kind in (*KINDS, "all") if kind not in LEARNED]
    if not names:
        raise ConfigError("task.what", f"found {what!r}; expected one or more of: {', '.join(choices)}")
    for name in names:
        if name in LEARNED:
            found = f"models that were {name}" if name != "runs" else "runs kept by save_as"
            found += " are never removed by this command"
            raise ConfigError("task.what", f"{found}; 'orchestrate cache show' says where they lie")
        check_choice("task.what", name, choices)
    return tuple(dict.fromkeys(kind for name in names for kind in GROUPS.get(name, (name,))))


def clear(root: Path, kinds: Iterable[str], dry_run: bool = False) -> list[Removal]:
    """Remove all of `kinds`; returns what went.

    Args:
        root: where state lives.
        kinds: as `chosen_kinds` gives them.
        dry_run: remove nothing, only say what would go.
    """
    return [_removed(held, "cleared", dry_run) for held in holdings(root) if held.kind in set(kinds)]


def prune(root: Path, kinds: Iterable[str], limits: Limits, dry_run: bool = False) -> list[Removal]:
    """Remove of `kinds` what is beyond `limits`, the least recently used first; returns what went.

    Whole folders go, not single texts or documents of one; of scores and results of stages single entries go, after all
    else, the results first.
    What is left over from damage and from processes that were killed goes always.

    Args:
        root: where state lives.
        kinds: as `chosen_kinds` gives them.
        limits: what may stay.
        dry_run: remove nothing, only say what would go.
    """
    looked_at = [held for held in holdings(root) if held.kind in set(kinds)]
    folders = sorted((held for held in looked_at if held.kind not in ENTRIES), key=lambda held: held.last_used)
    left = sum(held.n_bytes for held in looked_at)
    gone = []
    for held in folders:
        reason = _why(held, limits, left)
        if reason is not None:
            gone.append(_removed(held, reason, dry_run))
            left -= held.n_bytes
    for held in reversed([held for held in looked_at if held.kind in ENTRIES]):  # results are made of scores again
        room = None if limits.max_mb is None else limits.max_mb * _MB - (left - held.n_bytes)
        removals = _prune_entries(held, limits, room, dry_run)
        left -= sum(removal.n_bytes for removal in removals)
        gone += removals
    return gone


def _why(held: Holding, limits: Limits, left: int) -> str | None:
    if held.is_leftover:
        return held.about
    days = (time.time() - held.last_used) / _DAY_S
    if limits.older_than_days is not None and days > limits.older_than_days:
        return f"not used for {days:.0f} days"
    if limits.max_mb is not None and left > limits.max_mb * _MB:
        return f"beyond {limits.max_mb:g} MB"
    return None


def _removed(held: Holding, reason: str, dry_run: bool) -> Removal:
    return Removal(held, reason, held.entries, held.n_bytes if dry_run else remove_holding(held))


def _prune_entries(held: Holding, limits: Limits, room: float | None, dry_run: bool) -> list[Removal]:
    """At most one removal, of entries: too old, expired, or used least recently where the file is too large."""
    own = limits.max_entries_mb.get(held.kind)
    bounds = [bound for bound in (room, own and own * _MB) if bound is not None]
    most = max(min(bounds), 0.0) if bounds else None
    entries = open_entries(held.path)
    try:
        if dry_run:
            n_dropped = _would_drop(entries.count_unused(_since(limits)), held, most)
        else:
            n_dropped = _drop(entries, limits, most)
    finally:
        entries.close()
    share = n_dropped / max(held.entries or 0, 1)
    freed = round(held.n_bytes * share) if dry_run else held.n_bytes - entries_bytes(held.path)
    is_worth_a_line = n_dropped or freed > _MB
    return [Removal(held, "old, expired or beyond the limit", n_dropped, max(freed, 0))] if is_worth_a_line else []


def _drop(entries: Entries, limits: Limits, most: float | None) -> int:
    """How many entries went; the file is checked, and gives back what it does not need."""
    entries.check()
    n_dropped = entries.drop_expired(limits.remote_days * _DAY_S) + entries.drop_unused(_since(limits))
    n_dropped += 0 if most is None else entries.shrink(most)
    entries.vacuum()
    entries.file.remove_damaged()
    return n_dropped


def _since(limits: Limits) -> int:
    return 0 if limits.older_than_days is None else today() - int(limits.older_than_days)


def _would_drop(n_old: int, held: Holding, most: float | None) -> int:
    n_rows = held.entries or 0
    if most is None or held.n_bytes <= most:
        return n_old
    return max(n_old, round(n_rows * (1 - most / held.n_bytes)))
