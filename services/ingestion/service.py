"""Ingestion: from a request to audio the workers can read, or to the reason why there is none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from services.ingestion.fetch import AllowList, Fetcher, FetchLimits
from services.ingestion.lanes import Lane, Patience, Try, final
from services.ingestion.local_files import LocalFiles
from services.ingestion.steps import Adapters, Steps
from services.topology import INGESTION, INGESTION_RETRY
from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.blobs.store import UPLOADS, BlobStore
from shared.bus.base import Record
from shared.contracts.codec import MalformedMessageError, decode_message
from shared.contracts.errors import (
    DependencyError,
    ErrorCode,
    TonestreamError,
    TransientError,
)
from shared.contracts.messages import (
    ErrorReport,
    IngestedTrack,
    TrackRequest,
)
from shared.contracts.topics import RETENTION_MS, Channel
from shared.contracts.tracks import BLOB_SCHEME
from shared.http.own_servers import endpoints
from shared.models.answer_key import AnswerKeys
from shared.models.catalogue import Catalogue
from shared.runtime import metrics
from shared.runtime.envelope import salvaged_source
from shared.runtime.retries import Retry, RetryNote
from shared.runtime.service import Delivery, Origin, Outcome, TrackByTrackService
from shared.settings import Settings, SettingsError
from shared.spotify.connect import spotify_client
from shared.state.audio import Keeping, SharedAudio
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Requests
from shared.state.results import ResultCache
from shared.system.fault_points import REQUEST_ENTERED, fault_point
from shared.system.threads import worker_threads
from shared.system.work_folder import remove_abandoned

log = logging.getLogger(__name__)

_SWEEP_EVERY_S: Final = 600.0
#: With fewer, one file that decodes slowly would delay the next.
_FEWEST_DECODERS: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_unfinished``: requests under way at once, over all workers. ``blob_ttl_s``: how long blobs are kept."""

    max_unfinished: int
    blob_ttl_s: float


class Ingestion(TrackByTrackService[TrackRequest, IngestedTrack]):
    """Every request leaves as one IngestedTrack: with audio, with a finished answer, or with the reason for neither.

    This is the first lane: one short try. What is slow or failed for the moment goes on to the retry topic.
    """

    stage = INGESTION.stage
    inputs = INGESTION.reads
    # As many slow servers at once delay nobody: a download mostly waits. Decoding costs CPU; ``decoders`` limits it.
    batch_records = 128
    answers_invalid_input = True
    streams = True

    def __init__(
        self, *, lane: Lane, patience: Patience, steps: Steps, requests: Requests, blobs: BlobStore, limits: Limits
    ) -> None:
        super().__init__(self.batch_records)
        self._lane = lane
        self._patience = patience
        self._steps = steps
        self._requests = requests
        self._blobs = blobs
        self._limits = limits
        self._next_sweep = time.monotonic() + _SWEEP_EVERY_S

    @classmethod
    def build(cls, settings: Settings) -> Self:
        lane = cls._lane_of(settings)
        client = connect(settings.redis_url.get_secret_value())
        keys = Keys(settings.redis_prefix)
        requests = Requests.open(client, keys, cls.stage.value, settings.state_ttl_s, settings.result_deadline_s)
        blobs = BlobStore.of(settings)
        catalogue = Catalogue.of(settings)
        ffmpeg = find_ffmpeg(settings.ffmpeg)
        limits = DecodeLimits(max_duration_s=settings.max_track_s, timeout_s=lane.decode_s)
        adapters = Adapters(
            fetcher=_fetcher(settings, lane),
            local_files=LocalFiles(settings.local_files),
            spotify=spotify_client(settings),
            catalogue=catalogue,
            answer_keys=AnswerKeys(settings, catalogue),
            blobs=blobs,
            audio=SharedAudio(blobs, requests, settings.blob_ttl_s, Keeping.of(settings)),
            results=ResultCache(client, keys, settings.result_ttl_s),
            coalescing=Coalescing(requests),
        )
        return cls(
            lane=lane,
            patience=Patience(settings.retry_attempts, settings.fetch_total_timeout_s, settings.retry_budget_s),
            steps=Steps(
                adapters,
                lambda source, destination, abandoned: decode(source, destination, limits, ffmpeg, abandoned),
                decoders=max(_FEWEST_DECODERS, worker_threads(settings)),
                last=lane.last,
            ),
            requests=requests,
            blobs=blobs,
            limits=Limits(settings.max_unfinished, settings.blob_ttl_s),
        )

    @classmethod
    def _lane_of(cls, settings: Settings) -> Lane:
        # A limit that is set below the first lane's holds in both.
        fetch_s = min(settings.fetch_first_timeout_s, settings.fetch_total_timeout_s)
        return Lane(fetch_s, min(settings.decode_first_timeout_s, settings.decode_timeout_s), last=False)

    def start(self) -> None:
        """Remove the temporary folders of workers that were killed."""
        remove_abandoned()

    def away(self) -> str | None:
        return self._blobs.away()

    def ready(self) -> bool:
        """False while the later stages have as many requests as they may have at once."""
        unfinished = self._requests.unfinished()
        metrics.UNFINISHED.labels(self.name).set(unfinished)
        metrics.UNFINISHED_LIMIT.labels(self.name).set(self._limits.max_unfinished)
        return unfinished < self._limits.max_unfinished

    def handle_one(self, delivery: Delivery[TrackRequest]) -> Outcome[IngestedTrack]:
        request = delivery.message
        note = self._note(delivery.record)
        if not self._enter(request.request_id, delivery.record, note):
            return Outcome()
        fault_point(REQUEST_ENTERED)
        started = time.perf_counter()
        tried = Try(self._lane, note, delivery.abandoned, delivery.queueing)
        try:
            track = self._steps.ingest(request, delivery.record, note, tried)
        except TransientError as fault:
            return self._later(request, delivery.record, note, fault, tried)
        elapsed_ms = (time.perf_counter() - started) * 1000
        track = track.model_copy(update={"timings_ms": {self.stage.value: round(elapsed_ms, 1)}})
        return Outcome((track,), self._clean_up(request.audio_url))

    def _later(
        self, request: TrackRequest, record: Record, note: RetryNote, fault: TransientError, tried: Try
    ) -> Outcome[IngestedTrack]:
        """The request goes on to the retry topic. Raises TonestreamError if it was tried long enough."""
        following = self._patience.next_try(note, fault, tried, self._lane, int(time.time() * 1000))
        if following is None:
            raise final(fault, note) from fault
        log.info("to be tried again: %s", fault.message, extra={"code": fault.code.value, "attempt": following.attempt})
        return Outcome(retry=Retry(request, record, following))

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[IngestedTrack]:
        """The reason why there is no audio travels on; the aggregator makes the answer of it."""
        note = self._note(origin.record)
        if not self._enter(origin.request_id, origin.record, note):
            return Outcome()
        failed = IngestedTrack(
            request_id=origin.request_id,
            track_key=origin.track_key,
            source=salvaged_source(origin.record) or origin.track_key,
            error=ErrorReport.of(error, self.stage),
            received_at_ms=note.received_at_ms,
        )
        # After a defect an operator may send the record again, and then its upload is needed; else it expires.
        kept = error.code is ErrorCode.INTERNAL
        return Outcome((failed,), () if kept else self._clean_up(_audio_url(origin.record)))

    def tick(self) -> Sequence[IngestedTrack]:
        """Now and then, remove what requests left behind that ended without cleaning up (a worker died just then)."""
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_EVERY_S
            if removed := remove_abandoned():
                log.info("removed forgotten temporary folders", extra={"removed": removed})
            # In a thread of its own: a large store takes longer to look through than a member may be silent.
            threading.Thread(target=self._sweep, name="blob-sweep", daemon=True).start()
        return ()

    def _sweep(self) -> None:
        try:
            if removed := self._blobs.sweep(self._limits.blob_ttl_s):
                log.info("removed forgotten blobs", extra={"removed": removed})
        except DependencyError as error:
            log.warning("forgotten blobs are not removed now: %s", error)

    def _note(self, record: Record) -> RetryNote:
        """The retry note of the record. A request that enters here has made no try, whatever its headers say."""
        return RetryNote(record.coordinates, _received_at_ms(record))

    def _enter(self, request_id: str, record: Record, note: RetryNote) -> bool:
        """Whether the record is to be answered."""
        entered = self._requests.accept(request_id, record, note.entered)
        if not entered:
            log.info("this request ID is known already; the first record with it is answered, this one is not")
        return entered

    def _clean_up(self, url: str | None) -> tuple[Callable[[], None], ...]:
        if url is None or not url.startswith(f"{BLOB_SCHEME}{UPLOADS}/"):
            return ()
        return (partial(self._blobs.delete, url),)


def _received_at_ms(record: Record) -> int:
    """When the request was made: the record's timestamp, or now where that cannot be right.

    Clients stamp their records. A stamp in the future, or one that is older than the topic keeps its records, would
    make nonsense of the total time.
    """
    now_ms = int(time.time() * 1000)
    return record.timestamp_ms if 0 <= now_ms - record.timestamp_ms <= RETENTION_MS[Channel.REQUESTS] else now_ms


class IngestionRetry(Ingestion):
    """The second lane: requests that wait, and slow sources, with the full limits. It delays nobody."""

    inputs = INGESTION_RETRY.reads
    answers_invalid_input = False

    @property
    def name(self) -> str:
        return INGESTION_RETRY.name

    def window(self, settings: Settings) -> int:
        return settings.retry_window

    def wait_s(self, record: Record) -> float:
        try:
            note = self._note(record)
        except ValueError:
            return 0.0
        return self._patience.wait_s(note, int(time.time() * 1000))

    def tick(self) -> Sequence[IngestedTrack]:
        """The first lane cleans up for both."""
        return ()

    def _note(self, record: Record) -> RetryNote:
        return RetryNote.of(record)

    @classmethod
    def _lane_of(cls, settings: Settings) -> Lane:
        return Lane(settings.fetch_total_timeout_s, settings.decode_timeout_s, last=True)


def _audio_url(record: Record) -> str | None:
    """The URL a request asks for; None if it names none, or is no request at all."""
    try:
        request = decode_message(Channel.REQUESTS, record.value)
    except MalformedMessageError:
        return None
    return request.audio_url if isinstance(request, TrackRequest) else None


def _fetcher(settings: Settings, lane: Lane) -> Fetcher:
    """Raises SettingsError for an allow list that cannot be read."""
    try:
        allow = AllowList.parse(settings.fetch_allow)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    limits = FetchLimits(
        max_bytes=settings.fetch_max_bytes,
        total_s=lane.fetch_s,
        connect_s=settings.fetch_connect_timeout_s,
        first_byte_s=settings.fetch_first_byte_timeout_s,
        max_redirects=settings.fetch_max_redirects,
    )
    return Fetcher(limits, allow, own=endpoints(settings))
