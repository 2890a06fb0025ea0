"""Ingestion: from a request to audio the workers can read, or to the reason why there is none."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, Event
from typing import Final, Self

from services.ingestion.fetch import AllowList, Fetched, Fetcher, FetchLimits, Validators
from services.ingestion.lanes import CutShortError, Lane, Patience, Try, final
from services.ingestion.local_files import LocalFiles
from services.ingestion.own_servers import endpoints
from services.ingestion.tags import read_tags
from services.topology import INGESTION, INGESTION_RETRY
from shared.audio.decode import DecodedAudio, DecodeLimits, DecodeTimeoutError, decode, find_ffmpeg
from shared.audio.level import track_level
from shared.audio.segments import Stretch, chosen_segments, heard_segments, segment_count, sounding_stretches
from shared.blobs.store import UPLOADS, BlobGoneError, BlobStore
from shared.bus.base import Record
from shared.contracts.codec import MalformedMessageError
from shared.contracts.codec import decode as decode_message
from shared.contracts.errors import (
    PERMANENT_FOR_AUDIO,
    AbandonedError,
    DependencyError,
    ErrorCode,
    TonestreamError,
    TransientError,
)
from shared.contracts.messages import (
    AnswerKey,
    ErrorReport,
    IngestedAudio,
    IngestedTrack,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import RETENTION_MS, Channel
from shared.contracts.tracks import BLOB_SCHEME, FILE_SCHEME
from shared.models.answer_key import ANSWER_VERSION, AnswerKeys, mood_sources, result_key, source_work
from shared.models.catalogue import Catalogue
from shared.runtime.envelope import salvaged_source
from shared.runtime.retries import Retry, RetryNote
from shared.runtime.service import Delivery, Origin, Outcome, TrackByTrackService
from shared.settings import Settings, SettingsError
from shared.spotify.client import SpotifyClient, SpotifyTrack, spotify_client
from shared.state.audio import SharedAudio
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Requests
from shared.state.results import KnownSource, ResultCache
from shared.system.fault_points import AUDIO_STORED, LEAD_TAKEN, REQUEST_ENTERED, SOURCE_REMEMBERED, fault_point
from shared.system.threads import worker_threads
from shared.system.work_folder import remove_abandoned, work_folder

log = logging.getLogger(__name__)

_SWEEP_EVERY_S: Final = 600.0
#: Fewer than this would let one file that decodes slowly be in the way of the next.
_FEWEST_DECODERS: Final = 4
#: How long it takes at most to notice that a request was abandoned, seconds.
_SLICE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What a request's source gave: a local file; or, where it is unchanged, what is known of it already."""

    file: Path | None
    etag: str | None = None
    last_modified: str | None = None
    cached: TrackResult | None = None
    error: ErrorReport | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is known of a track before it is known whether there is audio."""

    request: TrackRequest
    answer_key: AnswerKey
    record: Record
    received_at_ms: int
    title: str | None
    artist: str | None
    isrc: str | None

    def track(
        self,
        audio: IngestedAudio | None = None,
        cached: TrackResult | None = None,
        error: ErrorReport | None = None,
        follows: str | None = None,
    ) -> IngestedTrack:
        return IngestedTrack(
            request_id=self.request.request_id,
            track_key=self.request.track_key,
            source=self.request.shown_source,
            spotify_id=self.request.spotify_id,
            title=self.title,
            artist=self.artist,
            isrc=self.isrc,
            audio=audio,
            cached=cached,
            error=error,
            follows=follows,
            answer_key=self.answer_key,
            received_at_ms=self.received_at_ms,
        )


class Ingestion(TrackByTrackService[TrackRequest, IngestedTrack]):
    """Every request leaves as one IngestedTrack: with audio, with a finished answer, or with the reason for neither.

    This is the first lane: one short try. What is slow or failed for the moment goes on to the retry topic.
    """

    stage = INGESTION.stage
    inputs = INGESTION.reads
    # So many slow servers at once delay nobody: a download waits and costs little. Decoding costs: see ``decoders``.
    batch_records = 128
    answers_invalid_input = True
    streams = True

    def __init__(
        self,
        *,
        lane: Lane,
        patience: Patience,
        fetcher: Fetcher,
        local_files: LocalFiles,
        spotify: SpotifyClient | None,
        decode_file: Callable[[Path, Path, Event], DecodedAudio],
        catalogue: Catalogue,
        answer_keys: AnswerKeys,
        blobs: BlobStore,
        audio: SharedAudio,
        results: ResultCache,
        requests: Requests,
        max_unfinished: int,
        blob_ttl_s: float,
        decoders: int,
    ) -> None:
        super().__init__(self.batch_records)
        self._lane = lane
        self._patience = patience
        self._decoders = BoundedSemaphore(decoders)
        self._fetcher = fetcher
        self._local_files = local_files
        self._spotify = spotify
        self._decode = decode_file
        self._catalogue = catalogue
        self._answer_keys = answer_keys
        self._blobs = blobs
        self._audio = audio
        self._results = results
        self._requests = requests
        self._coalescing = Coalescing(requests)
        self._max_unfinished = max_unfinished
        self._blob_ttl_s = blob_ttl_s
        self._next_sweep = time.monotonic() + _SWEEP_EVERY_S

    @classmethod
    def build(cls, settings: Settings) -> Self:
        ffmpeg = find_ffmpeg(settings.ffmpeg)
        try:
            allow = AllowList.parse(settings.fetch_allow)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        lane = cls._lane_of(settings)
        limits = DecodeLimits(max_duration_s=settings.max_track_s, timeout_s=lane.decode_s)
        client = connect(settings.redis_url.get_secret_value())
        keys = Keys(settings.redis_prefix)
        blobs = BlobStore(settings.blob_url)
        catalogue = Catalogue.of(settings)
        requests = Requests.open(client, keys, cls.stage.value, settings.state_ttl_s, settings.result_deadline_s)
        return cls(
            lane=lane,
            patience=Patience(settings.retry_attempts, settings.fetch_total_timeout_s, settings.retry_budget_s),
            fetcher=Fetcher(
                FetchLimits(
                    max_bytes=settings.fetch_max_bytes,
                    total_s=lane.fetch_s,
                    connect_s=settings.fetch_connect_timeout_s,
                    first_byte_s=settings.fetch_first_byte_timeout_s,
                    max_redirects=settings.fetch_max_redirects,
                ),
                allow,
                own=endpoints(settings),
            ),
            local_files=LocalFiles(settings.local_files),
            spotify=spotify_client(settings),
            decode_file=lambda source, destination, abandoned: decode(source, destination, limits, ffmpeg, abandoned),
            catalogue=catalogue,
            answer_keys=AnswerKeys(settings, catalogue),
            blobs=blobs,
            audio=SharedAudio(blobs, requests, settings.blob_ttl_s),
            results=ResultCache(client, keys, settings.result_ttl_s),
            requests=requests,
            max_unfinished=settings.max_unfinished,
            blob_ttl_s=settings.blob_ttl_s,
            decoders=max(_FEWEST_DECODERS, worker_threads(settings)),
        )

    @classmethod
    def _lane_of(cls, settings: Settings) -> Lane:
        # A limit that is set below the first lane's holds in both.
        fetch_s = min(settings.fetch_first_timeout_s, settings.fetch_total_timeout_s)
        return Lane(fetch_s, min(settings.decode_first_timeout_s, settings.decode_timeout_s), last=False)

    def start(self) -> None:
        """Remove the temporary folders of workers that were killed."""
        remove_abandoned()

    def ready(self) -> bool:
        """Not while the stages behind are busy with as many requests as there may be at once."""
        return self._requests.unfinished() < self._max_unfinished

    def handle_one(self, delivery: Delivery[TrackRequest]) -> Outcome[IngestedTrack]:
        request = delivery.message
        note = self._note(delivery.record)
        if not self._enter(request.request_id, delivery.record, note):
            return Outcome()
        fault_point(REQUEST_ENTERED)
        started = time.perf_counter()
        tried = Try(self._lane, note, delivery.abandoned, delivery.queueing)
        try:
            track = self._ingest(request, delivery.record, note, tried)
        except TransientError as fault:
            return self._later(request, delivery.record, note, fault, tried)
        elapsed_ms = (time.perf_counter() - started) * 1000
        track = track.model_copy(update={"timings_ms": {self.stage.value: round(elapsed_ms, 1)}})
        return Outcome((track,), self._clean_up(request.audio_url))

    def _later(
        self, request: TrackRequest, record: Record, note: RetryNote, fault: TransientError, tried: Try
    ) -> Outcome[IngestedTrack]:
        """The request goes on to the retry topic. Raises TonestreamError where it was tried long enough."""
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
            if removed := self._blobs.sweep(self._blob_ttl_s):
                log.info("removed forgotten blobs", extra={"removed": removed})
        return ()

    def _note(self, record: Record) -> RetryNote:
        """How far the request of that record is. One that enters here is at its beginning, whatever its headers say."""
        return RetryNote(record.coordinates, _received_at_ms(record))

    def _enter(self, request_id: str, record: Record, note: RetryNote) -> bool:
        """Whether the record is to be answered."""
        entered = self._requests.accept(request_id, record, note.entered)
        if not entered:
            log.info("this request ID is known already; the first record with it is answered, this one is not")
        return entered

    def _ingest(self, request: TrackRequest, record: Record, note: RetryNote, tried: Try) -> IngestedTrack:
        answer_key = self._answer_key(request)
        names, spotify_error = self._spotify_track(request, tried)
        draft = _Draft(
            request,
            answer_key,
            record,
            note.received_at_ms,
            title=names.title if names else None,
            artist=names.artist if names else None,
            isrc=names.isrc if names else None,
        )
        url = request.audio_url or (names.preview_url if names else None)
        if url is None:
            return draft.track(error=ErrorReport.of(spotify_error or _no_preview(), self.stage))
        if leader := self._leader(draft, source_work(answer_key, request.track_key)):
            return draft.track(follows=leader)
        fault_point(LEAD_TAKEN)
        try:
            with work_folder() as folder:
                fetched = self._fetch(draft, url, folder, tried)
                tried.fetched()
                if fetched.file is None:
                    return draft.track(cached=fetched.cached, error=fetched.error)
                return self._from_file(draft, fetched.file, fetched, tried)
        except OSError as error:
            raise DependencyError(f"the temporary folder cannot be used: {error}") from error

    def _spotify_track(self, request: TrackRequest, tried: Try) -> tuple[SpotifyTrack | None, TonestreamError | None]:
        """The names Spotify gives the track. A fault matters only where there is no other way to the audio, or no time
        left to go it."""
        if request.spotify_id is None:
            return None, None
        if self._spotify is None:
            return None, TonestreamError(
                ErrorCode.SPOTIFY_UNAVAILABLE,
                "this installation has no credentials to ask Spotify with (TONESTREAM_SPOTIFY_CLIENT_ID and _SECRET);"
                " give an audio_url with the track_id",
            )
        try:
            return self._spotify.track(request.spotify_id, tried.left_s, tried.abandoned), None
        except TonestreamError as error:
            if request.audio_url is None or not tried.left_s:
                raise
            log.info("no names from Spotify: %s", error.message)
            return None, error

    def _answer_key(self, request: TrackRequest) -> AnswerKey:
        """By what the request is to be answered. Raises TonestreamError where it names a model that is not there."""
        if request.model is None:
            return self._answer_keys.own
        model = self._catalogue.find("genre", request.model)
        if model is None:
            raise TonestreamError(
                ErrorCode.INVALID_REQUEST,
                f"model: no genre model of that name is installed; there are {self._catalogue.named('genre')}",
            )
        return self._answer_keys.by(model.manifest)

    def _fetch(self, draft: _Draft, url: str, folder: Path, tried: Try) -> _Fetched:
        request = draft.request
        file = folder / "source"
        if url.startswith(BLOB_SCHEME):
            try:
                self._blobs.fetch(url, file)
            except BlobGoneError as error:
                # Whoever named it was mistaken, or came too late.
                raise TonestreamError(ErrorCode.FETCH_FAILED, error.message) from error
            return _Fetched(file)
        if url.lower().startswith(FILE_SCHEME):
            self._local_files.fetch(url, file)
            return _Fetched(file)
        known = None if request.force else self._results.known_source(request.track_key)
        if known is not None and known.answer_version != ANSWER_VERSION:
            known = None
        validators = None if known is None else Validators(known.etag, known.last_modified)
        fetched = self._download(url, file, validators, tried)
        if fetched.not_modified and known is not None:
            cached = self._find(draft, known.audio_sha256)
            if cached is not None or known.error is not None:
                return _Fetched(None, cached=cached, error=known.error)
            fetched = self._download(url, file, None, tried)  # the audio is the same, its answer has expired
        return _Fetched(file, fetched.etag, fetched.last_modified)

    def _download(self, url: str, file: Path, validators: Validators | None, tried: Try) -> Fetched:
        return self._fetcher.fetch(url, file, validators, tried.left_s, tried.abandoned)

    def _from_file(self, draft: _Draft, file: Path, fetched: _Fetched, tried: Try) -> IngestedTrack:
        request = draft.request
        if draft.title is None:
            title, artist = read_tags(file)
            draft = replace(draft, title=title, artist=artist)
        try:
            with self._decoder(tried):
                decoded = self._decode(file, file.with_name("decoded.wav"), tried.abandoned)
            sounding = sounding_stretches(decoded.levels_dbfs)
            if decoded.samples and not sounding:
                raise TonestreamError(ErrorCode.SILENT_AUDIO, "the track is silent from beginning to end")
        except DecodeTimeoutError as error:
            if self._lane.last:
                raise
            raise CutShortError(error.code, error.message) from error
        except TonestreamError as error:
            if error.code in PERMANENT_FOR_AUDIO:
                self._remember(request, fetched, error=ErrorReport.of(error, self.stage))
            raise
        self._remember(request, fetched, audio_sha256=decoded.sha256)
        fault_point(SOURCE_REMEMBERED)
        audio = self._announced(decoded, sounding, draft.answer_key)
        cached = None if request.force else self._find(draft, decoded.sha256)
        if cached is not None:
            return draft.track(audio=audio, cached=cached)
        if leader := self._leader(draft, f"audio:{self._result_keys(draft, decoded.sha256)[0]}"):
            return draft.track(audio=audio, follows=leader)
        self._audio.keep(decoded.path, decoded.sha256, request.request_id, draft.record)
        fault_point(AUDIO_STORED)
        return draft.track(audio=audio)

    def _announced(self, decoded: DecodedAudio, sounding: Sequence[Stretch], answer_key: AnswerKey) -> IngestedAudio:
        spec = self._catalogue.require_spec(answer_key)
        count = segment_count(decoded.samples, spec)
        heard = heard_segments(count, answer_key.max_segments, spec, sounding)
        evenly = chosen_segments(count, answer_key.max_segments)
        return IngestedAudio(
            blob=SharedAudio.reference(decoded.sha256),
            sha256=decoded.sha256,
            duration_s=round(decoded.duration_s, 3),
            segments=len(heard),
            chosen=None if list(heard) == list(evenly) else tuple(heard),
            sounding=()
            if list(sounding) == [Stretch(0, len(decoded.levels_dbfs))]
            else tuple((stretch.start_s, stretch.end_s) for stretch in sounding),
            level_dbfs=round(track_level(decoded.levels_dbfs), 2) if sounding else None,
        )

    @contextlib.contextmanager
    def _decoder(self, tried: Try) -> Iterator[None]:
        """One of the places for decoders: each takes a core and some memory."""
        while not self._decoders.acquire(timeout=_SLICE_S):
            tried.queueing()
            if tried.abandoned.is_set():
                raise AbandonedError
        tried.queueing()
        try:
            yield
        finally:
            self._decoders.release()

    def _remember(
        self,
        request: TrackRequest,
        fetched: _Fetched,
        audio_sha256: str | None = None,
        error: ErrorReport | None = None,
    ) -> None:
        if fetched.etag or fetched.last_modified:
            self._results.remember_source(
                request.track_key,
                KnownSource(
                    etag=fetched.etag,
                    last_modified=fetched.last_modified,
                    audio_sha256=audio_sha256,
                    error=error,
                    answer_version=ANSWER_VERSION,
                ),
            )

    def _find(self, draft: _Draft, audio_sha256: str | None) -> TrackResult | None:
        return None if audio_sha256 is None else self._results.find(self._result_keys(draft, audio_sha256))

    def _result_keys(self, draft: _Draft, audio_sha256: str) -> list[str]:
        """Where the answer may be, the wanted one first."""
        asked = draft.request.spotify_id if self._spotify is not None else None
        return [result_key(draft.answer_key, audio_sha256, source) for source in mood_sources(asked)]

    def _leader(self, draft: _Draft, work: str) -> str | None:
        """The request that is at work on the same; None where this one is to do it."""
        if draft.request.force:
            return None
        return self._coalescing.lead_or_follow(draft.request.request_id, work, draft.record)

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
    """The second lane: requests that wait, and sources that are slow. It has the full limits and is in nobody's way."""

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
    """The URL a request asks for; None where it names none, or is no request at all."""
    try:
        request = decode_message(Channel.REQUESTS, record.value)
    except MalformedMessageError:
        return None
    return request.audio_url if isinstance(request, TrackRequest) else None


def _no_preview() -> TonestreamError:
    return TonestreamError(
        ErrorCode.NO_AUDIO, "Spotify offers no preview of this track; give an audio_url with it to have its genre"
    )
