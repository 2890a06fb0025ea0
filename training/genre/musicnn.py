"""The training protocol of ``musicnn-lstm``: a pretrained trunk, an LSTM over its time steps, and the tags as a prior.

The trunk is musicnn's and stays frozen, because a hundred clips are too few to fine-tune it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from shared.audio.spec import LOG_MEL96
from shared.contracts.labels import GENRES
from training.data.clips import Clip
from training.distillation.distillation_set import STEP_FRAMES, clip_examples, music_examples, pretrained_network
from training.distillation.teacher import PRIOR_SCALE
from training.genre.protocol import REFERENCES, Finished, Workspace
from training.genre.trunk_lstm import OTHER_EVERY, Trunk, TrunkLstm

Indices = npt.NDArray[np.intp]

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


class MusicnnLstm(TrunkLstm):
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
        super().__init__()
        self._references: dict[str, dict[int, bool]] = {}

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        """musicnn's outputs for the clips, their variants and ``data.unlabelled``."""
        self._groups = np.array([clip.group for clip in clips])
        self._labels = np.array([GENRES.index(clip.label) for clip in clips])
        self._clips = clip_examples(clips, data, without="decibels")
        other = music_examples(data.unlabelled, data, without="decibels")
        # A copy, because a slice would keep the whole array in memory.
        self._other = other and other[np.arange(0, len(other), OTHER_EVERY)]
        self.notes = {
            "segments_of_clips_and_variants": len(self._clips),
            "segments_of_other_music": len(self._other) if self._other else 0,
        }

    def fit(self, train_on: Indices, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        """The network after training on the clips ``train_on`` with all their variants."""
        self._note_references(train_on)
        return super().fit(train_on, seed, keep)

    def finished(self, network: Any) -> Finished:
        return Finished(network)

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
            simple = self._teacher(own, prior_scale)
            segments = simple.probabilities(rest.embedding, rest.tags)
            tracks = {clip: segments[rest.first == clip].mean(axis=0).argmax() for clip in np.unique(rest.first)}
            self._references.setdefault(name, {}).update(
                {int(clip): bool(answer == self._labels[clip]) for clip, answer in tracks.items()}
            )
        self.notes[REFERENCES] = {
            name: round(float(np.mean(list(right.values()))), 3) for name, right in self._references.items()
        }

    def _trunk(self) -> Trunk:
        network = pretrained_network()
        network.trainable = False
        embedding, tags = network.output
        return Trunk(network.input, network.get_layer("activations").output, embedding, tags, STEP_FRAMES)

    def _whole(self, trunk: Trunk, logits: Any) -> Any:
        """Log-mel spectrogram [n, 188, 96] to logits [n, genres]."""
        return keras.Model(trunk.features, logits, name="musicnn_lstm")


def protocol() -> MusicnnLstm:
    """The protocol, for the registry."""
    return MusicnnLstm()
