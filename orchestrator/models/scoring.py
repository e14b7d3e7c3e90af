"""Networks that end in one score: the last token's yes and no of a language model, or layers on a pooled vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConfigError
from orchestrator.models.card import Model, Role
from orchestrator.models.modules import Module
from orchestrator.models.reranker import Layers, Reranker, Scoring, YesNo, architecture

if TYPE_CHECKING:
    import torch


def auto_class(transformers: ModuleType, role: Role, reranker: Reranker | None) -> Any:
    """The class of transformers that loads the checkpoint."""
    if role == "sparse":
        return transformers.AutoModelForMaskedLM
    if reranker is None or isinstance(reranker.scoring, Layers):
        return transformers.AutoModel
    if isinstance(reranker.scoring, YesNo):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModelForSequenceClassification


def check_declared(model: Model, scoring: Scoring, transformer: Path) -> None:
    """Refuses a causal language model of which nobody says how it scores: any chat model would give numbers.

    Raises:
        ConfigError: says what to declare.
    """
    if isinstance(scoring, YesNo) and scoring.yes_id is None and not (model.yes_token and model.template):
        raise ConfigError(
            model.key,
            f"{model.label} is a causal language model ({architecture(transformer)}), and nothing says that it "
            "reranks; expected a LogitScore beside it (modules.json), or a card with `template` and `yes_token`, as "
            "model@models.reranker=qwen3_reranker_0_6b has them",
        )


def scored(model: Model, module: Any, tokenizer: Any, folder: Path, scoring: Scoring) -> torch.nn.Module:
    """The module of transformers so that it gives scores [n, 1] from a batch padded on the right.

    Args:
        model: the card; its `yes_token` and `no_token` go before those of the files.
        module: as loaded.
        tokenizer: of transformers.
        folder: of the model.
        scoring: what the files say.

    Raises:
        ConfigError: a word of the card is not one token, or the language model has no plain output layer.
    """
    if isinstance(scoring, YesNo):
        return _yes_no(model, module, answer_ids(model, tokenizer, scoring))
    if isinstance(scoring, Layers):
        return _layered(module, folder, scoring.modules)
    _agree_on_padding(module, tokenizer)
    return module  # type: ignore[no-any-return]  # a sequence classifier gives its logits by itself


def answer_ids(model: Model, tokenizer: Any, scoring: YesNo) -> list[int]:
    """Token ids of yes, and of no where there is one."""
    if model.yes_token is None:
        return [number for number in (scoring.yes_id, scoring.no_id) if number is not None]
    words = {"yes_token": model.yes_token, "no_token": model.no_token}
    return [_one_token(key, word, tokenizer) for key, word in words.items() if word is not None]


def _one_token(key: str, word: str, tokenizer: Any) -> int:
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(f"models.reranker.{key}", f"found '{word}', which is not one token of the model's")
    return int(ids[0])


def _agree_on_padding(module: Any, tokenizer: Any) -> None:
    """Decoder-only classifiers read the last token that is not their padding: it has to be the one we pad with."""
    config = module.config.get_text_config()
    if tokenizer.pad_token_id is not None:
        config.pad_token_id = tokenizer.pad_token_id


def _yes_no(model: Model, module: Any, ids: list[int]) -> torch.nn.Module:
    import torch

    _keep_rows(model, module, ids)

    class LastAnswer(torch.nn.Module):
        """The answers' logits at the last real token, which in causal attention no padding after it reaches."""

        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            return_dict: bool = True,
            **inputs: torch.Tensor,
        ) -> tuple[torch.Tensor]:
            batch = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
            logits = self.model(**batch, use_cache=False, return_dict=return_dict)[0]
            answers = _last(logits, attention_mask).float()
            return (answers[:, :1] - answers[:, 1:] if len(ids) == 2 else answers,)

    return LastAnswer()


def _last(rows: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """[n, width] at the last real token of each row of [n, length, width]."""
    import torch

    return rows[torch.arange(rows.shape[0], device=rows.device), attention_mask.sum(dim=1) - 1]


def _keep_rows(model: Model, module: Any, ids: list[int]) -> None:
    """Leaves of the output layer only the rows of the answers.

    The rest of the vocabulary is never computed, and what the architecture does to its logits afterwards (Gemma 2's
    soft cap, Granite's scale) still happens, number by number.
    """
    import torch

    layer = module.get_output_embeddings()
    if not isinstance(layer, torch.nn.Linear):
        raise ConfigError(model.key, f"{model.label} has no plain output layer; expected a causal model")
    rows = torch.nn.Linear(layer.in_features, len(ids), bias=layer.bias is not None, dtype=layer.weight.dtype)
    with torch.no_grad():
        rows.weight.copy_(layer.weight[ids])
        if layer.bias is not None:
            rows.bias.copy_(layer.bias[ids])
    module.set_output_embeddings(rows)


def _layered(module: Any, folder: Path, layers: tuple[Module, ...]) -> torch.nn.Module:
    import torch

    mode = str(layers[0]["mode"])
    head = torch.nn.Sequential(*(_layer(folder, layer) for layer in layers[1:]))

    class PooledScore(torch.nn.Module):
        """One vector of the last hidden state, through the layers after it."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.head = module, head

        def forward(self, attention_mask: torch.Tensor, **inputs: Any) -> tuple[torch.Tensor]:
            hidden = self.model(attention_mask=attention_mask, **inputs)[0]
            scores: torch.Tensor = self.head(_pooled(hidden, attention_mask, mode))
            return (scores,)

    return PooledScore()


def _pooled(hidden: torch.Tensor, attention_mask: torch.Tensor, mode: str) -> torch.Tensor:
    """[n, width] of [n, length, width]; as sentence-transformers' Pooling, on a batch padded on the right.

    Computed in float32: a sum over many tokens has no place in half precision, nor has the -1e9 of padding.
    """
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return _last(hidden, attention_mask)
    exact, mask = hidden.float(), attention_mask[:, :, None].float()
    if mode == "max":
        pooled = exact.masked_fill(mask == 0, -1e9).max(dim=1).values
    else:
        pooled = (exact * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
    return pooled.to(hidden.dtype)


def _layer(folder: Path, layer: Module) -> torch.nn.Module:
    import torch

    weights = tensors(folder / str(layer["folder"]))
    if layer["type"] == "layer_norm":
        norm = torch.nn.LayerNorm(weights["norm.weight"].shape[0])
        norm.load_state_dict({key.removeprefix("norm."): value.float() for key, value in weights.items()})
        return norm
    linear = _linear(weights, "linear")
    activation: torch.nn.Module = getattr(torch.nn, str(layer["activation"]))()
    return _residual(linear, activation, weights) if layer["residual"] else torch.nn.Sequential(linear, activation)


def _residual(linear: Any, activation: Any, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    import torch

    class Residual(torch.nn.Module):
        """A Dense that adds what it was given, projected where the widths differ."""

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.activation = linear, activation
            self.residual = _linear(weights, "residual") if "residual.weight" in weights else torch.nn.Identity()

        def forward(self, vector: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.activation(self.linear(vector)) + self.residual(vector)
            return output

    return Residual()


def _linear(weights: Mapping[str, torch.Tensor], name: str) -> torch.nn.Linear:
    import torch

    start = f"{name}."
    state = {key.removeprefix(start): value.float() for key, value in weights.items() if key.startswith(start)}
    linear = torch.nn.Linear(state["weight"].shape[1], state["weight"].shape[0], bias="bias" in state)
    linear.load_state_dict(state)
    return linear


def tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    """The weights kept in the folder of a module."""
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")
    import torch

    state: Mapping[str, torch.Tensor] = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return state
