"""The mood worker: ten features, from Spotify where it may be asked, else measured from the audio, to one mood.

What is measured needs the tags of the audio, which a network of its own hears in a few segments.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, ClassVar, Self

from shared.audio.measures import SILENCE_DB, measure_wav
from shared.audio.track_tags import track_tags
from shared.blobs.store import BlobStore
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.features import AUDIO_FEATURES
from shared.contracts.messages import ErrorReport, IngestedTrack, MoodPrediction, MoodSource, Stage
from shared.contracts.topics import Channel
from shared.runtime.service import Delivery, Origin, Outcome, TrackByTrackService
from shared.settings import Settings
from shared.spotify import SpotifyClient, spotify_client
from shared.threads import worker_threads

if TYPE_CHECKING:
    from shared.keras_models import MoodModel, TagModel

log = logging.getLogger(__name__)


class MoodWorker(TrackByTrackService):
    """Always says where the features came from. Spotify being closed or down is no fault where there is audio."""

    stage = Stage.MOOD_WORKER
    inputs: ClassVar[tuple[Channel, ...]] = (Channel.TRACKS,)
    batch_records = 8

    def __init__(
        self, blobs: BlobStore, model: MoodModel, tagger: TagModel, spotify: SpotifyClient | None, threads: int
    ) -> None:
        super().__init__(threads)
        self._blobs = blobs
        self._model = model
        self._tagger = tagger
        self._spotify = spotify

    @classmethod
    def build(cls, settings: Settings) -> Self:
        from shared.keras_models import MoodModel, TagModel  # TensorFlow takes seconds to import

        threads = worker_threads(settings)
        model = MoodModel.load(settings.models_dir / settings.mood_model, threads=threads)
        tagger = TagModel.load(settings.models_dir / settings.tag_model, threads=threads)
        return cls(BlobStore(settings.blob_url), model, tagger, spotify_client(settings), threads)

    def start(self) -> None:
        self._model.warm_up()
        self._tagger.warm_up()

    def handle_one(self, delivery: Delivery) -> Outcome:
        track = delivery.message
        assert isinstance(track, IngestedTrack)
        if track.answered_elsewhere:
            return Outcome()
        started = time.perf_counter()
        features, source = self._features(track)
        probabilities = self._model.predict(features, source)
        return Outcome(
            (
                MoodPrediction(
                    request_id=track.request_id,
                    track_key=track.track_key,
                    probabilities={label: round(p, 6) for label, p in probabilities.items()},
                    features={name: round(features[name], 6) for name in AUDIO_FEATURES},
                    source=source,
                    model=self._model.manifest.model_id,
                    timings_ms={self.stage.value: (time.perf_counter() - started) * 1000},
                ),
            )
        )

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome:
        report = error.report if isinstance(error, AlreadyReportedError) else ErrorReport.of(error, self.stage)
        return Outcome((MoodPrediction(request_id=origin.request_id, track_key=origin.track_key, error=report),))

    def _features(self, track: IngestedTrack) -> tuple[dict[str, float], MoodSource]:
        if track.spotify_id is not None and self._spotify is not None:
            try:
                return self._spotify.audio_features(track.spotify_id).as_dict(), "spotify"
            except TonestreamError as error:
                if track.audio is None:
                    raise
                log.info("measuring the audio instead: %s", error.message)
        if track.audio is None:
            raise self._no_audio(track)
        if track.audio.segments == 0:
            raise TonestreamError(
                ErrorCode.TOO_SHORT, f"{track.audio.duration_s:.2f} s of audio are too short for a mood"
            )
        with self._blobs.open(track.audio.blob) as wav:
            tags = track_tags(wav, self._tagger)
            wav.seek(0)
            measured = measure_wav(wav, tags)
        if measured.loudness <= SILENCE_DB:
            raise TonestreamError(ErrorCode.SILENT_AUDIO, "the track is silent from beginning to end")
        return measured.as_dict(), "audio"

    @staticmethod
    def _no_audio(track: IngestedTrack) -> TonestreamError:
        if track.error is None:
            return TonestreamError(ErrorCode.NO_AUDIO, "there is no audio")
        return AlreadyReportedError(track.error)


class AlreadyReportedError(TonestreamError):
    """An earlier stage said why there is nothing to work on; its report is passed on as it is."""

    def __init__(self, report: ErrorReport) -> None:
        super().__init__(report.code, report.message)
        self.report = report
