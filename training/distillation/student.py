"""The student: musicnn compressed to a tenth of its cost, on MFCCs, distilled from musicnn itself.

The filters of the front end are replaced by a few basis filters and a mixing matrix, a truncated singular value
decomposition (Denton et al. 2014, "Exploiting linear structure within convolutional networks for efficient
evaluation"); time and bands have half the resolution. So the student starts close to the pretrained network, and a few
passes over music without labels bring it closer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

import keras
import numpy as np
import numpy.typing as npt
import scipy.fft
import tensorflow as tf

from shared.audio.segment_features.mel_filters import mel_basis
from shared.audio.spec import LOG_MEL96, MFCC96
from training.distillation.distillation_set import DECIBELS, DistillationSet
from training.distillation.teacher import tag_members, tag_scores

Array = npt.NDArray[np.float32]

_BATCH: Final = 128
#: Targets are clipped this many standard deviations from their mean, and so is each error, to limit the influence of
#: outliers.
_CLIP: Final = 4.0
_AVERAGED_OVER: Final = 200
_WEIGHT_DECAY: Final = 1e-4

#: Every second position over the bands, before their maximum.
_BAND_STRIDE: Final = 2
_EPSILON: Final = 1e-3
#: Powers of musicnn's spectrogram in decibels, relative to those of the MFCCs: its window is shorter.
_WINDOW_DB: Final = 20.0 * float(np.log10(LOG_MEL96.n_fft / MFCC96.n_fft))
#: musicnn hears log10(1 + 10000 * power).
_POWER_GAIN: Final = 1e4
_NEPERS: Final = float(np.log(10.0)) / 10.0

# Augmentation, in decibels of the mel spectrogram, where an equaliser adds a curve and a codec empties the top bands.
# It is light, because the targets are the answers to the segments as they are.
_GAIN_DB: Final = (-3.0, 3.0)
_CLEAN_SHARE: Final = 0.3
_EQ_POINTS: Final = 8
_EQ_DB: Final = 1.5
_NOISE_SHARE: Final = 0.15
_NOISE_DB: Final = (-75.0, -35.0)
_CUT_SHARE: Final = 0.2
_CUT_HZ: Final = (4500.0, 8000.0)
_EMPTY_DB: Final = -200.0


class _Branch(NamedTuple):
    """A convolution of musicnn's front end. ``basis`` filters replace its own; ``centre`` is the tap on the frame."""

    name: str
    basis: int
    centre: int | None


#: The timbral filters see 7 frames and many bands; the temporal ones see one band for up to two seconds.
_FRONT_END: Final = (
    _Branch("timbral0", 32, 3),
    _Branch("timbral1", 32, 3),
    _Branch("temporal2", 8, None),
    _Branch("temporal3", 8, None),
    _Branch("temporal4", 8, None),
)
_MIDDLE: Final = ("middle0", "middle1", "middle2")


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and deviation of the distillation targets: embedding, tags, tag scores, concatenated."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, examples: DistillationSet) -> Self:
        """The scale of ``examples``."""
        targets = _targets(examples)
        return cls(targets.mean(axis=0), targets.std(axis=0) + 1e-6)

    def standardised(self, examples: DistillationSet) -> Array:
        """The targets of ``examples`` in standard deviations, float32 [n, targets]."""
        targets: Array = np.clip((_targets(examples) - self.mean) / self.deviation, -_CLIP, _CLIP).astype(np.float32)
        return targets


def _targets(examples: DistillationSet) -> Array:
    targets: Array = np.hstack([examples.embedding, examples.tags, tag_scores(examples.tags)]).astype(np.float32)
    return targets


def compressed(pretrained: Any) -> Any:
    """The student before its training: MFCCs [n, 94, 96] to (activations [n, 94, 753], embedding [n, 200], logits of
    the tags [n, 50]), with the weights of ``pretrained``, compressed.

    Fixed layers turn the MFCCs into musicnn's log-mel spectrogram.
    """

    def weights(name: str) -> list[Array]:
        found: list[Array] = pretrained.get_layer(name).get_weights()
        return found

    inputs = keras.Input((MFCC96.frames, MFCC96.n_mfcc), name="features")
    spectrogram = _log_mel(inputs, weights("input_norm"))
    parts = [
        _branch(spectrogram, branch, weights(branch.name), weights(f"{branch.name}_norm")) for branch in _FRONT_END
    ]
    layers = [keras.layers.Concatenate(name="front_end")(parts)]
    for number, name in enumerate(_MIDDLE):
        kernel, bias = weights(name)
        halved, _ = half_rate(kernel, len(kernel) // 2)
        convolution = keras.layers.Conv1D(bias.size, len(halved), padding="same", activation="relu", name=name)
        x = _with_weights(convolution, layers[-1], [halved, bias])
        x = _normalised(x, f"middle_norm{number}", weights(f"middle_norm{number}"))
        layers.append(keras.layers.Add()([x, layers[-1]]) if number else x)
    activations = keras.layers.Concatenate(name="activations")(layers)
    pooled = keras.layers.Concatenate(name="pooled")(
        [keras.layers.GlobalMaxPooling1D()(activations), keras.layers.GlobalAveragePooling1D()(activations)]
    )
    pooled = _normalised(pooled, "pooled_norm", weights("pooled_norm"))
    dense = keras.layers.Dense(200, activation="relu", name="dense")
    embedding = _normalised(_with_weights(dense, pooled, weights("dense")), "embedding", weights("embedding"))
    tags = _with_weights(keras.layers.Dense(50, name="tags"), embedding, weights("tags"))
    return keras.Model(inputs, [activations, embedding, tags], name="student")


def _log_mel(mfccs: Any, norm: list[Array]) -> Any:
    """MFCCs to musicnn's normalised log-mel spectrogram [n, frames, bands, 1], by fixed layers."""
    bands = scipy.fft.idct(np.eye(MFCC96.n_mfcc), axis=1, type=2, norm="ortho").astype(np.float32)
    turned = keras.layers.Dense(MFCC96.n_mels, use_bias=False, trainable=False, name="bands")
    decibels = _with_weights(turned, mfccs, [bands])
    offset = _NEPERS * _WINDOW_DB + float(np.log(_POWER_GAIN))
    log_power = keras.layers.Rescaling(_NEPERS, offset, name="log_power")(decibels)
    loudness = keras.layers.Activation("softplus", name="loudness")(log_power)
    gamma, beta, mean, variance = (float(value[0]) for value in norm)
    slope = gamma / np.sqrt(variance + _EPSILON)
    standard = keras.layers.Rescaling(slope / np.log(10.0), beta - mean * slope, name="standardise")(loudness)
    return keras.layers.Reshape((MFCC96.frames, MFCC96.n_mels, 1), name="spectrogram")(standard)


def _branch(spectrogram: Any, branch: _Branch, weights: list[Array], norm: list[Array]) -> Any:
    """One convolution of the front end and its maximum over the bands: [n, frames, filters]."""
    kernel, bias = weights
    centre = (len(kernel) - 1) // 2 if branch.centre is None else branch.centre
    basis, mixing = low_rank(kernel, branch.basis)
    basis, before = half_rate(basis, centre)
    padded = keras.layers.ZeroPadding2D(((before, len(basis) - 1 - before), (0, 0)))(spectrogram)
    shape = basis.shape[:2]
    convolution = keras.layers.Conv2D(
        basis.shape[-1], shape, strides=(1, _BAND_STRIDE), use_bias=False, name=f"{branch.name}_basis"
    )
    x = _with_weights(convolution, padded, [basis])
    # The maximum comes before ReLU and normalisation, where it takes less time. A negative factor of the normalisation
    # would turn it into a minimum, so these filters change their sign before and after it.
    sign = np.where(norm[0] < 0.0, -1.0, 1.0).astype(np.float32)
    mix = keras.layers.Conv2D(bias.size, 1, name=branch.name)
    x = _with_weights(mix, x, [(mixing * sign)[None, None], bias * sign])
    x = keras.layers.MaxPooling2D((1, x.shape[2]))(x)
    x = keras.layers.Reshape((x.shape[1], x.shape[3]))(x)
    if (sign < 0.0).any():
        x = keras.layers.Rescaling(sign.tolist(), name=f"{branch.name}_sign")(x)
    return _normalised(keras.layers.ReLU()(x), f"{branch.name}_norm", norm)


def low_rank(kernel: Array, basis: int) -> tuple[Array, Array]:
    """The best approximation of the filters ``kernel`` [frames, bands, 1, filters] by mixtures of a few: ``basis``
    filters [frames, bands, 1, basis] and the mixture [basis, filters]. Fewer if the kernel has a lower rank."""
    frames, bands, _, filters = kernel.shape
    left, values, right = np.linalg.svd(kernel.reshape(frames * bands, filters), full_matrices=False)
    root = np.sqrt(values[:basis])
    found = (left[:, :basis] * root).reshape(frames, bands, 1, -1)
    return found.astype(np.float32), (root[:, None] * right[:basis]).astype(np.float32)


def half_rate(kernel: Array, centre: int) -> tuple[Array, int]:
    """``kernel`` [taps, ...] for a signal of half the rate, by linear interpolation, and its tap on the frame.

    ``centre`` is the tap of the kernel that is on the frame.

    >>> half_rate(np.array([1.0, 2.0, 4.0], np.float32), 1)
    (array([0.5, 4. , 2. ], dtype=float32)...
    """
    before, after = (centre + 1) // 2, (len(kernel) - centre) // 2
    halved = np.zeros((before + 1 + after, *kernel.shape[1:]), np.float32)
    for tap, value in enumerate(kernel):
        place = (tap - centre) / 2.0 + before
        low = int(place)
        halved[low] += (low + 1 - place) * value
        if place > low:
            halved[low + 1] += (place - low) * value
    return halved, before


def _normalised(x: Any, name: str, weights: list[Array]) -> Any:
    return _with_weights(keras.layers.BatchNormalization(epsilon=_EPSILON, name=name), x, weights)


def _with_weights(layer: Any, x: Any, weights: list[Array]) -> Any:
    y = layer(x)
    layer.set_weights(weights)
    return y


@dataclass(frozen=True, slots=True)
class Schedule:
    """The training schedule: passes over the examples, and the peak of the learning rate."""

    epochs: int
    learning_rate: float
    seed: int


def distil(network: Any, examples: DistillationSet, schedule: Schedule) -> Iterator[int]:
    """Train ``network`` (as `compressed` returns it) in place on augmented ``examples``: each step of the iterator is
    an epoch. After the last one it has the running mean of its weights.

    The loss is the mean squared error of embedding, tags and tag scores, in standard deviations of the targets. The
    learning rate rises, then falls along a cosine.
    """
    scale = Scale.of(examples)
    wanted = scale.standardised(examples)
    steps = schedule.epochs * (len(examples) // _BATCH)
    rising = max(1, steps // 15)
    peak = schedule.learning_rate
    learning_rate = keras.optimizers.schedules.CosineDecay(
        peak / 20, max(1, steps - rising), alpha=0.01, warmup_target=peak, warmup_steps=rising
    )
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=_WEIGHT_DECAY, clipnorm=1.0)
    optimizer.build(network.trainable_variables)
    members = tag_members()
    means = [tf.Variable(variable) for variable in network.trainable_variables]

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(decibels: Any, level: Any, targets: Any) -> None:
        heard = augmented(decibels, level)
        with tf.GradientTape() as tape:
            _, embedding, tags = network(heard, training=True)
            scores = tf.math.log(tf.exp(tags) @ members)
            answers = (tf.concat([embedding, tags, scores], 1) - scale.mean) / scale.deviation
            missed = tf.reduce_mean(tf.minimum((answers - targets) ** 2, _CLIP**2))
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(missed, variables), variables)
        for mean, variable in zip(means, variables, strict=True):
            mean.assign_add((variable - mean) / _AVERAGED_OVER)

    random = np.random.default_rng(schedule.seed)
    for epoch in range(schedule.epochs):
        order = random.permutation(len(examples))
        for start in range(0, len(order) - _BATCH + 1, _BATCH):
            rows = order[start : start + _BATCH]
            step(examples.decibels[rows], examples.level[rows], wanted[rows])
        if epoch == schedule.epochs - 1:
            for mean, variable in zip(means, network.trainable_variables, strict=True):
                variable.assign(mean)
        yield epoch


def augmented(decibels: Any, level: Any) -> Any:
    """MFCCs [n, 94, 96] of mel spectrograms as in `DistillationSet`, augmented.

    A shift in time, gain, equaliser, raised noise floor and a codec's low-pass are drawn for each segment. Some keep
    their spectrum.
    """
    stored = _in_decibels(decibels)
    count, frames = tf.shape(stored)[0], MFCC96.frames

    def drawn(low: float, high: float) -> Any:
        return tf.random.uniform((count, 1, 1), low, high)

    heard = stored + tf.matmul(tf.random.normal((count, _EQ_POINTS), 0.0, _EQ_DB), _eq_curves())[:, None, :]
    loudest = tf.reduce_max(heard, axis=(1, 2), keepdims=True)
    noise = loudest + tf.where(drawn(0, 1) < _NOISE_SHARE, drawn(*_NOISE_DB), _EMPTY_DB)
    grain = tf.exp(0.5 * tf.random.normal(tf.shape(heard)))
    heard = _decibels_of(_power_of(heard) + _power_of(noise) * grain)
    cut = tf.where(drawn(0, 1) < _CUT_SHARE, drawn(*_CUT_HZ), MFCC96.sample_rate)
    heard = tf.where(_band_centres()[None, None, :] > cut, _EMPTY_DB, heard)
    heard = tf.where(drawn(0, 1) < _CLEAN_SHARE, stored, heard)
    heard = tf.roll(heard, tf.random.uniform((), 0, frames, tf.int32), 1)
    heard = tf.maximum(heard, tf.reduce_max(heard, axis=(1, 2), keepdims=True) - DECIBELS)
    return _mfccs_of(heard + tf.reshape(level, (-1, 1, 1)) + drawn(*_GAIN_DB))


def mfccs(decibels: Any, level: Any) -> Any:
    """MFCCs [n, 94, 96] of mel spectrograms as in `DistillationSet`, as they serve."""
    return _mfccs_of(_in_decibels(decibels) + tf.reshape(tf.cast(level, tf.float32), (-1, 1, 1)))


def _in_decibels(stored: Any) -> Any:
    return tf.cast(stored, tf.float32) * (DECIBELS / 255.0) - DECIBELS


def _mfccs_of(decibels: Any) -> Any:
    return tf.reshape(tf.matmul(decibels, _cosines()), (-1, MFCC96.frames, MFCC96.n_mfcc))


def _power_of(decibels: Any) -> Any:
    return tf.exp(decibels * _NEPERS)


def _decibels_of(power: Any) -> Any:
    return tf.math.log(power) / _NEPERS


@lru_cache(maxsize=1)
def _eq_curves() -> Array:
    """Triangles over the bands, [points, bands]: any mix of them is a smooth curve."""
    place = np.linspace(0.0, _EQ_POINTS - 1.0, MFCC96.n_mels)
    curves: Array = np.maximum(0.0, 1.0 - np.abs(place[None, :] - np.arange(_EQ_POINTS)[:, None])).astype(np.float32)
    return curves


@lru_cache(maxsize=1)
def _band_centres() -> Array:
    """The loudest frequency of each mel band, Hz."""
    loudest = mel_basis(MFCC96.sample_rate, MFCC96.n_fft, MFCC96.n_mels, MFCC96.f_max).argmax(axis=0)
    centres: Array = (loudest * MFCC96.sample_rate / MFCC96.n_fft).astype(np.float32)
    return centres


@lru_cache(maxsize=1)
def _cosines() -> Array:
    cosines: Array = scipy.fft.dct(np.eye(MFCC96.n_mels), axis=1, type=2, norm="ortho").astype(np.float32)
    return cosines
