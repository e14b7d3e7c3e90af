"""Nobody waits for a network that runs for a cancelled call, on any runtime; and it serves on as before."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import CallCancelledError
from orchestrator.models.openvino import OpenVinoSession
from orchestrator.models.session import OnnxSession, Open
from orchestrator.types import Call

RUNTIMES = [OnnxSession, OpenVinoSession]
N_LAYERS, WIDTH = 100, 512


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of many layers: x -> tanh(x W), a hundred times; 512 rows take half a second."""
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0).normal(0, 1 / np.sqrt(WIDTH), (WIDTH, WIDTH)).astype(np.float32)
    nodes = [make.make_node("Cast", ["input_ids"], ["x0"], to=kind.FLOAT)]
    for layer in range(N_LAYERS):
        nodes.append(make.make_node("MatMul", [f"x{layer}", "w"], [f"y{layer}"]))
        nodes.append(make.make_node("Tanh", [f"y{layer}"], [f"x{layer + 1}"]))
    given = make.make_tensor_value_info("input_ids", kind.INT64, ["n", "length"])
    found = make.make_tensor_value_info(f"x{N_LAYERS}", kind.FLOAT, ["n", WIDTH])
    graph = make.make_graph(nodes, "deep", [given], [found], [onnx.numpy_helper.from_array(weights, "w")])
    path = tmp_path_factory.mktemp("deep") / "model.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(params=RUNTIMES, ids=lambda runtime: runtime.__name__)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    if request.param is OpenVinoSession:
        pytest.importorskip("openvino")
    # The graph takes 512 columns, not the sixteen tokens of a warm-up.
    monkeypatch.setattr(f"{request.param.__module__}.warm_up", lambda session: None)
    return request.param  # type: ignore[no-any-return]


def rows(count: int) -> dict[str, np.ndarray]:
    return {"input_ids": np.arange(count * WIDTH, dtype=np.int64).reshape(count, WIDTH) % 7}


@contextlib.contextmanager
def cancelled_soon() -> Iterator[Call]:
    """A call that another thread cancels while its batch runs."""
    call = Call()
    timer = threading.Timer(0.02, call.cancel)
    timer.start()
    yield call
    timer.join()


def test_a_batch_in_flight_is_given_up_and_the_session_serves_on(deep: Path, runtime: Open) -> None:
    session = runtime(deep, 1, None)
    before = session.run(rows(8))
    with cancelled_soon() as call, pytest.raises(CallCancelledError, match=r"in flight was (stopped|left behind)"):
        session.run(rows(512), call)
    np.testing.assert_array_equal(session.run(rows(8), Call()), before)


def test_giving_up_one_call_leaves_the_others_alone(deep: Path, runtime: Open) -> None:
    session, found = runtime(deep, 1, None), []
    expected = session.run(rows(32))
    others = [threading.Thread(target=lambda: found.append(session.run(rows(32), Call()))) for _ in range(2)]
    for other in others:
        other.start()
    with cancelled_soon() as call, pytest.raises(CallCancelledError):
        session.run(rows(512), call)
    for other in others:
        other.join()
    assert len(found) == 2
    for one in found:
        np.testing.assert_array_equal(one, expected)


def test_a_call_that_is_cancelled_while_it_waits_for_another_goes_at_once(deep: Path, runtime: Open) -> None:
    session, done = runtime(deep, 1, None), threading.Event()
    other = threading.Thread(target=lambda: (session.run(rows(1024)), done.set()))
    other.start()
    with cancelled_soon() as call, pytest.raises(CallCancelledError):
        session.run(rows(512), call)
    assert not done.is_set(), "it need not wait for the other"
    other.join()


def test_a_call_that_is_cancelled_before_its_turn_begins_no_batch_to_be_waited_for(deep: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.models.openvino.warm_up", lambda session: None)
        session = OpenVinoSession(deep, 1)
    with cancelled_soon() as call, pytest.raises(CallCancelledError, match="left behind"):
        session.run(rows(512), call)
    late = Call()
    late.cancel()
    with pytest.raises(CallCancelledError, match="before its batch began"):
        session.run(rows(512), late)
    assert session.run(rows(8), Call()).shape == (8, WIDTH)


def test_what_is_wrong_with_the_input_is_not_taken_for_a_cancelled_call(deep: Path, runtime: Open) -> None:
    session = runtime(deep, 1, None)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the runtime's own, whatever that is
        session.run({"input_ids": np.ones((2, 3), np.int64)}, Call())
    assert not isinstance(caught.value, CallCancelledError)
