"""The networks of model folders: features in, probabilities out. Any engine runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.models.engine import Engine, EngineName, load_engine
from shared.models.manifest import ModelManifest, load_manifest

Array = npt.NDArray[np.float32]

#: Each batch is padded to one of these sizes, so that an engine sees few shapes; a larger batch is split. Wide
#: convolutions are fastest while their activations fit into the CPU's cache.
_BATCH_SIZES: Final[Mapping[str, tuple[int, ...]]] = {"mfcc": (1, 4), "log_mel": (1,)}


class GenreModel:
    """Features of segments to calibrated probabilities. Safe from many threads."""

    def __init__(self, manifest: ModelManifest, engine: Engine, threads: int = 1) -> None:
        spec = manifest.require_feature_spec()
        self.manifest = manifest
        self._shape = (spec.frames, spec.coefficients)
        self._batch_sizes = _BATCH_SIZES[spec.kind]
        self.engine: EngineName = engine.name
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="network")

    @classmethod
    def load(cls, folder: Path, threads: int = 1, engine: EngineName | Literal["auto"] = "auto") -> Self:
        """The model in ``folder``, held to ``threads`` threads. Raises ModelError."""
        manifest = load_manifest(folder)
        return cls(manifest, load_engine(engine, folder, manifest, threads), threads)

    def predict(self, features: Array) -> Array:
        """Probabilities float32 [n, labels], rows adding up to 1, of features float32 [n, frames, coefficients].

        The answer for a segment is independent of the others in the batch (to 1e-5). Raises ValueError for
        features of another shape than the model's spec gives.
        """
        _require_shape(features, self._shape)
        most = self._batch_sizes[-1]
        parts = [features[start : start + most] for start in range(0, len(features), most)]
        logits = list(self._pool.map(self._logits, parts))
        if not logits:
            return np.empty((0, len(self.manifest.labels)), np.float32)
        return _softmax(np.concatenate(logits), self.manifest.temperature)

    def _logits(self, part: Array) -> Array:
        size = next(size for size in self._batch_sizes if size >= len(part))
        if size > len(part):
            padded = np.concatenate([part, np.zeros((size - len(part), *self._shape), np.float32)])
            return self._engine.run(padded)["genres"][: len(part)]
        return self._engine.run(part)["genres"]

    def warm_up(self) -> None:
        """Run once with every batch size, so that the first track is not slowed down."""
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

    def __init__(self, manifest: ModelManifest, engine: Engine) -> None:
        spec = manifest.require_feature_spec()
        self.manifest = manifest
        self.labels = manifest.tag_labels
        self._shape = (spec.frames, spec.coefficients)
        self.engine: EngineName = engine.name
        self._engine = engine

    @classmethod
    def load(cls, folder: Path, threads: int = 1, engine: EngineName | Literal["auto"] = "auto") -> Self:
        """The model in ``folder``, held to ``threads`` threads. Raises ModelError."""
        manifest = load_manifest(folder)
        _ = manifest.tag_labels  # raises before an engine loads the network
        return cls(manifest, load_engine(engine, folder, manifest, threads))

    def predict(self, features: Array) -> HeardSegments:
        """What is heard in segments, of their features float32 [n, frames, coefficients].

        Raises ValueError for features of another shape than the model's spec gives.
        """
        _require_shape(features, self._shape)
        outputs = self._engine.run(features)
        content = outputs.get("content")
        return HeardSegments(
            embedding=outputs["embedding"],
            tags=_sigmoid(outputs["tags"]),
            fit=outputs["fit"][:, 0] if "fit" in outputs else None,
            content=None if content is None else _softmax(content),
        )

    def warm_up(self) -> None:
        """Run once, so that the first track does not pay for it."""
        self.predict(np.zeros((1, *self._shape), np.float32))


class MoodModel:
    """The ten audio features of a track to calibrated probabilities. Safe from many threads."""

    def __init__(self, manifest: ModelManifest, engine: Engine) -> None:
        self.manifest = manifest
        self._scalers = manifest.require_scalers()
        self.engine: EngineName = engine.name
        self._engine = engine

    @classmethod
    def load(cls, folder: Path, threads: int = 1, engine: EngineName | Literal["auto"] = "auto") -> Self:
        """The model in ``folder``, held to ``threads`` threads. Raises ModelError."""
        manifest = load_manifest(folder)
        manifest.require_scalers()
        return cls(manifest, load_engine(engine, folder, manifest, threads))

    def predict(self, features: Mapping[str, float], source: Literal["spotify", "audio"]) -> dict[str, float]:
        """Probabilities by mood, adding up to 1, of the ten features in Spotify's units.

        ``source`` names their origin, because the scales differ. Raises ValueError if one is missing or not finite.
        """
        return self.predict_all([features], source)[0]

    def predict_all(
        self, rows: Sequence[Mapping[str, float]], source: Literal["spotify", "audio"]
    ) -> list[dict[str, float]]:
        """``predict`` of each of ``rows``, in one run of the network."""
        if not rows:
            return []
        values = [[features.get(name, np.nan) for name in AUDIO_FEATURES] for features in rows]
        if not np.isfinite(values).all():
            wrong = next(row for row, one in zip(rows, values, strict=True) if not np.isfinite(one).all())
            raise ValueError(f"a mood needs a finite number for each of {', '.join(AUDIO_FEATURES)}: {dict(wrong)}")
        logits = self._engine.run(self._scalers[source].standardise(values))[source]
        return [
            {label: float(p) for label, p in zip(self.manifest.labels, probabilities, strict=True)}
            for probabilities in _softmax(logits, self.manifest.temperature_of(source))
        ]

    def warm_up(self) -> None:
        """Run once for each source, so that the first track does not pay for it."""
        for source in self._scalers:
            self.predict(dict.fromkeys(AUDIO_FEATURES, 0.0), source)


def _softmax(logits: Array, temperature: float = 1.0) -> Array:
    scaled = logits / np.float32(temperature)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _sigmoid(logits: Array) -> Array:
    # The same for both signs, and without overflow for either.
    probabilities: Array = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return probabilities


def _require_shape(features: Array, shape: tuple[int, int]) -> None:
    if features.ndim != 3 or features.shape[1:] != shape:
        raise ValueError(f"features [n, {shape[0]}, {shape[1]}] are needed, not {features.shape}")
