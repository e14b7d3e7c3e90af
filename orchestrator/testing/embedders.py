"""Contracts of models that turn texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from orchestrator.testing.inputs import TEXTS
from orchestrator.types import Call, ScoreKind, SparseVector, TextKind, TokenVectors, Vectors


class EmbedContract:
    """One vector a text, in order, independent of its neighbours.

    Attributes:
        tolerance: how far two vectors of the same text may differ in any component.
    """

    tolerance: float = 1e-5

    def make(self) -> Any:
        """An embedder as the configuration would make it."""
        raise NotImplementedError("a contract test says how its embedder is made: override make()")

    def test_no_texts_no_vectors(self) -> None:
        """An empty batch gives an array of shape (0, dim)."""
        embedder = self._ready()
        assert self._vectors(embedder, []).shape == (0, embedder.dim)

    def test_says_what_it_is(self) -> None:
        """Similarity and identity are known once loaded, and a second instance has the same identity."""
        embedder, other = self._ready(), self._ready()
        assert embedder.similarity in ("cosine", "dot")
        assert embedder.model_id == other.model_id != ""

    def test_one_vector_a_text_whatever_the_batch(self) -> None:
        """Alone, in a batch and in reverse order a text has the same vector."""
        embedder = self._ready()
        together = self._vectors(embedder, TEXTS)
        assert together.shape == (len(TEXTS), embedder.dim)
        assert together.dtype == np.float32
        alone = np.concatenate([self._vectors(embedder, [text]) for text in TEXTS])
        backwards = self._vectors(embedder, TEXTS[::-1])[::-1]
        np.testing.assert_allclose(alone, together, atol=self.tolerance, rtol=0)
        np.testing.assert_allclose(backwards, together, atol=self.tolerance, rtol=0)

    def _ready(self) -> Any:
        embedder = self.make()
        embedder.load()
        return embedder

    def _vectors(self, embedder: Any, texts: Sequence[str], kind: TextKind = "document") -> Vectors:
        return np.asarray(embedder.embed(texts, kind=kind, call=Call()))


class EmbedTokensContract:
    """Unit vectors for the tokens of a text, in order, independent of its neighbours.

    Attributes:
        tolerance: how far two vectors of the same token may differ in any component.
    """

    tolerance: float = 1e-5

    def make(self) -> Any:
        """A model of token vectors as the configuration would make it."""
        raise NotImplementedError("a contract test says how its model is made: override make()")

    def test_no_texts_no_vectors(self) -> None:
        """An empty batch gives an empty list."""
        assert self._embedded(self._ready(), [], "document") == []

    def test_says_what_it_is(self) -> None:
        """Identity and length of a vector are known once loaded, and a second instance has the same."""
        model, other = self._ready(), self._ready()
        assert model.model_id == other.model_id != ""
        assert model.dim == other.dim > 0

    def test_every_text_has_unit_vectors_and_their_tokens(self) -> None:
        """Also an empty text: one vector at least, float32 of length 1, and an int32 token for each."""
        model = self._ready()
        for kind in get_args(TextKind):
            found = self._embedded(model, TEXTS, kind)
            assert len(found) == len(TEXTS)
            for part in found:
                assert part.vectors.dtype == np.float32
                assert part.token_ids.dtype == np.int32
                assert part.vectors.shape == (len(part.token_ids), model.dim)
                assert len(part.token_ids) >= 1
                np.testing.assert_allclose(np.linalg.norm(part.vectors, axis=1), 1, atol=self.tolerance)

    def test_tokens_of_a_text_whatever_the_batch(self) -> None:
        """Alone, in a batch and in reverse order a text has the same tokens and vectors."""
        model = self._ready()
        for kind in get_args(TextKind):
            together = self._embedded(model, TEXTS, kind)
            alone = [self._embedded(model, [text], kind)[0] for text in TEXTS]
            backwards = self._embedded(model, TEXTS[::-1], kind)[::-1]
            for first, second, third in zip(together, alone, backwards, strict=True):
                for other in (second, third):
                    np.testing.assert_array_equal(other.token_ids, first.token_ids)
                    np.testing.assert_allclose(other.vectors, first.vectors, atol=self.tolerance, rtol=0)

    def _ready(self) -> Any:
        model = self.make()
        model.load()
        return model

    def _embedded(self, model: Any, texts: Sequence[str], kind: TextKind) -> list[TokenVectors]:
        return list(model.embed_tokens(texts, kind=kind, call=Call()))


class EmbedSparseContract:
    """Weights of ascending dimensions, in order, independent of a text's neighbours.

    Attributes:
        tolerance: how far two weights of the same dimension may differ.
    """

    tolerance: float = 1e-5

    def make(self) -> Any:
        """A sparse encoder as the configuration would make it."""
        raise NotImplementedError("a contract test says how its encoder is made: override make()")

    def test_no_texts_no_vectors(self) -> None:
        """An empty batch gives an empty list."""
        assert self._embedded(self._ready(), [], "document") == []

    def test_says_what_it_is(self) -> None:
        """Identity and kind of score are known once loaded, and a second instance has the same."""
        model, other = self._ready(), self._ready()
        assert model.model_id == other.model_id != ""
        assert model.score_kind in get_args(ScoreKind)
        assert model.uses_idf in (True, False)

    def test_every_dimension_once_in_ascending_order(self) -> None:
        """uint32 dimensions and finite float32 weights, none of them 0; also of an empty text, which may have none."""
        model = self._ready()
        for kind in get_args(TextKind):
            found = self._embedded(model, TEXTS, kind)
            assert len(found) == len(TEXTS)
            for vector in found:
                assert vector.indices.dtype == np.uint32
                assert vector.values.dtype == np.float32
                assert vector.indices.shape == vector.values.shape == (len(vector.indices),)
                assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
                assert (np.isfinite(vector.values) & (vector.values != 0)).all()

    def test_weights_of_a_text_whatever_the_batch(self) -> None:
        """Alone, in a batch and in reverse order a text has the same weights; tiny ones may come and go."""
        model = self._ready()
        for kind in get_args(TextKind):
            together = self._embedded(model, TEXTS, kind)
            alone = [self._embedded(model, [text], kind)[0] for text in TEXTS]
            backwards = self._embedded(model, TEXTS[::-1], kind)[::-1]
            for first, second, third in zip(together, alone, backwards, strict=True):
                for other in (second, third):
                    assert self._difference(first, other) <= self.tolerance

    def _difference(self, first: SparseVector, second: SparseVector) -> float:
        """The largest difference of two weights."""
        one, two = (dict(zip(v.indices.tolist(), v.values.tolist(), strict=True)) for v in (first, second))
        return max((abs(one.get(index, 0.0) - two.get(index, 0.0)) for index in one.keys() | two.keys()), default=0.0)

    def _ready(self) -> Any:
        model = self.make()
        model.load()
        return model

    def _embedded(self, model: Any, texts: Sequence[str], kind: TextKind) -> list[SparseVector]:
        return list(model.embed_sparse(texts, kind=kind, call=Call()))
