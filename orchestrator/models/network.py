"""Loads checkpoints with transformers: for export, and for scoring on torch. Imports torch only when called."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from orchestrator.errors import ConfigError, MissingExtraError
from orchestrator.models.card import Model
from orchestrator.models.chat import read_chat
from orchestrator.models.checkpoint import check_weights, explained, is_classifier
from orchestrator.models.description import Description, describe
from orchestrator.models.kind import check_labels
from orchestrator.models.manifest import Manifest, Template
from orchestrator.models.scoring import auto_class, check_declared, scored
from orchestrator.models.splade import pooled
from orchestrator.models.token_rules import register_markers, shortest, token_rules
from orchestrator.models.tokenizer_files import NO_LIMIT, serialized
from orchestrator.models.tokens import Inputs
from orchestrator.types import Call, Vectors

if TYPE_CHECKING:
    import torch

TorchPrecision: TypeAlias = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Network:
    """A checkpoint in memory, on torch, in evaluation mode; in float32 before `cast`.

    Attributes:
        module: the transformers model; what it gives first is the last hidden state, of a reranker the score, of a
            sparse encoder the weights of the vocabulary.
        tokenizer_json: its tokenizer, for the `tokenizers` library.
        description: what stands around it.
        manifest: the same facts as an export states; no files yet.
    """

    module: torch.nn.Module
    tokenizer_json: str
    description: Description
    manifest: Manifest

    def to(self, device: str | None) -> str:
        """Move the module; None is `cuda` where there is one, else `cpu`. The kind of device it is on then.

        Raises:
            ConfigError: torch does not know the device, or the machine does not have it.
        """
        import torch

        wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.module.to(torch.device(wanted))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError("device", f"found '{wanted}': {error}") from error
        return torch.device(wanted).type

    def cast(self, precision: TorchPrecision) -> None:
        """Weights and activations in `precision` from now on; `forward` still gives float32."""
        import torch

        self.module.to({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision])

    def forward(self, inputs: Inputs, call: Call | None = None) -> Vectors:  # noqa: ARG002 - as every Forward
        """float32 [n, length, width], of a reranker [n, 1], computed where the module lives.

        torch cannot be stopped inside a batch: a cancelled `call` ends before the next one.
        """
        import torch

        device = next(self.module.parameters()).device
        names = self.manifest.input_names
        tensors = {name: torch.from_numpy(inputs[name]).to(device) for name in names}
        with torch.inference_mode():
            output: Vectors = self.module(**tensors, return_dict=True)[0].float().cpu().numpy()
        return np.ascontiguousarray(output)


def load_network(model: Model, folder: Path, sources: Mapping[str, str]) -> Network:
    """The checkpoint in `folder`.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        MissingWeightsError: the file lacks some.
        ConfigError: not a checkpoint of the card's role, or one that only its own library can run.
    """
    description = describe(folder, model.role)
    if description.reranker is not None:
        check_declared(model, description.reranker.scoring, description.transformer)
    require("torch")
    transformers = require("transformers")
    with quiet(transformers), explained(model, description.transformer):
        module, report = auto_class(transformers, model.role, description.reranker).from_pretrained(
            description.transformer,
            attn_implementation=_attention(transformers, description),
            dtype=require("torch").float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = _tokenizer(transformers, description.transformer)
    if description.reading is not None:
        register_markers(tokenizer, description.reading.markers)
    check_weights(model, description, report["missing_keys"])
    _check_labels(model, description, module)
    network = _network(model, module.eval(), tokenizer, description, sources)
    if description.reranker is not None:
        module = scored(model, module, tokenizer, folder, description.reranker.scoring)
    elif model.role == "sparse":
        module = pooled(module, description.modules[0])
    return replace(network, module=module.eval())


def _tokenizer(transformers: ModuleType, transformer: Path) -> Any:
    """The tokenizer of the checkpoint, converted where it has only a sentencepiece model.

    Raises:
        MissingExtraError: the conversion needs sentencepiece; transformers itself would ask for tiktoken.
    """
    if not (transformer / "tokenizer.json").is_file() and any(transformer.glob("*.model")):
        require("sentencepiece")
    return transformers.AutoTokenizer.from_pretrained(transformer, local_files_only=True, trust_remote_code=False)


def _attention(transformers: ModuleType, description: Description) -> str | None:
    """Eager attention: DeBERTa and MPNet have no other, and it exports and runs no slower than sdpa.

    None, sdpa where there is one, for queries filled up beyond the reach of local attention (ModernBERT): fill from
    which no read token is in reach attends to nothing in sdpa, and to everything in reach in eager attention.
    """
    expansion = None if description.reading is None else description.reading.expansion
    if expansion is None or expansion.attend:
        return "eager"
    config = transformers.AutoConfig.from_pretrained(
        description.transformer, local_files_only=True, trust_remote_code=False
    )
    return None if getattr(config, "sliding_window", None) else "eager"


def require(name: str) -> ModuleType:
    """The module `name` of the `torch` extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", name) from error


@contextlib.contextmanager
def quiet(transformers: ModuleType) -> Iterator[None]:
    """No progress bar and no loading report: what is missing in a checkpoint is an error here, told once."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_labels(model: Model, description: Description, module: Any) -> None:
    if is_classifier(description):
        check_labels(model.role, model.label, module.config.num_labels)


def _network(
    model: Model, module: Any, tokenizer: Any, description: Description, sources: Mapping[str, str]
) -> Network:
    limit = _position_limit(module)
    length = _max_length(description, tokenizer, limit)
    rules = None
    if description.reading is not None:
        rules = token_rules(model, description.reading, tokenizer, length, limit)
        length = shortest(description.reading.document_length or length, limit)
    accepted = inspect.signature(module.forward).parameters
    manifest = Manifest(
        role=model.role,
        source=model.label,
        input_names=tuple(name for name in _input_names(tokenizer) if name in accepted),
        pad_id=int(tokenizer.pad_token_id or 0),
        special_ids=tuple(sorted({int(number) for number in tokenizer.all_special_ids})),
        truncation_side=tokenizer.truncation_side,
        max_length_tokens=length,
        position_limit=limit,
        hidden_size=int(module.config.hidden_size),
        modules=description.modules,
        prompts=description.prompts,
        similarity=description.similarity,
        truncate_dim=description.truncate_dim,
        sources=sources,
        files={},
        token_rules=rules,
        template=_template(model, description, tokenizer),
    )
    return Network(module, _tokenizer_json(model, tokenizer, description), description, manifest)


def _template(model: Model, description: Description, tokenizer: Any) -> Template | None:
    """How the files say that a pair is written; not asked where the card says it."""
    chat = None if description.reranker is None else description.reranker.chat
    if chat is None or model.template is not None:
        return None
    with explained(model, description.transformer):
        return read_chat(chat, tokenizer, model.label)


def _input_names(tokenizer: Any) -> list[str]:
    known = ("input_ids", "attention_mask", "token_type_ids")
    return [name for name in known if name in tokenizer.model_input_names]


def _position_limit(module: Any) -> int | None:
    """Longest input. RoBERTa and its kin start counting positions after the padding id, and so lose some."""
    positions = getattr(module.config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    tables = [getattr(part, "position_embeddings", None) for part in module.modules()]
    padding = [getattr(table, "padding_idx", None) for table in tables]
    offsets = [index + 1 for index in padding if isinstance(index, int)]
    return int(positions) - max(offsets, default=0)


def _max_length(description: Description, tokenizer: Any, limit: int | None) -> int | None:
    own = description.max_length_tokens or tokenizer.model_max_length
    return shortest(own if own < NO_LIMIT else None, limit)


def _tokenizer_json(model: Model, tokenizer: Any, description: Description) -> str:
    if not tokenizer.is_fast:
        raise ConfigError(
            model.key, f"{model.label} has a tokenizer written in Python; expected one with tokenizer.json"
        )
    return serialized(tokenizer.backend_tokenizer.to_str(), description.lowercase)
