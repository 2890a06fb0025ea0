"""The genre worker: one forward pass over every segment a poll brought, whatever tracks they belong to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.labels import GENRES
from shared.contracts.messages import ErrorReport, GenreFailure, SegmentFeatures, SegmentPrediction, Stage
from shared.contracts.topics import Channel
from shared.runtime.service import Delivery, Origin, Outcome, Service, Verdict
from shared.settings import Settings
from shared.threads import worker_threads

if TYPE_CHECKING:
    from shared.keras_models import GenreModel


class GenreWorker(Service):
    """Features in, probabilities out. Features of another spec than the model's are refused, never guessed at."""

    stage = Stage.GENRE_WORKER
    inputs: ClassVar[tuple[Channel, ...]] = (Channel.FEATURES,)
    batch_records = 256

    def __init__(self, model: GenreModel) -> None:
        self._model = model
        self._spec = model.manifest.require_feature_spec()
        self._shape = (self._spec.frames, self._spec.coefficients)

    @classmethod
    def build(cls, settings: Settings) -> Self:
        from shared.keras_models import GenreModel  # TensorFlow takes seconds to import

        return cls(GenreModel.load(settings.models_dir / settings.genre_model, threads=worker_threads(settings)))

    def start(self) -> None:
        self._model.warm_up()

    def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Verdict]:
        refusals = [self._refusal(delivery) for delivery in deliveries]
        accepted = [
            delivery.message
            for delivery, refusal in zip(deliveries, refusals, strict=True)
            if refusal is None and isinstance(delivery.message, SegmentFeatures)
        ]
        predictions = iter(self._predict(accepted))
        return [refusal if refusal is not None else Outcome((next(predictions),)) for refusal in refusals]

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome:
        report = ErrorReport.of(error, self.stage)
        return Outcome((GenreFailure(request_id=origin.request_id, track_key=origin.track_key, error=report),))

    def _refusal(self, delivery: Delivery) -> TonestreamError | None:
        features = delivery.message
        assert isinstance(features, SegmentFeatures)
        if features.feature_spec != self._spec.id:
            wrong = (
                f"features {features.feature_spec!r}; the model {self._model.manifest.model_id} takes {self._spec.id!r}"
            )
        elif features.matrix.shape != self._shape:
            wrong = f"a feature matrix of {features.matrix.shape}; {self._spec.id!r} has {self._shape}"
        else:
            return None
        return TonestreamError(ErrorCode.INTERNAL, f"{wrong}. Do all services use the same genre model?")

    def _predict(self, batch: Sequence[SegmentFeatures]) -> list[SegmentPrediction]:
        if not batch:
            return []
        started = time.perf_counter()
        probabilities = self._model.predict(np.stack([features.matrix for features in batch]))
        each_ms = (time.perf_counter() - started) * 1000 / len(batch)
        return [
            SegmentPrediction(
                request_id=features.request_id,
                track_key=features.track_key,
                index=features.index,
                start_s=features.start_s,
                end_s=features.end_s,
                probabilities={label: round(float(p), 6) for label, p in zip(GENRES, row, strict=True)},
                feature_spec=features.feature_spec,
                model=self._model.manifest.model_id,
                timings_ms={**features.timings_ms, self.stage.value: each_ms},
            )
            for features, row in zip(batch, probabilities, strict=True)
        ]
