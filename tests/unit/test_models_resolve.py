from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlparse

import pytest

from orchestrator.errors import ModelNotFoundError
from orchestrator.models import Model, is_local, resolve
from orchestrator.models.resolve import hub_cache

PARTS = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill(folder: Path, files: dict[str, str] = PARTS) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of this test's own, empty."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hf" / "hub"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with weights, which fails when its code runs."""
    folder = fill(tmp_path / "site" / "tiny_weights" / "model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported, though only its place is asked')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_local_path_goes_before_everything(package: Path, storage_root: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "mine")
    assert resolve(Model(role="reranker", path=str(folder), package="tiny_weights/model", name="org/m")) == folder


def test_local_path_that_is_missing_or_incomplete_ends_the_search(package: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder") as caught:
        resolve(Model(role="reranker", path=str(tmp_path / "nowhere"), package="tiny_weights/model"))
    assert len(caught.value.looked_in) == 1
    folder = fill(tmp_path / "half", {"config.json": "{}"})
    with pytest.raises(ModelNotFoundError, match=r"incomplete, missing weights .*; tokenizer .*") as caught:
        resolve(Model(role="reranker", path=str(folder)))
    assert "models.reranker.path=DIR" in str(caught.value)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}})
    files = {**PARTS, "model.safetensors.index.json": index, shards[0]: ""}
    del files["model.safetensors"]
    folder = fill(tmp_path / "sharded", files)
    with pytest.raises(ModelNotFoundError, match=f"missing weights {shards[1]}"):
        resolve(Model(role="reranker", path=str(folder)))
    (folder / shards[1]).touch()
    assert resolve(Model(role="reranker", path=str(folder))) == folder


def test_packaged_weights_are_found_without_importing_the_package(package: Path, storage_root: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    card = Model(role="embedder", package="tiny_weights/model", sha256={"model.safetensors": digest.upper()})
    assert resolve(card) == package
    assert "tiny_weights" not in sys.modules


def test_whether_a_model_is_at_hand_is_told_without_asking_the_hub(
    package: Path, empty_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert is_local(Model(role="reranker", path=str(fill(tmp_path / "mine"))))
    assert is_local(Model(role="reranker", package="tiny_weights/model"))
    assert not is_local(Model(role="reranker", path=str(tmp_path / "nowhere"), package="tiny_weights/model"))
    assert not is_local(Model(role="reranker", name="org/m"))
    fill(empty_hub / "models--org--m" / "snapshots" / "main")
    assert is_local(Model(role="reranker", name="org/m"))


def test_packaged_weights_with_another_digest_are_refused(package: Path, storage_root: Path, empty_hub: Path) -> None:
    card = Model(role="embedder", package="tiny_weights/model", sha256={"model.safetensors": "ab" * 32})
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(card)
    assert hashlib.sha256(b"weights").hexdigest() in str(caught.value)
    assert "ab" * 32 in str(caught.value)


def test_every_place_and_every_choice_is_named(storage_root: Path, empty_hub: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(Model(role="embedder", name="org/model", package="no_such_package/model"))
    text = str(caught.value)
    assert "model 'org/model' was not found" in text
    cached = str(empty_hub / "models--org--model")
    for place in ("package 'no_such_package' is not installed", cached, "HF_HUB_OFFLINE"):
        assert place in text
    for choice in ("models.embedder.path=DIR", "pip install no-such-package", "HF_HOME"):
        assert choice in text


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_hub_cache_is_read_at_the_revision(revision: str | None, empty_hub: Path) -> None:
    entry = empty_hub / "models--org--model"
    snapshot = fill(entry / "snapshots" / COMMIT)
    fill(entry / "refs", {"main": COMMIT})
    assert resolve(Model(role="reranker", name="org/model", revision=revision)) == snapshot
    with pytest.raises(ModelNotFoundError, match="no snapshot of revision 'v2'"):
        resolve(Model(role="reranker", name="org/model", revision="v2"))


def test_half_downloaded_snapshot_is_not_taken(empty_hub: Path) -> None:
    entry = empty_hub / "models--org--model"
    fill(entry / "snapshots" / COMMIT, {"config.json": "{}", "tokenizer.json": "{}"})
    fill(entry / "refs", {"main": COMMIT})
    with pytest.raises(ModelNotFoundError, match="incomplete, missing weights"):
        resolve(Model(role="reranker", name="org/model"))


CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.mark.parametrize("count", range(len(CACHE_VARIABLES) + 1))
def test_hub_cache_is_where_the_hub_library_has_it(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # From all variables set, down to none: each decides once.
    kept = {name: f"~/{name.lower()}/x" for name in CACHE_VARIABLES[len(CACHE_VARIABLES) - count :]}
    environ = {key: value for key, value in os.environ.items() if key not in CACHE_VARIABLES} | kept
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    for name in CACHE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    assert str(hub_cache()) == theirs.stdout.strip()


class Hub(BaseHTTPRequestHandler):
    """The few calls of the hub's HTTP interface that a download makes, for one repository `org/model`."""

    unwanted: ClassVar = dict.fromkeys(("pytorch_model.bin", "onnx/model.onnx", "README.md"), "not wanted")
    files: ClassVar = {**PARTS, "1_Pooling/config.json": "{}", **unwanted}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if path.startswith("/api/models/org/model/tree/"):
            tree = [{"type": "file", "path": name, "size": len(text), "oid": "0"} for name, text in self.files.items()]
            self._send(json.dumps(tree))
        elif path.startswith("/api/models/org/model"):
            siblings = [{"rfilename": name} for name in self.files]
            self._send(json.dumps({"id": "org/model", "modelId": "org/model", "sha": COMMIT, "siblings": siblings}))
        elif path.startswith(f"/org/model/resolve/{COMMIT}/"):
            self._send(self.files[path.removeprefix(f"/org/model/resolve/{COMMIT}/")])
        else:
            self.send_error(404)

    def _send(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


class GraphWithoutItsWeights(Hub):
    """The graph names the file of its weights as onnx.proto writes it."""

    files: ClassVar = {
        **Hub.files,
        "onnx/model.onnx": "\n\x08location\x12\x0cweights.data",
        "onnx/weights.data": "not known before the graph is there",
    }


class LanguageModel(Hub):
    files: ClassVar = {**Hub.files, "config.json": json.dumps({"architectures": ["Qwen3ForCausalLM"]})}


@contextlib.contextmanager
def serving(hub: type[Hub] = Hub) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def resolve_elsewhere(
    home: Path, endpoint: str, name: str = "org/model", graph: bool = False
) -> subprocess.CompletedProcess[str]:
    """`resolve` in a process of its own: huggingface_hub reads its environment when it is imported."""
    card = f"Model(role='reranker', name='{name}')"
    code = f"from orchestrator.models import Model, resolve; print(resolve({card}, graph={graph}))"
    drop = {*CACHE_VARIABLES, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    environ = {key: value for key, value in os.environ.items() if key not in drop}
    environ |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)


def test_hub_download_takes_only_what_is_needed_and_is_found_in_the_cache_afterwards(tmp_path: Path) -> None:
    with serving() as endpoint:
        first = resolve_elsewhere(tmp_path, endpoint)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    assert names == ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]
    again = resolve_elsewhere(tmp_path, "http://127.0.0.1:9")  # nothing answers there: the cache must do
    assert again.stdout.strip() == str(folder), again.stderr


def test_hub_download_takes_the_graph_in_place_of_weights_and_the_weights_when_they_are_needed(tmp_path: Path) -> None:
    with serving() as endpoint:
        found = resolve_elsewhere(tmp_path, endpoint, graph=True)
        assert found.returncode == 0, found.stderr
        folder = Path(found.stdout.strip())
        assert (folder / "onnx" / "model.onnx").exists()
        assert not (folder / "model.safetensors").exists()
        again = resolve_elsewhere(tmp_path, "http://127.0.0.1:9", graph=True)
        assert again.stdout.strip() == str(folder), again.stderr
        whole = resolve_elsewhere(tmp_path, endpoint)
    assert whole.stdout.strip() == str(folder), whole.stderr
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize(("hub", "with_graph"), [(GraphWithoutItsWeights, True), (LanguageModel, False)])
def test_hub_download_takes_the_weights_where_the_graph_will_not_do(
    hub: type[Hub], with_graph: bool, tmp_path: Path
) -> None:
    with serving(hub) as endpoint:
        found = resolve_elsewhere(tmp_path, endpoint, graph=True)
    assert found.returncode == 0, found.stderr
    folder = Path(found.stdout.strip())
    assert (folder / "model.safetensors").exists()
    assert (folder / "onnx" / "model.onnx").exists() is with_graph
    again = resolve_elsewhere(tmp_path, "http://127.0.0.1:9", graph=True)
    assert again.stdout.strip() == str(folder), again.stderr


def test_whether_a_graph_is_at_hand_is_told_apart_from_weights(tmp_path: Path, empty_hub: Path) -> None:
    snapshot = fill(empty_hub / "models--org--m" / "snapshots" / "main", {**PARTS, "onnx/model.onnx": "graph"})
    (snapshot / "model.safetensors").unlink()
    card = Model(role="reranker", name="org/m")
    assert is_local(card, graph=True)
    assert not is_local(card)
    (snapshot / "onnx" / "model.onnx").unlink()
    with pytest.raises(ModelNotFoundError, match=r"missing weights .*, or onnx/model\.onnx beside config\.json"):
        resolve(card, graph=True)


def test_unreachable_hub_and_unknown_model_are_reasons_not_tracebacks(tmp_path: Path) -> None:
    unreachable = resolve_elsewhere(tmp_path, "http://127.0.0.1:9")
    assert "ModelNotFoundError: model 'org/model' was not found" in unreachable.stderr
    assert "hub http://127.0.0.1:9/org/model: ConnectError" in unreachable.stderr
    with serving() as endpoint:
        unknown = resolve_elsewhere(tmp_path, endpoint, "org/other")
    assert f"hub {endpoint}/org/other: " in unknown.stderr
    assert "404" in unknown.stderr
