"""The index behind the lexical features: every document's token ids, title and body apart, and term statistics.

Files: `terms.u64` holds a 64-bit hash of each term, ascending, so that a term's id is its place there; no vocabulary
has to be read into memory. Two of a million terms share a hash with probability 3e-8; they would count as one.
`title.u32`, `body.u32` and their `.i64` offsets are the documents; `frequencies.i64` the three document frequencies.
All are memory-mapped.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.analysis import Analyzer
from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus, Progress

from .tokens import DocumentFrequencies, Ints, Statistics, Tokens

FORMAT = 1
_FIELDS = ("title", "body")
_EVERY = 500
_UNSEEN = np.uint32(0xFFFFFFFF)
"""Id of a term that the index does not hold; no document has it."""


def build(corpus: Corpus, analyzer: Analyzer, directory: Path, progress: Progress) -> None:
    """Write the index of `corpus` into `directory`. Memory: eight bytes a token, and the vocabulary."""
    vocabulary: dict[str, int] = {}
    flat = {name: array("I") for name in _FIELDS}
    offsets = {name: array("q", [0]) for name in _FIELDS}
    for done, document in enumerate(corpus.documents(), start=1):
        for name, text in zip(_FIELDS, (document.title, document.text), strict=True):
            flat[name].extend([vocabulary.setdefault(token, len(vocabulary)) for token in analyzer(text)])
            offsets[name].append(len(flat[name]))
        if done % _EVERY == 0 or done == len(corpus):
            progress("tokens", done, len(corpus))
    hashes = _hashes(vocabulary)
    order = np.argsort(hashes, kind="stable")
    ids = np.empty(len(order), dtype=np.uint32)
    ids[order] = np.arange(len(order), dtype=np.uint32)
    fields = {
        name: Tokens(ids[np.frombuffer(flat[name], dtype=np.uint32)], np.frombuffer(offsets[name], dtype=np.int64))
        for name in _FIELDS
    }
    _write(directory, hashes[order], fields)


def _write(directory: Path, terms: npt.NDArray[np.uint64], fields: dict[str, Tokens]) -> None:
    terms.tofile(directory / "terms.u64")
    for name, tokens in fields.items():
        tokens.ids.tofile(directory / f"{name}.u32")
        tokens.offsets.tofile(directory / f"{name}.i64")
    pairs = [_pairs(tokens) for tokens in fields.values()]
    counts = [_count(np.unique(found), len(terms)) for found in (*pairs, np.concatenate(pairs))]
    np.stack(counts).tofile(directory / "frequencies.i64")


def _pairs(tokens: Tokens) -> Ints:
    """int64, one number a distinct (document, term): the document above, the term in the lower 32 bits."""
    documents = np.repeat(np.arange(len(tokens), dtype=np.int64), tokens.lengths)
    return np.unique((documents << 32) | tokens.ids)


def _count(pairs: Ints, n_terms: int) -> Ints:
    return np.bincount(pairs & 0xFFFFFFFF, minlength=n_terms).astype(np.int64)


def _hashes(terms: Iterable[str]) -> npt.NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(term.encode(), digest_size=8).digest() for term in terms)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


class ForwardIndex:
    """An index written by `build`, memory-mapped. Safe to use from several threads.

    Args:
        directory: where it lies.
        n_documents: how many documents it must hold.

    Raises:
        IndexStateError: files are missing, or do not fit each other or the corpus.
    """

    def __init__(self, directory: Path, n_documents: int) -> None:
        try:
            self._terms = _mapped(directory / "terms.u64", "<u8")
            self._frequencies = _mapped(directory / "frequencies.i64", "<i8").reshape(3, len(self._terms))
            self._title, self._body = (_field(directory, name) for name in _FIELDS)
            _check((self._title, self._body), n_documents)
        except (OSError, ValueError) as error:
            found = f"{error}; expected the index of {n_documents} documents. Build it again"
            raise IndexStateError(f"lexical index in {directory}: {found}") from error
        self._n_documents = n_documents
        self._title_length = len(self._title.ids) / max(n_documents, 1)
        self._body_length = len(self._body.ids) / max(n_documents, 1)

    def ids(self, terms: Sequence[str]) -> npt.NDArray[np.uint32]:
        """uint32 [n_terms]: the id of each term; one that no document has for those not held."""
        wanted = _hashes(terms)
        if not len(self._terms):
            return np.full(len(wanted), _UNSEEN)
        places = np.minimum(np.searchsorted(self._terms, wanted), len(self._terms) - 1)
        return np.where(self._terms[places] == wanted, places, _UNSEEN).astype(np.uint32)

    def statistics(self, ids: npt.NDArray[np.uint32]) -> Statistics:
        """The collection's figures, with the frequencies of the terms `ids`; 0 for terms not held."""
        held = ids != _UNSEEN
        found = np.zeros((3, len(ids)), dtype=np.int64)
        found[:, held] = self._frequencies[:, ids[held]]
        frequencies = DocumentFrequencies(*found)
        return Statistics(self._n_documents, self._title_length, self._body_length, frequencies)

    def take(self, ordinals: Ints) -> tuple[Tokens, Tokens]:
        """Title and body of the documents at `ordinals`."""
        return self._title.take(ordinals), self._body.take(ordinals)


def _field(directory: Path, name: str) -> Tokens:
    ids: npt.NDArray[np.uint32] = _mapped(directory / f"{name}.u32", "<u4")
    offsets: Ints = _mapped(directory / f"{name}.i64", "<i8")
    return Tokens(ids, offsets)


def _mapped(path: Path, dtype: str) -> npt.NDArray[Any]:
    """The array in `path`, as a plain array over mapped memory: slicing a np.memmap is several times slower."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _check(fields: Sequence[Tokens], n_documents: int) -> None:
    for name, tokens in zip(_FIELDS, fields, strict=True):
        if len(tokens.offsets) != n_documents + 1:
            raise ValueError(f"{name}: {len(tokens.offsets) - 1} documents")
        if tokens.offsets[0] != 0 or tokens.offsets[-1] != len(tokens.ids) or (np.diff(tokens.offsets) < 0).any():
            raise ValueError(f"{name}: {len(tokens.ids)} tokens, {tokens.offsets[-1]} by its offsets")
