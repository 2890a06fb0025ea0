"""The rule for measured features: logits of the moods, linear in the ten features and the embedding of the tag model.

Ridge regression to the logarithms of soft labels: a share of listeners that doubles counts the same for a rare mood as
for a frequent one. It is solved exactly, so cross-validation can be nested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import keras
import numpy as np
import numpy.typing as npt

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.models.manifest import Scaler

Floats = npt.NDArray[np.floating]

#: Ignored, because a file may be a preview, an excerpt or a mix.
_IGNORED: Final = ("duration_ms",)
#: Embeddings are clipped this many standard deviations from their mean, like the features by their scaler.
_CLIP: Final = 3.0


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What is chosen by cross-validation.

    ``penalty`` is the strength of the regularisation; ``embedding`` the variance of the whole embedding beside that of
    the ten features together, 0 to ignore it.
    """

    penalty: float
    embedding: float


@dataclass(frozen=True, slots=True)
class ListenerRule:
    """Logits [n, 4] are ``inputs @ weights + bias``.

    The inputs are the features, standardised by ``scaler``, and the embedding, standardised by ``mean`` and
    ``deviation`` [values] and clipped.
    """

    scaler: Scaler
    mean: Floats
    deviation: Floats
    weights: Floats
    bias: Floats

    @classmethod
    def fit(
        cls, features: Floats, embeddings: Floats, soft_labels: Floats, importance: Floats, settings: RuleSettings
    ) -> Self:
        """The rule fitted to n clips.

        ``features`` [n, 10] as measured, ``embeddings`` [n, values], ``soft_labels`` [n, 4] above 0, ``importance``
        [n].
        """
        scaler = scaler_for(features)
        mean, deviation = embeddings.mean(axis=0), embeddings.std(axis=0) + 1e-6
        used = len(AUDIO_FEATURES) - len(_IGNORED)
        values = embeddings.shape[1]
        scale = np.sqrt(np.r_[np.full(len(AUDIO_FEATURES), 1 / used), np.full(values, settings.embedding / values)])
        inputs = _inputs(scaler, mean, deviation, features, embeddings) * scale
        wanted = np.log(soft_labels)
        wanted -= wanted.mean(axis=1, keepdims=True)
        weights, bias = _regression(inputs, wanted, importance / importance.sum(), settings.penalty)
        return cls(scaler, mean, deviation, scale[:, None] * weights, bias)

    def logits(self, features: Floats, embeddings: Floats) -> Floats:
        """[n, 4] for ``features`` [n, 10] as measured and ``embeddings`` [n, values]."""
        found: Floats = _inputs(self.scaler, self.mean, self.deviation, features, embeddings) @ self.weights + self.bias
        return found

    def network(self) -> Any:
        """The rule as a Keras network: features as ``scaler`` standardises them and the embedding as it is, float32
        [n, 10 + values], to logits [n, 4]."""
        ten, values = len(AUDIO_FEATURES), len(self.mean)
        inputs = keras.Input((ten + values,), name="features")
        # The features pass the clipping unchanged, because their scaler clips them at the same distance.
        standardise = keras.layers.Dense(ten + values, trainable=False, name="standardise")
        clipped = keras.ops.clip(standardise(inputs), -_CLIP, _CLIP)
        rule = keras.layers.Dense(len(MOODS), trainable=False, name="rule")
        network = keras.Model(inputs, rule(clipped))
        slope = np.r_[np.ones(ten), 1.0 / self.deviation]
        standardise.set_weights([np.diag(slope), np.r_[np.zeros(ten), -self.mean / self.deviation]])
        rule.set_weights([self.weights, self.bias])
        return network


def scaler_for(features: Floats) -> Scaler:
    """Mean and deviation of measured ``features`` [n, 10]. Duration is ignored, because a clip is shorter than its
    song."""
    return Scaler(
        mean=tuple(features.mean(axis=0).tolist()),
        std=tuple(np.maximum(features.std(axis=0), 1e-6).tolist()),
        ignored=_IGNORED,
    )


def _inputs(scaler: Scaler, mean: Floats, deviation: Floats, features: Floats, embeddings: Floats) -> Floats:
    heard = np.clip((embeddings - mean) / deviation, -_CLIP, _CLIP)
    inputs: Floats = np.hstack([scaler.standardise(features), heard])
    return inputs


def _regression(inputs: Floats, wanted: Floats, importance: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Weights [inputs, 4] and bias [4] with the least squared error of the logits plus the penalty."""
    middle, level = importance @ inputs, importance @ wanted
    root = np.sqrt(importance)[:, None]
    left, spread, right = np.linalg.svd(root * (inputs - middle), full_matrices=False)
    shrunk = spread / (spread**2 + penalty)
    weights: Floats = right.T @ (shrunk[:, None] * (left.T @ (root * (wanted - level))))
    return weights, level - middle @ weights
