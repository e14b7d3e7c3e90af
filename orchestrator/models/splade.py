"""SPLADE: a masked language model whose logits, pooled over a text, are the weights of its vocabulary.

Source: Formal, Piwowarski, Clinchant, "SPLADE", SIGIR 2021 (sum), and Formal et al., "SPLADE v2", 2021 (max):
w = pool over tokens of log(1 + relu(logit)). `log1p_relu` takes the logarithm twice (arXiv 2504.14839). As
sentence-transformers 6 has them (sparse_encoder/modules/splade_pooling.py, sparse_static_embedding.py and
base/modules/router.py).

Read here is plain JSON; torch comes in with `pooled` and `write_static_queries`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.models.card import Role
from orchestrator.models.modules import Module, Saved, class_name, module_config, read_json, unsupported
from orchestrator.models.sparse_head import STATIC_FILE, STATIC_TOKENIZER_FILE
from orchestrator.types import Vectors

if TYPE_CHECKING:
    import torch

_ROLE: Role = "sparse"
_TRANSFORMERS = ("Transformer", "MLMTransformer")
_POOLINGS = ("max", "sum")
_ACTIVATIONS = ("relu", "log1p_relu")
_KNOWN = "Transformer, SpladePooling, with or without a Router to a SparseStaticEmbedding for queries"


def document_route(saved: Saved) -> Saved:
    """What encodes documents: the same where there is no Router, else its route, with paths from the model's folder.

    Raises:
        ConfigError: a route that the export does not know; names it.
    """
    if not saved.entries or class_name(saved.entries[0]) != "Router":
        return saved
    routes = _routes(saved)
    entries = routes["document"]
    transformer = saved.folder / entries[0]["path"]
    text = read_json(transformer / "sentence_bert_config.json", {})
    return replace(saved, entries=entries, transformer=transformer, text=text)


def splade_modules(saved: Saved, document: Saved) -> tuple[Module]:
    """The pooling, and which folder holds the static weights of queries, if they are static.

    Args:
        saved: the whole model.
        document: its document route.

    Raises:
        ConfigError: a module that the export does not know; names it.
    """
    if (similarity := saved.whole.get("similarity_fn_name") or "dot") != "dot":
        raise unsupported(_ROLE, f"similarity '{similarity}'", "dot")
    pooling = _pooling(document)
    return ({"type": "splade", **pooling, "query": _static(saved), "max_active_dims": _max_active_dims(saved)},)


def _pooling(document: Saved) -> dict[str, str]:
    if not document.entries:
        # A bare masked language model, as sentence-transformers takes it.
        architectures = read_json(document.transformer / "config.json", {}).get("architectures") or []
        if not any(str(name).endswith("ForMaskedLM") for name in architectures):
            raise unsupported(_ROLE, f"architecture {architectures} without modules.json", "a ForMaskedLM")
        return {"pooling": "max", "activation": "relu"}
    names = [class_name(entry) for entry in document.entries]
    if names[0] not in _TRANSFORMERS or names[1:] != ["SpladePooling"]:
        raise unsupported(_ROLE, f"modules {', '.join(names)}", _KNOWN)
    config = module_config(document.folder / document.entries[1].get("path", ""), _ROLE)
    pooling, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if pooling not in _POOLINGS or activation not in _ACTIVATIONS:
        known = f"pooling {' or '.join(_POOLINGS)}, activation {' or '.join(_ACTIVATIONS)}"
        raise unsupported(_ROLE, f"pooling '{pooling}', activation '{activation}'", known)
    return {"pooling": pooling, "activation": activation}


def _static(saved: Saved) -> str | None:
    if not saved.entries or class_name(saved.entries[0]) != "Router":
        return None
    routes = _routes(saved)
    if routes["query"] == routes["document"]:
        return None
    names = [class_name(entry) for entry in routes["query"]]
    if names != ["SparseStaticEmbedding"]:
        raise unsupported(_ROLE, f"modules {', '.join(names)} for queries", _KNOWN)
    return str(routes["query"][0]["path"])


def _routes(saved: Saved) -> dict[str, list[dict[str, Any]]]:
    """`query` and `document`, each as entries of a modules.json."""
    place = saved.folder / saved.entries[0].get("path", "")
    config = read_json(place / "router_config.json", None) or module_config(place, _ROLE)
    if len(saved.entries) > 1 or set(config.get("structure", {})) != {"query", "document"}:
        found = ", ".join([*config.get("structure", {}), *map(class_name, saved.entries[1:])])
        raise unsupported(_ROLE, f"a Router with {found}", "the routes query and document, and nothing after it")
    types, prefix = config["types"], saved.entries[0].get("path", "")
    return {
        route: [{"type": types[name], "path": str(Path(prefix, name)) if name else prefix} for name in names]
        for route, names in config["structure"].items()
    }


def _max_active_dims(saved: Saved) -> int | None:
    value = saved.whole.get("max_active_dims")
    return None if value is None else int(value)


def pooled(network: torch.nn.Module, splade: Mapping[str, object]) -> torch.nn.Module:
    """A network whose first output is float32 [n, vocabulary]: the logits of `network` pooled inside the graph.

    The logarithm is taken after the maximum, which it does not move: one pass over [n, length, vocabulary] fewer.
    """
    import torch

    twice = splade["activation"] == "log1p_relu"

    def activated(values: torch.Tensor) -> torch.Tensor:
        weights = torch.log1p(torch.relu(values))
        return torch.log1p(weights) if twice else weights

    class Splade(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, **inputs: Any) -> tuple[torch.Tensor]:
            # Padding gets logits of 0, and so weights of 0, which change neither a maximum of them nor a sum.
            logits = self.network(**inputs)[0] * inputs["attention_mask"].unsqueeze(-1)
            if splade["pooling"] == "max":
                return (activated(logits.amax(dim=1)),)
            return (activated(logits).sum(dim=1),)

    return Splade().eval()


def write_static_queries(folder: Path, splade: Mapping[str, object], target: Path) -> None:
    """Keep tokenizer and weights of queries in `target`, where they are static.

    Raises:
        ConfigError: they cannot be read.
    """
    if splade["query"] is None:
        return
    import transformers
    from tokenizers import Tokenizer

    place = folder / str(splade["query"])
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    if tokenizer.model_max_length < 1_000_000:  # above it, a tokenizer says that it knows no limit
        copy.enable_truncation(tokenizer.model_max_length, direction=tokenizer.truncation_side)
    (target / STATIC_TOKENIZER_FILE).write_text(copy.to_str(), encoding="utf-8")
    np.save(target / STATIC_FILE, _static_weights(folder, place, tokenizer), allow_pickle=False)


def _static_weights(folder: Path, place: Path, tokenizer: Any) -> Vectors:
    """float32 [vocabulary]."""
    path = read_json(place / "config.json", {}).get("path")
    if path is None:
        from safetensors.numpy import load_file

        if not (place / "model.safetensors").is_file():
            raise ConfigError(f"models.{_ROLE}", f"{place}: no model.safetensors with the weights of queries")
        loaded: Vectors = load_file(place / "model.safetensors")["weight"].astype(np.float32)
        return loaded
    name = Path(path).name
    found = next((file for file in (place / name, folder / name, folder / "idf.json") if file.is_file()), None)
    if found is None:
        raise ConfigError(f"models.{_ROLE}", f"{place}: no {name} with the weights of queries, nor in {folder}")
    weights = np.zeros(len(tokenizer.get_vocab()), dtype=np.float32)
    for token, weight in read_json(found, {}).items():
        weights[tokenizer.convert_tokens_to_ids(token)] = weight
    return weights
