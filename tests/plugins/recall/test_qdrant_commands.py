"""`orchestrate` with a Qdrant server: indexed, verified, forced, asked; the key stays out of every file and message."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from orchestrator.cli import run

DENSE = "pipeline.stages.dense.use"
_EMBEDDER = """
import importlib.util

spec = importlib.util.spec_from_file_location("qdrant_conftest", {path!r})
module = importlib.util.module_from_spec(spec)
import sys
sys.modules["qdrant_conftest"] = module
spec.loader.exec_module(module)
HashEmbed = module.HashEmbed
"""


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def orchestrate(
    tmp_path: Path, storage_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """`orchestrate(*words)` over twelve documents, with a small embedder, in a folder of its own."""
    (tmp_path / "docs").mkdir()
    rows = [{"_id": f"d{i}", "text": f"glaucoma eye {i * i}", "year": 2000 + i} for i in range(12)]
    (tmp_path / "docs" / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "hashes.yaml").write_text("_target_: hashes.HashEmbed\n")
    (tmp_path / "hashes.py").write_text(_EMBEDDER.format(path=str(Path(__file__).with_name("conftest.py"))))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["orchestrate"])

    def call(*words: str) -> Done:
        common = ["--config-dir", str(tmp_path / "conf"), "pipeline=dense", "model@models.embedder=hashes"]
        code = run([*words, *common, f"corpus.path={tmp_path / 'docs'}"])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield call
    structlog.reset_defaults()  # it logs to the stderr of this test


def test_a_server_is_filled_verified_forced_and_asked(
    orchestrate: Callable[..., Done], make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret-of-the-environment")
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)  # of a key without TLS, told by the client
    server = make_server(api_key="s3cret-of-the-environment")
    url = f"{DENSE}.url={server.url}"
    outputs = [orchestrate("index", url, "task.force=false")]
    assert "qdrant.updated" in outputs[0].err
    outputs.append(orchestrate("index", url, "task.verify=true"))
    assert "nothing: all up to date" in outputs[1].err
    outputs.append(orchestrate("index", url, "task.force=true"))
    assert "written=12" in outputs[2].err
    only = f"{DENSE}.filter={{must: [{{key: year, range: {{gte: 2010}}}}]}}"
    outputs.append(orchestrate("run", "glaucoma", url, only, "format=json"))
    assert [done.code for done in outputs] == [0, 0, 0, 0], outputs[-1].err
    found = [row["doc_id"] for row in json.loads(outputs[3].out)["results"]]
    assert sorted(found) == ["d10", "d11"]
    inside = orchestrate("run", "glaucoma", only, "format=json")
    assert [row["doc_id"] for row in json.loads(inside.out)["results"]] == found
    assert "s3cret" not in "".join(done.out + done.err for done in outputs)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([f"{DENSE}.filter={{must: [{{kye: a}}]}}"], 2, f"{DENSE}.filter.must[0].kye: unknown; choices: key, is_empty"),
        ([f"{DENSE}.url=qdrant:6333"], 2, f"{DENSE}.url: found 'qdrant:6333'; expected http[s]://host[:port]"),
        ([f"{DENSE}.url=http://127.0.0.1:9"], 1, "stage 'dense': http://127.0.0.1:9: look for the collection: "),
    ],
)
def test_mistakes_are_one_message(orchestrate: Callable[..., Done], words: list[str], code: int, message: str) -> None:
    done = orchestrate("index", *words)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
