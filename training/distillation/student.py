"""The student: a small convolutional LSTM on MFCCs with two heads, distilled from a large pretrained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import keras
import numpy as np
import numpy.typing as npt
import scipy.fft
import tensorflow as tf

from shared.audio.segment_features.mel_filters import mel_basis
from shared.audio.spec import MFCC64
from training.distillation.distillation_set import DECIBELS, DistillationSet
from training.distillation.teacher import Teacher, tag_scores

Array = npt.NDArray[np.float32]

_BATCH: Final = 128
#: Filters of the convolutions, each followed by a pooling of (frames, bands).
_FILTERS: Final = (24, 48, 80, 128)
_POOLS: Final = ((2, 2), (2, 2), (1, 2), (1, 2))
_UNITS: Final = 96
_HEADS: Final = 4
_DENSE: Final = 256
_DROPOUT: Final = 0.1
#: Targets are clipped this many standard deviations from their mean, to limit the influence of outliers.
_CLIP: Final = 4.0

# Augmentation, in decibels of the mel spectrogram, where an equaliser adds a curve and a codec empties the top bands.
# Tracks have the reference level, so the gain covers only the differences between segments.
_GAIN_DB: Final = (-3.0, 3.0)
_EQ_POINTS: Final = 8
_EQ_DB: Final = 3.0
_NOISE_SHARE: Final = 0.3
_NOISE_DB: Final = (-75.0, -35.0)
_CUT_SHARE: Final = 0.4
_CUT_HZ: Final = (4500.0, 10000.0)
_MASK_SHARE: Final = 0.4
_MASK_FRAMES: Final = 20
_EMPTY_DB: Final = -200.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and deviation of the distillation targets: embedding, tags, tag scores, concatenated."""

    mean: Array
    deviation: Array
    embedding: int
    tags: int

    @classmethod
    def of(cls, examples: DistillationSet) -> Self:
        """The scale of ``examples``."""
        targets = _targets(examples)
        embedding, tags = examples.embedding.shape[1], examples.tags.shape[1]
        return cls(targets.mean(axis=0), targets.std(axis=0) + 1e-6, embedding, tags)

    def standardised(self, examples: DistillationSet) -> Array:
        """The targets of ``examples`` in standard deviations, float32 [n, targets]."""
        targets: Array = np.clip((_targets(examples) - self.mean) / self.deviation, -_CLIP, _CLIP).astype(np.float32)
        return targets


def _targets(examples: DistillationSet) -> Array:
    targets: Array = np.hstack([examples.embedding, examples.tags, tag_scores(examples.tags)]).astype(np.float32)
    return targets


def build(examples: DistillationSet, targets: int) -> Any:
    """The untrained student: MFCCs [n, 130, 64] to standardised targets [n, ``targets``].

    A fixed layer turns the MFCCs back into a mel spectrogram of as many bands, because convolutions need
    neighbouring frequencies side by side. ``examples`` give mean and deviation of its bands, under augmentation.
    """
    some = examples[:: max(1, len(examples) // 2000)]
    frames, coefficients = MFCC64.frames, MFCC64.n_mfcc
    bands = scipy.fft.idct(np.eye(coefficients), axis=1, type=2, norm="ortho").astype(np.float32)
    heard = augmented(some.decibels, some.level).numpy() @ bands
    inputs = keras.Input((frames, coefficients), name="features")
    turned = keras.layers.Dense(coefficients, use_bias=False, trainable=False, name="bands")
    x = turned(inputs)
    turned.set_weights([bands])
    mean, variance = heard.mean(axis=(0, 1)), heard.var(axis=(0, 1))
    x = keras.layers.Normalization(mean=mean, variance=variance, name="standardise")(x)
    x = keras.layers.Reshape((frames, coefficients, 1), name="spectrogram")(x)
    for number, (filters, pool) in enumerate(zip(_FILTERS, _POOLS, strict=True), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"convolution{number}")(x)
        x = keras.layers.BatchNormalization(momentum=0.98, name=f"convolution{number}_norm")(x)
        x = keras.layers.Activation("relu", name=f"convolution{number}_relu")(x)
        x = keras.layers.MaxPooling2D(pool, name=f"convolution{number}_pool")(x)
    x = keras.layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]), name="steps")(x)
    steps = keras.layers.Bidirectional(keras.layers.LSTM(_UNITS, return_sequences=True), name="lstm")(x)
    attention = keras.layers.Softmax(axis=1, name="weights")(keras.layers.Dense(_HEADS, name="attention")(steps))
    pooled = [
        keras.layers.Flatten(name="attended")(keras.layers.Dot(axes=1, name="pool")([attention, steps])),
        keras.layers.GlobalMaxPooling1D(name="loudest_steps")(steps),
        keras.layers.GlobalMaxPooling1D(name="loudest_bands")(x),
        keras.layers.GlobalAveragePooling1D(name="mean_bands")(x),
    ]
    x = keras.layers.Dropout(_DROPOUT)(keras.layers.Concatenate(name="pooled")(pooled))
    x = keras.layers.Dense(_DENSE, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(_DROPOUT)(x)
    return keras.Model(inputs, keras.layers.Dense(targets, name="distilled")(x))


def with_genres(network: Any, teacher: Teacher, scale: Scale) -> Any:
    """``network`` with logits of the genres beside its targets: the teacher's rule, applied to the student."""
    embedding, genres = teacher.weights.shape
    kernel = np.zeros((len(scale.mean), genres))
    kernel[:embedding] = teacher.weights
    kernel[-genres:] = np.diag(teacher.scale)
    rule = keras.layers.Dense(genres, name="rule")
    own = keras.layers.Dense(genres, use_bias=False, kernel_initializer="zeros", name="own_view")
    logits = keras.layers.Add(name="genres")([rule(network.output), own(network.get_layer("hidden").output)])
    rule.set_weights([scale.deviation[:, None] * kernel, teacher.bias + scale.mean @ kernel])
    return keras.Model(network.input, [network.output, logits])


def two_heads(whole: Any, scale: Scale) -> Any:
    """What is saved of ``whole``, the network of `with_genres`: a dict of ``genres`` (logits [n, genres]),
    ``embedding`` [n, 200] and ``tags`` (logits [n, 50]), the latter two in the units of the pretrained network."""
    outputs = {"genres": whole.outputs[1]}
    ends = {"embedding": (0, scale.embedding), "tags": (scale.embedding, scale.embedding + scale.tags)}
    for name, (start, end) in ends.items():
        selected = np.zeros((len(scale.mean), end - start), np.float32)
        selected[np.arange(start, end), np.arange(end - start)] = scale.deviation[start:end]
        head = keras.layers.Dense(end - start, trainable=False, name=name)
        outputs[name] = head(whole.outputs[0])
        head.set_weights([selected, scale.mean[start:end]])
    return keras.Model(whole.input, outputs, name="student")


def distillation_loss(answers: Any, wanted: Any) -> Any:
    """Mean squared error in standard deviations of the targets."""
    return tf.reduce_mean((answers - wanted) ** 2)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The training schedule: passes over the examples, and the peak of the learning rate."""

    epochs: int
    learning_rate: float
    seed: int


def learn(
    network: Any, examples: DistillationSet, targets: Sequence[Array], loss: Callable[..., Any], schedule: Schedule
) -> Iterator[int]:
    """Train ``network`` in place on augmented ``examples``. Each step of the iterator is an epoch.

    ``loss(answer, *targets)`` of a batch is minimised. The learning rate rises, then falls along a cosine.
    """
    steps = schedule.epochs * (len(examples) // _BATCH)
    rising = max(1, steps // 15)
    peak = schedule.learning_rate
    learning_rate = keras.optimizers.schedules.CosineDecay(
        peak / 20, max(1, steps - rising), alpha=0.01, warmup_target=peak, warmup_steps=rising
    )
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=1e-3, clipnorm=1.0)
    optimizer.build(network.trainable_variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(decibels: Any, level: Any, *wanted: Any) -> None:
        heard = augmented(decibels, level)
        with tf.GradientTape() as tape:
            missed = loss(network(heard, training=True), *wanted)
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(missed, variables), variables)

    random = np.random.default_rng(schedule.seed)
    for epoch in range(schedule.epochs):
        order = random.permutation(len(examples))
        for start in range(0, len(order) - _BATCH + 1, _BATCH):
            rows = order[start : start + _BATCH]
            step(examples.decibels[rows], examples.level[rows], *(target[rows] for target in targets))
        yield epoch


def augmented(decibels: Any, level: Any) -> Any:
    """MFCCs [n, 130, 64] of mel spectrograms as in `DistillationSet`, augmented.

    A shift in time, gain, equaliser, raised noise floor, a codec's low-pass, and dropped frames are drawn for each
    segment.
    """
    heard = _in_decibels(decibels)
    count, frames = tf.shape(heard)[0], MFCC64.frames

    def drawn(low: float, high: float) -> Any:
        return tf.random.uniform((count, 1, 1), low, high)

    heard += tf.matmul(tf.random.normal((count, _EQ_POINTS), 0.0, _EQ_DB), _eq_curves())[:, None, :]
    noise = tf.where(drawn(0, 1) < _NOISE_SHARE, drawn(*_NOISE_DB), _EMPTY_DB)
    grain = tf.exp(0.5 * tf.random.normal(tf.shape(heard)))
    heard = _decibels_of(_power_of(heard) + _power_of(noise) * grain)
    cut = tf.where(drawn(0, 1) < _CUT_SHARE, drawn(*_CUT_HZ), MFCC64.sample_rate)
    heard = tf.where(_band_centres()[None, None, :] > cut, _EMPTY_DB, heard)
    heard = tf.roll(heard, tf.random.uniform((), 0, frames, tf.int32), 1)
    frame, begin = tf.range(frames, dtype=tf.float32)[None, :, None], drawn(0, frames)
    masked = (frame >= begin) & (frame < begin + drawn(0, _MASK_FRAMES)) & (drawn(0, 1) < _MASK_SHARE)
    heard = tf.where(masked, tf.reduce_mean(tf.maximum(heard, -DECIBELS), axis=1, keepdims=True), heard)
    heard = tf.maximum(heard, tf.reduce_max(heard, axis=(1, 2), keepdims=True) - DECIBELS)
    heard += tf.reshape(level, (-1, 1, 1)) + drawn(*_GAIN_DB)
    return _mfccs_of(heard)


def mfccs(decibels: Any, level: Any) -> Any:
    """MFCCs [n, 130, 64] of mel spectrograms as in `DistillationSet`, as they serve."""
    return _mfccs_of(_in_decibels(decibels) + tf.reshape(tf.cast(level, tf.float32), (-1, 1, 1)))


def _in_decibels(stored: Any) -> Any:
    return tf.cast(stored, tf.float32) * (DECIBELS / 255.0) - DECIBELS


def _mfccs_of(decibels: Any) -> Any:
    return tf.reshape(tf.matmul(decibels, _cosines(MFCC64.n_mels)), (-1, MFCC64.frames, MFCC64.n_mfcc))


def _power_of(decibels: Any) -> Any:
    return tf.exp(decibels * (np.log(10.0) / 10.0))


def _decibels_of(power: Any) -> Any:
    return tf.math.log(power) * (10.0 / np.log(10.0))


@lru_cache(maxsize=1)
def _eq_curves() -> Array:
    """Triangles over the bands, [points, bands]: any mix of them is a smooth curve."""
    place = np.linspace(0.0, _EQ_POINTS - 1.0, MFCC64.n_mels)
    curves: Array = np.maximum(0.0, 1.0 - np.abs(place[None, :] - np.arange(_EQ_POINTS)[:, None])).astype(np.float32)
    return curves


@lru_cache(maxsize=1)
def _band_centres() -> Array:
    """The loudest frequency of each mel band, Hz."""
    loudest = mel_basis(MFCC64.sample_rate, MFCC64.n_fft, MFCC64.n_mels).argmax(axis=0)
    centres: Array = (loudest * MFCC64.sample_rate / MFCC64.n_fft).astype(np.float32)
    return centres


@lru_cache(maxsize=1)
def _cosines(bands: int) -> Array:
    cosines: Array = scipy.fft.dct(np.eye(bands), axis=1, type=2, norm="ortho")[:, : MFCC64.n_mfcc].astype(np.float32)
    return cosines
