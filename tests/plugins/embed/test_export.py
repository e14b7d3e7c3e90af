"""The export: made once, found cheaply, whole or not there at all, and checked before it is kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.models import Model, find_or_export, keep_loaded
from orchestrator.models.export import _check
from orchestrator.models.manifest import ONNX_FILE, Manifest
from orchestrator.models.session import OnnxSession
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.types import Call

HEAVY = "'torch', 'transformers', 'sentence_transformers', 'huggingface_hub', 'onnx', 'sklearn', 'scipy'"
EMBED = """
import sys
from orchestrator.models import Model
from orchestrator.models.session import OnnxSession
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.types import Call
embed = OnnxEmbed(Model(role="embedder", path=sys.argv[1], storage_root=sys.argv[2]), threads=1)
embed.load()
print(embed.embed(["the great wall"], kind="query", call=Call()).tolist()[0][:3])
"""
EMBED_TOKENS = """
import sys
from orchestrator.models import Model
from orchestrator.plugins.embed.tokens import OnnxTokenEmbed
from orchestrator.types import Call
model = OnnxTokenEmbed(Model(role="multi_vector", path=sys.argv[1], storage_root=sys.argv[2]), threads=1)
model.load()
print(model.embed_tokens(["the great wall"], kind="query", call=Call())[0].vectors.shape)
"""
RERANK = """
import sys
from orchestrator.models import Model
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.types import Call, Document, Query
stage = CrossEncoderRerank(Model(role="reranker", path=sys.argv[1], storage_root=sys.argv[2]), threads=1)
stage.load()
print(stage.score([(Query("q", "eye"), Document("d", "the great wall"))], Call()).tolist())
"""


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def exports(root: Path) -> list[Path]:
    """Whatever stands in the model store beside its own book-keeping, leftovers included."""
    return [path for path in (root / "models").iterdir() if path.is_dir() and path.name != "digests"]


def card(path: Path, root: Path) -> Model:
    return Model(role="embedder", path=str(path), storage_root=root)


@pytest.mark.parametrize(
    ("code", "labels", "role"),
    [(EMBED, None, "embedder"), (EMBED_TOKENS, None, "multi_vector"), (RERANK, 1, "reranker")],
)
def test_scoring_after_the_export_imports_nothing_heavy(
    code: str, labels: int | None, role: str, checkpoints: Any, shared_root: Path
) -> None:
    path = checkpoints.transformer("bert", labels=labels)
    find_or_export(Model(role=role, path=str(path), storage_root=shared_root))  # type: ignore[arg-type]
    report = f"\nprint([name for name in ({HEAVY}) if name in sys.modules], 'onnxruntime' in sys.modules)"
    assert output(python(code + report, path, shared_root)).splitlines()[-1] == "[] True"


def test_without_torch_a_new_model_names_the_extra_and_an_exported_one_works(
    checkpoints: Any, tmp_path: Path, shared_root: Path
) -> None:
    path = checkpoints.transformer("bert")
    find_or_export(card(path, shared_root))
    no_torch = "import sys; sys.modules['torch'] = None\n" + EMBED
    assert output(python(no_torch, path, shared_root)).startswith("[")
    fresh = python(no_torch, path, tmp_path)
    assert "MissingExtraError" in (error := fresh.communicate(timeout=120)[1])
    assert "orchestrator[torch]" in error
    assert exports(tmp_path) == []


@pytest.mark.slow  # two processes that import torch
def test_two_processes_at_once_export_once(checkpoints: Any, tmp_path: Path) -> None:
    path = checkpoints.transformer("bert")
    both = [python(EMBED, path, tmp_path) for _ in range(2)]
    first, second = (output(process).splitlines()[-1] for process in both)
    assert first == second
    assert len(exports(tmp_path)) == 1


def test_killed_export_leaves_nothing_and_the_next_one_tidies_up(checkpoints: Any, tmp_path: Path) -> None:
    path = checkpoints.transformer("bert")
    process = python(EMBED, path, tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("models/.partial-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [entry.name[:9] for entry in exports(tmp_path)] == [".partial-"]
    folder, _ = find_or_export(card(path, tmp_path))
    assert exports(tmp_path) == [folder]


def test_failed_export_leaves_nothing(checkpoints: Any, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(checkpoints.transformer("bert"), path)
    (path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ConfigError, match="cannot load"):
        find_or_export(card(path, tmp_path))
    assert exports(tmp_path) == []


def test_damaged_export_is_made_again(checkpoints: Any, tmp_path: Path) -> None:
    path = checkpoints.transformer("bert")
    folder, manifest = find_or_export(card(path, tmp_path))
    whole = (folder / ONNX_FILE).read_bytes()
    (folder / ONNX_FILE).write_bytes(whole[:1000])
    assert Manifest.read(folder) is None
    again, remade = find_or_export(card(path, tmp_path))
    assert again == folder
    assert (folder / ONNX_FILE).stat().st_size == len(whole)
    assert remade.files == manifest.files


def test_later_runs_do_not_read_the_weights(checkpoints: Any, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(checkpoints.transformer("bert"), path)
    folder, _ = find_or_export(card(path, tmp_path))
    weights = path / "model.safetensors"
    stat, other = weights.stat(), bytes(weights.stat().st_size)
    weights.write_bytes(other)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_or_export(card(path, tmp_path))[0] == folder  # size and time are what it went by
    os.utime(weights)
    with pytest.raises(ConfigError, match="transformers cannot load"):
        find_or_export(card(path, tmp_path))  # read again: now it sees the zeros


def test_same_files_in_another_folder_share_the_vectors_identity_not_the_name(checkpoints: Any, tmp_path: Path) -> None:
    path, copy = checkpoints.transformer("bert"), tmp_path / "copy"
    shutil.copytree(path, copy)
    first, second = (find_or_export(card(folder, tmp_path / "root"))[0] for folder in (path, copy))
    assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2]


def test_export_that_differs_from_torch_is_refused(checkpoints: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from orchestrator.models.network import load_network

    path, changed = checkpoints.transformer("bert"), tmp_path / "changed"
    folder, _ = find_or_export(card(path, tmp_path))
    shutil.copytree(path, changed)
    weights = load_file(changed / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"] + np.float32(0.01)
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    other = card(changed, tmp_path)
    with pytest.raises(ConfigError, match=r"differs from torch by 0\.\d+ in ONNX Runtime"):
        _check(other, load_network(other, changed, {}), folder)


def test_a_file_that_is_no_checkpoint_is_a_configuration_error(checkpoints: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    shutil.copytree(checkpoints.transformer("bert"), path)
    (path / "config.json").write_text('{"model_type": "no-such-kind"}')
    with pytest.raises(ConfigError, match=r"models\.embedder: transformers cannot load .*broken"):
        OnnxEmbed(card(path, tmp_path)).load()


def test_closing_one_holder_leaves_the_session_to_the_other(checkpoints: Any, shared_root: Path) -> None:
    first, second = (OnnxEmbed(card(checkpoints.transformer("bert"), shared_root), threads=1) for _ in range(2))
    first.load()
    second.load()
    first.close()
    assert second.embed(["eye"], kind="query", call=Call()).shape == (1, 32)
    with pytest.raises(RuntimeError, match="call load"):
        first.embed(["eye"], kind="query", call=Call())


def test_a_model_kept_loaded_outlives_its_holder_until_others_take_its_place(
    checkpoints: Any, shared_root: Path
) -> None:
    def loaded(kind: str) -> weakref.ref[OnnxSession]:
        embed = OnnxEmbed(card(checkpoints.transformer(kind), shared_root), threads=1)
        embed.load()
        session = weakref.ref(embed._ready.model.session)
        embed.close()
        return session

    assert loaded("bert")() is None
    keep_loaded(1)
    try:
        bert = loaded("bert")
        assert bert() is not None
        assert loaded("bert")() is bert()
        distilbert = loaded("distilbert")
        assert bert() is None
        assert distilbert() is not None
    finally:
        keep_loaded(0)
    assert distilbert() is None
