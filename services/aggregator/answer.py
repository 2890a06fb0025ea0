"""From the parts of a request to its answer. Pure: the same parts give the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from services.aggregator.vote import vote
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    Calibration,
    Dynamics,
    ErrorReport,
    Genre,
    GenreAlternative,
    IngestedAudio,
    IngestedTrack,
    Mood,
    MoodSegment,
    SegmentGenre,
    SegmentPrediction,
    Silence,
    Stage,
    Status,
    Track,
    TrackAudioFeatures,
    TrackResult,
)
from shared.settings import VoteStrategy
from shared.state.requests import RequestState

_DECIMALS: Final = 6
_ALTERNATIVES: Final = 2
#: What the timings of a result can hold.
_LONGEST_MS: Final = 1e15
_MOST_STAGES: Final = 16
#: Between the models' IDs, where segments of one track were answered by several.
_SEVERAL: Final = " + "


#: Calibrations by model ID, of the models installed here: they serve where the answers bring none of their own.
Calibrations = Mapping[str, Calibration]
_NONE: Final = Calibration()


def answer(
    track: IngestedTrack,
    state: RequestState,
    predictions: Sequence[SegmentPrediction],
    strategy: VoteStrategy,
    calibrations: Calibrations,
) -> TrackResult:
    """The one result of the request ``track`` announces; its halves are null where ``errors`` says why."""
    if track.cached is not None:
        return _as_asked(track.cached, track)
    genre, genre_error = _genre(state, predictions, strategy, calibrations)
    mood, mood_error = _mood(state, calibrations)
    errors = tuple(dict.fromkeys(error for error in (genre_error, mood_error) if error is not None))
    return TrackResult(
        request_id=track.request_id,
        status=_status(genre, mood),
        track=_track(track),
        genre=genre,
        mood=mood,
        audio_features=_audio_features(mood),
        key=None if state.mood is None else state.mood.key,
        content=None if state.mood is None else state.mood.content,
        embedding=None if state.mood is None else state.mood.embedding,
        tags=() if state.mood is None else state.mood.tags,
        errors=errors,
        timings_ms=_timings(track, state, predictions),
    )


def _as_asked(cached: TrackResult, track: IngestedTrack) -> TrackResult:
    """A finished answer in the words of the present request: its ID, its names for the track."""
    names = _track(track)
    return cached.model_copy(
        update={
            "request_id": track.request_id,
            "cached": True,
            # An older version may have computed it, without this field.
            "audio_features": cached.audio_features or _audio_features(cached.mood),
            "track": cached.track.model_copy(
                update={
                    "key": names.key,
                    "source": names.source,
                    "title": names.title or cached.track.title,
                    "artist": names.artist or cached.track.artist,
                    "silences": cached.track.silences if names.silences is None else names.silences,
                }
            ),
            "timings_ms": track.timings_ms,
        }
    )


def _track(track: IngestedTrack) -> Track:
    return Track(
        key=track.track_key,
        source=track.source,
        title=track.title,
        artist=track.artist,
        duration_s=None if track.audio is None else track.audio.duration_s,
        silences=_silences(track.audio),
    )


def _silences(audio: IngestedAudio | None) -> tuple[Silence, ...] | None:
    if audio is None or audio.silences is None:
        return None
    return tuple(Silence(start_s=start_s, end_s=end_s) for start_s, end_s in audio.silences)


def _status(genre: Genre | None, mood: Mood | None) -> Status:
    return (Status.FAILED, Status.PARTIAL, Status.OK)[(genre is not None) + (mood is not None)]


def _genre(
    state: RequestState,
    predictions: Sequence[SegmentPrediction],
    strategy: VoteStrategy,
    calibrations: Calibrations,
) -> tuple[Genre | None, ErrorReport | None]:
    track = state.track
    if (alone := _left_alone(state)) is not None:
        return None, alone
    if state.failure is not None:
        return None, state.failure.error
    if track is None or track.audio is None:
        return None, (track and track.error) or _internal("the request has neither audio nor a reason why not")
    if not state.genre_ended:
        waited = 0.0 if state.overdue is None else state.overdue.waited_s
        return None, _internal(
            f"after {waited:.0f} s {state.segments} of {track.audio.segments} segments had a genre;"
            " is every service running?"
        )
    if not predictions:
        return None, _internal("no segment of the track has a genre")
    segments = np.array([[prediction.probabilities[label] for label in GENRES] for prediction in predictions])
    segments = segments / segments.sum(axis=1, keepdims=True)
    starts_s = np.array([prediction.start_s for prediction in predictions])
    model = _SEVERAL.join(sorted({prediction.model for prediction in predictions}))
    calibration = _calibration(model, predictions[0].calibration, calibrations)
    elected = vote(segments, starts_s, strategy, calibration.track_temperature)
    confidence = _rounded(elected.probabilities[elected.winner])
    others = [place for place in np.argsort(-elected.probabilities, kind="stable") if place != elected.winner]
    genre = Genre(
        label=GENRES[elected.winner],
        confidence=confidence,
        uncertain=calibration.uncertain(confidence),
        alternatives=tuple(
            GenreAlternative(label=GENRES[place], confidence=_rounded(elected.probabilities[place]))
            for place in others[:_ALTERNATIVES]
        ),
        fit=None if state.mood is None else state.mood.fit,
        agreement=_rounded(elected.agreement),
        probabilities={label: _rounded(p) for label, p in zip(GENRES, elected.probabilities, strict=True)},
        segments=tuple(_segment(prediction) for prediction in predictions),
        model=model,
    )
    return genre, None


def _segment(prediction: SegmentPrediction) -> SegmentGenre:
    first, second = sorted(GENRES, key=lambda genre: -prediction.probabilities[genre])[:2]
    return SegmentGenre(
        start_s=prediction.start_s,
        end_s=prediction.end_s,
        label=first,
        confidence=prediction.probabilities[first],
        runner_up=GenreAlternative(label=second, confidence=prediction.probabilities[second]),
    )


def _mood(state: RequestState, calibrations: Calibrations) -> tuple[Mood | None, ErrorReport | None]:
    mood = state.mood
    if (alone := _left_alone(state)) is not None:
        return None, alone
    if mood is None:
        waited = 0.0 if state.overdue is None else state.overdue.waited_s
        return None, _internal(f"after {waited:.0f} s there was no mood; is the mood worker running?")
    if mood.probabilities is None or mood.features is None or mood.source is None or mood.model is None:
        return None, mood.error
    label = max(mood.probabilities, key=lambda name: mood.probabilities[name])  # type: ignore[index]
    return (
        Mood(
            label=label,
            confidence=mood.probabilities[label],
            uncertain=_calibration(mood.model, mood.calibration, calibrations).uncertain(mood.probabilities[label]),
            probabilities=mood.probabilities,
            features=mood.features,
            source=mood.source,
            segments=mood.segments,
            dynamics=_dynamics(mood.segments),
            model=mood.model,
        ),
        mood.error,
    )


def _dynamics(segments: Sequence[MoodSegment]) -> Dynamics | None:
    if not segments:
        return None
    energy, valence = ([getattr(segment, name) for segment in segments] for name in ("energy", "valence"))
    return Dynamics(energy=_rounded(float(np.std(energy))), valence=_rounded(float(np.std(valence))))


def as_requested(result: TrackResult, track: IngestedTrack) -> TrackResult:
    """``result`` without what the request of ``track`` did not ask for."""
    return result if track.embedding else result.model_copy(update={"embedding": None})


def _audio_features(mood: Mood | None) -> TrackAudioFeatures | None:
    return None if mood is None else TrackAudioFeatures(source=mood.source, **mood.features)


def _calibration(model: str, brought: Calibration | None, installed: Calibrations) -> Calibration:
    """The calibration of ``model``: as its answers brought it, else as installed here. None for several models."""
    return _NONE if _SEVERAL in model else brought or installed.get(model, _NONE)


def _left_alone(state: RequestState) -> ErrorReport | None:
    """Why there is no answer: the request that this one follows had none in time."""
    if state.track is None or state.track.follows is None:
        return None
    waited = 0.0 if state.overdue is None else state.overdue.waited_s
    return _internal(f"after {waited:.0f} s the request {state.track.follows} for the same track had no answer")


def _timings(track: IngestedTrack, state: RequestState, predictions: Sequence[SegmentPrediction]) -> dict[str, float]:
    """Milliseconds of work by stage, those of the segments added up. However odd the parts, a result can carry them."""
    timings = dict(track.timings_ms)
    for part in (*predictions, *((state.mood,) if state.mood is not None else ())):
        for stage, elapsed in part.timings_ms.items():
            timings[stage] = timings.get(stage, 0.0) + elapsed
    return {stage: round(min(elapsed, _LONGEST_MS), 1) for stage, elapsed in list(timings.items())[:_MOST_STAGES]}


def _internal(message: str) -> ErrorReport:
    return ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.AGGREGATOR, message=message)


def _rounded(value: float) -> float:
    return round(min(1.0, max(0.0, float(value))), _DECIMALS)
