"""A model in memory from its ONNX graph: network, tokenizer, and where texts are cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.models.card import Model
from orchestrator.models.export import find_or_export
from orchestrator.models.int8 import find_or_quantise, with_agreement
from orchestrator.models.manifest import ONNX_FILE, TOKENIZER_FILE, Manifest
from orchestrator.models.session import OnnxSession, Open, Session, physical_cores, shared_session
from orchestrator.models.template import with_template
from orchestrator.models.tokens import TextEncoder


@dataclass(frozen=True)
class OnnxModel:
    """A model, ready to run.

    Attributes:
        folder: of the graph.
        manifest: what it says about itself.
        session: shared with every other holder of the same graph, runtime and thread count.
        encoder: its tokenizer, cutting at `max_length_tokens`.
        max_length_tokens: where texts are cut; None is nowhere.
    """

    folder: Path
    manifest: Manifest
    session: Session
    encoder: TextEncoder
    max_length_tokens: int | None


def load_onnx(
    model: Model,
    *,
    threads: int | None = None,
    max_length_tokens: int | None = None,
    runtime: Open = OnnxSession,
    int8: bool = False,
) -> OnnxModel:
    """The model in memory, exported first where it never was.

    Args:
        model: its card.
        threads: of one call; None is one a physical core this process may use.
        max_length_tokens: where texts are cut; None is what the card says, or else the model itself.
        runtime: what runs the graph.
        int8: run the int8 copy of the graph, made first where it never was. Each text must be a batch of its own.

    Raises:
        ModelNotFoundError: its files are nowhere.
        MissingExtraError: it was never exported, and torch or transformers is not installed.
        ConfigError: the model cannot be exported, or takes less than `max_length_tokens`.
    """
    exact, plain = find_or_export(model)
    folder, manifest = exact, with_template(model, plain)
    if int8:
        folder = find_or_quantise(model, exact, plain)
        manifest = with_agreement(model, exact, folder, manifest)
    length = max_length(model, manifest, max_length_tokens)
    session = shared_session(folder / ONNX_FILE, threads or physical_cores(), manifest.output, runtime)
    encoder = TextEncoder.read(folder / TOKENIZER_FILE, manifest, length)
    return OnnxModel(folder, manifest, session, encoder, length)


def max_length(model: Model, manifest: Manifest, asked: int | None) -> int | None:
    """Where texts are cut: what was asked for, what the card says, what the model's authors chose.

    Raises:
        ConfigError: more than the network's positions.
    """
    wanted = asked or model.max_length_tokens
    limit = manifest.position_limit
    if wanted is not None and limit is not None and wanted > limit:
        raise ConfigError(f"{model.key}.max_length_tokens", f"found {wanted}; {model.label} has {limit} positions")
    return wanted or manifest.max_length_tokens
