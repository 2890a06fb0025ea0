"""Traces after OpenTelemetry: one trace a request, from where it was submitted to its result, one span a record.

The context travels in the headers ``traceparent`` and ``tracestate`` of records (W3C Trace Context). The span of a
record is the child of the span that sent it, and what leaves because of the record carries the record's span. Names
and attributes follow the conventions for messaging.

Off unless the standard variables ask for it (``VARIABLES``): then OpenTelemetry is not imported, and each function of
this module returns at once. Spans leave through a bounded queue and a thread of their own. A collector that is slow or
away loses spans and holds up no record.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Final

from shared.bus.base import Headers, Outgoing, Record
from shared.runtime.logs import about
from shared.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

#: The variables that matter here, and what they do. OpenTelemetry defines them and many more.
VARIABLES: Final[dict[str, str]] = {
    "OTEL_TRACES_EXPORTER": "Turns traces on: `otlp` sends them to a collector, `console` prints them, `none` turns"
    " them off. Another exporter that is installed may be named.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "The collector, e.g. `http://collector:4318`. Turns traces on by itself.",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "`http/protobuf` (default), or `grpc` where its exporter is installed.",
    "OTEL_EXPORTER_OTLP_HEADERS": "What the collector wants to see, such as a token: `name=value`, separated by"
    " commas.",
    "OTEL_SERVICE_NAME": "Default the name of the service.",
    "OTEL_RESOURCE_ATTRIBUTES": "More about this process: `deployment.environment.name=production`.",
    "OTEL_TRACES_SAMPLER": "Which traces are kept: `parentbased_always_on` (default), `parentbased_traceidratio`, ...",
    "OTEL_TRACES_SAMPLER_ARG": "The share that is kept: `0.05`.",
    "OTEL_BSP_MAX_QUEUE_SIZE": "Most spans that wait for the exporter (default 2048). Further ones are lost.",
    "OTEL_SDK_DISABLED": "`true` turns everything off.",
}

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: Headers with the context, and their meaning.
CONTEXT_HEADERS: Final = {
    "traceparent": "the trace that the record belongs to, where traces are made (W3C Trace Context)",
    "tracestate": "what tracing systems add to it",
}
#: What a header of a client may have; the standard asks for 512 characters of state.
_LONGEST_HEADER: Final = 512
#: How long the last spans may take to leave when the process ends, seconds.
_STOP_S: Final = 2.0
_LONGEST_TEXT: Final = 300


@dataclass(slots=True)
class _InHand:
    """A record that is being handled. ``others`` are the headers of what leaves for another request than its own."""

    span: Span
    headers: Headers
    others: dict[str, Headers] = field(default_factory=dict)


#: The records in hand, by their coordinates. Handlers in other threads run in a copy of the context.
_in_hand: ContextVar[Mapping[str, _InHand]] = ContextVar("tonestream_spans", default={})  # noqa: B039 (never mutated)


_NOTHING: Final = nullcontext()


def _of(record: Record) -> _InHand | None:
    return None if _tracing is None else _in_hand.get().get(record.coordinates)


# Turning it on and off


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in _ENDPOINTS))


def start(service: str, system: str = "kafka") -> None:
    """Trace this process from now on, as ``service``, if the environment asks for it. ``system`` carries its records.

    Raises SettingsError for an exporter that is not installed.
    """
    if not wanted():
        return
    try:
        start_with(_exporter(), service, system)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"traces are turned on (OTEL_TRACES_EXPORTER), and {error.name} is not installed: pip install"
            " 'tonestream[telemetry]'"
        ) from error


def start_with(exporter: SpanExporter, service: str, system: str = "kafka") -> None:
    """Trace this process from now on, whatever the environment says, to that exporter."""
    global _tracing
    _tracing = _Tracing(_provider(service, exporter), system, exporter)


def stop() -> None:
    """Trace no more. The last spans have a moment to leave; a collector that does not take them is left alone."""
    global _tracing
    stopped, _tracing = _tracing, None
    if stopped is None or stopped.exporter is None:
        return
    ending = threading.Thread(target=stopped.provider.shutdown, name="last-spans", daemon=True)
    ending.start()
    ending.join(_STOP_S)
    if ending.is_alive():  # it would go on trying
        threading.Thread(target=stopped.exporter.shutdown, name="no-more-spans", daemon=True).start()


def _exporter() -> SpanExporter:
    """The exporter that the environment names. Raises SettingsError, ModuleNotFoundError."""
    import opentelemetry.sdk.trace  # noqa: F401 (says what is missing where nothing is installed)

    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    if found is None:
        known = sorted(entry_points(group="opentelemetry_traces_exporter").names)
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER: there is no exporter {name!r} here ({', '.join(known) or 'none'}); pip install"
            " 'tonestream[telemetry]' brings otlp (http/protobuf) and console"
        )
    exporter: SpanExporter = found.load()()
    return exporter


def _provider(service: str, exporter: SpanExporter) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes = {"service.namespace": "tonestream", "service.version": version("tonestream")}
    named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or os.environ.get("OTEL_SERVICE_NAME")
    if not named:
        attributes["service.name"] = service
    # ``stop`` ends it. At the exit of Python it would wait for a collector that is away.
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


# What the runtime says


@contextmanager
def processing(records: Sequence[Record], group: str) -> Iterator[None]:
    """The block handles these records for a consumer group: a span for each, and one for several together."""
    if _tracing is None or not records:
        yield
        return
    with _tracing.processing(records, group):
        yield


def current(record: Record) -> AbstractContextManager[None]:
    """Within the block the span of the record is the current one, and lines of log carry its IDs."""
    in_hand = _of(record)
    return _NOTHING if in_hand is None else _current(in_hand.span)


def headers(record: Record, request_id: str) -> Headers:
    """The context for what leaves for a request because of the record. Empty where nothing is traced."""
    in_hand = _of(record)
    return () if in_hand is None else in_hand.others.get(request_id, in_hand.headers)


def concluded(record: Record, request_id: str, attempts: int) -> None:
    """What became of the record, after so many tries."""
    if (in_hand := _of(record)) is not None:
        in_hand.span.set_attribute("tonestream.request_id", request_id)
        in_hand.span.set_attribute("tonestream.attempts", attempts)


def failed(record: Record, error_type: str, message: Callable[[], str]) -> None:
    """The record ended in an error: one of our codes, or the type of an exception. ``message`` puts it into words that
    hold no secrets."""
    if (in_hand := _of(record)) is not None:
        _fail(in_hand.span, error_type, message())


# What services say


def noted(record: Record) -> str:
    """The context of the record as a text, to be written down and joined later; empty where nothing is traced."""
    in_hand = _of(record)
    return "" if in_hand is None else dict(in_hand.headers)["traceparent"].decode()


def answers(record: Record, request_id: str, context: str) -> None:
    """The record completes the request whose ``context`` was noted. Of another trace than the record's, its result
    goes on in that trace, and the two are linked."""
    in_hand = _of(record)
    if _tracing is None or in_hand is None or not context:
        return
    if (found := _tracing.answer(in_hand.span, request_id, context)) is not None:
        in_hand.others[request_id] = found


# What senders say


@contextmanager
def sending(records: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """The block sends the records that this yields: they carry the context of a span each.

    In a program that traces itself, the client library's spans are among that program's.
    """
    tracing = _tracing or _of_this_program()
    if tracing is None:
        yield list(records)
        return
    with tracing.sending(records) as traced:
        yield traced


def asked(fields: Mapping[str, str]) -> AbstractContextManager[None]:
    """The block does what an HTTP request with these header fields (names in lower case) asks for, in its context."""
    return _NOTHING if _tracing is None or "traceparent" not in fields else _tracing.asked(fields)


def context_fields() -> dict[str, str]:
    """The header fields with which an HTTP request carries the current context of this program; empty without one."""
    tracing = _tracing or _of_this_program()
    return {} if tracing is None else tracing.fields()


class _Tracing:
    """Makes the spans. ``exporter`` is None where the ``provider`` belongs to the program around us."""

    def __init__(self, provider: TracerProvider, system: str, exporter: SpanExporter | None = None) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.provider = provider
        self.exporter = exporter
        self._tracer = provider.get_tracer("tonestream", version("tonestream"))
        self._propagator = TraceContextTextMapPropagator()
        self._system = system

    @contextmanager
    def processing(self, records: Sequence[Record], group: str) -> Iterator[None]:
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanKind

        shared = {**self._attributes("process"), "messaging.consumer.group.name": group}
        batch = None
        if len(records) > 1:
            count = {"messaging.batch.message_count": len(records)}
            batch = self._tracer.start_span("process batch", Context(), SpanKind.CONSUMER, {**shared, **count})
        links = [] if batch is None else [Link(batch.get_span_context())]
        in_hand: dict[str, _InHand] = {}
        for record in records:
            attributes = {
                **shared,
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.message.body.size": len(record.value),
            }
            parent = self._extracted({name: record.header(name) for name in CONTEXT_HEADERS})
            span = self._tracer.start_span(f"process {record.topic}", parent, SpanKind.CONSUMER, attributes, links)
            in_hand[record.coordinates] = _InHand(span, self._headers(span))
            if batch is not None:
                batch.add_link(span.get_span_context())
        spans = [*(one.span for one in in_hand.values()), *([] if batch is None else [batch])]
        token = _in_hand.set(in_hand)
        try:
            yield
        except BaseException as error:
            # The batch is dropped and done again, or left to another worker.
            for span in spans:
                _fail(span, type(error).__name__)
            raise
        finally:
            _in_hand.reset(token)
            for span in spans:
                span.end()

    @contextmanager
    def asked(self, fields: Mapping[str, str]) -> Iterator[None]:
        from opentelemetry import context

        brought = {name: fields[name].encode("utf-8", "replace") for name in CONTEXT_HEADERS if name in fields}
        token = context.attach(self._extracted(brought))
        try:
            yield
        finally:
            context.detach(token)

    @contextmanager
    def sending(self, records: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
        from opentelemetry.trace import SpanKind

        spans, traced = [], []
        for record in records:
            attributes = {**self._attributes("send"), "messaging.destination.name": record.topic}
            span = self._tracer.start_span(f"send {record.topic}", kind=SpanKind.PRODUCER, attributes=attributes)
            spans.append(span)
            traced.append(replace(record, headers=record.headers + self._headers(span)))
        try:
            yield traced
        except BaseException as error:
            for span in spans:
                _fail(span, type(error).__name__)
            raise
        finally:
            for span in spans:
                span.end()

    def answer(self, answering: Span, request_id: str, context: str) -> Headers | None:
        """Link the ``answering`` span to the one of a ``context``. If that is of another trace: the headers of a new
        span there."""
        from opentelemetry.trace import Link, get_current_span

        parent = self._extracted({"traceparent": context.encode()})
        other, own = get_current_span(parent).get_span_context(), answering.get_span_context()
        if not other.is_valid:
            return None
        if other.span_id != own.span_id:
            answering.add_link(other)
        if other.trace_id == own.trace_id:
            return None
        attributes = {"tonestream.request_id": request_id}
        span = self._tracer.start_span("answer", parent, attributes=attributes, links=[Link(own)])
        span.end()
        return self._headers(span)

    def fields(self) -> dict[str, str]:
        """The current context as header fields."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def _attributes(self, operation: str) -> dict[str, str | int]:
        return {
            "messaging.system": self._system,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
        }

    def _extracted(self, fields: Mapping[str, bytes | None]) -> Context:
        """The context in header fields, which anybody may have written; an empty one if it cannot be used."""
        from opentelemetry.context import Context

        carrier = {
            name: value.decode("ascii", "replace")
            for name, value in fields.items()
            if value is not None and len(value) <= _LONGEST_HEADER
        }
        return self._propagator.extract(carrier, Context())

    def _headers(self, span: Span) -> Headers:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span, Context()))
        return tuple((name, text.encode()) for name, text in carrier.items())


_tracing: _Tracing | None = None


def _of_this_program() -> _Tracing | None:
    """Tracing by what the program around the client library has set up; None if it has set up nothing."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import get_tracer_provider

    provider = get_tracer_provider()
    return _Tracing(provider, "kafka") if isinstance(provider, TracerProvider) else None


@contextmanager
def _current(span: Span) -> Iterator[None]:
    from opentelemetry.trace import format_span_id, format_trace_id, use_span

    ids = span.get_span_context()
    with (
        use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False),
        about(trace_id=format_trace_id(ids.trace_id), span_id=format_span_id(ids.span_id)),
    ):
        yield


def _fail(span: Span, error_type: str, message: str = "") -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, message[:_LONGEST_TEXT] or None))
