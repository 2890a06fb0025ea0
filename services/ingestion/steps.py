"""From a request to audio that the workers can read, step by step: resolve, coalesce, fetch, decode, recall, keep.

A step that finds that no further one is needed raises Finished with what is to be announced: an answer that is known
already, another request to follow, or the reason why there is no audio.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore, Event
from typing import TYPE_CHECKING, Final, Protocol

from services.ingestion.fetch import Fetched, Fetcher, Validators
from services.ingestion.lanes import CutShortError, Try
from services.ingestion.local_files import LocalFiles
from shared.audio.decode import DecodedAudio, DecodeTimeoutError
from shared.audio.level import track_level
from shared.audio.segments import (
    Stretch,
    chosen_segments,
    heard_segments,
    segment_count,
    silent_stretches,
    sounding_stretches,
)
from shared.blobs.store import BlobGoneError, BlobStore
from shared.bus.base import Record
from shared.contracts.errors import PERMANENT_FOR_AUDIO, AbandonedError, DependencyError, ErrorCode, TonestreamError
from shared.contracts.messages import (
    AnswerKey,
    ErrorReport,
    IngestedAudio,
    IngestedTrack,
    Stage,
    TrackRequest,
    TrackResult,
)
from shared.contracts.tracks import BLOB_SCHEME, FILE_SCHEME
from shared.models.answer_key import ANSWER_VERSION, AnswerKeys, mood_sources, result_key, source_work
from shared.models.catalogue import Catalogue
from shared.runtime import metrics
from shared.runtime.metrics import FetchOutcome
from shared.runtime.retries import RetryNote
from shared.state.audio import SharedAudio
from shared.state.coalescing import Coalescing
from shared.state.results import KnownSource, ResultCache
from shared.system.fault_points import AUDIO_STORED, LEAD_TAKEN, SOURCE_REMEMBERED, fault_point
from shared.system.work_folder import work_folder

if TYPE_CHECKING:
    from shared.spotify.client import SpotifyClient, SpotifyTrack

log = logging.getLogger(__name__)

#: How long it takes at most to notice that a request was abandoned, seconds.
_SLICE_S: Final = 0.25

#: Decodes a file into a WAV, until the event is set.
Decode = Callable[[Path, Path, Event], DecodedAudio]


@dataclass(frozen=True, slots=True)
class Adapters:
    """What the steps reach outside of the process. ``spotify`` is None without credentials."""

    fetcher: Fetcher
    local_files: LocalFiles
    spotify: SpotifyClient | None
    catalogue: Catalogue
    answer_keys: AnswerKeys
    blobs: BlobStore
    audio: SharedAudio
    results: ResultCache
    coalescing: Coalescing


class Finished(Exception):  # noqa: N818 (no fault: the steps end early)
    """No further step is needed: ``track`` is what is to be announced."""

    def __init__(self, track: IngestedTrack) -> None:
        super().__init__(track.request_id)
        self.track = track


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a track before there is audio. ``url`` is where its audio is."""

    request: TrackRequest
    record: Record
    answer_key: AnswerKey
    received_at_ms: int
    url: str = ""
    title: str | None = None
    artist: str | None = None
    isrc: str | None = None

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
            embedding=self.request.embedding,
            received_at_ms=self.received_at_ms,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The file of a request, and the validators that its server sent with it."""

    file: Path
    etag: str | None = None
    last_modified: str | None = None


class Steps:
    """The steps of one lane. ``decoders`` is how many files are decoded at once; each takes a core and some memory.

    ``last``: no other lane follows, so a decoder that runs out of time is a fault of the file.
    """

    def __init__(self, adapters: Adapters, decode: Decode, decoders: int, last: bool) -> None:
        self._to = adapters
        self._decode_file = decode
        self._decoders = BoundedSemaphore(decoders)
        self._last = last

    def ingest(self, request: TrackRequest, record: Record, note: RetryNote, tried: Try) -> IngestedTrack:
        """What is to be announced of the request. Raises TonestreamError; DependencyError, FencedError."""
        try:
            draft = self.resolve(request, record, note, tried)
            self.coalesce(draft, source_work(draft.answer_key, request.track_key))
            fault_point(LEAD_TAKEN)
            with work_folder() as folder:
                source = self.fetch(draft, folder, tried)
                draft, decoded, audio = self.decode(draft, source, tried)
                self.recall(draft, audio)
                self.coalesce(draft, f"audio:{self._result_keys(draft, audio.sha256)[0]}", audio)
                self.keep(draft, decoded)
            return draft.track(audio=audio)
        except Finished as finished:
            return finished.track
        except OSError as error:
            raise DependencyError(f"the temporary folder cannot be used: {error}") from error

    # Resolve

    def resolve(self, request: TrackRequest, record: Record, note: RetryNote, tried: Try) -> Draft:
        """The rules of the answer, the names of the track, and where its audio is."""
        draft = Draft(request, record, self._answer_key(request), note.received_at_ms, request.audio_url or "")
        names, spotify_error = self._names(request, tried)
        if names is not None:
            url = draft.url or names.preview_url or ""
            draft = replace(draft, url=url, title=names.title, artist=names.artist, isrc=names.isrc)
        if not draft.url:
            raise Finished(draft.track(error=ErrorReport.of(spotify_error or _no_preview(), Stage.INGESTION)))
        return draft

    def _answer_key(self, request: TrackRequest) -> AnswerKey:
        """Raises TonestreamError if the request names a model that is not installed."""
        if request.model is None:
            return self._to.answer_keys.own
        model = self._to.catalogue.find("genre", request.model)
        if model is None:
            raise TonestreamError(
                ErrorCode.INVALID_REQUEST,
                f"model: no genre model of that name is installed; there are {self._to.catalogue.named('genre')}",
            )
        return self._to.answer_keys.by(model.manifest)

    def _names(self, request: TrackRequest, tried: Try) -> tuple[SpotifyTrack | None, TonestreamError | None]:
        """The names that Spotify gives the track, or why there are none.

        A fault matters only where nothing else leads to the audio, or where no time is left to fetch it.
        """
        if request.spotify_id is None:
            return None, None
        if self._to.spotify is None:
            return None, TonestreamError(
                ErrorCode.SPOTIFY_UNAVAILABLE,
                "this installation has no credentials to ask Spotify with (TONESTREAM_SPOTIFY_CLIENT_ID and _SECRET);"
                " give an audio_url with the track_id",
            )
        try:
            return self._to.spotify.track(request.spotify_id, tried.left_s, tried.abandoned), None
        except TonestreamError as error:
            if request.audio_url is None or not tried.left_s:
                raise
            log.info("no names from Spotify: %s", error.message)
            return None, error

    # Coalesce

    def coalesce(self, draft: Draft, work: str, audio: IngestedAudio | None = None) -> None:
        """Follow the request that is at work on the same, if there is one. Else this request leads the work."""
        if draft.request.force:
            return
        leader = self._to.coalescing.lead_or_follow(draft.request.request_id, work, draft.record)
        if leader is not None:
            metrics.COALESCED.labels("source" if audio is None else "audio").inc()
            raise Finished(draft.track(audio=audio, follows=leader))

    # Fetch

    def fetch(self, draft: Draft, folder: Path, tried: Try) -> Source:
        """The file, in ``folder``. A server that says that it is unchanged brings the answer of the last time."""
        file = folder / "source"
        if draft.url.startswith(BLOB_SCHEME):
            with _measured("blob") as done:
                try:
                    self._to.blobs.fetch(draft.url, file)
                except BlobGoneError as error:
                    # The request named the wrong blob, or came too late.
                    raise TonestreamError(ErrorCode.FETCH_FAILED, error.message) from error
                done(file.stat().st_size)
            source = Source(file)
        elif draft.url.lower().startswith(FILE_SCHEME):
            with _measured("file") as done:
                self._to.local_files.fetch(draft.url, file)
                done(file.stat().st_size)
            source = Source(file)
        else:
            source = self._download(draft, file, tried)
        tried.fetched()
        return source

    def _download(self, draft: Draft, file: Path, tried: Try) -> Source:
        request = draft.request
        known = None if request.force else self._to.results.known_source(request.track_key)
        if known is not None and known.answer_version != ANSWER_VERSION:
            known = None
        validators = None if known is None else Validators(known.etag, known.last_modified)
        fetched = self._request(draft.url, file, validators, tried)
        if fetched.not_modified and known is not None:
            cached = None if known.audio_sha256 is None else self._cached(draft, known.audio_sha256, "source")
            if cached is not None or known.error is not None:
                tried.fetched()
                raise Finished(draft.track(cached=cached, error=known.error))
            # The audio is the same, and its answer has expired.
            fetched = self._request(draft.url, file, None, tried)
        return Source(file, fetched.etag, fetched.last_modified)

    def _request(self, url: str, file: Path, validators: Validators | None, tried: Try) -> Fetched:
        with _measured("http") as done:
            fetched = self._to.fetcher.fetch(url, file, validators, tried.left_s, tried.abandoned)
            done(fetched.size, FetchOutcome.NOT_MODIFIED if fetched.not_modified else FetchOutcome.FETCHED)
        return fetched

    # Decode

    def decode(self, draft: Draft, source: Source, tried: Try) -> tuple[Draft, DecodedAudio, IngestedAudio]:
        """The audio as a WAV beside the file, and what is announced of it. What the source holds is remembered."""
        try:
            with self._decoder(tried), _measured_decoder():
                decoded = self._decode_file(source.file, source.file.with_name("decoded.wav"), tried.abandoned)
            sounding = sounding_stretches(decoded.levels_dbfs)
            if decoded.samples and not sounding:
                raise TonestreamError(ErrorCode.SILENT_AUDIO, "the track is silent from beginning to end")
        except DecodeTimeoutError as error:
            if self._last:
                raise
            raise CutShortError(error.code, error.message) from error
        except TonestreamError as error:
            if error.code in PERMANENT_FOR_AUDIO:
                self._remember(draft.request, source, error=ErrorReport.of(error, Stage.INGESTION))
            raise
        metrics.DECODED_SECONDS.inc(decoded.duration_s)
        self._remember(draft.request, source, audio_sha256=decoded.sha256)
        fault_point(SOURCE_REMEMBERED)
        if draft.title is None:
            draft = replace(draft, title=decoded.tags.title, artist=decoded.tags.artist)
        return draft, decoded, self._announced(decoded, sounding, draft.answer_key)

    @contextlib.contextmanager
    def _decoder(self, tried: Try) -> Iterator[None]:
        """One of the places for decoders."""
        while not self._decoders.acquire(timeout=_SLICE_S):
            tried.queueing()
            if tried.abandoned.is_set():
                raise AbandonedError
        tried.queueing()
        try:
            yield
        finally:
            self._decoders.release()

    def _announced(self, decoded: DecodedAudio, sounding: Sequence[Stretch], answer_key: AnswerKey) -> IngestedAudio:
        spec = self._to.catalogue.require_spec(answer_key)
        count = segment_count(decoded.samples, spec)
        heard = heard_segments(count, answer_key.max_segments, spec, sounding)
        evenly = chosen_segments(count, answer_key.max_segments)
        sounds_all_over = list(sounding) == [Stretch(0, len(decoded.levels_dbfs))]
        return IngestedAudio(
            blob=SharedAudio.reference(decoded.sha256),
            sha256=decoded.sha256,
            duration_s=round(decoded.duration_s, 3),
            segments=len(heard),
            chosen=None if list(heard) == list(evenly) else tuple(heard),
            sounding=() if sounds_all_over else tuple((stretch.start_s, stretch.end_s) for stretch in sounding),
            silences=tuple((stretch.start_s, stretch.end_s) for stretch in silent_stretches(decoded.levels_dbfs)),
            level_dbfs=round(track_level(decoded.levels_dbfs), 2) if sounding else None,
        )

    def _remember(
        self,
        request: TrackRequest,
        source: Source,
        audio_sha256: str | None = None,
        error: ErrorReport | None = None,
    ) -> None:
        if source.etag or source.last_modified:
            self._to.results.remember_source(
                request.track_key,
                KnownSource(
                    etag=source.etag,
                    last_modified=source.last_modified,
                    audio_sha256=audio_sha256,
                    error=error,
                    answer_version=ANSWER_VERSION,
                ),
            )

    # Recall

    def recall(self, draft: Draft, audio: IngestedAudio) -> None:
        """End with the answer that the same audio got before, if it is cached."""
        cached = None if draft.request.force else self._cached(draft, audio.sha256, "audio")
        if cached is not None:
            raise Finished(draft.track(audio=audio, cached=cached))

    def _cached(self, draft: Draft, audio_sha256: str, cache: str) -> TrackResult | None:
        found = self._to.results.find(self._result_keys(draft, audio_sha256))
        metrics.CACHE_LOOKUPS.labels(cache, "miss" if found is None else "hit").inc()
        return found

    def _result_keys(self, draft: Draft, audio_sha256: str) -> list[str]:
        """Where the answer may be, the best first."""
        asked = draft.request.spotify_id if self._to.spotify is not None else None
        return [result_key(draft.answer_key, audio_sha256, source) for source in mood_sources(asked)]

    # Keep

    def keep(self, draft: Draft, decoded: DecodedAudio) -> None:
        """Store the audio where the workers find it."""
        self._to.audio.keep(decoded.path, decoded.sha256, draft.request.request_id, draft.record)
        fault_point(AUDIO_STORED)


class _Done(Protocol):
    """What a fetch says when it has ended well: how many bytes came, and what they are."""

    def __call__(self, size: int, how: FetchOutcome = FetchOutcome.FETCHED) -> None: ...


@contextlib.contextmanager
def _measured(source: str) -> Iterator[_Done]:
    """Count and time one fetch from there."""
    outcome, fetched = FetchOutcome.BROKEN_OFF, 0
    started = time.perf_counter()

    def done(size: int, how: FetchOutcome = FetchOutcome.FETCHED) -> None:
        nonlocal outcome, fetched
        outcome, fetched = how, size

    try:
        yield done
    except TonestreamError as error:
        outcome = FetchOutcome(error.code.value) if error.code.value in set(FetchOutcome) else FetchOutcome.OTHER
        raise
    finally:
        metrics.FETCHES.labels(source, outcome).inc()
        metrics.FETCHED_BYTES.labels(source).inc(fetched)
        metrics.FETCH_SECONDS.labels(source).observe(time.perf_counter() - started)


@contextlib.contextmanager
def _measured_decoder() -> Iterator[None]:
    started = time.perf_counter()
    outcome = "failed"
    try:
        yield
        outcome = "decoded"
    finally:
        metrics.DECODE_SECONDS.labels(outcome).observe(time.perf_counter() - started)


def _no_preview() -> TonestreamError:
    return TonestreamError(
        ErrorCode.NO_AUDIO, "Spotify offers no preview of this track; give an audio_url with it to have its genre"
    )
