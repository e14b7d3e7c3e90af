"""Networks in memory, on any runtime. One session a file and thread count, shared by the whole process."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from orchestrator.errors import CallCancelledError
from orchestrator.models.tokens import Inputs
from orchestrator.types import Call, Vectors


class Session(Protocol):
    """One network in memory. Safe to call from several threads.

    Attributes:
        input_names: the graph's inputs, in its order.
    """

    input_names: tuple[str, ...]

    def run(self, inputs: Inputs, call: Call | None = None) -> Vectors:
        """The network's output, float32.

        Raises:
            CallCancelledError: `call` was cancelled, before or meanwhile. The session can be used again; where the
                runtime cannot stop a batch, the next one waits until that has ended.
        """


Open: TypeAlias = Callable[[Path, int, str | None], Session]
"""A runtime: file of a graph, threads of one call and name of the output (None: the only one) -> session."""


class OnnxSession:
    """One network in memory on ONNX Runtime, CPU. Safe to call from several threads.

    Args:
        path: the `.onnx` file.
        threads: of one call; ONNX Runtime's pool belongs to the session.
        output: name of the output that is read; None is the first.
    """

    def __init__(self, path: Path, threads: int, output: str | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Every batch has another shape: a plan of memory for each of them only grows the process.
        options.enable_mem_pattern = False
        # Threads that spin while they wait for work take the core from whoever runs next: with two models in turn a
        # question of `balanced` took 54 to 73 ms in place of 43. One model alone is a quarter slower for a question.
        # `session.force_spinning_stop` is as fast as spinning then, but keeps small budgets less often (`hybrid` in
        # 25 ms: p95 23 to 24 ms in place of 17 to 20).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output or self._session.get_outputs()[0].name]
        self.input_names = tuple(node.name for node in self._session.get_inputs())
        warm_up(self)

    def run(self, inputs: Inputs, call: Call | None = None) -> Vectors:
        """The output, float32. Inputs that the graph does not have are left out.

        Raises:
            CallCancelledError: `call` was cancelled; ONNX Runtime stops after the operator that it is at.
        """
        import onnxruntime

        call, options = call or Call(), onnxruntime.RunOptions()
        given = {name: inputs[name] for name in self.input_names}
        with call.on_cancel(partial(setattr, options, "terminate", True)):
            try:
                output: Any = self._session.run(self._outputs, given, options)[0]
            except Exception as error:
                if call.cancelled:
                    raise CallCancelledError("the call was cancelled; the batch in flight was stopped") from error
                raise
        return np.asarray(output, np.float32)


def warm_up(session: Session) -> None:
    """Run sixteen tokens: the first call of a session allocates and is several times slower than the others."""
    session.run({name: np.ones((1, 16), dtype=np.int64) for name in session.input_names})


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


_Key: TypeAlias = tuple[Path, int, str | None, Open]
_sessions: weakref.WeakValueDictionary[_Key, Session] = weakref.WeakValueDictionary()
_warm: OrderedDict[_Key, Session] = OrderedDict()
_warm_limit = 0
_lock = threading.Lock()


def shared_session(path: Path, threads: int, output: str | None = None, runtime: Open = OnnxSession) -> Session:
    """The session of `path`; it goes when its last holder lets go, or later after `keep_loaded`."""
    with _lock:
        key = (path, threads, output, runtime)
        session = _sessions.get(key)
        if session is None:
            _shrink(_warm_limit - 1)  # before the new one comes: two large models need not be in memory for it
            session = _sessions[key] = runtime(path, threads, output)
        if _warm_limit:
            _warm[key] = session
            _warm.move_to_end(key)
            _shrink(_warm_limit)
        return session


def keep_loaded(count: int) -> None:
    """Keep the `count` networks used last in memory when nobody holds them; 0, the default, keeps none.

    For jobs that follow each other in one process, most of them with the same models.
    """
    global _warm_limit
    with _lock:
        _warm_limit = count
        _shrink(count)


def _shrink(count: int) -> None:
    while len(_warm) > max(count, 0):
        _warm.popitem(last=False)
