"""Answers as OpenTelemetry spans: what they hold, where they go, and that a dead collector holds nobody up."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import structlog
from answers import Finds, Prefers, skipped, stopped, two_recalls

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from orchestrator import log
from orchestrator.answers import telemetry
from orchestrator.answers.telemetry import Spans
from orchestrator.answers.trace import Degraded, Result
from orchestrator.errors import ConfigError, PermanentError, StageError
from orchestrator.models import Model
from orchestrator.pipeline import Pipeline
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The application's own provider, with all that it was told."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(otel, "_TRACER_PROVIDER", provider)
    return memory


@pytest.fixture
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "_TRACER_PROVIDER", None)
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


def timed() -> Result:
    """An answer of 100 ms: two recalls side by side, a fusion, a rerank."""
    result = two_recalls()
    times = [(0.0, 20.0), (0.0, 50.0), (50.0, 10.0), (60.0, 38.5)]
    stages = tuple(
        replace(stage, started_ms=start, ms=ms) for stage, (start, ms) in zip(result.trace.stages, times, strict=True)
    )
    return replace(result, trace=replace(result.trace, total_ms=100.0, stages=stages))


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_an_answer_is_a_span_with_one_below_it_for_every_stage(exporter: InMemorySpanExporter) -> None:
    Spans().record(timed(), ended_ns=10**18)
    spans = by_name(exporter)
    assert set(spans) == {"orchestrate.query", "recall bm25", "recall dense", "fusion fused", "rerank precise"}
    query = spans.pop("orchestrate.query")
    assert (query.start_time, query.end_time, query.parent) == (10**18 - 100 * 10**6, 10**18, None)
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == query.context.span_id  # type: ignore[union-attr]
        assert query.start_time <= span.start_time <= span.end_time <= query.end_time  # type: ignore[operator]
    precise = spans["rerank precise"]
    assert precise.start_time == 10**18 - 40 * 10**6
    assert precise.end_time == 10**18 - 1_500_000


def test_attributes_say_what_was_done(exporter: InMemorySpanExporter) -> None:
    Spans().record(timed())
    spans = by_name(exporter)
    recall, rerank = dict(spans["recall dense"].attributes or {}), dict(spans["rerank precise"].attributes or {})
    assert recall["gen_ai.operation.name"] == "retrieval"
    assert recall["gen_ai.retrieval.top_k"] == 4
    assert recall["openinference.span.kind"] == "RETRIEVER"
    assert rerank == {
        "openinference.span.kind": "RERANKER",
        "orchestrate.stage.name": "precise",
        "orchestrate.stage.kind": "rerank",
        "orchestrate.documents.scored": 3,
        "orchestrate.stage.class": "Prefers",
        "orchestrate.documents.received": 3,
        "orchestrate.documents.passed_on": 2,
        "gen_ai.usage.input_tokens": 30,
    }
    query = dict(spans["orchestrate.query"].attributes or {})
    assert (query["orchestrate.query.id"], query["orchestrate.budget_ms"]) == ("q1", 50.0)
    assert query["orchestrate.degraded.stages"] == ()


def test_the_question_itself_is_told_only_by_choice(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spans().record(timed())
    assert all("what?" not in str(dict(span.attributes or {})) for span in exporter.get_finished_spans())
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    exporter.clear()
    Spans().record(timed())
    assert (by_name(exporter)["orchestrate.query"].attributes or {})["gen_ai.retrieval.query.text"] == "what?"


def test_a_shortfall_is_an_event_and_a_failed_stage_an_error(exporter: InMemorySpanExporter) -> None:
    result = stopped(two_recalls(), "precise", 1)
    failed = Degraded("dense", "error", "http://qdrant: no connection", 0, 4)
    result = replace(result, trace=replace(result.trace, degraded=(*result.degraded, failed)))
    Spans().record(result)
    spans = by_name(exporter)
    (event,) = spans["rerank precise"].events
    assert event.name == "orchestrate.degraded"
    assert dict(event.attributes or {}) == {
        "orchestrate.degraded.reason": "deadline",
        "orchestrate.degraded.detail": "its 12.5 ms were over",
        "orchestrate.degraded.scored": 1,
        "orchestrate.degraded.of": 3,
    }
    assert spans["rerank precise"].status.status_code is StatusCode.UNSET, (
        "what was asked of it: as much as time allows"
    )
    assert spans["recall dense"].status.status_code is StatusCode.ERROR
    assert spans["orchestrate.query"].status.status_code is StatusCode.UNSET
    assert (spans["orchestrate.query"].attributes or {})["orchestrate.degraded.stages"] == ("precise", "dense")
    assert (spans["rerank precise"].attributes or {})["orchestrate.documents.scored"] == 1


def test_a_skipped_stage_says_why(exporter: InMemorySpanExporter) -> None:
    Spans().record(skipped(two_recalls(), "precise", "few candidates"))
    attributes = by_name(exporter)["rerank precise"].attributes or {}
    assert attributes["orchestrate.stage.skipped"] == "few candidates"


def test_a_stage_elsewhere_is_a_client_span(exporter: InMemorySpanExporter) -> None:
    class Elsewhere(Prefers):
        is_remote, model_id = True, "rerank-9"

    result = timed()
    nodes = (*result.graph.nodes[:-1], replace(result.graph.result, stage=Elsewhere()))
    Spans().record(replace(result, graph=StageGraph(nodes)))
    spans = by_name(exporter)
    assert spans["rerank precise"].kind is SpanKind.CLIENT
    assert (spans["rerank precise"].attributes or {})["gen_ai.request.model"] == "rerank-9"
    assert spans["recall bm25"].kind is SpanKind.INTERNAL


CARD = Model(role="reranker", name="acme/rerank-9")


@pytest.mark.parametrize("held", [{"model": CARD}, {"embedder": SimpleNamespace(model=CARD)}], ids=list)
def test_a_model_is_called_as_its_card_calls_it(held: dict[str, object], exporter: InMemorySpanExporter) -> None:
    stage = type("Judges", (Prefers,), {"model_id": "8c1f0a2b", **held})()
    result = timed()
    nodes = (*result.graph.nodes[:-1], replace(result.graph.result, stage=stage))
    Spans().record(replace(result, graph=StageGraph(nodes)))
    assert (by_name(exporter)["rerank precise"].attributes or {})["gen_ai.request.model"] == "acme/rerank-9"


def test_answers_stand_below_what_the_application_was_doing(exporter: InMemorySpanExporter) -> None:
    with otel.get_tracer("app").start_as_current_span("request") as request:
        Spans().record(timed())
    query = by_name(exporter)["orchestrate.query"]
    assert query.parent is not None
    assert query.parent.span_id == request.get_span_context().span_id


def test_several_answers_follow_each_other(exporter: InMemorySpanExporter) -> None:
    results = [timed(), timed(), timed()]
    assert Spans().around([result.query for result in results], lambda: results) is results
    queries = [span for span in exporter.get_finished_spans() if span.name == "orchestrate.query"]
    ends = sorted(span.end_time or 0 for span in queries)
    starts = sorted(span.start_time or 0 for span in queries)
    assert starts[1:] == ends[:-1]


class Fails:
    score_kind = "logit"
    needs = frozenset({"text"})

    def score(self, pairs: list[tuple[Query, Document]], call: Call) -> list[float]:
        raise PermanentError("model at http://host", "answered 401", 401)


def pipeline(*stages: object, otel: bool = True) -> Pipeline:
    specs = [StageSpec("bm25", Finds("x"), 5)]  # type: ignore[arg-type]
    specs += [StageSpec(f"r{place}", stage, 5) for place, stage in enumerate(stages)]  # type: ignore[arg-type]
    return Pipeline(StageGraph.of(specs), None, None, otel=otel)  # type: ignore[arg-type]


def test_a_pipeline_tells_its_answers_where_that_is_wanted(exporter: InMemorySpanExporter) -> None:
    pipeline(Prefers(), otel=False).rerank("what?", ["one"])
    assert exporter.get_finished_spans() == ()
    pipeline(Prefers("1")).rerank("what?", ["one", "two"])
    assert set(by_name(exporter)) == {"orchestrate.query", "rerank r0"}


def test_a_failed_query_is_a_span_with_the_error(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(StageError):
        pipeline(Fails()).rerank(Query("q7", "what?"), ["one"])
    span = by_name(exporter)["orchestrate.query"]
    assert span.status.status_code is StatusCode.ERROR
    assert "401" in (span.status.description or "")
    attributes = span.attributes or {}
    assert (attributes["orchestrate.query.id"], attributes["error.type"]) == ("q7", "StageError")
    assert attributes["orchestrate.stage.name"] == "r0"
    assert [event.name for event in span.events] == ["exception"]


def test_a_provider_of_the_application_is_left_to_it(exporter: InMemorySpanExporter) -> None:
    spans = Spans()
    spans.close()
    spans.record(timed())
    assert len(exporter.get_finished_spans()) == 5, "not shut down"


# --- a provider of our own, from OTEL_* variables


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent, or never answers."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.received: list[bytes] = []
        self.paths: list[str] = []
        self.gone = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_zipped = self.headers.get("Content-Encoding") == "gzip"
                collector.gone.wait(delay_s)
                collector.paths.append(self.path)
                collector.received.append(gzip.decompress(body) if is_zipped else body)
                try:
                    self.send_response(200)
                    self.end_headers()
                except BrokenPipeError:
                    pass

            def log_message(self, *args: object) -> None:
                """Nothing to stderr."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def spans(self) -> dict[str, object]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found: dict[str, object] = {}
        for body in self.received:
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            for resource in request.resource_spans:
                service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
                found |= {span.name: service for scope in resource.scope_spans for span in scope.spans}
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.mark.usefixtures("no_provider")
def test_spans_arrive_at_an_otlp_endpoint_before_the_end(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    spans = Spans()
    spans.record(timed())
    spans.close()
    assert collector.spans() == dict.fromkeys(
        ["orchestrate.query", "recall bm25", "recall dense", "fusion fused", "rerank precise"], "orchestrate"
    )
    assert set(collector.paths) == {"/v1/traces"}


@pytest.mark.usefixtures("no_provider")
def test_the_service_is_called_as_the_environment_says(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search-api")
    spans = Spans()
    spans.record(timed())
    spans.close()
    assert set(collector.spans().values()) == {"search-api"}


@pytest.mark.usefixtures("no_provider")
def test_a_collector_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Collector(delay_s=60)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent.url)
    monkeypatch.setattr(telemetry, "_FLUSH_S", 0.3)
    spans = Spans()
    spans.record(timed())
    started = time.monotonic()
    spans.close()
    assert time.monotonic() - started < 5
    assert "otel.unsent" in capsys.readouterr().err
    silent.gone.set()
    silent.http.shutdown()
    silent.http.server_close()


@pytest.mark.usefixtures("no_provider")
def test_what_an_exporter_retries_is_no_bare_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = timed()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # held, not listening: every connection is refused
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(telemetry, "_FLUSH_S", 0.5)
        log.configure("debug")
        spans = Spans()
        spans.record(answer)
        spans.close()
    structlog.reset_defaults()  # else later tests log to this test's stderr
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "otel.exporter" in line and "retrying" in line]
    assert all("otel." in line for line in told), told


@pytest.mark.usefixtures("no_provider")
def test_no_exporter_at_all_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    spans = Spans()
    spans.record(timed())
    spans.close()


@pytest.mark.usefixtures("no_provider")
def test_the_console_is_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    spans = Spans()
    spans.record(timed())
    spans.close()
    told = capsys.readouterr()
    assert told.out == "", "stdout is for results"
    assert "rerank precise" in told.err


@pytest.mark.usefixtures("no_provider")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_TRACES_EXPORTER", "consol", r"log\.otel: OTEL_TRACES_EXPORTER=consol: .*Did you mean 'console'\?"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", r"OTEL_EXPORTER_OTLP_PROTOCOL=http/json: no such exporter"),
    ],
)
def test_an_exporter_that_is_not_installed_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        Spans()


def test_without_the_extra_the_error_names_it() -> None:
    script = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from orchestrator.errors import MissingExtraError\nfrom orchestrator.answers.telemetry import Spans\n"
        "try:\n    Spans()\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'rerank-orchestrator[otel]'" in done.stdout, done.stderr
