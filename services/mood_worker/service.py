"""The mood worker: from ten audio features, Spotify's or measured from the audio, to one mood.

The measured features need music tags, which the tag model hears in a few segments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from services.topology import MOOD_WORKER
from shared.audio.segments import Stretch
from shared.audio.track_features.key import Key
from shared.audio.track_features.measures import measure_segment, measure_wav
from shared.blobs.store import BlobStore
from shared.contracts.audio_features import AUDIO_FEATURES, AudioFeatures
from shared.contracts.errors import ErrorCode, HeldError, TonestreamError, TransientError
from shared.contracts.messages import (
    MOST_TAGS,
    Content,
    ErrorReport,
    GenreFit,
    IngestedTrack,
    MoodPrediction,
    MoodSegment,
    MoodSource,
    MusicalKey,
    Tag,
)
from shared.models.catalogue import Catalogue, held_by
from shared.models.heard_track import HeardTrack, hear_track
from shared.models.loaded import LoadedModels
from shared.runtime import metrics
from shared.runtime.model_info import announcing
from shared.runtime.service import Delivery, Origin, Outcome, TrackByTrackService
from shared.settings import Settings
from shared.spotify.connect import spotify_client
from shared.system.threads import worker_threads

if TYPE_CHECKING:
    from shared.models.networks import MoodModel, TagModel
    from shared.spotify.client import SpotifyClient

log = logging.getLogger(__name__)


class MoodWorker(TrackByTrackService[IngestedTrack, MoodPrediction]):
    """Always says where the features came from. Spotify being closed or down is no fault where there is audio."""

    stage = MOOD_WORKER.stage
    inputs = MOOD_WORKER.reads
    batch_records = 8

    def __init__(
        self,
        blobs: BlobStore,
        catalogue: Catalogue,
        models: LoadedModels[MoodModel],
        taggers: LoadedModels[TagModel],
        spotify: SpotifyClient | None,
        threads: int,
    ) -> None:
        super().__init__(threads)
        self._blobs = blobs
        self._catalogue = catalogue
        self._models = models
        self._taggers = taggers
        self._spotify = spotify

    @classmethod
    def build(cls, settings: Settings) -> Self:
        from shared.models.networks import MoodModel, TagModel

        threads = worker_threads(settings)
        catalogue = Catalogue.of(settings)
        load_mood = announcing(partial(MoodModel.load, threads=threads, engine=settings.engine), cls.stage, "mood")
        load_tags = announcing(partial(TagModel.load, threads=threads, engine=settings.engine), cls.stage, "tags")
        models = LoadedModels(catalogue, "mood", load_mood, settings.mood_model)
        taggers = LoadedModels(catalogue, "tags", load_tags, settings.tag_model)
        return cls(BlobStore.of(settings), catalogue, models, taggers, spotify_client(settings), threads)

    def start(self) -> None:
        self._models.own.warm_up()
        self._taggers.own.warm_up()

    def held(self, message: IngestedTrack) -> HeldError | None:
        """The mood model or the tag model of a track, if it is not installed here."""
        answer_key = message.answer_key
        if answer_key is None or message.answered_elsewhere:
            return None
        if message.audio is None and (message.spotify_id is None or self._spotify is None):
            return None
        return held_by(lambda: self._catalogue.require("mood", answer_key.mood_model)) or (
            None if message.audio is None else held_by(lambda: self._catalogue.require("tags", answer_key.tag_model))
        )

    def away(self) -> str | None:
        return self._blobs.away()

    def handle_one(self, delivery: Delivery[IngestedTrack]) -> Outcome[MoodPrediction]:
        track = delivery.message
        if track.answered_elsewhere:
            return Outcome()
        started = time.perf_counter()
        heard = self._features(track)
        features = heard.features.as_dict()
        model = self._models.own if track.answer_key is None else self._models.get(track.answer_key.mood_model)
        probabilities = model.predict(heard.judged.as_dict(), heard.source)
        metrics.MOODS_FOUND.labels(heard.source).inc()
        return Outcome(
            (
                MoodPrediction(
                    request_id=track.request_id,
                    track_key=track.track_key,
                    probabilities={label: round(p, 6) for label, p in probabilities.items()},
                    features={name: round(features[name], 6) for name in AUDIO_FEATURES},
                    source=heard.source,
                    model=model.manifest.model_id,
                    calibration=model.manifest.calibration,
                    tags=likeliest(heard.track.tags),
                    key=musical_key(heard.key),
                    content=content_of(heard.track),
                    fit=fit_of(heard.track, heard.unfit_below),
                    segments=self._segments(heard, model),
                    embedding=embedding_of(heard.track),
                    timings_ms={self.stage.value: (time.perf_counter() - started) * 1000},
                ),
            )
        )

    def _segments(self, heard: _Heard, model: MoodModel) -> tuple[MoodSegment, ...]:
        """The mood of each segment that the tag model heard."""
        segments = []
        measured = [
            measure_segment(part.samples, part.tags, heard.level_dbfs, heard.features.duration_ms)
            for part in heard.track.segments
        ]
        moods = model.predict_all([features.as_dict() for features in measured], "audio")
        for part, features, probabilities in zip(heard.track.segments, measured, moods, strict=True):
            label = max(probabilities, key=lambda name: probabilities[name])
            segments.append(
                MoodSegment(
                    start_s=part.start_s,
                    end_s=part.end_s,
                    energy=round(features.energy, 4),
                    valence=round(features.valence, 4),
                    label=label,
                    confidence=round(probabilities[label], 4),
                )
            )
        return tuple(segments)

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[MoodPrediction]:
        report = error.report if isinstance(error, AlreadyReportedError) else ErrorReport.of(error, self.stage)
        return Outcome((MoodPrediction(request_id=origin.request_id, track_key=origin.track_key, error=report),))

    def _features(self, track: IngestedTrack) -> _Heard:
        given = self._from_spotify(track)
        try:
            heard = self._from_audio(track)
        except TonestreamError as error:
            if given is None or isinstance(error, TransientError):
                raise
            return _Heard(given, given, "spotify", HeardTrack())
        # Spotify's features make the better mood; everything else is heard all the same.
        return heard if given is None else replace(heard, features=given, judged=given, source="spotify")

    def _from_spotify(self, track: IngestedTrack) -> AudioFeatures | None:
        """Spotify's features; None if it has none, or none for us. Raises TonestreamError if nothing else is left."""
        if track.spotify_id is None or self._spotify is None:
            return None
        try:
            return self._spotify.audio_features(track.spotify_id)
        except TonestreamError as error:
            if track.audio is None:
                raise
            log.info("measuring the audio instead: %s", error.message)
            return None

    def _from_audio(self, track: IngestedTrack) -> _Heard:
        if track.audio is None:
            raise self._no_audio(track)
        if track.audio.segments == 0:
            raise TonestreamError(
                ErrorCode.TOO_SHORT, f"{track.audio.duration_s:.2f} s of audio are too short for a mood"
            )
        tagger = self._taggers.own if track.answer_key is None else self._taggers.get(track.answer_key.tag_model)
        level_dbfs = track.audio.level_dbfs
        sounding = tuple(Stretch(start_s, end_s) for start_s, end_s in track.audio.sounding)
        with self._blobs.open(track.audio.blob) as wav:
            heard = hear_track(wav, tagger, sounding=sounding, track_level_dbfs=level_dbfs)
            if not heard.tags:
                raise TonestreamError(ErrorCode.SILENT_AUDIO, "the track is silent from beginning to end")
            wav.seek(0)
            measured = measure_wav(wav, heard.tags, sounding=sounding, track_level_dbfs=level_dbfs)
        return _Heard(
            measured.features,
            measured.levelled,
            "audio",
            heard,
            measured.key,
            tagger.manifest.unfit_below,
            level_dbfs,
        )

    @staticmethod
    def _no_audio(track: IngestedTrack) -> TonestreamError:
        if track.error is None:
            return TonestreamError(ErrorCode.NO_AUDIO, "there is no audio")
        return AlreadyReportedError(track.error)


@dataclass(frozen=True, slots=True)
class _Heard:
    """The ten ``features`` of the result, and those that the mood network ``judged``: if measured, at one level.

    ``track`` is what the tag model heard, empty if the audio was not heard; ``unfit_below`` is its threshold.
    ``level_dbfs`` is the level of the track, None if unknown.
    """

    features: AudioFeatures
    judged: AudioFeatures
    source: MoodSource
    track: HeardTrack
    key: Key | None = None
    unfit_below: float | None = None
    level_dbfs: float | None = None


def content_of(track: HeardTrack) -> Content | None:
    """The content for a result; None if the model does not tell it."""
    if track.content is None:
        return None
    probabilities = {name: round(p, 6) for name, p in track.content.items()}
    label = max(probabilities, key=lambda name: probabilities[name])
    return Content(label=label, confidence=probabilities[label], probabilities=probabilities)


def fit_of(track: HeardTrack, unfit_below: float | None) -> GenreFit | None:
    """The fit for a result; None if the model does not tell it."""
    if track.fit is None:
        return None
    probability = round(track.fit, 4)
    return GenreFit(probability=probability, outside=unfit_below is not None and probability < unfit_below)


def embedding_of(track: HeardTrack) -> tuple[float, ...] | None:
    """The embedding for a result."""
    return None if track.embedding is None else tuple(round(float(value), 3) for value in track.embedding)


def musical_key(key: Key | None) -> MusicalKey | None:
    """The key for a result."""
    fields = key and {"tonic": key.tonic, "mode": key.mode, "confidence": round(key.confidence, 4)}
    return MusicalKey.model_validate(fields) if fields else None


def likeliest(tags: Mapping[str, float]) -> tuple[Tag, ...]:
    """The tags for a result: the most probable ones, best first."""
    best = sorted(tags, key=lambda label: -tags[label])[:MOST_TAGS]
    return tuple(Tag(label=label, probability=round(tags[label], 4)) for label in best)


class AlreadyReportedError(TonestreamError):
    """An earlier stage said why there is nothing to work on; its report is passed on as it is."""

    def __init__(self, report: ErrorReport) -> None:
        super().__init__(report.code, report.message)
        self.report = report
