"""Late interaction: the formula, the weights, vectors that are kept, and a pipeline with a tiny real encoder."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.errors import ConfigError
from orchestrator.models import Model
from orchestrator.models.manifest import TokenRules
from orchestrator.plugins.embed.tokens import OnnxTokenEmbed
from orchestrator.plugins.late_interaction.maxsim import idf, maxsim
from orchestrator.plugins.late_interaction.token_weights import TokenWeights
from orchestrator.plugins.rerank.late_interaction import LateInteractionRerank
from orchestrator.rows.token_vectors import KeptTokens, _shared_store
from orchestrator.testing import PointwiseRerankContract
from orchestrator.types import Call, Document, Query

TEXTS = ["glaucoma damages the optic nerve", "the great wall", "an eye; a nerve", "wall"]


@pytest.fixture
def encoder(checkpoints: Any, shared_root: Path) -> OnnxTokenEmbed:
    return encoder_of(checkpoints, shared_root)


def encoder_of(checkpoints: Any, root: Path, kind: str = "bert") -> OnnxTokenEmbed:
    card = Model(role="multi_vector", path=str(checkpoints.transformer(kind)), storage_root=root)
    return OnnxTokenEmbed(card, threads=1)


def pairs_of(*queries: str) -> list[tuple[Query, Document]]:
    documents = [Document(f"d{place}", text) for place, text in enumerate(TEXTS)]
    return [(Query(f"q{number}", query), document) for number, query in enumerate(queries) for document in documents]


class TestLateInteraction(PointwiseRerankContract):
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.checkpoints, self.root = checkpoints, shared_root

    def make(self) -> LateInteractionRerank:
        return LateInteractionRerank(encoder_of(self.checkpoints, self.root), storage_root=self.root)


class TestLateInteractionOfXlmRoberta(TestLateInteraction):
    def make(self) -> LateInteractionRerank:
        encoder = encoder_of(self.checkpoints, self.root, "xlmr")
        return LateInteractionRerank(encoder, "equal", "float32", storage_root=self.root)


def test_maxsim_is_the_weighted_mean_of_each_query_tokens_nearest_document_token() -> None:
    rng = np.random.default_rng(3)
    query, lengths = rng.standard_normal((5, 16)).astype(np.float32), np.array([3, 1, 4000, 7])
    vectors = rng.standard_normal((lengths.sum(), 16)).astype(np.float32)
    weights = rng.random(5).astype(np.float32)
    found = maxsim(query, weights, KeptTokens(vectors, None, lengths))
    for score, rows in zip(found, np.split(vectors, np.cumsum(lengths)[:-1]), strict=True):
        nearest = [max(float(token @ row) for row in rows) for token in query]
        expected = sum(w * s for w, s in zip(weights, nearest, strict=True)) / weights.sum()
        assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n_query", [1, 2, 40, 341, 342, 1000])
@pytest.mark.parametrize("n_tokens", [1, 2, 513, 700])
def test_products_are_matrices_that_stay_on_one_thread(
    n_query: int, n_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    query, vectors = (rng.standard_normal((n, 384)).astype(np.float32) for n in (n_query, n_tokens))
    seen: list[tuple[int, int, int]] = []
    multiply = np.matmul

    def watched(rows: Any, columns: Any, out: Any) -> None:
        seen.append((rows.shape[-2], rows.shape[-1], columns.shape[-1]))
        multiply(rows, columns, out=out)

    monkeypatch.setattr(np, "matmul", watched)
    weights = np.ones(n_query, np.float32)
    found = maxsim(query, weights, KeptTokens(vectors, None, np.array([n_tokens])))
    monkeypatch.undo()
    assert seen
    assert min(min(rows, columns) for rows, _, columns in seen) >= 2, "one row or column is a product with a vector"
    assert max(map(math.prod, seen)) <= 1 << 18, "OpenBLAS takes more threads above"
    assert found == pytest.approx([(vectors @ query.T).max(axis=0).mean()], abs=1e-3)


def test_scales_multiply_rows_of_int8() -> None:
    vectors, scales = np.array([[100, -50], [20, 127]], dtype=np.int8), np.array([0.01, 0.002], dtype=np.float32)
    query = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    (score,) = maxsim(query, np.array([3.0, 1.0], np.float32), KeptTokens(vectors, scales, np.array([2])))
    assert score == pytest.approx((3 * max(1.0, 0.04) + 1 * max(-0.5, 0.254)) / 4)


def test_idf_is_that_of_lucene() -> None:
    np.testing.assert_allclose(
        idf(np.array([0, 3, 10]), 10), [math.log(1 + (10 - n + 0.5) / (n + 0.5)) for n in (0, 3, 10)], rtol=1e-6
    )


def test_equal_weights_give_sentence_transformers_own_maxsim(encoder: OnnxTokenEmbed, storage_root: Path) -> None:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    stage = LateInteractionRerank(encoder, "equal", "float32", storage_root=storage_root)
    stage.load()
    found = stage.score(pairs_of("optic nerve", "the wall"), Call()).reshape(2, -1)
    modules = [Transformer(str(encoder.model.path)), Normalize("token_embeddings"), MultiVectorMask()]
    model = MultiVectorEncoder(modules=modules, device="cpu", similarity_fn_name="meanmaxsim")
    queries, documents = model.encode_query(["optic nerve", "the wall"]), model.encode_document(TEXTS)
    np.testing.assert_allclose(found, model.similarity(queries, documents).numpy(), atol=1e-5)


def test_int8_differs_little_and_vectors_are_encoded_once(
    encoder: OnnxTokenEmbed, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = LateInteractionRerank(encoder, "equal", "float32", storage_root=storage_root)
    small = LateInteractionRerank(encoder, "equal", storage_root=storage_root)
    exact.load()
    pairs = pairs_of("optic nerve", "the wall")
    np.testing.assert_allclose(small.score(pairs, Call()), exact.score(pairs, Call()), atol=0.01)
    seen: list[str] = []
    embed = encoder.embed_tokens

    def watched(texts: Any, *, kind: Any, call: Call) -> Any:
        seen.extend(f"{kind}: {text}" for text in texts)
        return embed(texts, kind=kind, call=call)

    monkeypatch.setattr(encoder, "embed_tokens", watched)
    small.score([*pairs, (Query("q9", "a tower"), Document("new", "a great eye"))], Call())
    assert seen == ["document: a great eye", "query: a tower"]  # those asked before are still known


SMALL = ["pipeline.stages.bm25.top_k=8", "pipeline.stages.dense.top_k=8", "pipeline.stages.fused.top_k=12"]


@pytest.fixture
def compose(checkpoints: Any, small_sample: Path) -> Callable[..., Pipeline]:
    """`compose(root, *more)`: hybrid recall and late interaction by a tiny encoder, over a small corpus."""
    local = [f"model@models.{role}=local_{role}" for role in ("embedder", "multi_vector")]
    local += [f"models.{role}.path={checkpoints.transformer('bert')}" for role in ("embedder", "multi_vector")]
    stage = ["pipeline=bi_encoder", "rerank@pipeline.stages.shortlist.use=late_interaction"]
    words = [*stage, *local, *SMALL, f"corpus.path={small_sample}"]
    return lambda root, *more: Pipeline.compose([*words, f"storage.root={root}", *more])


def test_rare_tokens_of_the_query_count_more(compose: Callable[..., Pipeline], shared_root: Path) -> None:
    with compose(shared_root) as pipeline:
        result = pipeline.search("the eye")
        stage: Any = pipeline.graph["shortlist"].stage
        assert result.ranked.score_kind == "maxsim"
        assert not result.trace.stages[-1].notes
        documents = list(pipeline.corpus.documents())
        encoder = stage.encoder
        encoded = encoder.embed_tokens([d.full_text for d in documents], kind="document", call=Call())
        query = encoder.embed_tokens(["the eye"], kind="query", call=Call())[0]
        counts = [sum(token in text.token_ids for text in encoded) for token in query.token_ids]
        weights = np.array([math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)) for n in counts])
        tokens = dict(zip([d.doc_id for d in documents], encoded, strict=True))
        for candidate in result.ranked:
            nearest = (query.vectors @ tokens[candidate.doc_id].vectors.T).max(axis=1)
            assert candidate.score == pytest.approx(float(nearest @ weights / weights.sum()), abs=0.01)


def test_documents_of_a_caller_are_weighed_by_the_index_where_there_is_one(
    compose: Callable[..., Pipeline], shared_root: Path, tmp_path: Path
) -> None:
    given = ["a great wall", "glaucoma damages the eye", "a great wall"]
    with compose(tmp_path) as pipeline:
        result = pipeline.rerank("the eye", given)
        assert result.trace.stages[-1].notes == (
            "tokens of the query weighed alike: no index of the corpus tells how rare they are",
        )
    with compose(shared_root) as pipeline:
        pipeline.load()
        weighed = pipeline.rerank("the eye", given)
        assert not weighed.trace.stages[-1].notes
        assert sorted(weighed.doc_ids) == ["0", "1", "2"]


def test_a_lower_dimension_is_an_index_of_its_own(compose: Callable[..., Pipeline], shared_root: Path) -> None:
    def top(*more: str) -> dict[str, float]:
        with compose(shared_root, *more) as pipeline:
            return {c.doc_id: c.score for c in pipeline.search("the eye").ranked}

    full, half = top(), top("pipeline.stages.shortlist.use.dim=24")
    shared = full.keys() & half.keys()
    assert len(shared) >= len(full) // 2
    assert full != half
    assert max(abs(full[doc_id] - half[doc_id]) for doc_id in shared) < 0.1


def test_mask_tokens_that_fill_a_query_count_like_the_others(
    checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    TokenWeights.write(tmp_path, np.array([3, 2, 1]), n_documents=9)

    def weights(fill: int) -> list[float]:
        encoder = encoder_of(checkpoints, shared_root)
        encoder.load()
        rules = TokenRules(
            query_length_tokens=None,
            expand_to=fill,
            expand_id=4,
            attend=False,
            skip_ids={"query": (), "document": ()},
            keep_ids=(),
        )
        loaded: Any = encoder._loaded
        manifest = dataclasses.replace(loaded.model.manifest, token_rules=rules)
        encoder._loaded = dataclasses.replace(loaded, model=dataclasses.replace(loaded.model, manifest=manifest))
        (query,) = encoder.embed_tokens(["the eye"], kind="query", call=Call())
        query = dataclasses.replace(query, token_ids=np.arange(len(query.token_ids), dtype=np.int32))
        found = TokenWeights("auto", encoder)
        found.read(tmp_path)
        return [float(weight) for weight in found.of(query, Call())]

    assert set(weights(fill=8)) == {1.0}
    assert len(set(weights(fill=0))) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_weights": "tfidf"}, "query_weights: found 'tfidf'; choices: auto, idf, equal. Did you mean 'idf'?"),
        ({"precision": "int4"}, "precision: found 'int4'; choices: int8, float32. Did you mean 'int8'?"),
        ({"dim": 0}, "dim: found 0; expected a whole number from 1, or null"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str, encoder: OnnxTokenEmbed) -> None:
    with pytest.raises(ConfigError) as error:
        LateInteractionRerank(encoder, **arguments)
    assert str(error.value) == message


def test_more_dimensions_than_the_encoder_has_are_refused(encoder: OnnxTokenEmbed, storage_root: Path) -> None:
    with pytest.raises(ConfigError, match="dim: found 64; the encoder's vectors have 32"):
        LateInteractionRerank(encoder, dim=64, storage_root=storage_root).load()


def test_a_damaged_index_is_built_again(compose: Callable[..., Pipeline], storage_root: Path) -> None:
    with compose(storage_root) as pipeline:
        before = pipeline.search("the eye").ranked
    (facts,) = storage_root.glob("indexes/*/*/*/facts.json")
    facts.write_text("{")
    reasons: list[str] = []
    with compose(storage_root) as pipeline:
        pipeline.load(on_build=lambda stage, reason: reasons.append(f"{stage}: {reason}"))
        assert pipeline.search("the eye").ranked.doc_ids == before.doc_ids
    assert len(reasons) == 1
    assert reasons[0].startswith("shortlist: damaged")


def test_a_removed_store_of_a_lower_dimension_is_filled_again(
    compose: Callable[..., Pipeline], storage_root: Path
) -> None:
    dim = "pipeline.stages.shortlist.use.dim=16"
    with compose(storage_root, dim) as pipeline:
        before = pipeline.search("the eye").ranked
        stage: Any = pipeline.graph["shortlist"].stage
        folder = stage._store.directory
    shutil.rmtree(folder)
    _shared_store.cache_clear()
    with compose(storage_root, dim) as pipeline:
        after = pipeline.search("the eye").ranked
        assert after.doc_ids == before.doc_ids
        np.testing.assert_allclose(after.scores, before.scores, atol=1e-3)
    assert (folder / "projection.npy").is_file()
