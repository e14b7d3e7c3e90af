"""Whatever happens to the files of vectors, those that come out are right; the others are computed again."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator.rows.sparse_vectors import CorpusSparse, SparseStore
from orchestrator.rows.token_vectors import TokenStore
from orchestrator.rows.vectors import VectorStore
from orchestrator.types import Call, Document, SparseVector, TextKind, TokenVectors, Vectors

DIM = 8
N = 60


class Words:
    """A model of all three kinds whose vectors follow from the text, so that any process can tell a wrong one."""

    model_id, dim, similarity, score_kind, uses_idf, languages = "words", DIM, "dot", "dot", False, ("en",)

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        return np.stack([self.rows(text)[0] for text in texts])

    def embed_tokens(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[TokenVectors]:
        return [TokenVectors(self.rows(text), np.arange(len(self.rows(text)), dtype=np.int32)) for text in texts]

    def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
        return [SparseVector(np.arange(DIM, dtype=np.uint32), self.rows(text)[0]) for text in texts]

    def rows(self, text: str) -> Vectors:
        """float32 [1 to 4, DIM]."""
        drawn = np.random.default_rng(zlib.crc32(text.encode()))
        return drawn.standard_normal((1 + len(text) % 4, DIM)).astype(np.float32)


class Texts:
    """As much of a corpus as the stores ask for."""

    key = "texts"

    def __init__(self, n: int = N) -> None:
        from orchestrator.keys import text_keys

        self.texts = [f"a text of number {i * i}" for i in range(n)]
        self.text_keys = text_keys(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, ordinals: np.ndarray) -> list[Document]:
        return [Document(str(i), self.texts[i]) for i in ordinals.tolist()]


def check_dense(root: Path, corpus: Texts) -> None:
    vectors = VectorStore(root, "words", DIM).ensure(corpus, Words())  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        vectors.rows(np.arange(len(corpus))), Words().embed(corpus.texts, kind="document", call=Call())
    )


def check_tokens(root: Path, corpus: Texts) -> None:
    rows = TokenStore(root, "words", DIM, "float32", None, "").ensure(corpus, Words())  # type: ignore[arg-type]
    kept = rows.take(np.arange(len(corpus)))
    np.testing.assert_array_equal(kept.vectors, np.concatenate([Words().rows(text) for text in corpus.texts]))


def check_reduced(root: Path, corpus: Texts) -> None:
    rows = TokenStore(root, "words", DIM, "float32", 3, "corpus").ensure(corpus, Words())  # type: ignore[arg-type]
    kept = rows.take(np.arange(len(corpus)))
    exact = np.concatenate([Words().rows(text) for text in corpus.texts])
    np.testing.assert_allclose(kept.vectors, rows.project(exact), atol=1e-5)


def check_sparse(root: Path, corpus: Texts) -> None:
    vectors: CorpusSparse = SparseStore(root, "words").ensure(corpus, Words())  # type: ignore[arg-type]
    found = vectors.rows(np.arange(len(corpus)))
    np.testing.assert_array_equal(
        np.stack([vector.values for vector in found]), [Words().rows(t)[0] for t in corpus.texts]
    )


@pytest.mark.parametrize("check", [check_dense, check_tokens, check_reduced, check_sparse])
def test_flipped_cut_and_missing_files_never_make_a_wrong_vector(check: object, tmp_path: Path) -> None:
    assert callable(check)
    whole, drawn, rebuilt = tmp_path / "whole", random.Random(11), 0
    for n in (20, 40, N):
        check(whole, Texts(n))
    (folder,) = (path for path in (whole / "vectors").iterdir() if path.is_dir())
    files = [path.name for path in folder.iterdir() if path.name != "used"]
    for turn in range(15):
        root = tmp_path / str(turn)
        shutil.copytree(whole, root)
        spoil(root / "vectors" / folder.name / drawn.choice(files), drawn, turn % 3)
        with capture_logs() as events:
            check(root, Texts())
            check(root, Texts())
        told = [event["event"] for event in events if event["log_level"] == "warning"]
        assert told in ([], ["vectors.rebuilt"])
        rebuilt += len(told)
        shutil.rmtree(root)
    assert rebuilt > 5


def spoil(path: Path, drawn: random.Random, how: int) -> None:
    data = bytearray(path.read_bytes())
    if how == 0:
        data = data[: drawn.randrange(len(data))]
    elif how == 1:
        for _ in range(drawn.choice([1, 5])):
            data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    path.write_bytes(data)
    if how == 2:
        path.unlink()


_FILLER = """
import sys, zlib
from pathlib import Path
import numpy as np
from orchestrator.types import Call
from orchestrator.rows.vectors import VectorStore
def vector(text):
    return np.random.default_rng(zlib.crc32(text.encode())).standard_normal(8).astype(np.float32)
class Words:
    model_id, dim = "words", 8
    def embed(self, texts, *, kind, call):
        return np.stack([vector(text) for text in texts])
store, drawn = VectorStore(Path(sys.argv[1]), "words", 8), np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:
    texts = [f"text {i}" for i in drawn.integers(0, 300, 20)]
    found = store.vectors_for_texts(texts, Words())
    assert (found == np.stack([vector(text) for text in texts])).all(), "a wrong vector"
"""


def test_processes_share_a_store_while_it_is_cleared_and_ruined(tmp_path: Path) -> None:
    from orchestrator.holdings.holdings import holdings, remove_holding

    running = [
        subprocess.Popen(
            [sys.executable, "-c", _FILLER, str(tmp_path), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    drawn, until, ruined = random.Random(2), time.monotonic() + 30, 0
    while ruined < 12 and time.monotonic() < until:
        time.sleep(drawn.uniform(0.02, 0.15))
        found = holdings(tmp_path)
        if found and ruined % 2:
            remove_holding(found[0])
            ruined += 1
        elif found and (found[0].path / "blocks.bin").is_file():
            ruined += _overwrite(found[0].path / "blocks.bin")
    for process in running:
        process.kill()
    errors = [process.communicate()[1] for process in running]
    assert ruined == 12
    assert [text for text in errors if "Traceback" in text] == []


def _overwrite(path: Path) -> bool:
    """A record in the middle, as a bad disk would; the last one counts as torn."""
    try:
        with path.open("r+b") as file:
            file.write(b"x" * 24)
    except FileNotFoundError:
        return False
    return True
