"""The model store: where a model's files are, its ONNX graph (published or exported by us), and the running of it.

Importing this package loads nothing heavy: torch, transformers, huggingface_hub, onnxruntime and tokenizers come in
with the call that needs them. Scoring with an exported model needs numpy, onnxruntime and tokenizers alone.
"""

from orchestrator.models.card import Model
from orchestrator.models.export import find_or_export
from orchestrator.models.onnx import OnnxModel, load_onnx
from orchestrator.models.published import takes_graph
from orchestrator.models.resolve import is_hub_off, is_local, resolve
from orchestrator.models.session import keep_loaded

__all__ = [
    "Model",
    "OnnxModel",
    "find_or_export",
    "is_hub_off",
    "is_local",
    "keep_loaded",
    "load_onnx",
    "resolve",
    "takes_graph",
]
