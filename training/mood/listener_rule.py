"""The rule for measured features: logits of the moods, linear in the ten features.

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
from training.mood.network import scaler_of

Floats = npt.NDArray[np.floating]

#: Ignored, because a file may be a preview, an excerpt or a mix.
_IGNORED: Final = ("duration_ms",)


@dataclass(frozen=True, slots=True)
class ListenerRule:
    """Logits [n, 4] are ``standardised @ weights + bias``, of features that are standardised by ``scaler``."""

    scaler: Scaler
    weights: Floats
    bias: Floats

    @classmethod
    def fit(cls, features: Floats, soft_labels: Floats, importance: Floats, penalty: float) -> Self:
        """The rule fitted to n clips.

        ``features`` [n, 10] as measured, ``soft_labels`` [n, 4] above 0, ``importance`` [n]; ``penalty`` is the L2
        regularisation strength of the weights.
        """
        scaler = scaler_for(features)
        wanted = np.log(soft_labels)
        wanted -= wanted.mean(axis=1, keepdims=True)
        weights, bias = _regression(scaler.standardise(features), wanted, importance / importance.sum(), penalty)
        return cls(scaler, weights, bias)

    def logits(self, features: Floats) -> Floats:
        """[n, 4] for ``features`` [n, 10] as measured."""
        found: Floats = self.scaler.standardise(features) @ self.weights + self.bias
        return found

    def network(self) -> Any:
        """The rule as a Keras network: features as ``scaler`` standardises them, float32 [n, 10], to logits [n, 4]."""
        inputs = keras.Input((len(AUDIO_FEATURES),), name="features")
        rule = keras.layers.Dense(len(MOODS), trainable=False, name="rule")
        network = keras.Model(inputs, rule(inputs))
        rule.set_weights([self.weights, self.bias])
        return network


def scaler_for(features: Floats) -> Scaler:
    """Mean and deviation of measured ``features`` [n, 10]. Duration is ignored, because a clip is shorter than its
    song."""
    return scaler_of(features).model_copy(update={"ignored": _IGNORED})


def _regression(inputs: Floats, wanted: Floats, importance: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Weights [inputs, 4] and bias [4] with the least squared error of the logits plus the penalty."""
    middle, level = importance @ inputs, importance @ wanted
    centred = inputs - middle
    weighted = centred.T * importance
    weights: Floats = np.linalg.solve(weighted @ centred + penalty * np.eye(len(middle)), weighted @ (wanted - level))
    return weights, level - middle @ weights
