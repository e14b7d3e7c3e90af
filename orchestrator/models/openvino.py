"""Networks on OpenVINO, CPU: reads the same graph files as ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from orchestrator.errors import CallCancelledError, MissingExtraError
from orchestrator.models.session import warm_up
from orchestrator.models.tokens import Inputs
from orchestrator.types import Call, Vectors

_LOOK_MS = 5
"""How soon a cancelled call is noticed."""


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
        self._in_flight = False
        self._lock = threading.Lock()
        warm_up(self)

    def run(self, inputs: Inputs, call: Call | None = None) -> Vectors:
        """The output, float32. Inputs that the graph does not have are left out.

        Raises:
            CallCancelledError: `call` was cancelled. Where its batch had begun, that ends by itself in the background,
                and the next one waits for it: after `InferRequest.cancel()` OpenVINO 2026.4 mixes up the shapes of two
                batches. While it waits for its turn, a cancelled call begins none, or each would hold up the next.
        """
        with self._turn(call):
            self._request.start_async({name: inputs[name] for name in self.input_names})
            self._in_flight = True
            while not self._request.wait_for(_LOOK_MS):
                if call is not None and call.cancelled:
                    raise CallCancelledError("the call was cancelled; the batch in flight was left behind")
            self._in_flight = False
            self._request.wait()  # raises what went wrong
            results = self._request.get_tensor(self._output).data
            return np.array(results, np.float32)  # a copy: the next call writes over its own

    @contextlib.contextmanager
    def _turn(self, call: Call | None) -> Iterator[None]:
        """The request is this call's alone, and no batch of a cancelled one is in it any more."""
        while not self._lock.acquire(timeout=_LOOK_MS / 1000):
            _raise_if_cancelled(call)
        try:
            with contextlib.suppress(RuntimeError):  # what went wrong with that batch
                while self._in_flight and not self._request.wait_for(_LOOK_MS):
                    _raise_if_cancelled(call)
            self._in_flight = False
            _raise_if_cancelled(call)
            yield
        finally:
            self._lock.release()


def _raise_if_cancelled(call: Call | None) -> None:
    if call is not None and call.cancelled:
        raise CallCancelledError("the call was cancelled before its batch began")
