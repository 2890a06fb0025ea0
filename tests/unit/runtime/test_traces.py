"""Traces: what is done with the context of a record, and what it costs a worker. The pipeline is in
tests/integration/test_telemetry.py."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.bus.base import Outgoing, Record
from shared.contracts.codec import encode_message
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.topics import Channel
from shared.runtime import traces
from shared.runtime.dead_letters import DeadLetter
from shared.runtime.envelope import outgoing
from shared.runtime.logs import JsonFormatter
from shared.settings import SettingsError
from tests.support.loop_bench import TOPICS, Bench, Scripted, read, request, running
from tests.support.telemetry import trace_of, traceparent

TRACE, SPAN = 0xBEEF << 96, 0xCAFE
CONTEXT = ("traceparent", f"00-{TRACE:032x}-{SPAN:016x}-01".encode())
STATE = ("tracestate", b"vendor=1")


class Spans:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        traces.start_with(self._exporter, "test", "memory")

    def all(self) -> list[ReadableSpan]:
        """All spans. Nothing is traced any more."""
        traces.stop()
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def spans() -> Iterator[Spans]:
    yield Spans()
    traces.stop()


def sent(name: str, *headers: tuple[str, bytes]) -> Outgoing:
    return Outgoing(TOPICS.name(Channel.REQUESTS), b"one", encode_message(request(name)), headers)


def good() -> Scripted:
    """A service that handles everything."""
    service = Scripted(lambda name: service.done(name))
    return service


def test_a_record_goes_on_in_the_trace_that_its_headers_name(spans: Spans) -> None:
    bench = Bench(good())
    bench.send(sent("a", CONTEXT, STATE))
    with running(bench):
        (record,) = read(bench.outputs, 1)
    (span,) = spans.all()
    assert trace_of(span) == TRACE and span.parent and span.parent.span_id == SPAN
    assert span.context and traceparent(record.headers) == (TRACE, span.context.span_id)
    assert dict(record.headers)["tracestate"] == b"vendor=1"


@pytest.mark.parametrize(
    "header", [b"", b"00-zz", b"\xff\xfe", b"x" * 10_000, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
)
def test_a_context_that_cannot_be_read_begins_a_trace_and_fails_nothing(spans: Spans, header: bytes) -> None:
    bench = Bench(good())
    bench.send(sent("a", ("traceparent", header), ("tracestate", header)))
    with running(bench):
        bench.tracks(1)
    (span,) = spans.all()
    assert span.parent is None and trace_of(span)


def test_a_typed_failure_and_a_defect_are_errors_of_their_spans(spans: Spans) -> None:
    def script(name: str) -> TonestreamError | ValueError:
        return TonestreamError(ErrorCode.TOO_LONG, "it never ends") if name == "typed" else ValueError("what?")

    bench = Bench(Scripted(script))
    bench.send(sent("typed", CONTEXT), sent("defect"))
    with running(bench):
        bench.tracks(2)
        (letter,) = read(bench.dead, 1)
    errors = {
        str((span.attributes or {}).get("tonestream.request_id")): (span.attributes or {}).get("error.type")
        for span in spans.all()
        if span.name != "process batch"
    }
    assert errors == {"typed": "too_long", "defect": "ValueError"}
    assert DeadLetter.of(letter).exception == "ValueError"


def test_a_replayed_dead_letter_goes_on_in_the_trace_of_its_record(spans: Spans) -> None:
    bench = Bench(Scripted(lambda _: ValueError("a defect")))
    bench.send(sent("a", CONTEXT))
    with running(bench):
        (letter,) = read(bench.dead, 1)
        bench.send(DeadLetter.of(letter).replayed())
        bench.tracks(2)
    assert {trace_of(span) for span in spans.all()} == {TRACE}


def test_a_redelivered_record_has_a_span_for_each_time(spans: Spans) -> None:
    bench = Bench(good())
    records = [Record("unit.requests", 0, 7, b"k", encode_message(request("a")), (CONTEXT,))] * 2
    for record in records:
        with traces.processing([record], "g"):
            assert traceparent(traces.headers(record, "a"))[0] == TRACE
    first, second = spans.all()
    assert first.context != second.context and first.parent == second.parent
    bench.bus.close()


def test_lines_of_log_name_request_and_trace(spans: Spans) -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("shared.runtime.settling")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    try:
        bench = Bench(Scripted(lambda _: TonestreamError(ErrorCode.TOO_LONG, "it never ends")))
        bench.send(sent("a", CONTEXT))
        with running(bench):
            bench.tracks(1)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    (span,) = spans.all()
    (line,) = map(json.loads, lines.getvalue().splitlines())
    assert span.context
    assert (line["request_id"], line["trace_id"], line["span_id"]) == (
        "a",
        f"{TRACE:032x}",
        f"{span.context.span_id:016x}",
    )


def test_who_sends_a_record_is_where_its_trace_begins(spans: Spans) -> None:
    with traces.sending([outgoing(TOPICS, request(name)) for name in ("a", "b")]) as records:
        pass
    sending = spans.all()
    assert [span.name for span in sending] == ["send unit.requests"] * 2
    assert [traceparent(record.headers)[0] for record in records] == [trace_of(span) for span in sending]


#: Notes which of our modules import OpenTelemetry. FastAPI and redis-py do by themselves, where it is installed.
OFF = """
import builtins
importers, real = [], builtins.__import__
def noting(name, names=None, *more, **named):
    importer = (names or {}).get("__name__", "")
    if name.startswith("opentelemetry") and importer.split(".")[0] in ("shared", "services", "tonestream"):
        importers.append(importer)
    return real(name, names, *more, **named)
builtins.__import__ = noting
import services.cli.main, services.cli.embedded, services.gateway.app, shared.runtime.process
from tonestream import Client
from shared.runtime import traces
traces.start("worker")
with traces.sending([]):
    pass
traces.stop()
print(importers)
"""


@pytest.mark.parametrize("variables", [{}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
                                       {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}])  # fmt: skip
def test_off_nothing_of_opentelemetry_is_imported(variables: dict[str, str]) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ended = subprocess.run(
        [sys.executable, "-c", OFF], env=own | variables, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "[]\n", ended.stderr


def test_off_headers_and_records_stay_as_they_are() -> None:
    bench = Bench(good())
    bench.send(sent("a", CONTEXT))
    with running(bench):
        (record,) = read(bench.outputs, 1)
    assert "traceparent" not in dict(record.headers)


def test_an_exporter_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    with pytest.raises(SettingsError, match="there is no exporter 'pigeon' here"):
        traces.start("worker")


@pytest.mark.parametrize("collector", ["nobody listens", "it never answers"])
def test_a_collector_that_is_dead_holds_up_no_record_and_no_end(
    collector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if collector == "nobody listens":
            listening.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        traces.start("worker", "memory")
        bench = Bench(good())
        bench.send(*(sent(f"r{number}") for number in range(40)))
        with running(bench):
            bench.tracks(40)
        started = time.monotonic()
        traces.stop()
        # Two seconds for the last spans, and some for a machine that is busy.
        assert time.monotonic() - started < 10.0
        # Its threads end as well, where nothing ends the process.
        deadline = time.monotonic() + 30.0
        while any(thread.name.startswith("OtelBatch") for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_error_that_cannot_be_put_into_words_is_traced_without_them(spans: Spans) -> None:
    class Unspeakable(Exception):  # noqa: N818 (the name says what it is)
        def __str__(self) -> str:
            raise ValueError

    bench = Bench(Scripted(lambda _: Unspeakable()))
    bench.send(sent("a"))
    with running(bench):
        bench.tracks(1)
    (span,) = spans.all()
    assert (span.attributes or {})["error.type"] == "Unspeakable"
