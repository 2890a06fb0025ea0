"""The training protocol of ``mfcc-lstm``: a compressed musicnn on 96 MFCCs, an LSTM over its time steps, five heads.

Distillation as in Hinton, Vinyals and Dean 2015: the student learns the pretrained network's embedding and tags of each
segment of music without a genre. Then it is frozen, and what follows is as in ``musicnn-lstm``. The student hears no
clip with a genre, so it is the same in all folds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats
import tensorflow as tf

from shared.audio.spec import MFCC96
from shared.contracts.labels import GENRES
from training.data.clips import Clip, DataError
from training.data.splits import fold_of_each
from training.distillation import student
from training.distillation.content_set import content_examples
from training.distillation.distillation_set import (
    DistillationSet,
    clip_examples,
    music_examples,
    pretrained_network,
)
from training.distillation.heads import (
    ContentExamples,
    ContentRule,
    FitTrial,
    GenreRegions,
    content_figures,
    with_heads,
)
from training.distillation.student import Schedule, augmented, compressed, distil, mfccs
from training.genre.protocol import TAG_AGREEMENT, Finished, Workspace
from training.genre.trunk_lstm import OTHER_EVERY, Trunk, TrunkLstm
from training.musicnn.network import MSD_TAGS
from training.reports.figures import ContentFigures

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_STUDENT_EPOCHS: Final = 4
_STUDENT_RATE: Final = 1e-3
_HEARD_TWICE: Final = 2
_CONTENT_FOLDS: Final = 5
#: Segments of other music beside those of speech and sounds.
_CONTENT_MUSIC: Final = 2000
#: The batch size of predictions.
_PREDICT_BATCH: Final = 64
#: Frames of the student per time step of the LSTM (their mean).
_STEP_FRAMES: Final = 4

_DESCRIPTION: Final = f"""A student of musicnn (Pons and Serra 2019, pretrained on the Million Song Dataset), frozen,
with an LSTM. Fixed layers turn {MFCC96.n_mfcc} MFCCs back into musicnn's log-mel spectrogram, at half its frame rate.
The filters of musicnn's front end are replaced by mixtures of a few (a truncated singular value decomposition), at half
the positions; its middle layers have half the frame rate. What this loses was learnt again by distillation: from
musicnn's embedding and tags of music without a genre, under light gain, equaliser, noise and low-pass.

On the student's activations, averaged over {_STEP_FRAMES} frames and reduced to 128 principal directions, there is a
bidirectional LSTM(64) with attention; beside it the linear rule of a teacher on the student's embedding and tags, which
starts from what the tags mean (`training/distillation/teacher.py`) and departs from that only as far as the clips
demand. The logits are the mean of both. Further heads: the embedding, 50 tags, fit and content.

The student heard no clip with a genre. In each fold teacher and LSTM hear nothing of the artists that are held out. The
settings of the LSTM and the teacher are those of `musicnn-lstm`; those of fit and content were set on these clips.
Whether musicnn itself heard some of these songs in the Million Song Dataset is not known."""

_NOTICES: Final = """The student holds weights derived from those of musicnn, copyright (c) Music Technology Group,
Universitat Pompeu Fabra 2019, by Jordi Pons, under the ISC licence: see ../MUSICNN-LICENSE.md, which must go along with
them. The music that it was trained on belongs to its owners; none of it is here."""


class MfccLstm(TrunkLstm):
    """See the module. `training.genre.protocol.TrainingProtocol` says what the methods are for."""

    name = "mfcc-lstm"
    description = _DESCRIPTION
    notices = _NOTICES
    spec = MFCC96
    max_segments = None
    tags: tuple[str, ...] | None = MSD_TAGS

    def __init__(self) -> None:
        super().__init__()
        self._student = Path()
        self._data = Workspace(Path(), 1)
        self._fit_trial: FitTrial | None = None

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        """The student, distilled on ``data.unlabelled``, and its answers to that, the clips and their variants.

        Raises DataError if there is no music to distil on.
        """
        self._data = data
        self._fit_trial = None
        self._groups = np.array([clip.group for clip in clips])
        self._labels = np.array([GENRES.index(clip.label) for clip in clips])
        other = music_examples(data.unlabelled, data, without="activations")
        if other is None:
            raise DataError("mfcc-lstm is distilled on music without a genre: --teach names folders of it")
        self._student = _distilled(other, data)
        of_clips = clip_examples(clips, data, without="activations")
        self._clips = self._heard(of_clips)
        self._other = self._heard(other[np.arange(0, len(other), OTHER_EVERY)])
        originals = of_clips.original
        found = tag_probabilities(self._clips.tags[originals], of_clips.first[originals])
        wanted = tag_probabilities(of_clips.tags[originals], of_clips.first[originals])
        self.notes = {
            "segments_of_clips_and_variants": len(of_clips),
            "segments_of_other_music": len(other),
            TAG_AGREEMENT: round(float(np.mean(tag_agreement(found, wanted))), 3),
        }

    def fit(self, train_on: Indices, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        """The network after training on the clips ``train_on`` with all their variants."""
        self._try_fit(train_on)
        return super().fit(train_on, seed, keep)

    def finished(self, network: Any) -> Finished:
        """``network`` with the heads `fit` and `content`, if there were clips to calibrate them on."""
        if self._fit_trial is None:
            return Finished(network)
        clips = self._examples()
        originals = clips[clips.original]
        regions = GenreRegions.of(originals.tags, self._labels[originals.first])
        rule, content = self._content(network, originals)
        whole = with_heads(network, regions, self._fit_trial.calibrated(), rule)
        return Finished(whole, self._fit_trial.figures(), content)

    def _content(self, network: Any, originals: DistillationSet) -> tuple[ContentRule | None, ContentFigures | None]:
        """The rule for the head `content` and its figures; None without recordings of speech."""
        if not self._data.speech or self._other is None:
            return None, None
        no_music = content_examples(self._data.speech, self._data.sounds, self._data)
        music = self._other[:: max(1, len(self._other) // _CONTENT_MUSIC)]
        embedder = keras.Model(network.input, network.output["embedding"])

        def heard(segments: Any) -> Array:
            # As recorded, and varied, because bandwidth and noise are no cue.
            both = [change(segments.decibels, segments.level).numpy() for change in (mfccs, augmented)]
            values: Array = embedder.predict(np.concatenate(both), batch_size=_PREDICT_BATCH, verbose=0)
            return values

        keras.utils.set_random_seed(0)
        nothing = np.zeros(len(music) + len(originals), np.intp)
        labels = np.split(np.concatenate([no_music.labels, nothing]), [len(no_music.labels), -len(originals)])
        sources = (np.array(no_music.sources), np.repeat("other music", len(music)), self._groups[originals.first])
        examples = ContentExamples(
            np.concatenate([heard(segments) for segments in (no_music, music, originals)]),
            np.concatenate([np.tile(own, _HEARD_TWICE) for own in labels]),
            np.concatenate([np.tile(own, _HEARD_TWICE) for own in sources]),
        )
        clip_of = np.full(len(examples.labels), -1)
        clip_of[-_HEARD_TWICE * len(originals) :] = np.tile(originals.first, _HEARD_TWICE)
        fold_of = fold_of_each([GENRES[label] for label in self._labels], self._groups.tolist(), _CONTENT_FOLDS, 1)
        rule = ContentRule.fit(examples.embedding, examples.labels)
        return rule, content_figures(examples, clip_of, fold_of)

    def _try_fit(self, train_on: Indices) -> None:
        """Judge the fit of the held-out clips."""
        clips = self._examples()
        originals = clips[clips.original]
        rest = originals[~originals.within(train_on)]
        if not len(rest):
            return
        self._fit_trial = self._fit_trial or FitTrial(self._labels, self._groups.tolist())
        self._fit_trial.add(originals.tags, originals.first, np.unique(rest.first))

    def _heard(self, examples: DistillationSet) -> DistillationSet:
        """``examples`` with the student's answers in the place of musicnn's."""
        network = keras.models.load_model(self._student, compile=False)
        activations, embedding, tags = network.output
        steps = keras.layers.AveragePooling1D(_STEP_FRAMES)(activations)
        whole = keras.Model(network.input, [steps, embedding, tags])
        parts = []
        for start in range(0, len(examples), _PREDICT_BATCH):
            some = slice(start, start + _PREDICT_BATCH)
            heard = whole(mfccs(examples.decibels[some], examples.level[some]), training=False)
            parts.append([answer.numpy() for answer in heard])
        steps, embedding, tags = (np.concatenate(answers) for answers in zip(*parts, strict=True))
        return replace(examples, activations=steps.astype(np.float16), embedding=embedding, tags=tags)

    def _trunk(self) -> Trunk:
        network = keras.models.load_model(self._student, compile=False)
        network.trainable = False
        activations, embedding, tags = network.output
        return Trunk(network.input, activations, embedding, tags, _STEP_FRAMES)

    def _whole(self, trunk: Trunk, logits: Any) -> Any:
        """MFCCs [n, 94, 96] to a dict of ``genres`` (logits [n, genres]), ``embedding`` [n, 200] and ``tags`` (logits
        [n, 50]); the latter two in the units of musicnn."""
        outputs = {"genres": logits, "embedding": trunk.embedding, "tags": trunk.tags}
        return keras.Model(trunk.features, outputs, name="student_lstm")


def tag_probabilities(logits: Array, clip_of: Indices) -> Array:
    """Mean probability of each tag by clip, [clips, tags], from the ``logits`` [n, tags] of segments."""
    probabilities = scipy.special.expit(logits)
    means: Array = np.stack([probabilities[clip_of == clip].mean(axis=0) for clip in np.unique(clip_of)])
    return means


def tag_agreement(own: Array, wanted: Array) -> Array:
    """Spearman's rank correlation of each tag over the clips, [tags]; both arguments are [clips, tags]."""
    ranked = [scipy.stats.rankdata(side, axis=0) for side in (own, wanted)]
    agreement: Array = np.array([np.corrcoef(*pair)[0, 1] for pair in zip(*(side.T for side in ranked), strict=True)])
    return agreement


def _distilled(other: DistillationSet, data: Workspace) -> Path:
    """The student distilled on ``other`` music, from the cache if it was made from exactly this music."""
    digest = hashlib.sha256(f"{_STUDENT_EPOCHS}|{_STUDENT_RATE}|{tf.__version__}".encode())
    digest.update(Path(student.__file__).read_bytes())
    digest.update(other.embedding.tobytes())
    stored = data.cache / "students" / f"{digest.hexdigest()}.keras"
    if not stored.exists():
        keras.utils.set_random_seed(0)
        network = compressed(pretrained_network())
        epochs = distil(network, other, Schedule(_STUDENT_EPOCHS, _STUDENT_RATE, seed=0))
        for _ in data.progress.track(epochs, "distillation", _STUDENT_EPOCHS):
            pass
        _store(network, stored)
    return stored


def _store(network: Any, stored: Path) -> None:
    stored.parent.mkdir(parents=True, exist_ok=True)
    part = stored.with_suffix(".part.keras")
    network.save(part)
    part.replace(stored)


def protocol() -> MfccLstm:
    """The protocol, for the registry."""
    return MfccLstm()
