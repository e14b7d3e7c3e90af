"""OpenTelemetry spans of answers: one for the query, one below it for every stage. Extra: otel.

Spans are made of the trace after the answer stands, with the times that the trace holds, so that they cost nothing
inside the budget. They go to the application's own tracer provider where it has set one, else to one made from the
standard OTEL_* variables. Attributes of retrieval are those of OpenTelemetry's conventions for generative AI (v0.1.0,
https://github.com/open-telemetry/semantic-conventions-genai), which have none for reranking; the kind of a span is
OpenInference's (https://arize-ai.github.io/openinference/spec), which has one; all others begin with `orchestrate.`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError, MissingExtraError, did_you_mean
from orchestrator.log import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

    from orchestrator.answers.trace import Degraded, Result, StageTrace
    from orchestrator.stack.graph import Node
    from orchestrator.types import Query

log = get_logger()

_FLUSH_S = 5.0
"""How long the end of a command waits for spans that are still to be sent."""
_KINDS = {"recall": "RETRIEVER", "fusion": "CHAIN", "rerank": "RERANKER"}
_FAILURES = ("error", "circuit_open")


class Spans:
    """Where answers are told as spans.

    Raises:
        MissingExtraError: opentelemetry is not installed.
        ConfigError: OTEL_TRACES_EXPORTER or OTEL_EXPORTER_OTLP_PROTOCOL names an exporter that is not installed.
    """

    def __init__(self) -> None:
        self._own: TracerProvider | None = None
        try:
            from opentelemetry import trace

            provider = trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider):  # which stands there until the application sets one
                provider = self._own = _provider_of_environment()
        except ImportError as error:
            raise MissingExtraError("otel", error.name or "opentelemetry") from error
        self._tracer: Tracer = provider.get_tracer("orchestrator")

    def around(self, queries: Sequence[Query], answer: Callable[[], list[Result]]) -> list[Result]:
        """What `answer` returns, told as spans; where it raises, each of `queries` becomes a span with the error.

        Queries of one call follow each other, each for as long as its trace says: so they were answered, or together,
        and the times of their traces are shares of the whole.
        """
        started = time.time_ns()
        try:
            results = answer()
        except Exception as error:
            for query in queries:
                self._record_failure(query, error, started, time.time_ns())
            raise
        ended = time.time_ns()
        for result in reversed(results):
            self.record(result, ended)
            ended -= _ns(result.trace.total_ms)
        return results

    def record(self, result: Result, ended_ns: int | None = None) -> None:
        """Tell one answer as spans.

        Args:
            result: the answer.
            ended_ns: when it stood, nanoseconds since 1970; None is now. Stages begin and end before that as its trace
                says.
        """
        from opentelemetry import trace

        end = time.time_ns() if ended_ns is None else ended_ns
        start = end - _ns(result.trace.total_ms)
        span = self._tracer.start_span("orchestrate.query", start_time=start, attributes=_of_query(result))
        inside = trace.set_span_in_context(span)
        shortfalls = {shortfall.stage: shortfall for shortfall in result.degraded}
        nodes = {node.name: node for node in result.graph.nodes}
        for stage in result.trace.stages:
            self._record_stage(stage, nodes[stage.stage], shortfalls.get(stage.stage), inside, (start, end))
        span.end(end)

    def close(self) -> None:
        """Send what is left, within five seconds; a provider of the application is left to it."""
        if self._own is None:
            return
        # Its own limits are not kept by exporters that wait between retries.
        sending = threading.Thread(target=self._own.shutdown, daemon=True)
        sending.start()
        sending.join(_FLUSH_S)
        if sending.is_alive():
            endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
            log.warning("otel.unsent", waited_s=_FLUSH_S, endpoint=endpoint)
        self._own = None

    def _record_stage(
        self, stage: StageTrace, node: Node, shortfall: Degraded | None, inside: object, query_ns: tuple[int, int]
    ) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        start = min(query_ns[0] + _ns(stage.started_ms), query_ns[1])
        end = min(start + _ns(stage.ms), query_ns[1])
        span = self._tracer.start_span(
            f"{stage.kind} {stage.stage}",
            context=inside,  # type: ignore[arg-type]
            kind=SpanKind.CLIENT if getattr(node.stage, "is_remote", False) else SpanKind.INTERNAL,
            attributes=_of_stage(stage, node),
            start_time=start,
        )
        if shortfall is not None:
            span.add_event("orchestrate.degraded", _of_shortfall(shortfall), end)
            if shortfall.reason in _FAILURES:
                span.set_status(Status(StatusCode.ERROR, shortfall.detail))
        span.end(end)

    def _record_failure(self, query: Query, error: Exception, start: int, end: int) -> None:
        from opentelemetry.trace import Status, StatusCode

        attributes = {"orchestrate.query.id": query.query_id, "error.type": type(error).__qualname__}
        stage = getattr(error, "stage", None)
        attributes |= {"orchestrate.stage.name": stage} if isinstance(stage, str) else {}
        span = self._tracer.start_span("orchestrate.query", start_time=start, attributes=attributes)
        span.record_exception(error, timestamp=end)
        span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end(end)


def _of_query(result: Result) -> Mapping[str, AttributeValue]:
    trace = result.trace
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "CHAIN",
        "orchestrate.query.id": result.query.query_id,
        "orchestrate.documents.returned": len(result.ranked),
        "orchestrate.degraded.stages": [shortfall.stage for shortfall in trace.degraded],
    }
    if trace.budget_ms is not None:
        attributes |= {"orchestrate.budget_ms": trace.budget_ms, "orchestrate.budget.enforced": trace.enforced}
    if trace.language is not None:
        attributes["orchestrate.query.language"] = trace.language
    if os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower() == "true":
        attributes["gen_ai.retrieval.query.text"] = (
            result.query.text
        )  # may be private: by choice, as the conventions say
    return attributes


def _of_stage(stage: StageTrace, node: Node) -> Mapping[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": _KINDS[stage.kind],
        "orchestrate.stage.name": stage.stage,
        "orchestrate.stage.kind": stage.kind,
        "orchestrate.stage.class": type(node.stage).__qualname__,
        "orchestrate.documents.received": stage.n_in,
        "orchestrate.documents.passed_on": stage.n_out,
    }
    optional: dict[str, AttributeValue | None] = {
        "orchestrate.documents.scored": stage.n_scored,
        "orchestrate.stage.skipped": stage.skipped,
        "orchestrate.stage.allowed_ms": stage.allowed_ms,
        "orchestrate.cache.hits": stage.cache_hits or None,
        "orchestrate.passages": stage.passages or None,
        "orchestrate.repairs": stage.n_repairs or None,
        "orchestrate.cost_usd": stage.cost_usd or None,
        "orchestrate.notes": list(stage.notes) or None,
        "gen_ai.usage.input_tokens": stage.tokens or None,
        "gen_ai.request.model": _model_of(node.stage),
    }
    if stage.kind == "recall":
        optional |= {"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.top_k": node.top_k}
    return attributes | {name: value for name, value in optional.items() if value is not None}


def _model_of(stage: object) -> str | None:
    """What people call the model of a stage, or of its embedder: where there is a card, its label; `model_id` else."""
    for held in (stage, getattr(stage, "embedder", None)):
        label = getattr(getattr(held, "model", None), "label", None)
        if isinstance(label, str):
            return label
    model_id = getattr(stage, "model_id", None)
    return model_id if isinstance(model_id, str) else None


def _of_shortfall(shortfall: Degraded) -> Mapping[str, AttributeValue]:
    return {
        "orchestrate.degraded.reason": shortfall.reason,
        "orchestrate.degraded.detail": shortfall.detail,
        "orchestrate.degraded.scored": shortfall.scored,
        "orchestrate.degraded.of": shortfall.of,
    }


def _ns(ms: float) -> int:
    return round(ms * 1e6)


def _provider_of_environment() -> TracerProvider:
    """A provider as the OTEL_* variables describe it; its service is called `orchestrate` unless they say otherwise."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "orchestrate"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _hear_the_exporters()
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() not in ("", "none"):
            provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return provider


class _Heard(logging.Handler):
    """What exporters log: retries for whoever looks for a fault, failures for everybody."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the standard library's logging."""
        tell = log.warning if record.levelno >= logging.ERROR else log.debug
        tell("otel.exporter", said=record.getMessage())


def _hear_the_exporters() -> None:
    """Exporters that are ours tell their troubles where we tell ours: a retry's is no bare line among the results."""
    logger = logging.getLogger("opentelemetry.exporter")
    logger.propagate = False
    logger.handlers = [_Heard()]


def _exporter(name: str) -> SpanExporter:
    """The exporter that `OTEL_TRACES_EXPORTER` names."""
    import sys

    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)  # stdout is for results
    variable, found = "OTEL_TRACES_EXPORTER", name
    if name == "otlp":
        variable = "OTEL_EXPORTER_OTLP_PROTOCOL"
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(variable) or "http/protobuf"
        found, name = protocol, {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}.get(protocol, protocol)
    choices = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter")}
    if name not in choices:
        installed = ", ".join(sorted(choices))
        hint = did_you_mean(name, choices)
        raise ConfigError(
            "log.otel", f"{variable}={found}: no such exporter is installed; installed: {installed}.{hint}"
        )
    made: SpanExporter = choices[name].load()()
    return made
