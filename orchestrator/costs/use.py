"""What `calibrate` kept, where predictions are made: figures of this machine, lengths of this corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from orchestrator.costs.cost import AROUND, REMOTE_KINDS, CostModel, StageCost
from orchestrator.costs.kept import Calibration, CorpusFigures, read
from orchestrator.costs.lengths import USUAL_QUERY_TOKENS, Lengths
from orchestrator.types import Document

_SAMPLED = 200
_BYTES_PER_TOKEN = 4


def measured_here(cost: CostModel, root: Path, corpus: str | None = None, content_hash: str | None = None) -> CostModel:
    """`cost` with the rows that were measured on this machine in their places, where it allows that and there are any.

    Args:
        cost: reference figures.
        root: where state lives.
        corpus: key of the corpus, whose own searches may have been measured; None for any.
        content_hash: of its documents: what was measured over others is left out, and told; None is not compared.
    """
    found = read(root) if cost.calibrated else None
    if found is None:
        return cost
    own = found.corpora.get(corpus or "")
    is_stale = own is not None and not _is_of(own, content_hash)
    rows = [*found.rows, *(own.rows if own is not None and not is_stale else ())]
    here = cost.with_measured(rows, cost.origin)
    parts = [*_origin(found, rows, cost, here)]
    if is_stale:
        parts.append("this corpus was measured before its documents changed: `orchestrate calibrate` measures anew")
    return dataclasses.replace(here, origin="; ".join(parts))


def _origin(found: Calibration, rows: Iterable[StageCost], cost: CostModel, here: CostModel) -> Iterator[str]:
    """Row by row, where the figures of `here` come from: a model that was not measured goes by that of another."""
    measured = {(row.kind, row.model) for row in rows}
    others = {key: row for key, row in here.stages.items() if (row.kind, row.model) not in measured}
    own = _names(row for row in rows if row.kind != AROUND)
    yield f"what was measured on this machine, the last of it on {found.day}: {own}"
    local = {key: row for key, row in others.items() if row.kind not in REMOTE_KINDS}
    if local:
        is_stretched = any(row != cost.stages[key] for key, row in local.items())
        how = "stretched to this machine" if is_stretched else "as they are"
        yield f"reference figures of other machines, {how}: {_names(local.values())}"
    if remote := [row for row in others.values() if row.kind in REMOTE_KINDS]:
        yield f"published figures: {_names(remote)}"
    if changed := found.changed():
        yield f"measured with other versions ({', '.join(changed)}): `orchestrate calibrate` measures anew"


def _names(rows: Iterable[StageCost]) -> str:
    return ", ".join(sorted({row.kind if row.model is None else f"{row.kind} {row.model}" for row in rows}))


def corpus_figures(root: Path, corpus: str, content_hash: str | None = None) -> CorpusFigures | None:
    """What a calibration on this machine learned of the corpus with that key.

    Args:
        root: where state lives.
        corpus: its key.
        content_hash: of its documents: what was learned of others counts for nothing; None is not compared.
    """
    found = read(root)
    own = None if found is None else found.corpora.get(corpus)
    return own if own is not None and _is_of(own, content_hash) else None


def _is_of(own: CorpusFigures, content_hash: str | None) -> bool:
    return content_hash is None or own.content_hash == content_hash


def estimated_lengths(documents: Iterable[Document], query_tokens: int = USUAL_QUERY_TOKENS) -> Lengths:
    """Lengths by the bytes of the first documents, for a corpus that nobody calibrated; those found may be longer.

    Args:
        documents: of the corpus.
        query_tokens: of a question.
    """
    sizes = [len(document.full_text.encode()) / _BYTES_PER_TOKEN for document in islice(documents, _SAMPLED)]
    mean = max(1, round(sum(sizes) / len(sizes))) if sizes else Lengths().documents[0][0]
    source = f"documents of {mean} tokens, estimated from {len(sizes)}; `orchestrate calibrate` counts those found"
    return Lengths((query_tokens,), ((mean,),), source)
