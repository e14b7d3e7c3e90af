"""Networks on OpenVINO, CPU: reads the same graph files as ONNX Runtime."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path

import numpy as np

from orchestrator.errors import MissingExtraError
from orchestrator.models.session import warm_up
from orchestrator.models.tokens import Inputs
from orchestrator.types import Vectors


class OpenVinoSession:
    """One network in memory on OpenVINO. Safe to call from several threads, one at a time.

    Computes in float32 also on CPUs with bf16 units, where OpenVINO by itself would take those: scores would then
    depend on the machine. Compiling takes a second for a small model, so no compiled model is kept on disk.

    Args:
        path: the `.onnx` file.
        threads: of one call.
        output: name of the output that is read; None is the first.

    Raises:
        MissingExtraError: openvino is not installed.
    """

    def __init__(self, path: Path, threads: int, output: str | None = None) -> None:
        try:
            openvino = importlib.import_module("openvino")
        except ModuleNotFoundError as error:
            raise MissingExtraError("openvino", "openvino") from error
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
        self.input_names: tuple[str, ...] = tuple(port.any_name for port in compiled.inputs)
        self._output = compiled.output(output) if output is not None else compiled.output(0)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        warm_up(self)

    def run(self, inputs: Inputs) -> Vectors:
        """The output, float32. Inputs that the graph does not have are left out."""
        with self._lock:
            results = self._request.infer({name: inputs[name] for name in self.input_names})
            return np.array(results[self._output], np.float32)  # a copy: the next call writes over its own
