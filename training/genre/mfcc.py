"""The training protocol of ``mfcc-lstm``: a student on 64 MFCCs, distilled from musicnn on all available music.

Distillation as in Hinton, Vinyals and Dean 2015: the student learns the pretrained network's embedding and tags of each
segment. First come segments of music without a genre, then the clips and their variants, with the genre probabilities
of a teacher fitted to the same clips. No stage uses held-out clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats
import tensorflow as tf

from shared.audio.spec import MFCC64
from shared.contracts.labels import GENRES
from training.data.clips import Clip
from training.data.splits import fold_of_each
from training.distillation import student
from training.distillation.content_set import content_examples
from training.distillation.distillation_set import DistillationSet, clip_examples, music_examples
from training.distillation.heads import (
    ContentExamples,
    ContentRule,
    FitTrial,
    GenreRegions,
    content_figures,
    with_heads,
)
from training.distillation.student import (
    Scale,
    Schedule,
    augmented,
    build,
    distillation_loss,
    learn,
    mfccs,
    two_heads,
    with_genres,
)
from training.distillation.teacher import PRIOR_SCALE, Teacher
from training.genre.protocol import TAG_AGREEMENT, Finished, Workspace
from training.musicnn.network import MSD_TAGS
from training.reports.figures import ContentFigures

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_PRETRAINING_EPOCHS: Final = 14
_PRETRAINING_RATE: Final = 2e-3
_EPOCHS: Final = 6
_RATE: Final = 1e-3
#: Segments of other music in fine-tuning, so that the student does not forget its pre-training.
_REMINDERS: Final = 4000
_HEARD_TWICE: Final = 2
_CONTENT_FOLDS: Final = 5
#: Segments of other music beside those of speech and sounds.
_CONTENT_MUSIC: Final = 2000
#: The batch size of predictions.
_PREDICT_BATCH: Final = 64
#: Every n-th segment of other music is in the reference sample for standardising the tag scores.
_REFERENCE_EVERY: Final = 7
#: Share of the label in the genre target of a labelled segment. The rest is the teacher's.
_LABEL_SHARE: Final = 0.3
_GENRE_WEIGHT: Final = 1.0

_DESCRIPTION: Final = f"""A fixed layer turns {MFCC64.n_mfcc} MFCCs back into as many mel bands, four convolutions over
time and bands shrink them, a bidirectional LSTM(96) reads what is left, attention pools it, and one hidden layer ends
in two heads: one logit a genre, and musicnn's embedding with its 50 tags.

It was distilled from musicnn (Pons and Serra 2019, pretrained on the Million Song Dataset): from its answers, first to
music without a genre, then to the clips and to copies of them, half a segment later, faster and slower, and mixed in
pairs, all under random gain, equaliser, noise and low-pass. The genres come from a teacher that starts from what
musicnn's tags mean (`training/distillation/teacher.py`) and is fitted to the clips at hand. In each fold student and
teacher hear nothing of the artists that are held out. Layers, epochs and rates were set after one earlier try on the
same folds, and the settings of fit and content on these clips: so those figures flatter a little. Whether musicnn
itself heard some of these songs in the Million Song Dataset is not known."""

_NOTICES: Final = """The student learnt from the answers of musicnn, copyright (c) Music Technology Group, Universitat
Pompeu Fabra 2019, by Jordi Pons (ISC licence, see ../MUSICNN-LICENSE.md). The music that it was trained on belongs to
its owners; none of it is here."""


class MfccLstm:
    """See the module. `training.genre.protocol.TrainingProtocol` says what the methods are for."""

    name = "mfcc-lstm"
    description = _DESCRIPTION
    notices = _NOTICES
    spec = MFCC64
    max_segments = None
    tags: tuple[str, ...] | None = MSD_TAGS

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}
        self._groups: npt.NDArray[np.str_] = np.empty(0, str)
        self._labels: Indices = np.empty(0, np.intp)
        self._clips: DistillationSet | None = None
        self._other: DistillationSet | None = None
        self._pretrained: Path | None = None
        self._data = Workspace(Path(), 1)
        self._fit_trial: FitTrial | None = None
        #: By held-out clip: the student's tags and musicnn's.
        self._by_clip: dict[int, tuple[Array, Array]] = {}

    def prepare(self, clips: Sequence[Clip], data: Workspace) -> None:
        """The distillation set of the clips and of ``data.unlabelled``; pre-training of the student on the latter."""
        self._data = data
        self._fit_trial = None
        self._groups = np.array([clip.group for clip in clips])
        self._labels = np.array([GENRES.index(clip.label) for clip in clips])
        self._clips = clip_examples(clips, data, without="activations")
        self._other = music_examples(data.unlabelled, data, without="activations")
        self.notes = {
            "segments_of_clips_and_variants": len(self._clips),
            "segments_of_other_music": len(self._other) if self._other else 0,
        }
        if self._other:
            self._pretrained = _pretrained(self._other, data)

    def fit(self, train_on: Indices, seed: int, keep: Callable[[Any], None] | None = None) -> Any:
        """The student after fine-tuning: on the clips ``train_on`` with all their variants."""
        clips = self._examples()
        network = self._fine_tuned(clips[clips.within(train_on)], seed, keep)
        self._note_agreement(network, train_on)
        return network

    def fit_segments(self, clip_of: Indices, position: Indices, seed: int) -> Any:
        """The same on single original segments. Variants are left out, because they contain parts of other segments."""
        return self._fine_tuned(self._examples().segments(clip_of, position), seed, None)

    def finished(self, network: Any) -> Finished:
        """``network`` with the heads `fit` and `content`, if there were clips to calibrate them on."""
        if self._fit_trial is None:
            return Finished(network)
        clips = self._examples()
        originals = clips[clips.original]
        tags = self._heard(network, originals)["tags"]
        regions = GenreRegions.of(tags, self._labels[originals.first])
        rule, content = self._content(network, originals)
        whole = with_heads(network, regions, self._fit_trial.calibrated(), rule)
        return Finished(whole, self._fit_trial.figures(), content)

    def _content(self, network: Any, originals: DistillationSet) -> tuple[ContentRule | None, ContentFigures | None]:
        """The rule for the head `content` and its figures; None without recordings of speech."""
        if not self._data.speech or self._other is None:
            return None, None
        no_music = content_examples(self._data.speech, self._data.sounds, self._data)
        music = self._other[:: max(1, len(self._other) // _CONTENT_MUSIC)]
        hidden_layer = keras.Model(network.input, network.get_layer("hidden").output)

        def hidden(decibels: Any, level: Any) -> Array:
            # As recorded, and varied, because bandwidth and noise are no cue.
            heard = [mfccs(decibels, level).numpy(), augmented(decibels, level).numpy()]
            values: Array = hidden_layer.predict(np.concatenate(heard), batch_size=_PREDICT_BATCH, verbose=0)
            return values

        keras.utils.set_random_seed(0)
        parts = [
            (hidden(no_music.decibels, no_music.level), no_music.labels, np.array(no_music.sources)),
            (hidden(music.decibels, music.level), np.zeros(len(music), np.intp), np.repeat("other music", len(music))),
            (
                hidden(originals.decibels, originals.level),
                np.zeros(len(originals), np.intp),
                self._groups[originals.first],
            ),
        ]
        examples = ContentExamples(
            np.concatenate([values for values, _, _ in parts]),
            np.concatenate([np.tile(labels, _HEARD_TWICE) for _, labels, _ in parts]),
            np.concatenate([np.tile(sources, _HEARD_TWICE) for _, _, sources in parts]),
        )
        clip_of = np.full(len(examples.labels), -1)
        clip_of[-_HEARD_TWICE * len(originals) :] = np.tile(originals.first, _HEARD_TWICE)
        fold_of = fold_of_each([GENRES[label] for label in self._labels], self._groups.tolist(), _CONTENT_FOLDS, 1)
        rule = ContentRule.fit(examples.hidden, examples.labels)
        return rule, content_figures(examples, clip_of, fold_of)

    def _heard(self, network: Any, segments: DistillationSet) -> dict[str, Array]:
        found: dict[str, Array] = network.predict(
            mfccs(segments.decibels, segments.level).numpy(), batch_size=_PREDICT_BATCH, verbose=0
        )
        return found

    def _note_agreement(self, network: Any, train_on: Indices) -> None:
        """The rank correlation of the student's tags with musicnn's, and the fit, on the held-out clips."""
        clips = self._examples()
        originals = clips[clips.original]
        held_out = ~originals.within(train_on)
        rest = originals[held_out]
        if not len(rest):
            return
        tags = self._heard(network, originals)["tags"]
        self._fit_trial = self._fit_trial or FitTrial(self._labels, self._groups.tolist())
        self._fit_trial.add(tags, originals.first, np.unique(rest.first))
        found = tag_probabilities(tags[held_out], rest.first)
        wanted = tag_probabilities(rest.tags, rest.first)
        for clip, *pair in zip(np.unique(rest.first), found, wanted, strict=True):
            self._by_clip[int(clip)] = (pair[0], pair[1])
        own, wanted = (np.array(side) for side in zip(*self._by_clip.values(), strict=True))
        self.notes[TAG_AGREEMENT] = round(float(np.mean(tag_agreement(own, wanted))), 3)

    def _examples(self) -> DistillationSet:
        if self._clips is None:
            raise RuntimeError("prepare comes first")
        return self._clips

    def _fine_tuned(self, own: DistillationSet, seed: int, keep: Callable[[Any], None] | None) -> Any:
        stored = self._data.cache / "students" / f"{self._digest(own, seed)}.keras"
        if keep is None and stored.exists():
            return keras.models.load_model(stored)
        network = self._newly_fine_tuned(own, seed, keep)
        _store(network, stored)
        return network

    def _digest(self, own: DistillationSet, seed: int) -> str:
        """Hash of everything that determines a student."""
        parts = (_EPOCHS, _RATE, _REMINDERS, _LABEL_SHARE, _GENRE_WEIGHT, seed, tf.__version__)
        digest = hashlib.sha256(repr((parts, self._pretrained and self._pretrained.name)).encode())
        digest.update(Path(student.__file__).read_bytes())
        teacher = fitted_teacher(own, self._other, self._labels, self._groups)
        for values in (own.embedding, own.first, self._labels, teacher.weights, teacher.bias):
            digest.update(values.tobytes())
        return digest.hexdigest()

    def _newly_fine_tuned(self, own: DistillationSet, seed: int, keep: Callable[[Any], None] | None) -> Any:
        teacher = fitted_teacher(own, self._other, self._labels, self._groups)
        keras.utils.set_random_seed(seed)
        material = own
        if self._other is not None:
            reminders = np.random.default_rng(seed).permutation(len(self._other))[:_REMINDERS]
            material = DistillationSet.joined([own, self._other[reminders]])
        scale = Scale.of(self._other or own)
        distilled = scale.standardised(material)
        network = keras.models.load_model(self._pretrained) if self._pretrained else build(material, distilled.shape[1])
        whole = with_genres(network, teacher, scale)
        answer = two_heads(whole, scale)

        def loss(answers: Any, wanted: Any, genres: Any) -> Any:
            called = tf.nn.softmax_cross_entropy_with_logits(genres, answers[1])
            return distillation_loss(answers[0], wanted) + _GENRE_WEIGHT * tf.reduce_mean(called)

        targets = (distilled, genre_targets(material, teacher, self._labels, _LABEL_SHARE))
        for _ in learn(whole, material, targets, loss, Schedule(_EPOCHS, _RATE, seed)):
            if keep is not None:
                keep(answer)
        return answer


def fitted_teacher(
    own: DistillationSet,
    other: DistillationSet | None,
    labels: Indices,
    groups: npt.NDArray[np.str_],
    prior_scale: float = PRIOR_SCALE,
) -> Teacher:
    """The teacher fitted to the clips in ``own``. ``labels`` and ``groups`` cover all clips."""
    pure = own[~own.mixed]
    reference = [pure.tags[pure.original], *([other.tags[::_REFERENCE_EVERY]] if other else [])]
    clip_of = pure.first
    known = (labels[clip_of], list(groups[clip_of]), np.concatenate(reference))
    return Teacher.fit(pure.embedding, pure.tags, *known, prior_scale)


def genre_targets(material: DistillationSet, teacher: Teacher, labels: Indices, label_share: float) -> Array:
    """Genre targets of each segment: the teacher's probabilities, mixed with the label unless the segment is a mix."""
    targets = teacher.probabilities(material.embedding, material.tags)
    known = np.flatnonzero((material.first >= 0) & ~material.mixed)
    targets[known] *= 1.0 - label_share
    targets[known, labels[material.first[known]]] += label_share
    return targets.astype(np.float32)


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


def _pretrained(other: DistillationSet, data: Workspace) -> Path:
    """The student pre-trained on ``other`` music, from the cache if it was made from exactly this music."""
    digest = hashlib.sha256(f"{_PRETRAINING_EPOCHS}|{_PRETRAINING_RATE}|{tf.__version__}".encode())
    digest.update(Path(student.__file__).read_bytes())
    digest.update(other.embedding.tobytes())
    stored = data.cache / "pretrained" / f"{digest.hexdigest()}.keras"
    if not stored.exists():
        keras.utils.set_random_seed(0)
        scale = Scale.of(other)
        targets = scale.standardised(other)
        network = build(other, targets.shape[1])
        schedule = Schedule(_PRETRAINING_EPOCHS, _PRETRAINING_RATE, 0)
        rounds = learn(network, other, (targets,), distillation_loss, schedule)
        for _ in data.progress.track(rounds, "pre-training", _PRETRAINING_EPOCHS):
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
