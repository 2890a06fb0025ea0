"""The aggregator: joins what the workers found out about a track into exactly one result a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, Self, cast

from services.aggregator.answer import Calibrations, answer, as_requested
from services.aggregator.vote import known_strategy
from services.topology import AGGREGATOR
from shared.blobs.store import BlobStore
from shared.bus.base import Committed, FencedError, Record, parsed_coordinates
from shared.contracts.errors import PERMANENT_FOR_AUDIO, DependencyError, TonestreamError
from shared.contracts.messages import (
    AnswerKey,
    ErrorReport,
    GenreFailure,
    IngestedTrack,
    MoodPrediction,
    Overdue,
    Status,
    Track,
    TrackResult,
)
from shared.contracts.topics import Channel
from shared.models.answer_key import ANSWER_VERSION, AnswerKeys, result_key
from shared.models.catalogue import Catalogue
from shared.runtime import metrics, traces
from shared.runtime.service import Delivery, Origin, Outcome, Service
from shared.settings import Settings, VoteStrategy
from shared.state.audio import Keeping, SharedAudio
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Part, Requests, RequestState
from shared.state.results import ResultCache
from shared.system.fault_points import ANSWER_CLAIMED, ANSWER_KEPT, PARTS_NOTED, fault_point

log = logging.getLogger(__name__)

#: What it publishes: results, and reminders to itself of requests that wait for too long.
Answer = TrackResult | Overdue

_TIDY_EVERY_S: Final = 15.0
_TIDIED_AT_ONCE: Final = 1000


class Aggregator(Service[Part, Answer]):
    """Writes every part down, and answers the request whose last part came.

    Two aggregators may both see a request complete (its parts travel in different partitions). The claim decides:
    the record that made it is the only one whose unit of work carries the result, redelivered or not.
    """

    stage = AGGREGATOR.stage
    inputs = AGGREGATOR.reads
    batch_records = 500

    def __init__(
        self,
        requests: Requests,
        results: ResultCache,
        audio: SharedAudio,
        answer_key: AnswerKey,
        calibrations: Calibrations,
    ) -> None:
        self._requests = requests
        self._coalescing = Coalescing(requests)
        self._results = results
        self._audio = audio
        self._answer_key = answer_key
        self._calibrations = calibrations
        self._next_tidy = 0.0

    @classmethod
    def build(cls, settings: Settings) -> Self:
        catalogue = Catalogue.of(settings)
        installed = [*catalogue.installed("genre"), *catalogue.installed("mood")]
        client = connect(settings.redis_url.get_secret_value())
        keys = Keys(settings.redis_prefix)
        requests = Requests.open(client, keys, cls.stage.value, settings.state_ttl_s, settings.result_deadline_s)
        return cls(
            requests,
            ResultCache(client, keys, settings.result_ttl_s),
            SharedAudio(BlobStore.of(settings), requests, settings.blob_ttl_s, Keeping.of(settings)),
            AnswerKeys(settings, catalogue).own,
            {model.manifest.model_id: model.manifest.calibration for model in installed},
        )

    def away(self) -> str | None:
        return self._audio.away()

    def handle(self, deliveries: Sequence[Delivery[Part]]) -> Sequence[Outcome[Answer]]:
        return self._join([(delivery.message, delivery.record) for delivery in deliveries])

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[Answer]:
        """A part that cannot be used will not come again: its half of the answer fails, and the request still ends."""
        report = ErrorReport.of(error, self.stage)
        part: Part
        if origin.record.topic.endswith(f".{Channel.MOODS}"):
            part = MoodPrediction(request_id=origin.request_id, track_key=origin.track_key, error=report)
        elif origin.record.topic.endswith(f".{Channel.TRACKS}"):
            part = IngestedTrack(
                request_id=origin.request_id, track_key=origin.track_key, source=origin.track_key, error=report
            )
        else:
            part = GenreFailure(request_id=origin.request_id, track_key=origin.track_key, error=report)
        try:
            return self._join([(part, origin.record)])[0]
        except (DependencyError, FencedError):
            raise
        except Exception:
            log.exception("no answer can be made of the parts of this request")
            return self._without_parts(origin, report)

    def _without_parts(self, origin: Origin, report: ErrorReport) -> Outcome[Answer]:
        """The last resort: the request is answered as failed, whatever is known of it."""
        if not self._requests.answer(origin.request_id, origin.record):
            return Outcome()
        track = Track(key=origin.track_key, source=origin.track_key)
        result = TrackResult(request_id=origin.request_id, status=Status.FAILED, track=track, errors=(report,))
        self._coalescing.end(origin.request_id, result)
        clean_up = partial(self._clean_up, origin.request_id, origin.record.coordinates)
        return Outcome((result,), (partial(_measure, result), clean_up))

    def tick(self) -> Sequence[Answer]:
        return self._requests.overdue(limit=100)

    def tidy(self, committed: Committed) -> None:
        """Clean up requests that still wait although the record that answers them is committed."""
        if time.monotonic() < self._next_tidy:
            return
        self._next_tidy = time.monotonic() + _TIDY_EVERY_S
        claims = self._requests.claims(self._requests.without_news(_TIDY_EVERY_S, _TIDIED_AT_ONCE))
        answered = {id_: (known.answered_by, known.closed) for id_, known in claims.items() if known.answered_by}
        places = {request_id: parsed_coordinates(by) for request_id, (by, _) in answered.items()}
        offsets = committed(sorted({place[:2] for place in places.values()}))
        for request_id, (answered_by, closed) in answered.items():
            topic, partition, offset = places[request_id]
            if closed or offset < offsets.get((topic, partition), 0):
                self._clean_up(request_id, answered_by)
                log.info("cleaned up after a worker that died", extra={"request_id": request_id})

    def _join(self, parts: Sequence[tuple[Part, Record]]) -> list[Outcome[Answer]]:
        claims = self._requests.claims(list({part.request_id for part, _ in parts}))
        # Parts of requests that are answered already are late or doubled, unless this very record is the one that
        # answers and was redelivered. Of a closed request even that one is late.
        open_positions = [
            position
            for position, (part, record) in enumerate(parts)
            if (known := claims[part.request_id]).answered_by is None
            or (known.answered_by == record.coordinates and not known.closed)
        ]
        noted = {part.request_id: traces.noted(record) for part, record in parts if isinstance(part, IngestedTrack)}
        self._requests.add([parts[position] for position in open_positions], noted)
        fault_point(PARTS_NOTED)
        last = {parts[position][0].request_id: position for position in open_positions}
        outcomes: list[Outcome[Answer]] = [Outcome()] * len(parts)
        for request_id, state in self._requests.states(list(last)).items():
            position = last[request_id]
            with traces.current(parts[position][1]):
                outcomes[position] = self._answers(request_id, self._informed(state), parts[position][1])
        return outcomes

    def _informed(self, state: RequestState) -> RequestState:
        """``state`` with the answer of the request it follows, where that has one."""
        track = state.track
        if track is None or track.follows is None:
            return state
        answer = self._coalescing.answer_of(track.follows)
        return state if answer is None else state.with_answer(answer)

    def _answers(self, request_id: str, state: RequestState, record: Record) -> Outcome[Answer]:
        """The result of a request, if ``record`` is the one to answer it, and those of its followers; nothing if it
        is not complete."""
        track = state.track
        if track is None or not state.complete or not self._requests.answer(request_id, record):
            return Outcome()
        fault_point(ANSWER_CLAIMED)
        traces.answers(record, request_id, state.trace)
        result = self._result(track, state)
        clean_up = partial(self._clean_up, request_id, record.coordinates)
        outcomes: list[Outcome[Answer]] = [
            Outcome((as_requested(result, track),), (partial(_measure, result), clean_up))
        ]
        followers = self._coalescing.end(request_id, result)
        for follower, own in self._requests.states(followers).items():
            # One whose track is still on its way finds the answer when it comes.
            if own.track is not None and own.track.follows == request_id:
                outcomes.append(self._answers(follower, own.with_answer(result), record))
        return Outcome(
            tuple(message for outcome in outcomes for message in outcome.messages),
            tuple(clean_up for outcome in outcomes for clean_up in outcome.after_commit),
        )

    def _result(self, track: IngestedTrack, state: RequestState) -> TrackResult:
        predictions = self._requests.predictions(track)
        result = answer(track, state, predictions, self._strategy(track), self._calibrations)
        if track.received_at_ms:
            waited = max(0.0, time.time() * 1000 - track.received_at_ms)
            result = result.model_copy(update={"timings_ms": {**result.timings_ms, "total": round(waited, 1)}})
        self._cache(track, result)
        fault_point(ANSWER_KEPT)
        log.info(
            "answered",
            extra={"request_id": track.request_id, "track_key": track.track_key, "status": result.status.value},
        )
        return result

    def _clean_up(self, request_id: str, coordinates: str) -> None:
        """The answer by the record at ``coordinates`` is committed: close the request, and forget its parts."""
        # Closed first: a worker that lost its partitions may still be about to write, and must find that. What marks
        # the request as waiting goes last, so that a worker that dies in here leaves it to be tidied up.
        if not self._requests.close(request_id, coordinates):
            return  # replayed since, or expired
        self._audio.release(request_id)
        self._requests.forget(request_id, coordinates)

    def _cache(self, track: IngestedTrack, result: TrackResult) -> None:
        """Cache what would come out the same again: whole answers, and failures that follow from the audio alone."""
        if track.audio is None or result.cached:
            return
        whole = result.status is Status.OK
        if not whole and not all(error.code in PERMANENT_FOR_AUDIO for error in result.errors):
            return
        answer_key = self._answer_key_of(track)
        if answer_key.answer_version != ANSWER_VERSION or known_strategy(answer_key.vote) is None:
            return  # another version announced the track: its answer would come out different there
        if result.genre is not None and result.genre.model != answer_key.genre_model:
            return  # made by another answer key than the announced one: a worker could not know it
        if result.mood is not None and result.mood.model != answer_key.mood_model:
            return
        from_spotify = result.mood is not None and result.mood.source == "spotify"
        mood_from = f"spotify:{track.spotify_id}" if from_spotify else "audio"
        self._results.keep(result_key(answer_key, track.audio.sha256, mood_from), result)

    def _answer_key_of(self, track: IngestedTrack) -> AnswerKey:
        """The announced answer key, or this installation's if an old version announced the track without one."""
        return track.answer_key or self._answer_key

    def _strategy(self, track: IngestedTrack) -> VoteStrategy:
        """The announced vote. If this version does not know it, this installation's own stands in."""
        return known_strategy(self._answer_key_of(track).vote) or cast(VoteStrategy, self._answer_key.vote)


def _measure(result: TrackResult) -> None:
    """Count a result that is published. What was measured of it before is not counted again."""
    cached = str(result.cached).lower()
    metrics.RESULTS.labels(result.status.value, cached).inc()
    for error in result.errors:
        metrics.RESULT_ERRORS.labels(error.code.value).inc()
    if (waited_ms := result.timings_ms.get("total")) is not None:
        metrics.REQUEST_SECONDS.labels(result.status.value, cached).observe(waited_ms / 1000)
    if result.cached:
        return
    if result.genre is not None:
        metrics.GENRE_CONFIDENCE.labels(result.genre.label).observe(result.genre.confidence)
        if result.genre.fit is not None:
            metrics.GENRE_FIT.labels(result.genre.label).observe(result.genre.fit.probability)
    if result.mood is not None:
        metrics.MOOD_CONFIDENCE.labels(result.mood.label).observe(result.mood.confidence)
