"""Uses an ONNX graph that a model's authors published, as it is: no torch, no transformers, no export.

What the export compares with torch is checked here without it, on a few texts: outputs are finite and of the right
shape, a text gives the same alone and in a padded batch, and the longest input that the configuration promises runs.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.models.card import Model, Role
from orchestrator.models.description import Description, describe
from orchestrator.models.external import external_files
from orchestrator.models.files import GRAPH_FILE
from orchestrator.models.manifest import ONNX_FILE, TOKENIZER_FILE, Manifest
from orchestrator.models.modules import read_json
from orchestrator.models.session import OnnxSession
from orchestrator.models.token_rules import shortest
from orchestrator.models.tokenizer_files import TokenizerFacts, read_tokenizer
from orchestrator.models.tokens import Text, TextEncoder
from orchestrator.types import Vectors

# Names that optimum and sentence-transformers give the outputs, and how many axes each has. A multi-vector encoder
# needs transformers to read its marker tokens, and so is always exported by us.
_OUTPUTS: Mapping[Role, tuple[tuple[str, ...], int]] = {
    "reranker": (("logits",), 2),
    "embedder": (("last_hidden_state", "token_embeddings"), 3),
}
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_WIDTHS = ("hidden_size", "dim", "d_model")
_TOLERANCE = 1e-4
_LONGEST_CHECK = 1024
# Whose positions are counted from the one after the padding id; None is `pad_token_id` of the configuration
# (transformers 5.23, padding_idx of the position embeddings).
_PADDED_POSITIONS: Mapping[str, int | None] = {
    **dict.fromkeys(("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "xmod")),
    **dict.fromkeys(("data2vec-text", "longformer", "luke", "lilt", "markuplm", "esm")),
    "mpnet": 1,
}
_SHORT, _MIDDLE = "what", "a storm over the sea"
_LONG = "The committee met on Tuesday, and again in 1987; nobody wrote down why. 文書 данные " * 4


class UnusableGraphError(Exception):
    """A published graph that cannot be used; the text says why. Our own export takes its place."""


def takes_graph(role: Role) -> bool:
    """Whether a model of this role can run from a published graph; of a folder, `runs_from_graph` tells more."""
    return role in _OUTPUTS


def use_published(model: Model, folder: Path, sources: Mapping[str, str], partial: Path) -> Manifest:
    """Puts the graph in `folder` and its tokenizer into `partial`; gives the manifest of both.

    Raises:
        UnusableGraphError: damaged, or with inputs or outputs that are not known here.
        ConfigError: the model is of another kind than its card says.
    """
    description = describe(folder, model.role)
    _place(model, folder, partial)
    try:
        tokenizer = read_tokenizer(folder, lowercase=description.lowercase)
        inputs, output = _ends(model.role, partial / ONNX_FILE)
    except UnusableGraphError:
        raise
    except Exception as error:  # of onnxruntime and tokenizers, which have no common class
        raise UnusableGraphError(_first_line(error)) from error
    (partial / TOKENIZER_FILE).write_text(tokenizer.serialized, encoding="utf-8")
    manifest = _manifest(model, description, tokenizer, sources, inputs, output)
    _try(manifest, partial)
    return manifest


def remember(target: Path, error: UnusableGraphError) -> None:
    """Keep in mind that the graph of `target` cannot be used by this version of ONNX Runtime."""
    _memory(target).parent.mkdir(parents=True, exist_ok=True)
    _memory(target).write_text(f"{_runtime()}\n{error}", encoding="utf-8")


def raise_if_remembered(target: Path) -> None:
    """Raise what `remember` kept, without another look at the graph.

    Raises:
        UnusableGraphError: the graph was tried before.
    """
    if _memory(target).is_file():
        version, _, reason = _memory(target).read_text(encoding="utf-8").partition("\n")
        if version == _runtime():
            raise UnusableGraphError(reason)


def _memory(target: Path) -> Path:
    return target.with_name(f".{target.name}.unusable")


def _runtime() -> str:
    return f"onnxruntime {importlib.metadata.version('onnxruntime')}"


def _place(model: Model, folder: Path, partial: Path) -> None:
    """Files of the hub's cache are linked, since they are never written again; those of a local folder are copied."""
    graph = folder / GRAPH_FILE
    for source in (graph, *(folder / name for name in sorted(external_files(graph)))):
        if not source.is_file():
            raise UnusableGraphError(f"its weights {source} are not there")
        _bring(source.resolve(), partial / source.name, link=model.path is None)


def _bring(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
        except OSError:  # on another disk
            pass
        else:
            return
    shutil.copyfile(source, target)


def _ends(role: Role, path: Path) -> tuple[tuple[str, ...], str]:
    """Names of the graph's inputs and of the output that this role reads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {node.name: node.type for node in session.get_inputs()}
    if not set(inputs) <= set(_INPUTS) or set(inputs.values()) != {"tensor(int64)"}:
        found = ", ".join(f"{name} {kind}" for name, kind in inputs.items())
        raise UnusableGraphError(f"its inputs are {found}; expected {', '.join(_INPUTS)} of int64")
    return tuple(inputs), _output(role, {node.name: node.shape for node in session.get_outputs()})


def _output(role: Role, shapes: Mapping[str, Any]) -> str:
    names, axes = _OUTPUTS[role]
    known = [name for name in names if name in shapes]
    if not known and len(shapes) == 1:
        known = [name for name, shape in shapes.items() if shape is not None and len(shape) == axes]
    if not known:
        raise UnusableGraphError(f"its outputs are {', '.join(shapes)}; expected {' or '.join(names)} of a {role}")
    return known[0]


def _manifest(
    model: Model,
    description: Description,
    tokenizer: TokenizerFacts,
    sources: Mapping[str, str],
    inputs: tuple[str, ...],
    output: str,
) -> Manifest:
    config = read_json(description.transformer / "config.json", {})
    limit = _position_limit(config)
    pad_id = config.get("pad_token_id") if tokenizer.pad_id is None else tokenizer.pad_id
    return Manifest(
        role=model.role,
        source=model.label,
        input_names=inputs,
        pad_id=int(pad_id or 0),
        special_ids=tokenizer.special_ids,
        truncation_side=tokenizer.truncation_side,
        max_length_tokens=shortest(description.max_length_tokens or tokenizer.max_length_tokens, limit),
        position_limit=limit,
        hidden_size=int(next((config[key] for key in _WIDTHS if key in config), 0)),
        modules=description.modules,
        prompts=description.prompts,
        similarity=description.similarity,
        truncate_dim=description.truncate_dim,
        sources=sources,
        files={},
        output=output,
        type_ids=tokenizer.type_ids,
    )


def _position_limit(config: Mapping[str, Any]) -> int | None:
    positions, kind = config.get("max_position_embeddings"), str(config.get("model_type"))
    if positions is None or positions < 1:
        return None
    if kind not in _PADDED_POSITIONS:
        return int(positions)
    padding = _PADDED_POSITIONS[kind]
    return int(positions) - 1 - int(config.get("pad_token_id", 1) if padding is None else padding)


def _try(manifest: Manifest, partial: Path) -> None:
    """The checks named at the top of this file."""
    limit = manifest.position_limit
    encoder = TextEncoder.read(partial / TOKENIZER_FILE, manifest, manifest.max_length_tokens or limit)
    try:
        session = OnnxSession(partial / ONNX_FILE, 1, manifest.output)
        together = list(_read(session, manifest, encoder, [_as_text(manifest, text) for text in (_LONG, _SHORT)]))
        alone = [next(_read(session, manifest, encoder, [_as_text(manifest, text)])) for text in (_LONG, _SHORT)]
        if limit is not None and limit <= _LONGEST_CHECK:
            longest = TextEncoder.read(partial / TOKENIZER_FILE, manifest, limit)
            next(_read(session, manifest, longest, [_as_text(manifest, _LONG * limit)]))
    except UnusableGraphError:
        raise
    except Exception as error:  # onnxruntime's own, one class an error code
        raise UnusableGraphError(_first_line(error)) from error
    difference = max(float(np.abs(one - other).max()) for one, other in zip(together, alone, strict=True))
    scale = max(1.0, *(float(np.abs(one).max()) for one in alone))
    if not difference <= _TOLERANCE * scale:
        raise UnusableGraphError(f"a text alone and in a padded batch differ by {difference:.2g}")


def _as_text(manifest: Manifest, text: str) -> Text:
    return (_MIDDLE, text) if manifest.role == "reranker" else text


def _read(session: OnnxSession, manifest: Manifest, encoder: TextEncoder, texts: list[Text]) -> Iterator[Vectors]:
    """The output of each text, without its padding."""
    rows = encoder.encode(texts)
    inputs = encoder.batch(rows)
    output, shape = session.run(inputs), inputs["input_ids"].shape
    expected = (shape[0], 1) if manifest.role == "reranker" else (*shape, manifest.hidden_size)
    if output.shape != expected:
        raise UnusableGraphError(f"output {manifest.output} has the shape {output.shape}; expected {expected}")
    if not np.isfinite(output).all():
        raise UnusableGraphError(f"output {manifest.output} has numbers that are not finite")
    for row, part in zip(rows, output, strict=True):
        yield part if manifest.role == "reranker" else part[: len(row.ids)]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
