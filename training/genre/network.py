"""The seed genre network, two layers of LSTM(64) over the frames, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.intp]

_UNITS: Final = 64
_DROPOUT: Final = 0.3
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How the network is trained.

    ``offset`` is the deviation of a random constant added to each coefficient of a segment (like another equaliser),
    ``noise`` that of noise added to every value, both in standard deviations of the coefficient; ``mixup`` the Beta
    parameter of mixing pairs of segments (Zhang et al. 2018). With few artists they prevent the network from memorising
    recordings.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    offset: float = 0.2
    noise: float = 0.2
    mixup: float = 0.2


@dataclass(frozen=True, slots=True)
class Segments:
    """The same segments with full and with limited bandwidth, [n, frames, coefficients], and their labels."""

    full: Array
    limited: Array
    labels: Integers

    def __getitem__(self, positions: Integers) -> Segments:
        return Segments(self.full[positions], self.limited[positions], self.labels[positions])


def build(frames: int, coefficients: int, classes: int, material: Segments) -> Any:
    """The untrained network: from raw features to logits. Its first layer standardises."""
    inputs = keras.Input((frames, coefficients), name="features")
    standardise = keras.layers.Normalization(axis=-1, name="standardise")
    standardise.adapt(np.concatenate([material.full, material.limited]))
    x = standardise(inputs)
    x = keras.layers.LSTM(_UNITS, return_sequences=True)(x)
    x = keras.layers.LSTM(_UNITS)(x)
    x = keras.layers.Dense(_UNITS, activation="relu")(x)
    x = keras.layers.Dropout(_DROPOUT)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x))


def train(
    network: Any,
    material: Segments,
    epochs: int,
    hyperparameters: Hyperparameters,
    seed: int,
    keep: Callable[[Any], None] | None = None,
) -> None:
    """Train ``network`` in place; the learning rate rises for a few epochs, then falls along a cosine.

    ``keep``, if given, is called with the network after each epoch.

    Each epoch uses every segment once, a random half of them with limited bandwidth, so that missing content above 8
    kHz is no cue to the genre. Deterministic for a seed, up to the order of additions in TensorFlow.
    """
    # Compiles a second model over the same layers, so that the first is saved without an optimiser.
    trainer = keras.Model(network.inputs, network.outputs)
    steps = epochs * -(-len(material.labels) // _BATCH)
    trainer.compile(
        keras.optimizers.AdamW(
            _learning_rate(hyperparameters.learning_rate, steps),
            weight_decay=hyperparameters.weight_decay,
            clipnorm=1.0,
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=hyperparameters.label_smoothing),
    )
    random = np.random.default_rng(seed)
    targets = np.eye(network.output_shape[-1], dtype=np.float32)[material.labels]
    for _ in range(epochs):
        features, soft_targets = _varied(material, targets, hyperparameters, random)
        trainer.fit(features, soft_targets, batch_size=_BATCH, verbose=0)
        if keep is not None:
            keep(network)


def _learning_rate(peak: float, steps: int) -> Any:
    rising = max(1, steps // 12)
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - rising), alpha=0.02, warmup_target=peak, warmup_steps=rising
    )


def _varied(
    material: Segments, targets: Array, hyperparameters: Hyperparameters, random: np.random.Generator
) -> tuple[Array, Array]:
    count, frames, coefficients = material.full.shape
    limited = random.random((count, 1, 1)) < 0.5
    features = np.where(limited, material.limited, material.full)
    deviation = material.full.std(axis=(0, 1))
    features = features + hyperparameters.offset * deviation * random.standard_normal((count, 1, coefficients))
    features = features + hyperparameters.noise * deviation * random.standard_normal(features.shape)
    # Rotates each segment in time, because the position of a phrase in a segment is arbitrary.
    turned = (np.arange(frames) + random.integers(frames, size=(count, 1))) % frames
    features = features[np.arange(count)[:, None], turned]
    if hyperparameters.mixup > 0.0:
        share = np.asarray(random.beta(hyperparameters.mixup, hyperparameters.mixup, (count, 1)))
        other = random.permutation(count)
        features = share[:, :, None] * features + (1 - share[:, :, None]) * features[other]
        targets = (share * targets + (1 - share) * targets[other]).astype(np.float32)
    return features.astype(np.float32), targets
