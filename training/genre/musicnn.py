"""The training protocol of ``musicnn-lstm``: a pretrained trunk, an LSTM over its time steps, and the tags as a prior.

The trunk is musicnn's and stays frozen, because a hundred clips are too few to fine-tune it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import keras
import numpy as np
import numpy.typing as npt

from shared.audio.spec import LOG_MEL96
from shared.contracts.labels import GENRES
from training.data.clips import Clip
from training.distillation.distillation_set import (
    STEP_FRAMES,
    DistillationSet,
    clip_examples,
    music_examples,
    pretrained_network,
)
from training.distillation.teacher import PRIOR_SCALE, Teacher, tag_members
from training.genre.mfcc import fitted_teacher, genre_targets
from training.genre.protocol import REFERENCES, Finished, Workspace

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_DIRECTIONS: Final = 128
_UNITS: Final = 64
_HEADS: Final = 2
_DROPOUT: Final = 0.3
_EPOCHS: Final = 10
_RATE: Final = 3e-3
_BATCH: Final = 128
_LABEL_SHARE: Final = 0.3
#: Every n-th segment of other music is enough for the LSTM.
_OTHER_EVERY: Final = 3

_DESCRIPTION: Final = """The convolutional trunk of musicnn (Pons and Serra 2019, pretrained on the Million Song
Dataset, frozen) on the log-mel spectrogram; its 753 activations, averaged over 8 frames and reduced to 128
principal directions, go through a bidirectional LSTM(64) with attention. Beside it runs the linear rule of a
teacher on musicnn's embedding and tags, which starts from what the tags mean (`training/distillation/teacher.py`:
"blues" speaks for blues, "hip-hop" for hiphop) and departs from that only as far as the clips demand. The logits are
the mean of both paths.

The LSTM learns the labels of the clips and, from their variants, their mixes and music without a genre, the
teacher's view. In each fold teacher and LSTM hear nothing of the artists that are held out. Whether musicnn itself
heard some of these songs in the Million Song Dataset is not known."""

_NOTICES: Final = """The trunk holds the weights of musicnn, copyright (c) Music Technology Group, Universitat Pompeu
Fabra 2019, by Jordi Pons, under the ISC licence: see ../MUSICNN-LICENSE.md, which must go along with them. The music
that the rest was trained on belongs to its owners; none of it is here."""


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


class MusicnnLstm:
    """See the module. `training.genre.protocol.TrainingProtocol` says what the methods are for."""

    name = "musicnn-lstm"
    description = _DESCRIPTION
    notices = _NOTICES
    spec = LOG_MEL96
    #: The trunk takes tens of milliseconds per segment. One minute, spread over the track, is nearly as good as all of
    #: it.
    max_segments = 20
    tags = None

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}
        self._groups: npt.NDArray[np.str_] = np.empty(0, str)
        self._labels: Indices = np.empty(0, np.intp)
        self._clips: DistillationSet | None = None
        self._other: DistillationSet | None = None
        self._references: dict[str, dict[int, bool]] = {}

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        """musicnn's outputs for the clips, their variants and ``data.unlabelled``."""
        self._groups = np.array([clip.group for clip in clips])
        self._labels = np.array([GENRES.index(clip.label) for clip in clips])
        self._clips = clip_examples(clips, data, without="decibels")
        other = music_examples(data.unlabelled, data, without="decibels")
        # A copy, because a slice would keep the whole array in memory.
        self._other = other and other[np.arange(0, len(other), _OTHER_EVERY)]
        self.notes = {
            "segments_of_clips_and_variants": len(self._clips),
            "segments_of_other_music": len(self._other) if self._other else 0,
        }

    def fit(self, train_on: Indices, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        """The network after training on the clips ``train_on`` with all their variants."""
        self._note_references(train_on)
        clips = self._examples()
        return self._trained(clips[clips.within(train_on)], seed, keep)

    def finished(self, network: Any) -> Finished:
        return Finished(network)

    def fit_segments(self, clip_of: Indices, position: Indices, seed: int) -> Any:
        """The same on single original segments. Variants are left out, because they contain parts of other segments."""
        return self._trained(self._examples().segments(clip_of, position), seed, None)

    def _note_references(self, train_on: Indices) -> None:
        """The accuracy of simple classifiers on the trunk's outputs for the held-out clips, as a baseline."""
        clips = self._examples()
        originals = clips[clips.original]
        own, rest = originals[originals.within(train_on)], originals[~originals.within(train_on)]
        if not len(rest):
            return
        for name, prior_scale in (
            ("logistic regression on the frozen embeddings", 0.0),
            ("the teacher's rule alone", PRIOR_SCALE),
        ):
            simple = fitted_teacher(own, self._other, self._labels, self._groups, prior_scale)
            segments = simple.probabilities(rest.embedding, rest.tags)
            tracks = {clip: segments[rest.first == clip].mean(axis=0).argmax() for clip in np.unique(rest.first)}
            self._references.setdefault(name, {}).update(
                {int(clip): bool(answer == self._labels[clip]) for clip, answer in tracks.items()}
            )
        self.notes[REFERENCES] = {
            name: round(float(np.mean(list(right.values()))), 3) for name, right in self._references.items()
        }

    def _examples(self) -> DistillationSet:
        if self._clips is None:
            raise RuntimeError("prepare comes first")
        return self._clips

    def _trained(self, own: DistillationSet, seed: int, keep: Callable[[Any], None] | None) -> Any:
        teacher = fitted_teacher(own, self._other, self._labels, self._groups)
        material = DistillationSet.joined([own, *([self._other] if self._other else [])])
        targets = genre_targets(material, teacher, self._labels, _LABEL_SHARE)
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
        """Log-mel spectrogram [n, 188, 96] to logits [n, genres]: trunk, LSTM, and the teacher's rule beside it."""
        network = pretrained_network()
        network.trainable = False
        activations = network.get_layer("activations").output
        averaged = keras.layers.AveragePooling1D(STEP_FRAMES, name="steps")(activations)
        reduce = keras.layers.Dense(_DIRECTIONS, name="directions", trainable=False)
        heard = head(reduce(averaged))
        reduce.set_weights([projection.matrix, -projection.mean @ projection.matrix])

        embedding, tags = network.output
        members, genres = tag_members(), len(GENRES)
        sums = keras.layers.Dense(genres, use_bias=False, name="tags_of_genre", trainable=False)
        scores = keras.ops.log(sums(keras.ops.exp(tags)))
        sums.set_weights([members])
        rule = keras.layers.Dense(genres, name="rule", trainable=False)
        ruled = rule(keras.layers.Concatenate(name="evidence")([embedding, scores]))
        rule.set_weights([np.concatenate([teacher.weights, np.diag(teacher.scale)]), teacher.bias])
        return keras.Model(network.input, keras.layers.Average(name="logits")([heard, ruled]), name="musicnn_lstm")


def _head(steps: int) -> Any:
    inputs = keras.Input((steps, _DIRECTIONS), name="directions")
    x = keras.layers.Dropout(_DROPOUT)(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(_UNITS, return_sequences=True), name="lstm")(x)
    attention = keras.layers.Softmax(axis=1, name="weights")(keras.layers.Dense(_HEADS, name="attention")(x))
    x = keras.layers.Flatten(name="attended")(keras.layers.Dot(axes=1, name="pool")([attention, x]))
    x = keras.layers.Dropout(_DROPOUT)(x)
    return keras.Model(inputs, keras.layers.Dense(len(GENRES), name="view")(x), name="head")


def protocol() -> MusicnnLstm:
    """The protocol, for the registry."""
    return MusicnnLstm()
