"""Which files of a folder make up a model, and their digests, remembered so that weights are hashed once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from orchestrator.storage import stable_hash, write_atomic

Digests: TypeAlias = Mapping[str, str]
"""File, relative to the model's folder with forward slashes -> sha256 hex digest."""

_TOKENIZER_FILES = {"tokenizer.json", "vocab.txt", "vocab.json"}
_TOKENIZER_SUFFIXES = (".model", ".txt", ".jinja")
_COLBERT_SETTINGS = "artifact.metadata"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
GRAPH_FILE = "onnx/model.onnx"
"""Where sentence-transformers and optimum publish the float32 graph. Its other forms (`model_O3.onnx`,
`model_qint8_avx512.onnx`, `model_quantized.onnx`, ...) are not used."""
_NOT_READ = {"training.json"}  # what `orchestrate train` keeps beside a model: no model changes with it
_MODULE_FOLDER = re.compile(r"([a-z]+_)?\d[^/]*$")
_FIRST_MODULES = ("0_", "document_0_")
_SHARD_OF = {_WEIGHTS[1]: ".safetensors", _WEIGHTS[3]: ".bin"}


def needed_files(names: Iterable[str], *, graph: bool = False) -> list[str]:
    """The names that loading the model reads, sorted: configuration, tokenizer, modules, one format of weights.

    Safetensors are preferred to pickled weights, folder by folder, as transformers does. Exports of others
    (`openvino/`), TensorFlow weights and pictures stay out.

    Args:
        names: all files of the model, relative, with forward slashes.
        graph: the published ONNX graph, with the files of its weights, in place of torch's weights.
    """
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, leaf = name.rpartition("/")
        folders.setdefault(folder, []).append(leaf)
    kept: list[str] = []
    for folder, leaves in folders.items():
        if folder == "" or _is_module_folder(folder, leaves):
            kept += [str(PurePosixPath(folder, leaf)) for leaf in _needed_in(leaves, weights=not graph)]
        elif graph and folder == "onnx":
            kept += [f"onnx/{leaf}" for leaf in leaves if _is_graph_file(leaf)]
    return sorted(kept)


def has_graph(names: Iterable[str]) -> bool:
    """Whether a folder with these files runs from its published ONNX graph: graph, configuration and tokenizer.

    Not when a module after the transformer has weights of its own, which the graph does not hold.
    """
    present = set(names)
    inner = any("/" in name and name.rpartition("/")[2] in _WEIGHTS for name in present)
    return not inner and {GRAPH_FILE, "config.json", "tokenizer.json"} <= present


def missing_parts(names: Iterable[str]) -> list[str]:
    """What a folder with these files lacks to be a model: configuration, weights or tokenizer; empty when whole."""
    folder = transformer_folder(names := list(names))
    leaves = {leaf for parent, _, leaf in (name.rpartition("/") for name in names) if parent == folder}
    missing = [] if "config.json" in leaves else ["config.json"]
    if not leaves & set(_WEIGHTS):
        missing.append("weights (model.safetensors or pytorch_model.bin)")
    if not leaves & _TOKENIZER_FILES and not any(leaf.endswith(".model") for leaf in leaves):
        missing.append("tokenizer (tokenizer.json, vocab.txt or a sentencepiece .model)")
    return missing


def transformer_folder(names: Iterable[str]) -> str:
    """Where the transformer stands: the folder itself (an empty string), or a numbered one, as in old layouts."""
    present = set(names)
    if "config.json" in present:
        return ""
    return next((name.partition("/")[0] for name in sorted(present) if name.startswith(_FIRST_MODULES)), "")


def list_files(folder: Path) -> list[str]:
    """Files of `folder` and of its direct subfolders, relative, with forward slashes."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def digests(folder: Path, names: Iterable[str], root: Path) -> dict[str, str]:
    """sha256 of the named files of `folder`; a file with the size and time of last time is not read again.

    Hashing 90 MB of weights takes longer than embedding a query, so the result is remembered under
    `<root>/models/digests/`, one small file a folder.
    """
    memory = root / "models" / "digests" / f"{stable_hash(str(folder.resolve()))}.json"
    known = _read_memory(memory)
    fresh = {name: _entry(folder / name, known.get(name)) for name in names}
    if fresh != {name: known.get(name) for name in fresh}:
        write_atomic(memory, json.dumps({**known, **fresh}))
    return {name: str(entry[2]) for name, entry in fresh.items()}


def _is_module_folder(folder: str, leaves: list[str]) -> bool:
    # sentence-transformers numbers its module folders: 1_Pooling, 2_Dense; behind a Router document_0_Transformer.
    return _MODULE_FOLDER.match(folder) is not None and "config.json" in leaves


def _is_graph_file(leaf: str) -> bool:
    """The graph, or one of the files that large graphs keep their weights in: `model.onnx_data`, or a tensor's name."""
    return leaf.startswith(GRAPH_FILE.rpartition("/")[2]) or "." not in leaf


def _needed_in(leaves: list[str], weights: bool) -> list[str]:
    file = next((name for name in _WEIGHTS if name in leaves), None) if weights else None
    settings = [x for x in leaves if x.endswith(".json") and x not in _SHARD_OF and x not in _NOT_READ]
    kept = [x for x in leaves if x.endswith(_TOKENIZER_SUFFIXES)] + settings
    kept += [x for x in leaves if x == _COLBERT_SETTINGS]
    if file is not None:
        kept.append(file)
        if file in _SHARD_OF:
            stem = file.partition(".")[0] + "-"
            kept += [x for x in leaves if x.startswith(stem) and x.endswith(_SHARD_OF[file])]
    return kept


def _read_memory(memory: Path) -> dict[str, list[int | str]]:
    try:
        content = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _entry(path: Path, known: list[int | str] | None) -> list[int | str]:
    stat = path.stat()
    if known is not None and len(known) == 3 and known[:2] == [stat.st_size, stat.st_mtime_ns]:
        return known
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [stat.st_size, stat.st_mtime_ns, digest]
