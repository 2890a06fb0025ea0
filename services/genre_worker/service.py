"""The genre worker: one forward pass over every segment a poll brought for a model, whatever tracks they belong to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from services.topology import GENRE_WORKER
from shared.contracts.errors import ErrorCode, HeldError, TonestreamError
from shared.contracts.labels import GENRES
from shared.contracts.messages import ErrorReport, GenreFailure, SegmentFeatures, SegmentPrediction
from shared.models.catalogue import Catalogue, held_by
from shared.models.loaded import LoadedModels
from shared.runtime import metrics
from shared.runtime.model_info import announcing
from shared.runtime.service import Delivery, Handled, Origin, Outcome, Service
from shared.settings import Settings
from shared.system.threads import worker_threads

if TYPE_CHECKING:
    from shared.models.networks import GenreModel


SegmentAnswer = SegmentPrediction | GenreFailure


class GenreWorker(Service[SegmentFeatures, SegmentAnswer]):
    """Features in, probabilities out, by the model that each message names. Features of another spec than that
    model's are refused, never guessed at."""

    stage = GENRE_WORKER.stage
    inputs = GENRE_WORKER.reads
    batch_records = 256

    def __init__(self, catalogue: Catalogue, models: LoadedModels[GenreModel]) -> None:
        self._catalogue = catalogue
        self._models = models

    @classmethod
    def build(cls, settings: Settings) -> Self:
        from shared.models.networks import GenreModel

        catalogue = Catalogue.of(settings)
        load = partial(GenreModel.load, threads=worker_threads(settings), engine=settings.engine)
        announced = announcing(load, cls.stage, "genre")
        return cls(catalogue, LoadedModels(catalogue, "genre", announced, settings.genre_model))

    def start(self) -> None:
        self._models.own.warm_up()

    def held(self, message: SegmentFeatures) -> HeldError | None:
        """The model that a segment is meant for, if it is not installed here."""
        return held_by(lambda: self._model_id(message))

    def handle(self, deliveries: Sequence[Delivery[SegmentFeatures]]) -> Sequence[Handled[SegmentAnswer]]:
        handled: dict[int, Handled[SegmentAnswer]] = {}
        positions_of: dict[str, list[int]] = {}
        for position, delivery in enumerate(deliveries):
            try:
                positions_of.setdefault(self._model_id(delivery.message), []).append(position)
            except TonestreamError as error:
                handled[position] = error
        for model_id, positions in positions_of.items():
            predicted = self._by_model(model_id, [deliveries[position].message for position in positions])
            handled.update(zip(positions, predicted, strict=True))
        return [handled[position] for position in range(len(deliveries))]

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[SegmentAnswer]:
        report = ErrorReport.of(error, self.stage)
        return Outcome((GenreFailure(request_id=origin.request_id, track_key=origin.track_key, error=report),))

    def _model_id(self, features: SegmentFeatures) -> str:
        """The model to ask. Raises HeldError, TonestreamError if it is not installed.

        Features of a version that named none go to this installation's model, if it takes them, else to one that does.
        """
        own = self._models.own.manifest
        if features.model == own.model_id:
            return own.model_id
        if features.model is not None:
            return self._catalogue.require("genre", features.model).manifest.model_id
        if features.feature_spec == own.require_feature_spec().id:
            return own.model_id
        taker = self._catalogue.genre_model_for(features.feature_spec)
        if taker is None:
            raise _refused(f"features {features.feature_spec!r}, which no model takes that is installed here")
        return taker.manifest.model_id

    def _by_model(self, model_id: str, batch: Sequence[SegmentFeatures]) -> list[Handled[SegmentAnswer]]:
        try:
            model = self._models.get(model_id)
        except TonestreamError as error:
            return [error] * len(batch)
        refusals = [_refusal(features, model) for features in batch]
        accepted = [features for features, refusal in zip(batch, refusals, strict=True) if refusal is None]
        predictions = iter(self._predict(model, accepted))
        return [refusal if refusal is not None else Outcome((next(predictions),)) for refusal in refusals]

    def _predict(self, model: GenreModel, batch: Sequence[SegmentFeatures]) -> list[SegmentPrediction]:
        if not batch:
            return []
        started = time.perf_counter()
        probabilities = model.predict(np.stack([features.matrix for features in batch]))
        elapsed_s = time.perf_counter() - started
        each_ms = elapsed_s * 1000 / len(batch)
        metrics.PREDICT_SECONDS.labels(model.manifest.name).observe(elapsed_s)
        metrics.HEARD_SECONDS.labels(model.manifest.name).inc(sum(one.end_s - one.start_s for one in batch))
        return [
            SegmentPrediction(
                request_id=features.request_id,
                track_key=features.track_key,
                index=features.index,
                start_s=features.start_s,
                end_s=features.end_s,
                probabilities={label: round(float(p), 6) for label, p in zip(GENRES, row, strict=True)},
                feature_spec=features.feature_spec,
                model=model.manifest.model_id,
                calibration=model.manifest.calibration,
                timings_ms={**features.timings_ms, self.stage.value: each_ms},
            )
            for features, row in zip(batch, probabilities, strict=True)
        ]


def _refusal(features: SegmentFeatures, model: GenreModel) -> TonestreamError | None:
    spec = model.manifest.require_feature_spec()
    shape = (spec.frames, spec.coefficients)
    if features.feature_spec != spec.id:
        wrong = f"features {features.feature_spec!r}; the model {model.manifest.model_id} takes {spec.id!r}"
    elif features.matrix.shape != shape:
        wrong = f"a feature matrix of {features.matrix.shape}; {spec.id!r} has {shape}"
    else:
        return None
    return _refused(wrong)


def _refused(what: str) -> TonestreamError:
    return TonestreamError(ErrorCode.INTERNAL, f"the genre worker got {what}. Are the services of different versions?")
