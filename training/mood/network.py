"""The mood network: an ensemble from ten standardised features to one logit per mood, which models each labeller.

Labellers disagree on the meaning of a mood. So each member predicts the probabilities of every labeller, as in "Who
Said What" (Guan et al. 2018). The answer is their mean, weighted by the share of tracks of each labeller, because
requests have no labeller. It is averaged over several members, which differ in initialisation and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.labels import MOODS
from shared.models.manifest import Scaler

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]

#: Ranks are scaled to the spread of a standardised feature, to match the noise.
_RANK_SPREAD: Final = 3.4
_KNOTS: Final = 32
_NOISE: Final = 0.2
_DROPOUT: Final = 0.3
_LEARNING_RATE: Final = 5e-3
_WEIGHT_DECAY: Final = 0.5
#: The weight of the loss on the labeller's own probabilities; the rest is on the answer.
_OWN_SHARE: Final = 0.5
_LARGEST_BATCH: Final = 1024
_SMALLEST: Final = 1e-7


@dataclass(frozen=True, slots=True)
class MoodNetworkPlan:
    """The size of the ensemble and the length of its training: ``steps`` of up to 1024 tracks."""

    members: int = 8
    hidden: int = 64
    steps: int = 200


def fit(features: Floats, labels: Integers, source_of: Integers, plan: MoodNetworkPlan, seed: int) -> Any:
    """A Keras network, standardised features float32 [n, 10] to logits [n, 4], trained on all rows.

    ``labels`` [n] are the numbers of the moods, ``source_of`` [n] those of the labellers. The softmax of the logits is
    the ensemble's mean probability.
    """
    keras.utils.set_random_seed(seed)
    features = np.asarray(features, np.float32)
    shares = np.bincount(source_of) / len(source_of)
    inputs = keras.Input((len(AUDIO_FEATURES),), name="features")
    by_labeller = _members(_ranks(inputs, features), len(shares), plan)
    _train(keras.Model(inputs, by_labeller), features, np.stack([labels, source_of], axis=1), shares, plan.steps)
    answers = keras.ops.einsum("nksm,s->nm", by_labeller, keras.ops.array(shares / plan.members, "float32"))
    logits = keras.ops.log(keras.ops.maximum(answers, _SMALLEST))
    return keras.Model(inputs, logits)


def scaler_of(features: Floats) -> Scaler:
    """Mean and deviation of each column of ``features`` [n, 10]."""
    return Scaler(
        mean=tuple(features.mean(axis=0).tolist()), std=tuple(np.maximum(features.std(axis=0), 1e-6).tolist())
    )


def joined(spotify: Any, audio: Any) -> Any:
    """One network of two: standardised features [n, 10] to ``{"spotify": logits, "audio": logits}``, both [n, 4]."""
    inputs = keras.Input((len(AUDIO_FEATURES),), name="features")
    return keras.Model(inputs, {"spotify": spotify(inputs), "audio": audio(inputs)})


def _ranks(inputs: Any, features: Floats) -> Any:
    """The rank of each feature among those of ``features`` [n, 10], scaled to -1.7..1.7 (skewed become uniform).

    Piecewise linear between quantiles, built from standard Keras layers.
    """
    knots = np.quantile(features, np.linspace(0.0, 1.0, _KNOTS + 1), axis=0)
    widths = np.maximum(np.diff(knots, axis=0), 1e-4)
    slopes = (1.0 / widths).T[:, None, :].astype(np.float32)
    offsets = (-knots[:-1] / widths).T.astype(np.float32)
    columns = keras.layers.Reshape((len(AUDIO_FEATURES), 1))(inputs)
    steps = keras.layers.EinsumDense(
        "nfi,fik->nfk", output_shape=(len(AUDIO_FEATURES), _KNOTS), bias_axes="fk", trainable=False
    )
    passed = keras.layers.ReLU(max_value=1.0)(steps(columns))
    steps.set_weights([slopes, offsets])
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(passed)
    return keras.layers.Rescaling(_RANK_SPREAD, -_RANK_SPREAD / 2)(mean)


def _members(ranks: Any, labellers: int, plan: MoodNetworkPlan) -> Any:
    """Probabilities [n, members, labellers, moods]."""
    members, outputs = plan.members, labellers * len(MOODS)
    x = keras.layers.RepeatVector(members)(ranks)
    x = keras.layers.GaussianNoise(_NOISE)(x)
    x = dense_by_member(members, plan.hidden, deviation=np.sqrt(2 / len(AUDIO_FEATURES)))(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(_DROPOUT)(x)
    x = dense_by_member(members, outputs, deviation=np.sqrt(1 / plan.hidden))(x)
    return keras.layers.Softmax()(keras.layers.Reshape((members, labellers, len(MOODS)))(x))


def dense_by_member(members: int, units: int, deviation: float) -> Any:
    """A dense layer [n, members, inputs] to [n, members, units] with weights of its own for each member.

    They are initialised with ``deviation``, because Keras' default would count the members among the inputs of each.
    """
    return keras.layers.EinsumDense(
        "nki,kio->nko",
        output_shape=(members, units),
        bias_axes="ko",
        kernel_initializer=keras.initializers.RandomNormal(stddev=float(deviation)),
    )


def _train(network: Any, features: Floats, targets: Integers, shares: Floats, steps: int) -> None:
    """``targets`` [n, 2]: the number of the mood and of the labeller."""
    weights = keras.ops.array(shares, "float32")
    labellers = len(shares)

    def loss(truth: Any, predicted: Any) -> Any:
        truth = keras.ops.cast(truth, "int32")
        mood = keras.ops.one_hot(truth[:, 0], len(MOODS))
        labeller = keras.ops.one_hot(truth[:, 1], labellers)
        own = keras.ops.einsum("nksm,ns,nm->nk", predicted, labeller, mood)
        answer = keras.ops.einsum("nksm,s,nm->nk", predicted, weights, mood)
        return -keras.ops.mean(
            _OWN_SHARE * keras.ops.log(own + _SMALLEST) + (1 - _OWN_SHARE) * keras.ops.log(answer + _SMALLEST), axis=1
        )

    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps), weight_decay=_WEIGHT_DECAY
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    network.compile(optimizer, loss)
    descend(network, features, targets, steps)


def descend(network: Any, features: Floats, targets: npt.NDArray[Any], steps: int) -> None:
    """Train the compiled ``network`` on ``features`` [n, 10] and ``targets`` [n, ...], ``steps`` batches long."""
    network.fit(_batches(features, targets), epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)


def _batches(features: Floats, targets: npt.NDArray[Any]) -> Any:
    """Endless batches of the tracks: all at once if they are few, else shuffled."""
    if len(features) <= _LARGEST_BATCH:
        return tf.data.Dataset.from_tensors((features, targets)).repeat()
    tracks = tf.data.Dataset.from_tensor_slices((features, targets))
    return tracks.shuffle(len(features)).repeat().batch(_LARGEST_BATCH)
