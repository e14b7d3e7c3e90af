"""What `calibrate` kept, where predictions are made: figures of this machine, lengths of this corpus."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from orchestrator.calibration.kept import Calibration, CorpusFigures, read
from orchestrator.cost import AROUND, REMOTE_KINDS, CostModel
from orchestrator.lengths import Lengths
from orchestrator.types import Document

_SAMPLED = 200
_BYTES_PER_TOKEN = 4


def measured_here(cost: CostModel, root: Path, corpus: str | None = None) -> CostModel:
    """`cost` with the rows that were measured on this machine in their places, where it allows that and there are any.

    Args:
        cost: reference figures.
        root: where state lives.
        corpus: key of the corpus, whose own searches may have been measured; None for any.
    """
    found = read(root) if cost.calibrated else None
    if found is None:
        return cost
    own = found.corpora.get(corpus or "")
    return cost.with_measured([*found.rows, *(own.rows if own else ())], _origin(found, cost))


def _origin(found: Calibration, cost: CostModel) -> str:
    measured = {row.kind for row in found.rows}
    rest = {kind for kind, _ in cost.stages} - measured
    parts = [f"measured on this machine on {found.day}: {', '.join(sorted(measured - {AROUND}))}"]
    if local := rest - REMOTE_KINDS:
        parts.append(f"reference figures, stretched to this machine: {', '.join(sorted(local))}")
    if remote := rest & REMOTE_KINDS:
        parts.append(f"published figures: {', '.join(sorted(remote))}")
    if changed := found.changed():
        parts.append(f"measured with other versions ({', '.join(changed)}): `orchestrate calibrate` measures anew")
    return "; ".join(parts)


def corpus_figures(root: Path, corpus: str) -> CorpusFigures | None:
    """What a calibration on this machine learned of the corpus with that key."""
    found = read(root)
    return None if found is None else found.corpora.get(corpus)


def estimated_lengths(documents: Iterable[Document]) -> Lengths:
    """Lengths by the bytes of the first documents, for a corpus that nobody calibrated; those found may be longer."""
    sizes = [len(document.full_text.encode()) / _BYTES_PER_TOKEN for document in islice(documents, _SAMPLED)]
    mean = max(1, round(sum(sizes) / len(sizes))) if sizes else Lengths().documents[0][0]
    source = f"documents of {mean} tokens, estimated from {len(sizes)}; `orchestrate calibrate` counts those found"
    return Lengths(documents=((mean,),), source=source)
