"""Networks on ONNX Runtime, CPU. One session a file and thread count, shared by the whole process."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.models.tokens import Inputs
from orchestrator.types import Vectors


class OnnxSession:
    """One network in memory. Safe to call from several threads.

    Args:
        path: the `.onnx` file.
        threads: of one call; ONNX Runtime's pool belongs to the session.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Every batch has another shape: a plan of memory for each of them only grows the process.
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input_names = tuple(node.name for node in self._session.get_inputs())
        self._warm_up()

    def run(self, inputs: Inputs) -> Vectors:
        """The network's only output, float32. Inputs that the graph does not have are left out."""
        output: Any = self._session.run(None, {name: inputs[name] for name in self.input_names})[0]
        return np.asarray(output, np.float32)

    def _warm_up(self) -> None:
        """Run sixteen tokens: the first call of a session allocates and is several times slower than the others."""
        self.run({name: np.ones((1, 16), dtype=np.int64) for name in self.input_names})


def physical_cores() -> int:
    """Cores this process may use, hyper-threads of one core counted once: more threads only slow a matrix product."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, len(cores))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


_sessions: weakref.WeakValueDictionary[tuple[Path, int], OnnxSession] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def shared_session(path: Path, threads: int) -> OnnxSession:
    """The session of `path`; it goes when its last holder lets go."""
    with _lock:
        session = _sessions.get((path, threads))
        if session is None:
            session = _sessions[(path, threads)] = OnnxSession(path, threads)
        return session
