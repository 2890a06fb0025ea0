"""The networks, in TensorFlow. Importing this module takes seconds, so only the workers that predict import it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.models.manifest import ModelError, ModelManifest, load_manifest
from shared.models.native_output import native_stderr_silenced

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences TensorFlow's start-up messages

with native_stderr_silenced():  # and those before it reads that setting
    import keras
    import tensorflow as tf

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]

#: Each batch is padded to one of these sizes, so that TensorFlow sees few shapes; a larger batch is split. Spectrograms
#: pass wide convolutions one by one: batches of sixteen are 7% faster and take 500 MB more.
_BATCH_SIZES: Final[Mapping[str, tuple[int, ...]]] = {"mfcc": (8, 32, 128), "log_mel": (1,)}


class GenreModel:
    """Features of segments to calibrated probabilities. Safe from many threads."""

    def __init__(self, manifest: ModelManifest, network: Any) -> None:
        spec = manifest.require_feature_spec()
        self.manifest = manifest
        self._shape = (spec.frames, spec.coefficients)
        self._batch_sizes = _BATCH_SIZES[spec.kind]
        genres = network if manifest.tags is None else _branch(network, "genres")
        self._probabilities = _compiled(genres, self._shape, manifest.temperature)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """The model in ``folder``, with TensorFlow held to ``threads`` threads. Raises ModelError."""
        manifest = load_manifest(folder)
        return cls(manifest, _network(folder, manifest, threads))

    def predict(self, features: Array) -> Array:
        """Probabilities float32 [n, labels], rows adding up to 1, of features float32 [n, frames, coefficients].

        The answer for a segment is independent of the others in the batch (to 1e-5). Raises ValueError for
        features of another shape than the model's spec gives.
        """
        if features.ndim != 3 or features.shape[1:] != self._shape:
            raise ValueError(f"features [n, {self._shape[0]}, {self._shape[1]}] are needed, not {features.shape}")
        answers = np.empty((len(features), len(self.manifest.labels)), np.float32)
        for start in range(0, len(features), self._batch_sizes[-1]):
            part = features[start : start + self._batch_sizes[-1]]
            size = next(size for size in self._batch_sizes if size >= len(part))
            padded = np.zeros((size, *self._shape), np.float32)
            padded[: len(part)] = part
            answers[start : start + len(part)] = self._probabilities(padded).numpy()[: len(part)]
        return answers

    def warm_up(self) -> None:
        """Trace and run once with every batch size, so that the first track is not slowed down."""
        for size in self._batch_sizes:
            self.predict(np.zeros((size, *self._shape), np.float32))


@dataclass(frozen=True, slots=True)
class HeardSegments:
    """What a tag model hears in n segments, float32.

    ``embedding`` [n, 200]; ``tags`` [n, labels], probabilities that stand alone: a row does not add up to 1. Not of
    every model: ``fit`` [n], log odds that the segment is of one of the ten genres, and ``content`` [n, 3],
    probabilities of CONTENTS.
    """

    embedding: Array
    tags: Array
    fit: Array | None = None
    content: Array | None = None


class TagModel:
    """Features of segments to an embedding and the probability of each tag. Safe from many threads.

    Any model with tags, so a genre model with two heads as well. Raises ModelError for another one.
    """

    def __init__(self, manifest: ModelManifest, network: Any) -> None:
        spec = manifest.require_feature_spec()
        self.manifest = manifest
        self._shape = (spec.frames, spec.coefficients)

        self.labels = manifest.tag_labels

        def heard(batch: Any) -> Any:
            outputs = network(batch, training=False)
            if manifest.kind == "tags":
                outputs = dict(zip(("embedding", "tags"), outputs, strict=True))
            found = {"embedding": outputs["embedding"], "tags": tf.sigmoid(outputs["tags"])}
            if "fit" in outputs:
                found["fit"] = outputs["fit"][:, 0]
            if "content" in outputs:
                found["content"] = tf.nn.softmax(outputs["content"])
            return found

        signature = [tf.TensorSpec((None, *self._shape), tf.float32)]
        self._heard = tf.function(heard, input_signature=signature)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """The model in ``folder``, with TensorFlow held to ``threads`` threads. Raises ModelError."""
        manifest = load_manifest(folder)
        _ = manifest.tag_labels  # raises before TensorFlow loads the network
        return cls(manifest, _network(folder, manifest, threads))

    def predict(self, features: Array) -> HeardSegments:
        """What is heard in segments, of their features float32 [n, frames, coefficients].

        Raises ValueError for features of another shape than the model's spec gives.
        """
        if features.ndim != 3 or features.shape[1:] != self._shape:
            raise ValueError(f"features [n, {self._shape[0]}, {self._shape[1]}] are needed, not {features.shape}")
        return HeardSegments(**{name: values.numpy() for name, values in self._heard(features).items()})

    def warm_up(self) -> None:
        """Trace and run once, so that the first track does not pay for it."""
        self.predict(np.zeros((1, *self._shape), np.float32))


class MoodModel:
    """The ten audio features of a track to calibrated probabilities. Safe from many threads."""

    def __init__(self, manifest: ModelManifest, network: Any) -> None:
        self.manifest = manifest
        self._scalers = manifest.require_scalers()
        self._probabilities = {
            source: _compiled(_branch(network, source), (len(AUDIO_FEATURES),), manifest.temperature_of(source))
            for source in self._scalers
        }

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """The model in ``folder``, with TensorFlow held to ``threads`` threads. Raises ModelError."""
        manifest = load_manifest(folder)
        return cls(manifest, _network(folder, manifest, threads))

    def predict(self, features: Mapping[str, float], source: Literal["spotify", "audio"]) -> dict[str, float]:
        """Probabilities by mood, adding up to 1, of the ten features in Spotify's units.

        ``source`` names their origin, because the scales differ. Raises ValueError if one is missing or not finite.
        """
        values = [features.get(name, np.nan) for name in AUDIO_FEATURES]
        if not np.isfinite(values).all():
            raise ValueError(f"a mood needs a finite number for each of {', '.join(AUDIO_FEATURES)}: {dict(features)}")
        row = self._scalers[source].standardise(values)
        probabilities = self._probabilities[source](row[None, :]).numpy()[0]
        return {label: float(p) for label, p in zip(self.manifest.labels, probabilities, strict=True)}

    def warm_up(self) -> None:
        """Trace and run once for each source, so that the first track does not pay for it."""
        for source in self._scalers:
            self.predict(dict.fromkeys(AUDIO_FEATURES, 0.0), source)


def _network(folder: Path, manifest: ModelManifest, threads: int) -> Any:
    _limit_threads(threads)
    try:
        return keras.saving.load_model(folder / manifest.weights, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ModelError(f"TensorFlow {tf.__version__} cannot load {folder / manifest.weights}: {error}") from error


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # TensorFlow is already running and keeps its number of threads.
        log.debug("TensorFlow keeps %d threads", tf.config.threading.get_intra_op_parallelism_threads())


def _branch(network: Any, output: str) -> Any:
    """The output called ``output`` of a network with several, with the interface of a network with one."""

    def branch(batch: Any, training: bool) -> Any:
        return network(batch, training=training)[output]

    return branch


def _compiled(network: Any, shape: tuple[int, ...], temperature: float) -> Any:
    """The network with its calibration as one TensorFlow function of a batch of any size."""

    def probabilities(batch: Any) -> Any:
        return tf.nn.softmax(network(batch, training=False) / temperature, axis=-1)

    return tf.function(probabilities, input_signature=[tf.TensorSpec((None, *shape), tf.float32)])
