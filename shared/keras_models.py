"""The networks at work: weights to calibrated probabilities. Importing this module imports TensorFlow (seconds)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shared.contracts.messages import MoodSource
from shared.models import ModelError, ModelManifest, load_manifest, weights_of

Array = npt.NDArray[np.float32]

#: Batches are padded to one of these sizes: few shapes to compile for, little to pad.
_BATCH_SIZES: Final = (16, 64, 256)


def limit_threads(threads: int) -> None:
    """Let TensorFlow use that many threads for one operation; only the first call of a process counts."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # already running with the threads of the first call


def softmax(logits: Array, temperature: float) -> Array:
    """Probabilities of ``logits`` [n, classes] divided by ``temperature``."""
    scaled = logits / np.float32(temperature)
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Array = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


class _Network:
    """A Keras model that gives logits, called with padded batches of fixed shapes."""

    def __init__(self, model: Any, input_shape: tuple[int, ...]) -> None:
        self._input_shape = input_shape
        self._call = tf.function(
            lambda batch: model(batch, training=False),
            input_signature=[tf.TensorSpec((None, *input_shape), tf.float32)],
        )

    def logits(self, inputs: Array) -> Array:
        """Logits [n, classes] for ``inputs`` [n, ...]; a row's do not depend on its neighbours."""
        rows = [self._batch(inputs[start : start + _BATCH_SIZES[-1]]) for start in range(0, len(inputs), _BATCH_SIZES[-1])]
        return np.concatenate(rows)

    def warm_up(self) -> None:
        for size in _BATCH_SIZES:
            self.logits(np.zeros((size, *self._input_shape), np.float32))

    def _batch(self, inputs: Array) -> Array:
        size = next(size for size in _BATCH_SIZES if size >= len(inputs))
        padded = np.zeros((size, *self._input_shape), np.float32)
        padded[: len(inputs)] = inputs
        logits: Array = self._call(tf.constant(padded)).numpy()[: len(inputs)]
        return logits


def _load(folder: Path, kind: str, labels: tuple[str, ...], threads: int) -> tuple[ModelManifest, Any]:
    manifest = load_manifest(folder)
    if manifest.kind != kind:
        raise ModelError(f"{folder} holds a {manifest.kind} model, a {kind} model is needed")
    if manifest.labels != labels:
        raise ModelError(f"{manifest.model_id} tells {manifest.labels} apart; this version needs {labels}")
    limit_threads(threads)
    try:
        return manifest, tf.keras.models.load_model(weights_of(folder, manifest), compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise ModelError(f"the weights of {manifest.model_id} cannot be loaded: {error}") from error


class GenreModel:
    """Segments' features to genre probabilities."""

    def __init__(self, manifest: ModelManifest, network: _Network) -> None:
        self.manifest = manifest
        self._network = network

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """The model in ``folder``, its weights checked against the manifest. Raises ModelError."""
        from shared.contracts.labels import GENRES

        manifest, model = _load(folder, "genre", GENRES, threads)
        spec = manifest.require_feature_spec()
        return cls(manifest, _Network(model, (spec.frames, spec.n_mfcc)))

    def warm_up(self) -> None:
        """Compile for every batch size, so that the first track waits no longer than the others."""
        self._network.warm_up()

    def predict(self, features: Array) -> Array:
        """Calibrated probabilities float32 [n, genres], in the manifest's order, of ``features`` [n, frames, coefficients].

        Raises ValueError for another shape.
        """
        spec = self.manifest.require_feature_spec()
        if features.ndim != 3 or features.shape[1:] != (spec.frames, spec.n_mfcc):
            raise ValueError(f"features [n, {spec.frames}, {spec.n_mfcc}] are needed, not {features.shape}")
        if len(features) == 0:
            return np.empty((0, len(self.manifest.labels)), np.float32)
        return softmax(self._network.logits(features), self.manifest.temperature)


class MoodModel:
    """The ten audio features to mood probabilities."""

    def __init__(self, manifest: ModelManifest, network: _Network) -> None:
        self.manifest = manifest
        self._network = network

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """The model in ``folder``, its weights checked against the manifest. Raises ModelError."""
        from shared.contracts.labels import MOODS

        manifest, model = _load(folder, "mood", MOODS, threads)
        return cls(manifest, _Network(model, (len(manifest.features),)))

    def warm_up(self) -> None:
        self._network.warm_up()

    def predict(self, features: Mapping[str, float], source: MoodSource) -> dict[str, float]:
        """Calibrated probability of each mood. ``features``: the ten, in Spotify's units; ``source``: who measured them.

        Raises ModelError where the model has no scaler for that source, KeyError where a feature is missing.
        """
        scaler = self.manifest.scalers.get(source)
        if scaler is None:
            raise ModelError(f"{self.manifest.model_id} was not fitted to features from {source}")
        values = np.array([features[name] for name in self.manifest.features], np.float64)
        standardised = ((values - scaler.mean) / scaler.scale).astype(np.float32)
        # Beyond four standard deviations the network has seen nothing: it shall not extrapolate.
        row = softmax(self._network.logits(np.clip(standardised, -4.0, 4.0)[None]), self.manifest.temperature)[0]
        return {label: float(p) for label, p in zip(self.manifest.labels, row, strict=True)}
