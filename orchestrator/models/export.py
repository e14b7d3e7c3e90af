"""Finds or makes the ONNX graph of a model, once: a published one, or our export, checked against torch."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from orchestrator.errors import ConfigError, MissingExtraError
from orchestrator.log import get_logger
from orchestrator.models.card import Model
from orchestrator.models.checkpoint import MissingWeightsError
from orchestrator.models.description import runs_from_graph
from orchestrator.models.external import external_files
from orchestrator.models.files import GRAPH_FILE, digests, has_graph, list_files, missing_parts, needed_files
from orchestrator.models.kept import find_or_make
from orchestrator.models.manifest import EXPORT_FORMAT, HEAD_FILE, ONNX_FILE, TOKENIZER_FILE, Manifest
from orchestrator.models.modules import torch_way
from orchestrator.models.published import (
    UnusableGraphError,
    raise_if_remembered,
    remember,
    takes_graph,
    use_published,
)
from orchestrator.models.resolve import resolve
from orchestrator.models.scoring import tensors
from orchestrator.models.session import OnnxSession
from orchestrator.models.splade import write_static_queries
from orchestrator.models.tokens import TextEncoder
from orchestrator.stage import Json
from orchestrator.storage import slug, stable_hash

if TYPE_CHECKING:
    import torch

    from orchestrator.models.network import Network

_log = get_logger()
_OPSET = 17
_TOLERANCE = 1e-4
_DENSE_TENSORS = ("linear.weight", "linear.bias", "residual.weight")
_SENTENCES = (
    "what",
    "a storm over the sea",
    "The committee met on Tuesday, and again in 1987; nobody wrote down why. 文書 данные",
)


def find_or_export(model: Model) -> tuple[Path, Manifest]:
    """The folder of the model's graph and its manifest; made first where it never was.

    A graph that stands beside the model as `onnx/model.onnx` is used as it is, if it can be; of others we make an
    export. Kept in `<root>/models/<key>/`, where the key is made of the digests of weights, tokenizer and
    configuration. Later calls read small files, and of a published graph where its weights are. Two processes at once
    export once; one killed in the middle leaves nothing that is taken for an export.

    Raises:
        ModelNotFoundError: its files are nowhere.
        MissingExtraError: torch or transformers is not installed, and an export is needed and not there yet.
        ConfigError: the model cannot be exported, or is of another kind than its card says.
    """
    if takes_graph(model.role):
        folder = resolve(model, graph=True)
        names = list_files(folder)
        if has_graph(names) and runs_from_graph(model, folder):
            try:
                return _find_published(model, folder, names)
            except UnusableGraphError as error:
                _log.warning("model.graph_unusable", model=model.label, reason=str(error), instead="own export")
    folder = resolve(model)
    return _find(model, folder, needed_files(list_files(folder)), _write)


def export_key(model: Model, folder: Path, sources: Mapping[str, str]) -> str:
    """Folder name of the export: readable first, then what decides about its content."""
    name = Path(model.path).name if model.path else model.name or folder.parent.name
    facts: dict[str, Json] = {"files": dict(sources), "format": EXPORT_FORMAT, "role": model.role}
    if model.yes_token is not None:  # the graph computes these alone
        facts["answers"] = [model.yes_token, model.no_token]
    if model.template is not None:  # whichever it is: then the manifest does not keep the one of the files
        facts["template"] = "of the card"
    content = stable_hash(facts)
    return f"{slug(name)}-{content}"


_Write: TypeAlias = Callable[[Model, Path, Mapping[str, str], Path], Manifest]


def _find(model: Model, folder: Path, names: Iterable[str], write: _Write) -> tuple[Path, Manifest]:
    sources = digests(folder, names, model.root)
    target = model.root / "models" / export_key(model, folder, sources)
    raise_if_remembered(target)
    try:
        return target, find_or_make(target, lambda partial: write(model, folder, sources, partial))
    except UnusableGraphError as error:
        remember(target, error)
        raise


def _find_published(model: Model, folder: Path, names: list[str]) -> tuple[Path, Manifest]:
    wanted = set(needed_files(names, graph=True)) | (external_files(folder / GRAPH_FILE) & set(names))
    if model.path is not None:
        # In a folder of the user's the weights may have changed after the graph was made; then both count.
        wanted |= set(needed_files(names))
    return _find(model, folder, sorted(wanted), _use)


def _use(model: Model, folder: Path, sources: Mapping[str, str], partial: Path) -> Manifest:
    """The published graph; compared with torch where the folder has torch's weights too, and torch can load them."""
    manifest = use_published(model, folder, sources, partial)
    _log.info("model.graph_used", model=model.label, file=GRAPH_FILE)
    if missing_parts(sources):
        return manifest
    from orchestrator.models.network import load_network

    try:
        network = load_network(model, folder, sources)
    except MissingWeightsError as error:
        raise UnusableGraphError(f"torch's weights beside it are of another model: {error.detail}") from error
    except (ConfigError, MissingExtraError) as error:
        _log.info("model.graph_not_compared", model=model.label, reason=str(error))
        return manifest
    _compare(manifest, network.manifest)
    # Torch gets the inputs that transformers gives it: a graph without type ids differs where the network reads them.
    inputs = network.manifest.input_names
    try:
        return _check(model, replace(network, manifest=replace(manifest, input_names=inputs)), partial)
    except ConfigError as error:
        raise UnusableGraphError(error.detail.partition(";")[0]) from error


def _compare(manifest: Manifest, theirs: Manifest) -> None:
    """Refuses facts of the files that transformers reads otherwise."""
    facts = ["pad_id", "truncation_side", "max_length_tokens", "position_limit"]
    if manifest.role == "embedder":
        facts.append("special_ids")  # they end a prompt; nothing else reads them
    different = [fact for fact in facts if getattr(manifest, fact) != getattr(theirs, fact)]
    if "token_type_ids" in theirs.input_names and not manifest.type_ids:
        different.append("type_ids")
    if different:
        raise UnusableGraphError(f"{', '.join(different)}: the files and transformers differ")


def _write(model: Model, folder: Path, sources: Mapping[str, str], partial: Path) -> Manifest:
    from orchestrator.models.network import load_network

    _log.info("model.export", model=model.label)
    network = load_network(model, folder, sources)
    (partial / TOKENIZER_FILE).write_text(network.tokenizer_json, encoding="utf-8")
    _write_head(network, folder, partial)
    if model.role == "sparse":
        write_static_queries(folder, network.manifest.modules[0], partial)
    try:
        _write_onnx(network, partial / ONNX_FILE)
    except Exception as error:
        raise ConfigError(model.key, _advice(model, f"cannot be exported to ONNX: {error}")) from error
    return _check(model, network, partial)


def _advice(model: Model, problem: str) -> str:
    return f"{model.label} {problem}{torch_way(model.role)}"


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
    found = {key: value.float().numpy() for key, value in tensors(folder).items() if key in _DENSE_TENSORS}
    if _DENSE_TENSORS[0] not in found:
        raise ConfigError(f"models.{network.manifest.role}", f"{folder} has no {_DENSE_TENSORS[0]}")
    return found


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
    session = OnnxSession(partial / ONNX_FILE, 1, network.manifest.output)
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
            raise ConfigError(model.key, _advice(model, problem))
    return manifest


def _check_texts(model: Model) -> Iterator[list[str | tuple[str, str]]]:
    short, middle, long = _SENTENCES[0], _SENTENCES[1], " ".join(_SENTENCES[2:] * 12)
    for batch in ([short], [long, short, middle], [middle, long]):
        yield [(middle, text) for text in batch] if model.role == "reranker" else list(batch)
