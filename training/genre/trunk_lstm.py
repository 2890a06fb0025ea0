"""What the protocols with a frozen trunk share: an LSTM over the trunk's time steps, beside the teacher's rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import keras
import numpy as np
import numpy.typing as npt

from shared.contracts.labels import GENRES
from training.distillation.distillation_set import DistillationSet
from training.distillation.teacher import PRIOR_SCALE, Teacher, tag_members

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_DIRECTIONS: Final = 128
_UNITS: Final = 64
_HEADS: Final = 2
_DROPOUT: Final = 0.3
_EPOCHS: Final = 10
_RATE: Final = 3e-3
_BATCH: Final = 128
#: Share of the label in the genre target of a labelled segment. The rest is the teacher's.
_LABEL_SHARE: Final = 0.3
#: Every n-th segment of other music is enough for the LSTM.
OTHER_EVERY: Final = 3
#: Every n-th of these is in the reference sample for standardising the tag scores.
_REFERENCE_EVERY: Final = 3


@dataclass(frozen=True, slots=True)
class Projection:
    """Activations [..., 753] to whitened principal directions [..., 128]: (x - mean) @ matrix."""

    mean: Array
    matrix: Array

    @classmethod
    def fit(cls, activations: npt.NDArray[np.float16]) -> Self:
        """The principal components of the standardised ``activations`` [n, steps, 753]."""
        flat = activations[:: max(1, len(activations) // 3000)].reshape(-1, activations.shape[-1]).astype(np.float32)
        mean, deviation = flat.mean(axis=0), flat.std(axis=0) + 1e-2
        standardised = (flat - mean) / deviation
        variance, directions = np.linalg.eigh(standardised.T @ standardised / len(flat))
        strongest = directions[:, ::-1][:, :_DIRECTIONS] / np.sqrt(variance[::-1][:_DIRECTIONS])
        return cls(mean, (strongest / deviation[:, None]).astype(np.float32))

    def __call__(self, activations: npt.NDArray[np.float16]) -> Array:
        projected = np.empty((*activations.shape[:2], _DIRECTIONS), np.float32)
        for position, one in enumerate(activations):  # one at a time, because all in float32 would take gigabytes
            projected[position] = (one.astype(np.float32) - self.mean) @ self.matrix
        return projected


@dataclass(frozen=True, slots=True)
class Trunk:
    """A frozen network: features to ``activations`` [n, frames, 753], ``embedding`` [n, 200] and ``tags`` (logits)
    [n, 50]; all three are symbolic. A step of the LSTM is the mean of ``step_frames`` frames."""

    features: Any
    activations: Any
    embedding: Any
    tags: Any
    step_frames: int


class TrunkLstm(ABC):
    """The fits of a protocol whose trunk is frozen. See `training.genre.protocol.TrainingProtocol`."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}
        self._groups: npt.NDArray[np.str_] = np.empty(0, str)
        self._labels: Indices = np.empty(0, np.intp)
        self._clips: DistillationSet | None = None
        self._other: DistillationSet | None = None

    @abstractmethod
    def _trunk(self) -> Trunk:
        """The trunk, loaded anew."""

    @abstractmethod
    def _whole(self, trunk: Trunk, logits: Any) -> Any:
        """The network that is saved: the trunk with the ``logits`` of the genres."""

    def fit(self, train_on: Indices, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        """The network after training on the clips ``train_on`` with all their variants."""
        clips = self._examples()
        return self._trained(clips[clips.within(train_on)], seed, keep)

    def fit_segments(self, clip_of: Indices, position: Indices, seed: int) -> Any:
        """The same on single original segments. Variants are left out, because they contain parts of other segments."""
        return self._trained(self._examples().segments(clip_of, position), seed, None)

    def _examples(self) -> DistillationSet:
        if self._clips is None:
            raise RuntimeError("prepare comes first")
        return self._clips

    def _teacher(self, own: DistillationSet, prior_scale: float = PRIOR_SCALE) -> Teacher:
        """The teacher fitted to the clips in ``own``."""
        pure = own[~own.mixed]
        reference = [pure.tags[pure.original], *([self._other.tags[::_REFERENCE_EVERY]] if self._other else [])]
        known = (self._labels[pure.first], list(self._groups[pure.first]), np.concatenate(reference))
        return Teacher.fit(pure.embedding, pure.tags, *known, prior_scale)

    def _targets(self, material: DistillationSet, teacher: Teacher) -> Array:
        """Genre targets of each segment: the teacher's probabilities, mixed with the label unless it is a mix."""
        targets = teacher.probabilities(material.embedding, material.tags)
        known = np.flatnonzero((material.first >= 0) & ~material.mixed)
        targets[known] *= 1.0 - _LABEL_SHARE
        targets[known, self._labels[material.first[known]]] += _LABEL_SHARE
        return targets.astype(np.float32)

    def _trained(self, own: DistillationSet, seed: int, keep: Callable[[Any], None] | None) -> Any:
        teacher = self._teacher(own)
        material = DistillationSet.joined([own, *([self._other] if self._other else [])])
        targets = self._targets(material, teacher)
        projection = Projection.fit(material.activations)
        keras.utils.set_random_seed(seed)
        head = _head(material.activations.shape[1])
        steps = _EPOCHS * -(-len(material) // _BATCH)
        head.compile(
            keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(_RATE, steps), weight_decay=1e-2),
            keras.losses.CategoricalCrossentropy(from_logits=True),
        )
        whole = self._assembled(head, projection, teacher)
        inputs = projection(material.activations)
        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: keep(whole))] if keep else []
        head.fit(inputs, targets, batch_size=_BATCH, epochs=_EPOCHS, verbose=0, callbacks=callbacks)
        return whole

    def _assembled(self, head: Any, projection: Projection, teacher: Teacher) -> Any:
        """The trunk with the LSTM and the teacher's rule beside it, whose logits are averaged."""
        trunk = self._trunk()
        averaged = keras.layers.AveragePooling1D(trunk.step_frames, name="steps")(trunk.activations)
        reduce = keras.layers.Dense(_DIRECTIONS, name="directions", trainable=False)
        heard = head(reduce(averaged))
        reduce.set_weights([projection.matrix, -projection.mean @ projection.matrix])

        members, genres = tag_members(), len(GENRES)
        sums = keras.layers.Dense(genres, use_bias=False, name="tags_of_genre", trainable=False)
        scores = keras.ops.log(sums(keras.ops.exp(trunk.tags)))
        sums.set_weights([members])
        rule = keras.layers.Dense(genres, name="rule", trainable=False)
        ruled = rule(keras.layers.Concatenate(name="evidence")([trunk.embedding, scores]))
        rule.set_weights([np.concatenate([teacher.weights, np.diag(teacher.scale)]), teacher.bias])
        return self._whole(trunk, keras.layers.Average(name="logits")([heard, ruled]))


def _head(steps: int) -> Any:
    inputs = keras.Input((steps, _DIRECTIONS), name="directions")
    x = keras.layers.Dropout(_DROPOUT)(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(_UNITS, return_sequences=True), name="lstm")(x)
    attention = keras.layers.Softmax(axis=1, name="weights")(keras.layers.Dense(_HEADS, name="attention")(x))
    x = keras.layers.Flatten(name="attended")(keras.layers.Dot(axes=1, name="pool")([attention, x]))
    x = keras.layers.Dropout(_DROPOUT)(x)
    return keras.Model(inputs, keras.layers.Dense(len(GENRES), name="view")(x), name="head")
