"""What is measured and traced, as tests read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client import REGISTRY

from shared.runtime.metrics import Declaration

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples() -> Samples:
    """Every value of this process's metrics, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }


def moved(one: Declaration, before: Samples, after: Samples) -> bool:
    """Whether the metric changed. A gauge has moved where it has labels that it did not have, or is not 0."""
    name = f"{one.name}_count" if one.kind == "histogram" else one.name
    values = {labels: value for (known, labels), value in after.items() if known == name}
    if one.kind == "gauge":
        return any(value != 0 or ((name, labels) not in before and labels) for labels, value in values.items())
    return any(value > before.get((name, labels), 0.0) for labels, value in values.items())


def trace_of(span: ReadableSpan) -> int:
    """The ID of its trace."""
    assert span.context is not None
    return int(span.context.trace_id)


def in_trace(spans: Iterable[ReadableSpan], trace_id: int) -> list[ReadableSpan]:
    """The spans of one trace."""
    return [span for span in spans if trace_of(span) == trace_id]


def groups(spans: Sequence[ReadableSpan]) -> set[str]:
    """The consumer groups whose work the spans are."""
    found = ((span.attributes or {}).get("messaging.consumer.group.name") for span in spans)
    return {str(name) for name in found if name is not None}


def traceparent(headers: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """The IDs of trace and span in the headers of a record."""
    _, trace, span, _ = dict(headers)["traceparent"].decode().split("-")
    return int(trace, 16), int(span, 16)
