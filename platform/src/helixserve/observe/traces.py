"""OpenTelemetry traces over OTLP/HTTP, made when a request has ended, from the times that its call holds.

Loaded only where an endpoint is configured (OTEL_EXPORTER_OTLP_ENDPOINT); elsewhere a request pays
nothing. The exporter reads OpenTelemetry's own variables (headers, timeout, sampler, service name).
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from helixserve.observe.call import OK, Call

IDS = 128
"""Prediction ids that a span names at most."""


class Tracer:
    """Exports a server's traces.

    Args:
        service: `service.name`, where OTEL_SERVICE_NAME says nothing.
        version: the contract's.
    """

    def __init__(self, service: str, version: str) -> None:
        named = Resource.create()
        said = {"service.version": version}
        if str(named.attributes["service.name"]).startswith("unknown_service"):
            said["service.name"] = service
        resource = named.merge(Resource(said))
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("helixserve", version)
        self._propagator = TraceContextTextMapPropagator()

    def export(self, call: Call) -> None:
        """Hand over the spans of a request that has ended; they leave in another thread."""
        parent = self._propagator.extract({"traceparent": call.traceparent} if call.traceparent else {}, Context())
        span = self._tracer.start_span(
            f"helix {call.task or call.endpoint}",
            context=parent,
            kind=SpanKind.SERVER,
            start_time=call.began_ns,
            attributes={
                "helix.endpoint": call.endpoint,
                "helix.task": call.task,
                "helix.status": call.status,
                "helix.request_id": call.request_id.hex(),
                "helix.prediction_ids": call.prediction_ids[:IDS],
            },
        )
        call.trace_id = format_trace_id(span.get_span_context().trace_id)
        inside = set_span_in_context(span, parent)
        for phase in call.phases:
            attributes = {"helix.prediction_ids": phase.prediction_ids[:IDS]} if phase.prediction_ids else None
            part = self._tracer.start_span(phase.name, context=inside, start_time=phase.began_ns, attributes=attributes)
            part.end(end_time=phase.ended_ns)
        if call.status != OK:
            span.set_status(Status(StatusCode.ERROR, call.status))
        span.end(end_time=call.ended_ns)

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()
