"""Makes the ONNX export of a model, once, and finds it again. The export is checked against torch before it is kept."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.log import get_logger
from orchestrator.models.card import Model
from orchestrator.models.files import digests, list_files, needed_files
from orchestrator.models.manifest import (
    EXPORT_FORMAT,
    HEAD_FILE,
    ONNX_FILE,
    TOKENIZER_FILE,
    Manifest,
    file_sizes,
)
from orchestrator.models.modules import torch_way
from orchestrator.models.resolve import resolve
from orchestrator.models.session import OnnxSession
from orchestrator.models.splade import write_static_queries
from orchestrator.models.tokens import TextEncoder
from orchestrator.storage import locked, slug, stable_hash

if TYPE_CHECKING:
    import torch

    from orchestrator.models.network import Network

_log = get_logger()
_OPSET = 17
_TOLERANCE = 1e-4
_PARTIAL = ".partial-"
_DENSE_TENSORS = ("linear.weight", "linear.bias", "residual.weight")
_SENTENCES = (
    "what",
    "a storm over the sea",
    "The committee met on Tuesday, and again in 1987; nobody wrote down why. 文書 данные",
)


def find_or_export(model: Model) -> tuple[Path, Manifest]:
    """The folder of the model's export and its manifest; exported first where it never was.

    Kept in `<root>/models/<key>/`, where the key is made of the digests of weights, tokenizer and configuration. Later
    calls read a few small files and no weights. Two processes at once export once; one killed in the middle leaves
    nothing that is taken for an export.

    Raises:
        ModelNotFoundError: its files are nowhere.
        MissingExtraError: torch or transformers is not installed, and the export is not there yet.
        ConfigError: the model cannot be exported.
    """
    folder = resolve(model)
    sources = digests(folder, needed_files(list_files(folder)), model.root)
    target = model.root / "models" / export_key(model, folder, sources)
    manifest = Manifest.read(target)
    if manifest is None:
        with locked(target.with_name(f".{target.name}.lock")):
            manifest = Manifest.read(target) or _build(model, folder, sources, target)
    return target, manifest


def export_key(model: Model, folder: Path, sources: Mapping[str, str]) -> str:
    """Folder name of the export: readable first, then what decides about its content."""
    name = Path(model.path).name if model.path else model.name or folder.parent.name
    content = stable_hash({"files": dict(sources), "format": EXPORT_FORMAT, "role": model.role})
    return f"{slug(name)}-{content}"


def _build(model: Model, folder: Path, sources: Mapping[str, str], target: Path) -> Manifest:
    """Builds beside the target and renames at the end. The caller holds the target's lock."""
    _remove(target, target.parent.glob(f"{_PARTIAL}{target.name}-*"))
    partial = target.with_name(f"{_PARTIAL}{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    partial.mkdir(parents=True)
    _log.info("model.export", model=model.label, to=str(target))
    try:
        manifest = _write(model, folder, sources, partial)
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _remove(target: Path, leftovers: Iterator[Path]) -> None:
    for entry in [target, *leftovers]:
        shutil.rmtree(entry, ignore_errors=True)


def _write(model: Model, folder: Path, sources: Mapping[str, str], partial: Path) -> Manifest:
    from orchestrator.models.network import load_network

    network = load_network(model, folder, sources)
    (partial / TOKENIZER_FILE).write_text(network.tokenizer_json, encoding="utf-8")
    _write_head(network, folder, partial)
    if model.role == "sparse":
        write_static_queries(folder, network.manifest.modules[0], partial)
    try:
        _write_onnx(network, partial / ONNX_FILE)
    except Exception as error:
        raise ConfigError(f"models.{model.role}", _advice(model, f"cannot be exported to ONNX: {error}")) from error
    manifest = _check(model, network, partial)
    manifest = replace(manifest, files=file_sizes(partial))
    manifest.write(partial)
    return manifest


def _advice(model: Model, problem: str) -> str:
    return f"{model.label} {problem}; {torch_way(model.role)} runs it without an export"


def _write_head(network: Network, folder: Path, partial: Path) -> None:
    """Weights of the Dense layers, as numpy reads them."""
    arrays: dict[str, np.ndarray] = {}
    for module in network.manifest.modules:
        if module["type"] == "dense":
            name = str(module["folder"])
            arrays |= {f"{name}.{key}": value for key, value in _dense_tensors(network, folder / name).items()}
    if arrays:
        with open(partial / HEAD_FILE, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)


def _dense_tensors(network: Network, folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a Dense layer, whatever else its file holds: Stanford's ColBERT has one file for all weights."""
    found = {key: value.float().numpy() for key, value in _tensors(folder).items() if key in _DENSE_TENSORS}
    if _DENSE_TENSORS[0] not in found:
        raise ConfigError(f"models.{network.manifest.role}", f"{folder} has no {_DENSE_TENSORS[0]}")
    return found


def _tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")
    import torch

    state: Mapping[str, torch.Tensor] = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return state


def _write_onnx(network: Network, path: Path) -> None:
    import torch

    names = network.manifest.input_names
    encoder = TextEncoder(network.tokenizer_json, network.manifest, network.manifest.max_length_tokens)
    tokens = encoder.batch(encoder.encode(_SENTENCES[1:]))

    class Positional(torch.nn.Module):
        """The exporter passes inputs by position; transformers' forward has its own order of arguments."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network.module

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.network(**dict(zip(names, inputs, strict=True)), return_dict=True)[0]
            return output

    # Without eval() here the exporter sets the wrapper back to training, and dropout with it.
    wrapper = Positional().eval()
    axes = {name: {0: "rows", 1: "length"} for name in names}
    axes["output"] = {0: "rows"} if network.manifest.role in ("reranker", "sparse") else {0: "rows", 1: "length"}
    with _exporter_warnings(), torch.inference_mode():
        torch.onnx.export(
            wrapper,
            tuple(torch.from_numpy(tokens[name]) for name in names),
            str(path),
            input_names=list(names),
            output_names=["output"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            # The new exporter takes 16 s where this one takes 2, needs onnxscript, and no attention is fused after it.
            dynamo=False,
        )


@contextlib.contextmanager
def _exporter_warnings() -> Iterator[None]:
    """Silences what the exporter says about tracing and about its own age; `_check` looks at the result instead."""
    from torch.jit import TracerWarning  # type: ignore[attr-defined]  # public in the docs, not in its __all__

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TracerWarning)
        exporter = ("You are using the legacy", "The feature will be removed", "Exporting aten::")
        for message in (*exporter, "To copy construct from a tensor"):  # the last: DeBERTa in transformers, traced
            warnings.filterwarnings("ignore", message=message)
        yield


def _check(model: Model, network: Network, partial: Path) -> Manifest:
    """The manifest with the graph's own inputs, after tokens and outputs agreed with transformers and torch.

    Texts of several lengths, most of them unlike those traced: a graph that kept a traced length fails here.
    """
    session = OnnxSession(partial / ONNX_FILE, 1)
    manifest = replace(network.manifest, input_names=session.input_names)
    tokenizer = (partial / TOKENIZER_FILE).read_text(encoding="utf-8")
    encoders = [TextEncoder(tokenizer, manifest, manifest.max_length_tokens)]
    if manifest.token_rules is not None:
        encoders.append(TextEncoder.of_queries(tokenizer, manifest))
    for encoder, texts in itertools.product(encoders, _check_texts(model)):
        rows = encoder.encode(texts)
        inputs = encoder.batch(rows)
        difference = np.abs(session.run(inputs) - network.forward(inputs))
        if difference.ndim == 3:
            for row, part in zip(rows, difference, strict=True):
                part[len(row.ids) :] = 0  # padding
        if not float(difference.max()) <= _TOLERANCE:
            problem = f"differs from torch by {difference.max():.2g} in ONNX Runtime, more than {_TOLERANCE}"
            raise ConfigError(f"models.{model.role}", _advice(model, problem))
    return manifest


def _check_texts(model: Model) -> Iterator[list[str | tuple[str, str]]]:
    short, middle, long = _SENTENCES[0], _SENTENCES[1], " ".join(_SENTENCES[2:] * 12)
    for batch in ([short], [long, short, middle], [middle, long]):
        yield [(middle, text) for text in batch] if model.role == "reranker" else list(batch)
