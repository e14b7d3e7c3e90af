"""From the last hidden state to vectors, in numpy: the modules that sentence-transformers puts after a transformer.

Formulas are those of sentence-transformers 6 (sentence_transformer/modules/pooling.py, base/modules/dense.py,
base/modules/normalize.py), for padding on the right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator.models.manifest import HEAD_FILE, Manifest
from orchestrator.models.tokens import Tokens
from orchestrator.types import TextKind, TokenVectors, Vectors

_Apply: TypeAlias = Callable[[Vectors], Vectors]
_Mask: TypeAlias = npt.NDArray[np.int64]


class Head:
    """Pooling, then Dense and Normalize layers, then the cut to `truncate_dim`.

    Args:
        manifest: of an embedder; the first module is the pooling.
        weights: arrays of the Dense layers, named `<folder>.<tensor>`.
    """

    def __init__(self, manifest: Manifest, weights: Mapping[str, Vectors]) -> None:
        pooling = manifest.modules[0]
        self._modes = [str(mode) for mode in _items(pooling["modes"])]
        self._include_prompt = bool(pooling["include_prompt"])
        self._layers = [_layer(module, weights) for module in manifest.modules[1:]]
        self._truncate_dim = manifest.truncate_dim
        width = len(self._modes) * manifest.hidden_size
        self.dim = int(self._finish(np.zeros((1, width), np.float32)).shape[1])

    @classmethod
    def read(cls, manifest: Manifest, folder: Path) -> Head:
        """The head of the export in `folder`."""
        return cls(manifest, _read_weights(folder))

    def apply(self, hidden: Vectors, mask: _Mask, prompt_length: int = 0) -> Vectors:
        """float32 [n, dim].

        Args:
            hidden: float32 [n, length, width], the last hidden state.
            mask: int64 [n, length], 1 for tokens and 0 for padding, which stands on the right.
            prompt_length: tokens of the prompt, left out of the pooling where the model says so.
        """
        if prompt_length and not self._include_prompt:
            mask = mask.copy()
            mask[:, :prompt_length] = 0
        pooled = np.concatenate([_POOLINGS[mode](hidden, mask) for mode in self._modes], axis=1)
        return self._finish(pooled)

    def _finish(self, pooled: Vectors) -> Vectors:
        for layer in self._layers:
            pooled = layer(pooled)
        return np.ascontiguousarray(pooled[:, : self._truncate_dim], dtype=np.float32)


class TokenHead:
    """Dense and Normalize layers on every token that counts, and the choice of those tokens.

    Args:
        manifest: of a multi-vector encoder.
        weights: arrays of the Dense layers, named `<folder>.<tensor>`.
    """

    def __init__(self, manifest: Manifest, weights: Mapping[str, Vectors]) -> None:
        if manifest.token_rules is None:
            raise ValueError(f"an export of a {manifest.role}; expected one of a multi-vector encoder")
        self._skip_ids = {kind: np.array(ids, np.int32) for kind, ids in manifest.token_rules.skip_ids.items()}
        self._keep_ids = np.array(manifest.token_rules.keep_ids, np.int32)
        self._layers = [_layer(module, weights) for module in manifest.modules]
        self.dim = int(self._finish(np.zeros((1, manifest.hidden_size), np.float32)).shape[1])

    @classmethod
    def read(cls, manifest: Manifest, folder: Path) -> TokenHead:
        """The head of the export in `folder`."""
        return cls(manifest, _read_weights(folder))

    def apply(self, hidden: Vectors, rows: Sequence[Tokens], kind: TextKind) -> list[TokenVectors]:
        """One TokenVectors a row; at least one token of each.

        Args:
            hidden: float32 [n_rows, length, width], the last hidden state.
            rows: the tokens it was made from; what stands right of them is padding.
            kind: of the texts; decides which tokens do not count.
        """
        counted = [self._counted(row.ids, kind) for row in rows]
        vectors = self._finish(np.concatenate([hidden[place, where] for place, where in enumerate(counted)]))
        ends = np.cumsum([len(where) for where in counted])[:-1]
        parts = zip(rows, counted, np.split(vectors, ends), strict=True)
        return [TokenVectors(part, row.ids[where]) for row, where, part in parts]

    def _counted(self, ids: npt.NDArray[np.int32], kind: TextKind) -> npt.NDArray[np.int64]:
        counts = ~np.isin(ids, self._skip_ids[kind])
        if kind == "document" and len(self._keep_ids):
            counts &= np.isin(ids, self._keep_ids)
        # A text of which nothing counts keeps its first token: a document without any vector could not be scored.
        return np.flatnonzero(counts) if counts.any() else np.zeros(1, np.int64)

    def _finish(self, vectors: Vectors) -> Vectors:
        for layer in self._layers:
            vectors = layer(vectors)
        return np.ascontiguousarray(vectors, dtype=np.float32)


def _read_weights(folder: Path) -> dict[str, Vectors]:
    if not (folder / HEAD_FILE).exists():
        return {}
    with np.load(folder / HEAD_FILE) as arrays:
        return dict(arrays)


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _sum(hidden: Vectors, weights: _Mask) -> Vectors:
    """float32 [n, width]: token vectors summed with `weights` [n, length]."""
    total: Vectors = np.matmul(weights[:, None, :].astype(np.float32), hidden)[:, 0, :]
    return total


def _count(weights: _Mask) -> Vectors:
    count: Vectors = np.maximum(weights.sum(axis=1, keepdims=True), 1e-9).astype(np.float32)
    return count


def _mean(hidden: Vectors, mask: _Mask) -> Vectors:
    return _sum(hidden, mask) / _count(mask)


def _mean_sqrt_len(hidden: Vectors, mask: _Mask) -> Vectors:
    root: Vectors = np.sqrt(_count(mask))
    return _sum(hidden, mask) / root


def _weightedmean(hidden: Vectors, mask: _Mask) -> Vectors:
    # The weight of a token is its position from 1; leaving the prompt out does not move the others.
    weights = mask * np.arange(1, mask.shape[1] + 1)
    return _sum(hidden, weights) / _count(weights)


def _cls(hidden: Vectors, mask: _Mask) -> Vectors:
    first: Vectors = hidden[np.arange(len(hidden)), mask.argmax(axis=1)]
    return first


def _lasttoken(hidden: Vectors, mask: _Mask) -> Vectors:
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    rows = np.arange(len(hidden))
    # A text that is all prompt has no token left: zeros, as the product with its mask gives there.
    vectors: Vectors = hidden[rows, last] * mask[rows, last, None].astype(np.float32)
    return vectors


def _max(hidden: Vectors, mask: _Mask) -> Vectors:
    highest: Vectors = np.where(mask[:, :, None] == 0, np.float32(-np.inf), hidden).max(axis=1)
    return highest


_POOLINGS: Mapping[str, Callable[[Vectors, _Mask], Vectors]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "lasttoken": _lasttoken,
}

_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x: Vectors) -> Vectors:
    result: Vectors = np.float32(1) / (np.float32(1) + np.exp(-x))
    return result


def _gelu(x: Vectors) -> Vectors:
    result: Vectors = x * (1 + _erf(x / math.sqrt(2)).astype(np.float32)) / np.float32(2)
    return result


_ACTIVATIONS: Mapping[str, _Apply] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, np.float32(0)),
    "Sigmoid": _sigmoid,
    "GELU": _gelu,
}


def _layer(module: Mapping[str, object], weights: Mapping[str, Vectors]) -> _Apply:
    return _normalize if module["type"] == "normalize" else _dense(module, weights)


def _normalize(vectors: Vectors) -> Vectors:
    norms: Vectors = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return vectors / norms


def _dense(module: Mapping[str, object], weights: Mapping[str, Vectors]) -> _Apply:
    prefix = module["folder"]
    weight, bias = weights[f"{prefix}.linear.weight"].T, weights.get(f"{prefix}.linear.bias")
    projection = weights.get(f"{prefix}.residual.weight")
    activate = _ACTIVATIONS[str(module["activation"])]

    def apply(vectors: Vectors) -> Vectors:
        out = activate(vectors @ weight if bias is None else vectors @ weight + bias)
        if not module["residual"]:
            return out
        return out + (vectors if projection is None else vectors @ projection.T)

    return apply
