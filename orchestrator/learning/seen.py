"""Queries that a stage learned from already: its scores are better on these than on new ones.

What learns from such scores trusts them too much, and a verdict on such queries is too kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.errors import ConfigError
from orchestrator.learning.training_queries import TrainingQueries

Seen = Mapping[str, frozenset[str]]
"""Stage whose scores are learned from -> ids of the queries that its own model learned from."""

OUT_OF_FOLD = "out_of_fold"
MODES = ("refuse", "drop", OUT_OF_FOLD, "allow")
LEAST = 20
"""Queries that have to remain to learn from; fewer teach little, and a verdict on a share of them says less."""


def without_seen(topics: TrainingQueries, seen: Seen, how: str) -> TrainingQueries:
    """The queries that a training may use.

    Args:
        topics: all of them.
        seen: what stages before, or the embedder of the stage itself, learned from.
        how: `refuse`: none may be among them | `drop`: they are left out | `out_of_fold` and `allow`: they stay.

    Raises:
        ConfigError: some are among them and that is refused, or too few remain.
    """
    known = frozenset[str]().union(*seen.values())
    if not known or how in (OUT_OF_FOLD, "allow"):
        return topics
    learn, test = (tuple(key for key in part if key not in known) for part in (topics.learn, topics.test))
    left = f"{len(learn)} to learn from" + (f" and {len(test)} for the verdict" if topics.test else "")
    enough = len(learn) >= LEAST and (bool(test) or not topics.test)
    if how == "refuse" or not enough:
        raise ConfigError("task.seen", _refusal(topics, seen, how, left, enough))
    told = f"{topics.told} ({len(known)} that {_named(seen)} learned from were left out: {left})"
    kept = tuple(query for query in topics.queries if query.query_id not in known)
    return replace(topics, queries=kept, learn=learn, test=test, told=told)


def _refusal(topics: TrainingQueries, seen: Seen, how: str, left: str, enough: bool) -> str:
    counts = ", ".join(f"'{stage}' from {len(ids)}" for stage, ids in seen.items() if ids)
    lines = [
        f"found {how}, and stages that this one learns from learned from these queries themselves: {counts} "
        f"of {len(topics.queries)}.",
        "Their scores are better on those than on new ones, so what learns from them trusts them too much.",
    ]
    drop = f"leaves {left}" if enough else f"would leave {left}, too few: {LEAST} are needed"
    lines.append(
        f"choices: seen=drop ({drop}), seen=out_of_fold (of train fusion: asks models that did not learn from them), "
        "other queries (corpus.split=..., held_out=...), seen=allow (the verdict is then too kind)"
    )
    return "\n".join(lines)


def _named(seen: Seen) -> str:
    return " and ".join(f"stage '{stage}'" for stage, ids in seen.items() if ids)
