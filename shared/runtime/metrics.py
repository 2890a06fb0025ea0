"""Every metric, declared once: its name, what it means, its unit, its labels and the values they take.

Names and units follow Prometheus: base units, the unit at the end of the name, ``_total`` for counters. A label takes
few values, which are listed here or bounded by what is installed. Never one by URL, track or request: each new value is
a time series that Prometheus keeps.

docs/metrics.md is made from these declarations, and a test reads every query of the dashboards and alerts against them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Literal

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import Stage, Status
from shared.contracts.topics import Channel

# One more series beside each counter and histogram, which says when its process began. ``process_start_time_seconds``
# says that for all.
disable_created_metrics()  # type: ignore[no-untyped-call]

Kind = Literal["counter", "gauge", "histogram"]
#: ``info``: always 1, and the labels are what it says. ``flag``: 1 for yes, 0 for no.
Unit = Literal["records", "requests", "seconds", "bytes", "ratio", "partitions", "segments", "info", "flag", "events"]


class DeadLetterReason(StrEnum):
    """Why a record went to the dead letters."""

    DEFECT = "defect"
    CRASH_LOOP = "crash_loop"
    MALFORMED = "malformed"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"


class RewindReason(StrEnum):
    """Why a batch was dropped uncommitted."""

    FENCED = "fenced"
    BUS_UNAVAILABLE = "bus_unavailable"
    DEPENDENCY = "dependency"
    HELD = "held"
    DEAD_LETTER_LIMIT = "dead_letter_limit"


class CommitOutcome(StrEnum):
    """How one attempt to commit ended."""

    COMMITTED = "committed"
    FENCED = "fenced"
    BACK_PRESSURE = "back_pressure"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"


class FetchOutcome(StrEnum):
    """How one fetch ended. Those behind the first three are codes of errors."""

    FETCHED = "fetched"
    NOT_MODIFIED = "not_modified"
    BROKEN_OFF = "broken_off"
    FETCH_FAILED = ErrorCode.FETCH_FAILED.value
    FETCH_TIMEOUT = ErrorCode.FETCH_TIMEOUT.value
    FETCH_FORBIDDEN = ErrorCode.FETCH_FORBIDDEN.value
    TOO_LARGE = ErrorCode.TOO_LARGE.value
    UNSUPPORTED_MEDIA = ErrorCode.UNSUPPORTED_MEDIA.value
    OTHER = "other"


class WebhookOutcome(StrEnum):
    """How one attempt at a delivery to a webhook ended. After ``failed`` another one follows."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its values: ``values`` lists them, or ``bound`` says what keeps them few."""

    name: str
    values: frozenset[str] = frozenset()
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A metric as people and tests see it. ``name`` is the one that queries use, for histograms without a suffix."""

    name: str
    kind: Kind
    unit: Unit
    meaning: str
    labels: tuple[Label, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus has it."""
        if self.kind == "histogram":
            return tuple(f"{self.name}{suffix}" for suffix in ("_bucket", "_count", "_sum"))
        return (self.name,)


#: Every metric, in the order of this file.
DECLARED: Final[list[Declaration]] = []

GATEWAY: Final = "gateway"
#: The other lane of ingestion, and the gateway, are no stages of their own.
SERVICES: Final = frozenset({*(stage.value for stage in Stage), "ingestion-retry", GATEWAY})

_SERVICE: Final = Label("service", SERVICES)
_TOPIC: Final = Label("topic", frozenset(channel.value for channel in Channel))
_MODEL: Final = Label("model", bound="the models that are installed, by name")

_WORK_S: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WAIT_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_HTTP_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def _values(of: Iterable[str]) -> frozenset[str]:
    return frozenset(str(value) for value in of)


def _declared(name: str, kind: Kind, unit: Unit, meaning: str, labels: tuple[Label, ...]) -> tuple[str, str, list[str]]:
    DECLARED.append(Declaration(name, kind, unit, meaning, labels))
    return name, meaning, [label.name for label in labels]


def _counter(name: str, unit: Unit, meaning: str, *labels: Label) -> Counter:
    return Counter(*_declared(name, "counter", unit, meaning, labels))


def _gauge(name: str, unit: Unit, meaning: str, *labels: Label) -> Gauge:
    return Gauge(*_declared(name, "gauge", unit, meaning, labels))


def _histogram(name: str, unit: Unit, buckets: tuple[float, ...], meaning: str, *labels: Label) -> Histogram:
    return Histogram(*_declared(name, "histogram", unit, meaning, labels), buckets=buckets)


_FETCHED_FROM: Final = Label("source", frozenset({"http", "blob", "file"}))
_STATUS: Final = Label("status", _values(Status))
_CACHED: Final = Label("cached", frozenset({"true", "false"}))
_GENRE: Final = Label("genre", frozenset(GENRES))

# The process

BUILD: Final = _gauge(
    "tonestream_build_info", "info", "The version that runs.", _SERVICE, Label("version", bound="one a process")
)
READY: Final = _gauge(
    "tonestream_ready", "flag", "Whether the process takes work: what `/readyz` answers at the time of the scrape."
)
LAST_POLL: Final = _gauge(
    "tonestream_last_poll_timestamp_seconds", "seconds", "When the service last polled, Unix epoch.", _SERVICE
)

# Records on their way through a service

RECORDS: Final = _counter(
    "tonestream_records_total",
    "records",
    "Committed records by what became of them: done, failed (answered with a typed error), dead (sent to the dead"
    " letters), unreadable (a client's batch that nobody can read, sent there too).",
    _SERVICE,
    Label("outcome", frozenset({"done", "failed", "dead", "unreadable"})),
)
QUEUE_SECONDS: Final = _histogram(
    "tonestream_queue_seconds",
    "seconds",
    _WAIT_S,
    "Time in the queue: from the record's timestamp to its handling. Of a request that is tried again, from the last"
    " try.",
    _SERVICE,
)
HANDLER_SECONDS: Final = _histogram(
    "tonestream_handler_seconds",
    "seconds",
    _WORK_S,
    "Time in the handler, of all records of a batch together.",
    _SERVICE,
)
BATCH_RECORDS: Final = _histogram(
    "tonestream_batch_records", "records", _SIZES, "Records that are handled together.", _SERVICE
)
BATCH_SECONDS: Final = _histogram(
    "tonestream_batch_seconds",
    "seconds",
    (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
    "Time from poll to commit of one batch; in ingestion, of one record.",
    _SERVICE,
)
RETRIES: Final = _counter(
    "tonestream_retries_total", "records", "Repeated tries of records whose fault may heal.", _SERVICE
)
REWINDS: Final = _counter(
    "tonestream_rewinds_total",
    "events",
    "Batches that were dropped uncommitted and done again.",
    _SERVICE,
    Label("reason", _values(RewindReason)),
)
DEAD_LETTERS: Final = _counter(
    "tonestream_dead_letters_total",
    "records",
    "Records sent to the dead letters: after a defect, after killing their workers (crash_loop), because they are no"
    " message (malformed), because nobody can read their batch (unreadable), or because what was made of them is too"
    " large.",
    _SERVICE,
    Label("reason", _values(DeadLetterReason)),
)

# Kafka

COMMITS: Final = _counter(
    "tonestream_commits_total",
    "events",
    "Attempts to commit a unit of work, by how they ended.",
    _SERVICE,
    Label("outcome", _values(CommitOutcome)),
)
COMMIT_SECONDS: Final = _histogram(
    "tonestream_commit_seconds",
    "seconds",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    "Time for one commit: outputs and offsets as one transaction.",
    _SERVICE,
)
LAG: Final = _gauge(
    "tonestream_lag_records",
    "records",
    "Records that are not yet committed in the partitions of this worker, looked up every 5 s. The sum over the workers"
    " of a service is its lag; at rest it is 0.",
    _SERVICE,
    _TOPIC,
)
PARTITIONS: Final = _gauge(
    "tonestream_assigned_partitions", "partitions", "Partitions that this worker owns.", _SERVICE, _TOPIC
)

# Ingestion

UNFINISHED: Final = _gauge(
    "tonestream_unfinished_requests",
    "requests",
    "Requests under way over all workers, as ingestion counts them before it takes more.",
    _SERVICE,
)
UNFINISHED_LIMIT: Final = _gauge(
    "tonestream_unfinished_requests_limit",
    "requests",
    "Requests under way at which ingestion pauses (`TONESTREAM_MAX_UNFINISHED`).",
    _SERVICE,
)
FETCHES: Final = _counter(
    "tonestream_fetches_total",
    "events",
    "Attempts to fetch audio. `not_modified`: the server said so, and nothing was fetched; `broken_off`: the worker"
    " stopped, or lost something that it needs.",
    _FETCHED_FROM,
    Label("outcome", _values(FetchOutcome)),
)
FETCHED_BYTES: Final = _counter(
    "tonestream_fetched_bytes_total",
    "bytes",
    "Bytes of whole files that were fetched.",
    _FETCHED_FROM,
)
FETCH_SECONDS: Final = _histogram(
    "tonestream_fetch_seconds",
    "seconds",
    _WORK_S,
    "Time for one attempt to fetch, however it ended.",
    _FETCHED_FROM,
)
DECODE_SECONDS: Final = _histogram(
    "tonestream_decode_seconds",
    "seconds",
    _WORK_S,
    "Time in the decoder for one file, without the wait for a free one.",
    Label("outcome", frozenset({"decoded", "failed"})),
)
DECODED_SECONDS: Final = _counter(
    "tonestream_decoded_audio_seconds_total", "seconds", "Seconds of audio that came out of the decoder."
)
CACHE_LOOKUPS: Final = _counter(
    "tonestream_cache_lookups_total",
    "events",
    "Look-ups of a finished answer: before a download that the server may spare (source), and for decoded audio"
    " (audio).",
    Label("cache", frozenset({"source", "audio"})),
    Label("outcome", frozenset({"hit", "miss"})),
)
COALESCED: Final = _counter(
    "tonestream_coalesced_requests_total",
    "requests",
    "Requests that follow another one for the same source, or for the same audio, and get its answer.",
    Label("by", frozenset({"source", "audio"})),
)

# What is heard

SEGMENTS: Final = _counter(
    "tonestream_segments_total",
    "segments",
    "Segments that feature extraction computed features of, and silent ones, which have no vote.",
    Label("outcome", frozenset({"features", "silent"})),
)
MODEL: Final = _gauge(
    "tonestream_model_info",
    "info",
    "A model that this process loaded.",
    _SERVICE,
    Label("kind", frozenset({"genre", "mood", "tags"})),
    _MODEL,
    Label("version", bound="one a model: the end of its ID"),
    Label("engine", frozenset({"onnx", "tensorflow"})),
)
PREDICT_SECONDS: Final = _histogram(
    "tonestream_predict_seconds",
    "seconds",
    _WORK_S,
    "Time for the segments of one batch in the genre network.",
    _MODEL,
)
HEARD_SECONDS: Final = _counter(
    "tonestream_heard_audio_seconds_total", "seconds", "Seconds of audio in segments that got a genre.", _MODEL
)
MOODS_FOUND: Final = _counter(
    "tonestream_moods_total",
    "events",
    "Moods, by where their audio features come from.",
    Label("source", frozenset({"spotify", "audio"})),
)

# Answers

RESULTS: Final = _counter(
    "tonestream_results_total",
    "requests",
    "Published results.",
    _STATUS,
    _CACHED,
)
RESULT_ERRORS: Final = _counter(
    "tonestream_result_errors_total",
    "events",
    "Errors named by published results, by code.",
    Label("code", _values(ErrorCode)),
)
REQUEST_SECONDS: Final = _histogram(
    "tonestream_request_seconds",
    "seconds",
    (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600),
    "Time from the request to its result.",
    _STATUS,
    _CACHED,
)
GENRE_CONFIDENCE: Final = _histogram(
    "tonestream_genre_confidence_ratio",
    "ratio",
    _SHARES,
    "Confidence of new answers, by genre. A change says that the music or the model changed.",
    _GENRE,
)
GENRE_FIT: Final = _histogram(
    "tonestream_genre_fit_ratio",
    "ratio",
    _SHARES,
    "Probability that the track of a new answer is of one of the genres at all, by genre.",
    _GENRE,
)
MOOD_CONFIDENCE: Final = _histogram(
    "tonestream_mood_confidence_ratio",
    "ratio",
    _SHARES,
    "Confidence of new answers, by mood.",
    Label("mood", frozenset(MOODS)),
)

# The gateway

_METHOD: Final = Label("method", frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}))
_ROUTE: Final = Label("route", bound="the templates of the API's paths; `none` for other paths")

HTTP_REQUESTS: Final = _counter(
    "tonestream_http_requests_total",
    "requests",
    "HTTP requests to the gateway.",
    _METHOD,
    _ROUTE,
    Label("status", frozenset(str(status.value) for status in HTTPStatus)),
)
HTTP_SECONDS: Final = _histogram(
    "tonestream_http_request_seconds",
    "seconds",
    _HTTP_S,
    "Time until an answer of the gateway begins. Some wait on purpose (`?wait=`).",
    _METHOD,
    _ROUTE,
)
UPLOADED_BYTES: Final = _counter("tonestream_uploaded_bytes_total", "bytes", "Bytes of files that clients sent whole.")
WEBHOOK_ATTEMPTS: Final = _counter(
    "tonestream_webhook_attempts_total",
    "events",
    "Attempts at a delivery to a webhook.",
    Label("outcome", _values(WebhookOutcome)),
)
WEBHOOK_SECONDS: Final = _histogram(
    "tonestream_webhook_attempt_seconds", "seconds", _HTTP_S, "Time for one attempt at a delivery to a webhook."
)
WEBHOOKS_PENDING: Final = _gauge(
    "tonestream_webhook_pending_deliveries", "events", "Deliveries to webhooks that wait for their next attempt."
)
VIEW_RESULTS: Final = _gauge("tonestream_view_results", "requests", "Results in the gateway's view.")
VIEW_BYTES: Final = _gauge("tonestream_view_bytes", "bytes", "Size of the view's file.")
FOLLOWERS: Final = _gauge("tonestream_event_followers", "events", "Readers of the gateway's `/v1/events`.")


def begin(service: str, runs: str) -> None:
    """A service of the version ``runs`` begins. Its counters begin at 0: of one that appears with its first event,
    Prometheus does not see that event as an increase."""
    BUILD.labels(service, runs).set(1)
    for outcome in ("done", "failed", "dead"):
        RECORDS.labels(service, outcome)
    for reason in DeadLetterReason:
        DEAD_LETTERS.labels(service, reason)
    for how in CommitOutcome:
        COMMITS.labels(service, how)
    for because in RewindReason:
        REWINDS.labels(service, because)
    RETRIES.labels(service)
    if service == Stage.INGESTION:
        for found in ("hit", "miss"):
            CACHE_LOOKUPS.labels("source", found)
            CACHE_LOOKUPS.labels("audio", found)
        COALESCED.labels("source")
        COALESCED.labels("audio")
    if service == Stage.AGGREGATOR:
        for status in Status:
            RESULTS.labels(status, "false")
        for code in ErrorCode:
            RESULT_ERRORS.labels(code)
    if service == GATEWAY:
        for attempt in WebhookOutcome:
            WEBHOOK_ATTEMPTS.labels(attempt)


def http_method(method: str) -> str:
    """The value of the label ``method``: clients may send any word."""
    return method if method in _METHOD.values else "other"
