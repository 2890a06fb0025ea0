"""Feature extraction: the decoded track, segment by segment, as the features its genre model was trained on."""

from __future__ import annotations

import time
from typing import Self

import numpy as np

from services.topology import FEATURE_EXTRACTION
from shared.audio.segment_features.extraction import segment_features
from shared.audio.segments import is_silent
from shared.audio.spec import FeatureSpec
from shared.audio.wav import iter_segments
from shared.blobs.store import BlobStore
from shared.contracts.errors import ErrorCode, HeldError, TonestreamError
from shared.contracts.messages import (
    ErrorReport,
    GenreFailure,
    IngestedTrack,
    SegmentFeatures,
    SilentSegment,
)
from shared.models.catalogue import Catalogue, held_by
from shared.runtime import metrics
from shared.runtime.service import Delivery, Origin, Outcome, TrackByTrackService
from shared.settings import Settings
from shared.system.threads import worker_threads

FeatureMessage = SegmentFeatures | SilentSegment | GenreFailure

#: Segments computed together: enough to fill the vector units, few enough to bound the memory (some 40 MB).
_BATCH_SEGMENTS = 32


class FeatureExtraction(TrackByTrackService[IngestedTrack, FeatureMessage]):
    """One message a segment. Silent segments have no vote; a track that is silent or too short has no genre."""

    stage = FEATURE_EXTRACTION.stage
    inputs = FEATURE_EXTRACTION.reads
    batch_records = 8

    def __init__(self, blobs: BlobStore, catalogue: Catalogue, own_spec: FeatureSpec, threads: int) -> None:
        super().__init__(threads)
        self._blobs = blobs
        self._catalogue = catalogue
        self._own_spec = own_spec

    @classmethod
    def build(cls, settings: Settings) -> Self:
        catalogue = Catalogue.of(settings)
        spec = catalogue.configured("genre", settings.genre_model).manifest.require_feature_spec()
        return cls(BlobStore.of(settings), catalogue, spec, worker_threads(settings))

    def start(self) -> None:
        segment_features(np.zeros((1, self._own_spec.segment_samples), np.float32), self._own_spec)

    def held(self, message: IngestedTrack) -> HeldError | None:
        """The spec of a track's features, where no model that is installed here takes them."""
        return None if _nothing_to_do(message) else held_by(lambda: self._spec(message))

    def away(self) -> str | None:
        return self._blobs.away()

    def handle_one(self, delivery: Delivery[IngestedTrack]) -> Outcome[FeatureMessage]:
        track = delivery.message
        if track.audio is None or _nothing_to_do(track):
            return Outcome()
        spec = self._spec(track)
        if track.audio.segments == 0:
            raise TonestreamError(
                ErrorCode.TOO_SHORT,
                f"{track.audio.duration_s:.2f} s of audio; a genre takes at least {spec.segment_s:g} s",
            )
        messages = self._segments(track, spec)
        silent = sum(isinstance(message, SilentSegment) for message in messages)
        metrics.SEGMENTS.labels("silent").inc(silent)
        metrics.SEGMENTS.labels("features").inc(len(messages) - silent)
        if all(isinstance(message, SilentSegment) for message in messages):
            raise TonestreamError(ErrorCode.SILENT_AUDIO, "the track is silent from beginning to end")
        return Outcome(tuple(messages))

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[FeatureMessage]:
        report = ErrorReport.of(error, self.stage)
        return Outcome((GenreFailure(request_id=origin.request_id, track_key=origin.track_key, error=report),))

    def _spec(self, track: IngestedTrack) -> FeatureSpec:
        """What the features of ``track`` are to be. Raises HeldError, TonestreamError."""
        if track.answer_key is None or track.answer_key.feature_spec == self._own_spec.id:
            return self._own_spec
        return self._catalogue.require_spec(track.answer_key)

    def _segments(self, track: IngestedTrack, spec: FeatureSpec) -> list[FeatureMessage]:
        assert track.audio is not None
        messages: list[FeatureMessage] = []
        with self._blobs.open(track.audio.blob) as wav:
            # Long tracks are sampled. The positions depend only on how many segments were announced, except where
            # silence is skipped: then the track names them.
            chosen = track.audio.chosen
            for positions, samples in iter_segments(wav, spec, _BATCH_SEGMENTS, track.audio.segments, chosen):
                started = time.perf_counter()
                matrices = segment_features(samples, spec, track.audio.level_dbfs)
                each_ms = (time.perf_counter() - started) * 1000 / len(samples)
                for position, segment, matrix in zip(positions, samples, matrices, strict=True):
                    silent = is_silent(segment, track.audio.level_dbfs)
                    messages.append(self._message(track, spec, len(messages), position, silent, matrix, each_ms))
        if len(messages) != track.audio.segments:
            raise TonestreamError(
                ErrorCode.INTERNAL,
                f"{track.audio.segments} segments were announced and {len(messages)} found in {track.audio.blob};"
                " do all services use the same genre model?",
            )
        return messages

    def _message(
        self,
        track: IngestedTrack,
        spec: FeatureSpec,
        index: int,
        position: int,
        silent: bool,
        matrix: np.ndarray,
        elapsed_ms: float,
    ) -> FeatureMessage:
        if silent:
            return SilentSegment(request_id=track.request_id, track_key=track.track_key, index=index)
        return SegmentFeatures(
            request_id=track.request_id,
            track_key=track.track_key,
            index=index,
            start_s=position * spec.segment_s,
            end_s=(position + 1) * spec.segment_s,
            feature_spec=spec.id,
            model=None if track.answer_key is None else track.answer_key.genre_model,
            matrix=matrix,
            timings_ms={self.stage.value: elapsed_ms},
        )


def _nothing_to_do(track: IngestedTrack) -> bool:
    return track.audio is None or track.answered_elsewhere
