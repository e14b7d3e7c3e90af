"""Qdrant Edge finds what a full comparison finds; a second process gets the same by scanning the vectors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.corpora.corpus import open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, IndexStateError, StageError
from orchestrator.learned.indexes import open_index
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.stage import Indexed
from orchestrator.testing import RecallContract
from orchestrator.types import Call, Query, TextKind, Vectors

WORDS = ("glaucoma eye nerve optic pressure vitamin retina cornea lens vision drops surgery risk age family").split()  # noqa: SIM905 - a list of fifteen quoted words reads worse
N = 800


class TrigramEmbed:
    """Counts of hashed character trigrams: of length 1 for cosine, as they are for dot."""

    def __init__(self, similarity: str = "cosine", dim: int = 48) -> None:
        self.dim, self.similarity, self.model_id = dim, similarity, f"trigrams-{similarity}-{dim}"

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim]."""
        counts = np.stack([trigrams(text, self.dim) for text in texts])
        if self.similarity == "cosine":
            counts = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
        return counts


@cache
def trigrams(text: str, dim: int) -> Vectors:
    """float32 [dim]: how often each hashed trigram stands in `text`."""
    counts = np.zeros(dim, dtype=np.float32)
    for start in range(len(text) - 2):
        counts[zlib.crc32(text[start : start + 3].encode()) % dim] += 1
    return counts


@cache
def sentences(n: int) -> list[str]:
    """Distinct texts, except that every tenth stands three times, and one that is too short for a trigram."""
    generator = np.random.default_rng(7)
    texts = [" ".join(generator.choice(WORDS, 6)) + f" {i}" for i in range(n - 1)]
    for place in range(0, n - 3, 10):
        texts[place + 1] = texts[place + 2] = texts[place]
    return [*texts, ""]


class Site:
    """A corpus with its storage root, and the stages opened over it."""

    def __init__(self, folder: Path) -> None:
        (folder / "beir").mkdir()
        rows = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(sentences(N))]
        (folder / "beir" / "corpus.jsonl").write_text("\n".join(rows))
        self.root = folder / "storage"
        self.corpus = open_corpus(CorpusSpec("eyes", str(folder / "beir")), self.root)
        self.stages: list[QdrantRecall] = []
        self.directory = Path()
        self.reasons: list[str] = []

    def open(self, similarity: str = "cosine", **options: bool) -> QdrantRecall:
        """A stage ready to retrieve; `reasons` then says what was built, `directory` where the index is."""
        self.stages.append(QdrantRecall(TrigramEmbed(similarity)))
        self.stages[-1].load()
        self.reasons.clear()
        told = self.reasons.append
        index = open_index(self.stages[-1], self.corpus, self.root, "dense", on_build=told, **options)
        self.directory = index.directory
        return self.stages[-1]

    def close_stages(self) -> None:
        """Let go of all shards."""
        while self.stages:
            self.stages.pop().close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("qdrant"))
    yield site
    site.corpus.close()


@pytest.fixture
def site(built: Site) -> Iterator[Site]:
    """Shared by all tests, which leave its files alone."""
    yield built
    built.close_stages()


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """For one test, which may damage it."""
    site = Site(tmp_path)
    yield site
    site.close_stages()
    site.corpus.close()


class TestContract(RecallContract):
    """What holds for every recall."""

    @pytest.fixture(autouse=True)
    def _site(self, site: Site) -> None:
        self.site = site

    def make(self) -> QdrantRecall:
        """Open over the shared corpus."""
        return self.site.open()


def ask(stage: QdrantRecall, text: str, top_k: int, call: Call | None = None) -> list[tuple[str, float]]:
    vector = stage.embedder.embed([text], kind="query", call=Call())[0]
    return list(stage.retrieve(Query("q", text, vector=vector), top_k, call or Call()))


def full_comparison(embedder: TrigramEmbed, text: str, top_k: int) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Ids and float64 scores of the nearest, by the formula; equal texts in corpus order."""
    texts = sentences(N)
    rows = embedder.embed(texts, kind="document", call=Call()).astype(np.float64)
    query = embedder.embed([text], kind="query", call=Call())[0].astype(np.float64)
    scores = rows @ query
    if embedder.similarity == "cosine":
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    # Rounded, so that rounding errors do not order what is equal.
    order = np.lexsort((np.arange(len(rows)), -scores.round(7)))[:top_k]
    return [f"d{place}" for place in order], scores[order]


QUESTIONS = ["glaucoma eye pressure", "optic nerve 12", "vitamin", "x"]


def test_it_is_an_indexed_recall() -> None:
    stage = QdrantRecall(TrigramEmbed())
    assert isinstance(stage, Indexed)
    assert (stage.score_kind, stage.needs) == ("cosine", {"vectors"})


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("top_k", [1, 7, 100, N - 1, N, 5000])
def test_it_finds_what_a_full_comparison_finds(site: Site, similarity: str, top_k: int) -> None:
    stage = site.open(similarity)
    assert stage.score_kind == similarity
    for text in QUESTIONS:
        found = ask(stage, text, top_k)
        ids, scores = full_comparison(TrigramEmbed(similarity), text, top_k)
        np.testing.assert_allclose([score for _, score in found], scores, rtol=1e-6, atol=1e-6)
        assert same_up_to_rounding([doc_id for doc_id, _ in found], ids, scores)
        assert len({doc_id for doc_id, _ in found}) == min(top_k, N)


def same_up_to_rounding(found: list[str], wanted: list[str], scores: npt.NDArray[np.float64]) -> bool:
    """Equal order; documents of equal score to 2e-7 may change places, but not fall out before the last such group."""
    groups = np.cumsum(np.diff(scores, prepend=scores[0]) < -2e-7 * max(1.0, abs(scores[0])))
    for group in range(int(groups[-1])):
        places = np.flatnonzero(groups == group)
        if {found[place] for place in places} != {wanted[place] for place in places}:
            return False
    return True


def test_equal_documents_come_in_corpus_order_and_the_first_of_them_are_kept(
    site: Site,
) -> None:
    text = sentences(N)[100]
    for _ in range(5):
        assert [doc_id for doc_id, _ in ask(site.open(), text, 3)] == ["d100", "d101", "d102"]
        assert [doc_id for doc_id, _ in ask(site.open(), text, 2)] == ["d100", "d101"]
        assert [doc_id for doc_id, _ in ask(site.open(), text, 1)] == ["d100"]


def test_a_query_without_direction_gets_documents_in_corpus_order(site: Site) -> None:
    assert ask(site.open(), "", 4) == [("d0", 0.0), ("d1", 0.0), ("d2", 0.0), ("d3", 0.0)]


_HOLDER = """
import sys
from pathlib import Path
from orchestrator.plugins.qdrant.edge_shard import open_shard
search = open_shard(None, Path(sys.argv[1]), int(sys.argv[2]))
print(search is not None, flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that has the shard open."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-c", _HOLDER, str(directory), str(N)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_while_another_process_has_the_index_the_vectors_are_scanned_with_equal_results(
    site: Site, similarity: str
) -> None:
    stage = site.open(similarity)
    twins = sentences(N)[100]
    edge = {(text, top_k): ask(stage, text, top_k) for text in [*QUESTIONS, twins] for top_k in (1, 7, 100, N)}
    stage.close()
    with Holder(site.directory) as answer:
        assert answer == "True"
        second = site.open(similarity)
        assert site.reasons == []
        for (text, top_k), wanted in edge.items():
            call = Call()
            found = ask(second, text, top_k, call)
            assert call.notes == [f"vectors scanned exactly: another process has the index open ({site.directory})"]
            scores = np.array([score for _, score in wanted])
            np.testing.assert_allclose([score for _, score in found], scores, rtol=1e-6, atol=1e-6)
            assert same_up_to_rounding([doc_id for doc_id, _ in found], [doc_id for doc_id, _ in wanted], scores)
        assert ask(second, twins, 2)[0][0] == edge[(twins, 1)][0][0]
        found = [doc_id for doc_id, _ in ask(second, twins, 100)]
        assert found.index("d101") == found.index("d100") + 1
    call = Call()
    ask(site.open(similarity), "eye", 3, call)
    assert call.notes == []


def test_two_stages_of_one_process_share_the_shard_until_the_last_closes(site: Site) -> None:
    first, second, call = site.open(), site.open(), Call()
    assert ask(first, "eye", 5, call) == ask(second, "eye", 5, call)
    assert call.notes == []
    first.close()
    first.close()
    assert len(ask(second, "eye", 5, call)) == 5
    with Holder(site.directory) as answer:
        assert answer == "False"
    second.close()
    with Holder(site.directory) as answer:
        assert answer == "True"


def only(directory: Path, name: str) -> Path:
    (path,) = directory.rglob(name)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [("segment.json", b"{"), ("edge_config.json", b"{}}"), ("mutable_id_tracker.mappings", b"\xff")],
)
def test_a_damaged_shard_is_an_error_and_never_scanned_around(own_site: Site, name: str, content: bytes) -> None:
    own_site.open().close()
    path = only(own_site.directory, name)
    path.write_bytes(content * (path.stat().st_size // len(content)))
    stage = QdrantRecall(TrigramEmbed())
    stage.load()
    with pytest.raises(IndexStateError, match=f"{own_site.directory}: Qdrant Edge cannot open the shard"):
        stage.open(own_site.corpus, own_site.directory)
    with pytest.raises(IndexStateError, match="no index is open"):
        ask(stage, "eye", 3)
    assert len(ask(own_site.open(), "eye", 3)) == 3
    assert own_site.reasons[0].startswith("damaged: ")


def test_a_shard_of_another_size_is_an_error(own_site: Site) -> None:
    own_site.open().close()
    for name in ("mutable_id_tracker.mappings", "mutable_id_tracker.versions"):
        path = only(own_site.directory, name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(IndexStateError, match="the shard holds 400 vectors; expected 800"):
        QdrantRecall(TrigramEmbed()).open(own_site.corpus, own_site.directory)


def test_opening_and_searching_change_no_file_that_the_manifest_checks(own_site: Site) -> None:
    own_site.open()
    for _ in range(3):
        own_site.close_stages()
        ask(own_site.open(verify=True), "eye", 100)
        assert own_site.reasons == []


def test_a_forced_build_goes_on_while_the_old_shard_serves(own_site: Site) -> None:
    old = own_site.open()
    before = ask(old, "eye", 10)
    new = own_site.open(force=True)
    assert own_site.reasons == ["forced"]
    assert ask(old, "eye", 10) == before == ask(new, "eye", 10)


def test_several_threads_search_at_once(site: Site) -> None:
    stage = site.open()
    wanted = {text: ask(stage, text, 50) for text in QUESTIONS}
    wrong: list[object] = []

    def work() -> None:
        for text in QUESTIONS * 5:
            if ask(stage, text, 50) != wanted[text]:
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_query_without_its_vector_is_refused(site: Site) -> None:
    with pytest.raises(StageError, match=r"query 'q': query.vector is None; expected \[48\]"):
        site.open().retrieve(Query("q", "eye"), 3, Call())
    with pytest.raises(StageError, match=r"query.vector is \[3\]; expected \[48\]"):
        site.open().retrieve(Query("q", "eye", vector=np.zeros(3, np.float32)), 3, Call())


def test_another_similarity_is_refused() -> None:
    with pytest.raises(ConfigError, match="embedder: compares by 'euclid'; expected cosine or dot"):
        QdrantRecall(TrigramEmbed("euclid")).load()


def test_settings_name_what_shapes_the_index() -> None:
    assert QdrantRecall(TrigramEmbed("dot")).index_settings() == {
        "engine": "qdrant-edge",
        "format": 1,
        "model_id": "trigrams-dot-48",
        "dim": 48,
        "distance": "dot",
    }
