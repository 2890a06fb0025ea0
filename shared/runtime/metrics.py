"""Every metric, declared once: what it counts, its labels, its unit."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECORDS: Final = Counter(
    "tonestream_records_total",
    "Records by what became of them: done, failed (answered with a typed error), dead (sent to the dead letters),"
    " unreadable (a client's batch that nobody can read, sent there too).",
    ["service", "outcome"],
)
BATCH_SECONDS: Final = Histogram(
    "tonestream_batch_seconds",
    "Seconds from poll to commit of one batch.",
    ["service"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
RETRIES: Final = Counter("tonestream_retries_total", "Repeated tries of records whose fault may heal.", ["service"])
REWINDS: Final = Counter(
    "tonestream_rewinds_total", "Batches dropped uncommitted and redone, by reason.", ["service", "reason"]
)
LAST_POLL: Final = Gauge("tonestream_last_poll_timestamp_seconds", "Unix time of the last poll.", ["service"])
RESULTS: Final = Counter("tonestream_results_total", "Results published, by status and origin.", ["status", "cached"])
