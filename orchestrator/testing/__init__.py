"""Contract tests that every plugin passes, ours and yours.

Subclass the contract of your stage's kind in a pytest module and say how one is made:

    class TestMyRerank(PointwiseRerankContract):
        def make(self) -> MyRerank:
            return MyRerank(strength=2)

A plugin that needs files overrides `make` as a method that uses fixtures set on the class. Nothing here imports pytest.
"""

from __future__ import annotations

from orchestrator.testing.embedders import (
    EmbedContract,
    EmbedSparseContract,
    EmbedTokensContract,
)
from orchestrator.testing.inputs import (
    TEXTS,
    ranked,
    with_document_vector,
    with_vector,
)
from orchestrator.testing.stages import (
    FusionContract,
    ListRerankContract,
    PointwiseRerankContract,
    RecallContract,
    StageContract,
    WindowRerankContract,
)

__all__ = [
    "TEXTS",
    "EmbedContract",
    "EmbedSparseContract",
    "EmbedTokensContract",
    "FusionContract",
    "ListRerankContract",
    "PointwiseRerankContract",
    "RecallContract",
    "StageContract",
    "WindowRerankContract",
    "ranked",
    "with_document_vector",
    "with_vector",
]
