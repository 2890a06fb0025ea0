"""What metrics and traces cost a worker, in CPU time: ``python -m benchmarks.telemetry``.

The time of this thread alone counts, so other work on the machine does not disturb the figures much.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from shared.bus.base import Record
from shared.runtime import metrics, traces

_ROUNDS: Final = 7
_CALLS: Final = 3000
_RECORD: Final = Record("tonestream.features", 0, 1, b"key", b"value")
_SERVICE: Final = "aggregator"


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _record() -> None:
    """What the runtime does for each record, besides the work itself."""
    metrics.QUEUE_SECONDS.labels(_SERVICE).observe(0.3)
    metrics.RECORDS.labels(_SERVICE, "done").inc()
    with traces.current(_RECORD):
        traces.concluded(_RECORD, "request", 1)
    traces.headers(_RECORD, "request")


def _batch() -> None:
    """What it does for each batch."""
    metrics.HANDLER_SECONDS.labels(_SERVICE).observe(0.3)
    metrics.BATCH_RECORDS.labels(_SERVICE).observe(32)
    metrics.COMMIT_SECONDS.labels(_SERVICE).observe(0.1)
    metrics.COMMITS.labels(_SERVICE, metrics.CommitOutcome.COMMITTED).inc()
    with traces.processing([_RECORD], "group"):
        pass


def _traced() -> None:
    with traces.processing([_RECORD], "group"):
        _record()


def _microseconds(work: Callable[[], None]) -> float:
    def once() -> float:
        started = time.thread_time()
        for _ in range(_CALLS):
            work()
        return (time.thread_time() - started) / _CALLS * 1e6

    return statistics.median(once() for _ in range(_ROUNDS))


def main() -> None:
    """Print the figures."""
    print(f"metrics: {_microseconds(_record):.1f} us a record, {_microseconds(_batch):.1f} us a batch")
    traces.start_with(_Nowhere(), "benchmark")
    print(f"with traces on: {_microseconds(_traced):.0f} us a record")
    traces.stop()


if __name__ == "__main__":
    main()
