"""Rerank orchestrator: one YAML file declares a whole retrieve-and-rerank stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import (
    ConfigError,
    DataError,
    IndexStateError,
    MissingExtraError,
    ModelNotFoundError,
    OrchestratorError,
    PipelineError,
    StageError,
)
from orchestrator.types import Candidate, Document, Query, RankedList

if TYPE_CHECKING:
    from orchestrator.pipeline import Pipeline

__version__ = "0.1.0"

__all__ = [
    "Candidate",
    "ConfigError",
    "DataError",
    "Document",
    "IndexStateError",
    "MissingExtraError",
    "ModelNotFoundError",
    "OrchestratorError",
    "Pipeline",
    "PipelineError",
    "Query",
    "RankedList",
    "StageError",
]


def __getattr__(name: str) -> object:
    """`Pipeline` on first use: it brings Hydra, which nobody needs who only imports the types."""
    if name == "Pipeline":
        from orchestrator.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module 'orchestrator' has no attribute '{name}'")
