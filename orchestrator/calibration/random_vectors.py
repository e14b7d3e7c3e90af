"""Vectors without meaning: what searching costs does not depend on what stands in them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from orchestrator.types import Call, TextKind, Vectors


class RandomVectors:
    """An `Embed` that takes no time: unit vectors drawn from the text's checksum.

    Args:
        dim: their length.
    """

    similarity = "cosine"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    @property
    def model_id(self) -> str:
        """Length and way of drawing."""
        return f"random-{self.dim}"

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim], of length 1."""
        rows = np.stack([np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.dim) for text in texts])
        vectors: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return vectors
