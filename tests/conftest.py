"""What every test gets: no model hub, a storage root of its own."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import settings
from servers import LocalServer

from orchestrator.services import breaker

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile(
    "untimed", deadline=None
)  # the first example of a test may import, on a busy machine for long
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _logging_ends_with_the_test() -> Iterator[None]:
    """The command line sends events to the stderr of its test, which is closed for the next one."""
    yield
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()


@pytest.fixture(autouse=True)
def _breakers_are_closed() -> None:
    """A service of an earlier test may have had the same address."""
    breaker.forget()


@pytest.fixture
def storage_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty storage root; also the default one while the test runs."""
    root = tmp_path / "storage"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(root))
    return root


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """One storage root for the whole session: models are exported and the sample is indexed once.

    What takes longest, the export of MiniLM and the vectors of the sample, is carried from session to session in
    pytest's cache, until the code that makes it changes. `pytest --cache-clear` forgets it.
    """
    root = tmp_path_factory.mktemp("shared-storage")
    cache = getattr(pytestconfig, "cache", None)
    if cache is None:
        yield root
        return
    kept = cache.mkdir("storage") / _fingerprint()
    if kept.exists():
        shutil.copytree(kept, root, dirs_exist_ok=True)
    yield root
    made = [*root.glob("models/[!.]*all-MiniLM-L6-v2-*"), *root.glob("vectors/[!.]*")]
    if _size(made) > _size(kept.glob("*/*")):
        fresh = kept.with_name(f"{kept.name}-{os.getpid()}")
        for path in made:
            shutil.copytree(path, fresh / path.relative_to(root))
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped sample with a seventh of its documents, each cut to its beginning; questions and judgements whole.

    For tests that need a corpus of real texts, not its size: vectors of the whole one take a minute of a core.
    """
    folder = tmp_path_factory.mktemp("corpus") / "small_sample"
    sample = files("orchestrator") / "sample"
    (folder / "qrels").mkdir(parents=True)
    qrels = (sample / "qrels" / "test.tsv").read_text()
    (folder / "qrels" / "test.tsv").write_text(qrels)
    (folder / "queries.jsonl").write_bytes(gzip.decompress((sample / "queries.jsonl.gz").read_bytes()))
    judged = {line.split("\t")[1] for line in qrels.splitlines()[1:]}
    rows = [json.loads(line) for line in gzip.decompress((sample / "corpus.jsonl.gz").read_bytes()).splitlines()]
    rows.sort(key=lambda row: row["_id"] not in judged)
    cut = [json.dumps({**row, "text": row["text"][:300]}) + "\n" for row in rows[:100]]
    (folder / "corpus.jsonl").write_text("".join(cut))
    return folder


def _fingerprint() -> str:
    """Of every file that decides what an export or a vector looks like."""
    tree = Path(__file__).parents[1]
    names = ["orchestrator/models/*.py", "plugins/embed/*.py", "orchestrator/*vectors.py", "orchestrator/storage.py"]
    names += ["orchestrator/row_*.py", "orchestrator/rows/text_rows.py", "orchestrator/rows/axes.py"]
    paths = sorted(path for name in names for path in tree.glob(name))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _size(folders: Iterable[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """An HTTP server on a free local port; a test says what it answers."""
    with LocalServer() as running:
        yield running


WriteJudged = Callable[..., Path]


@pytest.fixture
def write_judged(tmp_path: Path) -> WriteJudged:
    """Writes a corpus of which it is known what can be learned from it."""

    def write(signal: bool = True, n_queries: int = 60, name: str = "judged") -> Path:
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        documents, qrels = _judged(signal, n_queries)
        queries = [{"_id": f"q{place}", "text": f"tell me about zeta{place}x"} for place in range(n_queries)]
        for file, rows in (("corpus", documents), ("queries", queries)):
            (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        cut = n_queries * 2 // 3
        for split, part in (("train", qrels[:cut]), ("test", qrels[cut:])):
            lines = [f"{query}\t{doc}\t1\n" for query, doc in part]
            (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        return folder

    return write


def _judged(signal: bool, n_queries: int) -> tuple[list[dict[str, str]], list[tuple[str, str]]]:
    """Six documents a query hold its one rare word once, in texts of one length: BM25 cannot tell them apart.

    With `signal` the relevant one has the word in its title, without it any of the six.
    """
    drawn = random.Random(5)
    documents, qrels = [], []
    for query in range(n_queries):
        chosen = drawn.randrange(6)
        for place in range(6):
            in_title = place == (chosen if signal else drawn.randrange(6))
            word, other = (f"zeta{query}x", "plain") if in_title else ("plain", f"zeta{query}x")
            doc_id = f"d{drawn.randrange(10**6)}-{query}-{place}"
            documents.append({"_id": doc_id, "title": f"{word} guide", "text": f"something {other} note"})
            if place == chosen:
                qrels.append((f"q{query}", doc_id))
    drawn.shuffle(documents)
    return documents, qrels
