"""MaxSim, the score of late interaction: for each token of the query its nearest token of the document.

Source: Khattab, Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over
BERT", SIGIR 2020, equation 3. We take the weighted mean over the query's tokens in place of their sum: within a query
the order is the same, and scores of long and short queries compare.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orchestrator.rows.token_vectors import KeptTokens
from orchestrator.types import Vectors

_CHUNK = 512
"""Document tokens compared at once: 0.8 MB of float32 at 384 dimensions, which stays in the cache."""
_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS keeps a product on one thread. These are over in microseconds: two threads that
wait for each other after each took 180 ms for 11,500 document tokens on a busy machine, in place of 5."""


def maxsim(query: Vectors, weights: Vectors, documents: KeptTokens) -> npt.NDArray[np.float32]:
    """float32 [n_documents]: weighted mean over the query's tokens of the greatest product with a document's token.

    Args:
        query: float32 [n_query_tokens, dim].
        weights: float32 [n_query_tokens], not negative, not all 0.
        documents: their kept token vectors.
    """
    similarity = _similarity(query, documents)
    starts = np.concatenate([[0], np.cumsum(documents.lengths)[:-1]])
    nearest: Vectors = np.maximum.reduceat(similarity, starts, axis=0)
    # einsum, not a matrix product: each document is summed in the same order whatever else is in the batch.
    scores: Vectors = np.einsum("ij,j->i", nearest, weights / weights.sum())
    return scores


def _similarity(query: Vectors, documents: KeptTokens) -> Vectors:
    """float32 [n_tokens, n_query_tokens]."""
    dim = query.shape[1]
    n_parts = -(-len(query) * 2 * dim // _ONE_THREAD)
    if n_parts > 1:
        return np.concatenate([_similarity(part, documents) for part in np.array_split(query, n_parts)], axis=1)
    columns = np.ascontiguousarray((query if len(query) > 1 else np.repeat(query, 2, axis=0)).T)
    few = _rows_at_once(columns.size)
    n = len(documents.vectors)
    similarity = np.empty((-(-n // few) * few, columns.shape[1]), dtype=np.float32)
    # One buffer for all chunks: fresh memory for each costs more in page faults than the product itself.
    buffer = np.zeros((min(_CHUNK, len(similarity)), dim), dtype=np.float32)
    for start in range(0, n, _CHUNK):
        part, out = documents.vectors[start : start + _CHUNK], similarity[start : start + _CHUNK]
        buffer[: len(part)] = part
        rows = buffer[: len(out)]  # after the last vector whatever was there before, for nobody to look at
        np.matmul(rows.reshape(-1, few, dim), columns, out=out.reshape(-1, few, columns.shape[1]))
    similarity = similarity[:n, : len(query)]
    if documents.scales is not None:
        similarity *= documents.scales[:, None]
    return similarity


def _rows_at_once(size: int) -> int:
    """How many rows a product with `size` numbers may have on one thread: a power of two, which fills a chunk.

    Never one row, and never one column: that is another routine of BLAS, which rounds otherwise and is on two threads
    from 9,216 numbers on.
    """
    return 1 << min(_CHUNK, _ONE_THREAD // size).bit_length() - 1


def idf(frequencies: npt.NDArray[np.int64], n_documents: int) -> Vectors:
    """float32, one a frequency: how rare a token is, always above 0.

    Formula of Lucene's BM25: ln(1 + (N - n + 0.5) / (n + 0.5)).
    """
    weights: Vectors = np.log1p((n_documents - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    return weights
