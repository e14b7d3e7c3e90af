"""Token vectors are computed once per text, kept in few bytes, survive damage checks, and compare as they did."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import IndexStateError, StageError
from orchestrator.rows.token_vectors import KeptTokens, TokenRows, TokenStore, open_tokens
from orchestrator.types import Call, TextKind, TokenVectors

Make = Callable[..., DiskCorpus]
DIM = 24


class WordVectors:
    """A fixed direction for every word: enough to see what the store keeps."""

    def __init__(self, model_id: str = "words") -> None:
        self.dim, self.model_id = DIM, model_id
        self.seen: list[str] = []

    def load(self) -> None:
        """Nothing to load."""

    def embed_tokens(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[TokenVectors]:
        self.seen += texts
        return [self.one(text) for text in texts]

    def one(self, text: str) -> TokenVectors:
        ids = [0] + [zlib.crc32(word.encode()) % 5000 + 1 for word in text.split()]
        rows = np.stack([np.random.default_rng(number).standard_normal(DIM) for number in ids])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return TokenVectors(rows.astype(np.float32), np.array(ids, dtype=np.int32))


@pytest.fixture
def make_corpus(write_corpus: Callable[..., Path], storage_root: Path, request: pytest.FixtureRequest) -> Make:
    def make(texts: list[str], name: str = "beir") -> DiskCorpus:
        folder = write_corpus([{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)], name=name)
        corpus = open_corpus(CorpusSpec(name, str(folder)), storage_root)
        request.addfinalizer(corpus.close)
        return corpus

    return make


def texts(n: int) -> list[str]:
    return [f"text number {i} " * (1 + i % 5) for i in range(n)]


def restored(kept: KeptTokens) -> np.ndarray:
    return kept.vectors if kept.scales is None else kept.vectors * kept.scales[:, None]


def everything(rows: TokenRows) -> KeptTokens:
    return rows.take(np.arange(len(rows)))


def store_of(root: Path, encoder: WordVectors, precision: str = "int8", dim: int | None = None) -> TokenStore:
    return open_tokens(root, encoder, precision, dim, "corpus")  # type: ignore[arg-type]


def test_float32_keeps_vectors_as_they_are(make_corpus: Make, storage_root: Path) -> None:
    wanted, encoder = texts(600), WordVectors()
    store = store_of(storage_root, encoder, "float32")
    rows = store.ensure(make_corpus(wanted), encoder)
    kept = rows.take(np.array([599, 0, 7, 7]))
    expected = [encoder.one(wanted[place]).vectors for place in (599, 0, 7, 7)]
    assert kept.lengths.tolist() == [len(rows) for rows in expected]
    np.testing.assert_array_equal(kept.vectors, np.concatenate(expected))


def test_int8_is_off_by_half_a_step_of_each_rows_largest_value(make_corpus: Make, storage_root: Path) -> None:
    wanted, encoder = texts(20), WordVectors()
    store = store_of(storage_root, encoder)
    kept = everything(store.ensure(make_corpus(wanted), encoder))
    expected = np.concatenate([encoder.one(text).vectors for text in wanted])
    assert kept.vectors.dtype == np.int8
    step = np.abs(expected).max(axis=1, keepdims=True) / 127
    assert (np.abs(restored(kept) - expected) <= step * 0.501).all()


def test_a_lower_dimension_keeps_products_as_well_as_any_can(make_corpus: Make, storage_root: Path) -> None:
    wanted, encoder = texts(40), WordVectors()
    corpus = make_corpus(wanted)
    query = encoder.one("text number 7").vectors
    exact = query @ np.concatenate([encoder.one(text).vectors for text in wanted]).T
    errors = []
    for dim in (4, 12, 20):
        store = store_of(storage_root, encoder, "float32", dim)
        rows = store.ensure(corpus, encoder)
        kept = everything(rows)
        assert kept.vectors.shape[1] == dim
        errors.append(float(np.abs(rows.project(query) @ kept.vectors.T - exact).mean()))
    assert errors[0] > errors[1] > errors[2]
    # 40 texts of 42 words: with as many axes as there are directions nothing is lost
    whole = store_of(storage_root, encoder, "float32", DIM - 1)
    rows = whole.ensure(corpus, encoder)
    kept = everything(rows)
    assert np.abs(rows.project(query) @ kept.vectors.T - exact).mean() < errors[2]


def test_axes_are_fitted_once(make_corpus: Make, storage_root: Path) -> None:
    encoder, corpus = WordVectors(), make_corpus(texts(30))
    store = store_of(storage_root, encoder, dim=8)
    store.ensure(corpus, encoder)
    axes = (store.directory / "projection.npy").read_bytes()
    again = reopened(storage_root, encoder)
    again.ensure(make_corpus([*texts(30), "one more"], "more"), encoder)
    assert (store.directory / "projection.npy").read_bytes() == axes


def reopened(root: Path, encoder: WordVectors) -> TokenStore:
    """As another process opens it."""
    return TokenStore(root, encoder.model_id, DIM, "int8", 8, "corpus")


@pytest.mark.parametrize("spoil", [lambda axes: axes[:-4], lambda axes: axes[:9] + b"\x55" + axes[10:]])
def test_with_damaged_axes_all_rows_are_made_again(
    make_corpus: Make, storage_root: Path, spoil: Callable[[bytes], bytes]
) -> None:
    encoder, corpus = WordVectors(), make_corpus(texts(30))
    store = store_of(storage_root, encoder, dim=8)
    before = everything(store.ensure(corpus, encoder))
    path = store.directory / "projection.npy"
    path.write_bytes(spoil(path.read_bytes()))
    broken = reopened(storage_root, encoder)
    with capture_logs() as events, pytest.raises(IndexStateError, match=r"projection\.npy (has 768|is not what)"):
        _ = broken.axes
    assert [event["event"] for event in events] == ["vectors.rebuilt"]
    assert len(broken) == 0
    encoder.seen.clear()
    rows = broken.ensure(corpus, encoder)
    assert set(encoder.seen) == set(texts(30))
    np.testing.assert_allclose(restored(everything(rows)), restored(before), atol=1e-5)
    assert broken.verify() is None


def test_axes_that_are_damaged_while_they_are_in_use_cost_the_rows_only(make_corpus: Make, storage_root: Path) -> None:
    encoder, corpus = WordVectors(), make_corpus(texts(30))
    store = reopened(storage_root, encoder)
    before = store.ensure(corpus, encoder)
    path = store.directory / "projection.npy"
    path.write_bytes(bytes(len(path.read_bytes())))
    encoder.seen.clear()
    with capture_logs() as events:
        rows = store.rows(texts(5), encoder, Call())
    assert [event["event"] for event in events] == ["vectors.rebuilt"]
    assert sorted(encoder.seen) == sorted(texts(5))
    np.testing.assert_array_equal(rows.axes, before.axes)
    np.testing.assert_array_equal(everything(rows).vectors, before.take(np.arange(5)).vectors)
    np.testing.assert_array_equal(reopened(storage_root, encoder).axes, before.axes)


def test_damaged_axes_are_told_by_verify(make_corpus: Make, storage_root: Path) -> None:
    encoder = WordVectors()
    store = store_of(storage_root, encoder, dim=8)
    store.ensure(make_corpus(texts(30)), encoder)
    path = store.directory / "projection.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert store.verify() == "projection.npy has 771 bytes; expected 772"
    assert (store.verify(), len(store)) == (None, 0)


def test_rows_and_the_axes_they_were_made_with_stay_together(make_corpus: Make, storage_root: Path) -> None:
    """One process has a store open; another one removes it and makes it again, fitted to other texts."""
    encoder = WordVectors()
    store, other = reopened(storage_root, encoder), reopened(storage_root, encoder)
    rows = store.ensure(make_corpus(texts(30)), encoder)
    before, axes = everything(rows), rows.axes
    shutil.rmtree(store.directory)
    other.ensure(make_corpus([f"something else {i}" for i in range(30)], "else"), encoder)
    query = encoder.one("text number 7").vectors
    np.testing.assert_array_equal(everything(rows).vectors, before.vectors)
    np.testing.assert_array_equal(rows.project(query), query @ axes)
    for each in (store, other):
        now = each.rows([*texts(3), "something else 5"], encoder, Call())
        np.testing.assert_array_equal(now.axes, other.axes)
        assert not np.allclose(now.axes, axes)
        exact = np.concatenate([encoder.one(text).vectors for text in [*texts(3), "something else 5"]]) @ now.axes
        np.testing.assert_allclose(restored(everything(now)), exact, atol=0.02)


def test_a_process_goes_on_with_its_axes_when_the_store_is_removed(make_corpus: Make, storage_root: Path) -> None:
    encoder = WordVectors()
    store = reopened(storage_root, encoder)
    axes = store.ensure(make_corpus(texts(30)), encoder).axes
    shutil.rmtree(store.directory)
    rows = store.rows(["brought by a caller"], encoder, Call())
    np.testing.assert_array_equal(rows.axes, axes)
    np.testing.assert_array_equal(reopened(storage_root, encoder).axes, axes)


def test_only_new_texts_are_encoded(make_corpus: Make, storage_root: Path) -> None:
    encoder = WordVectors()
    store = store_of(storage_root, encoder)
    store.ensure(make_corpus([*texts(30), *texts(30)]), encoder)
    assert sorted(encoder.seen) == sorted(texts(30))
    encoder.seen.clear()
    store.ensure(make_corpus([*texts(29)[::-1], "added"], "changed"), encoder)
    assert encoder.seen == ["added"]
    encoder.seen.clear()
    rows = store.rows(["brought", "text number 0 ", "brought"], encoder, Call())
    assert encoder.seen == ["brought"]
    np.testing.assert_array_equal(rows.take(np.array([0])).vectors, rows.take(np.array([2])).vectors)
    assert len(TokenStore(storage_root, encoder.model_id, DIM, "int8", None, "")) == 32


def test_frequencies_count_documents_not_tokens(make_corpus: Make, storage_root: Path) -> None:
    encoder = WordVectors()
    corpus = make_corpus(["eye eye eye", "eye wall", "wall", "eye eye eye"])
    store = store_of(storage_root, encoder)
    counts = store.ensure(corpus, encoder).document_frequencies()
    ids = {word: int(encoder.one(word).token_ids[1]) for word in ("eye", "wall")}
    assert (counts[0], counts[ids["eye"]], counts[ids["wall"]], counts.sum()) == (4, 3, 2, 9)


def test_changed_bytes_are_told_and_their_texts_encoded_again(make_corpus: Make, storage_root: Path) -> None:
    encoder = WordVectors()
    store = store_of(storage_root, encoder)
    store.ensure(make_corpus(texts(10)), encoder)
    store.ensure(make_corpus(texts(25), "more"), encoder)
    assert store.verify() is None
    path = store.directory / "scales.f32"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    encoder.seen.clear()
    assert store.verify() == "rows 0 to 9 are not what was written"
    kept = everything(store.ensure(make_corpus(texts(25), "again"), encoder))
    assert sorted(encoder.seen) == sorted(texts(10))
    exact = np.concatenate([encoder.one(text).vectors for text in texts(25)])
    np.testing.assert_allclose(restored(kept), exact, atol=0.01)
    path.write_bytes(path.read_bytes()[:-1])
    again = TokenStore(storage_root, encoder.model_id, DIM, "int8", None, "")
    assert len(again) == 15, "the append that was cut off is gone, the one before it is not"


def test_stores_of_other_models_precisions_and_dimensions_lie_apart(storage_root: Path) -> None:
    made = [("a", "int8", None), ("b", "int8", None), ("a", "float32", None), ("a", "int8", 8)]
    stores = [store_of(storage_root, WordVectors(model), precision, dim) for model, precision, dim in made]
    assert len({store.directory for store in stores}) == len(made)
    other = open_tokens(storage_root, WordVectors("a"), "int8", None, "another corpus")
    assert other.directory == stores[0].directory, "full vectors do not depend on the corpus"


@pytest.mark.parametrize("rows", [np.zeros((0, DIM)), np.zeros((2, DIM + 1)), np.full((1, DIM), np.nan)])
def test_unusable_vectors_are_refused(rows: np.ndarray, storage_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = WordVectors(f"broken {rows.shape}")
    monkeypatch.setattr(encoder, "one", lambda text: TokenVectors(rows.astype(np.float32), np.zeros(len(rows), "i4")))
    with pytest.raises(StageError, match="token vectors"):
        store_of(storage_root, encoder).rows(["a text"], encoder, Call())
