"""What students learn from: the teacher's rule, examples of clips and their variants, and the schools."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.fft
import soundfile

from shared.audio.level import LevelMeter, track_level
from shared.audio.segment_features.extraction import segment_features
from shared.audio.spec import LOG_MEL96, MFCC64
from shared.contracts.labels import GENRES
from training.data.clips import Clip
from training.distillation import distillation_set as examples
from training.distillation import student
from training.distillation.distillation_set import DistillationSet, clip_examples, music_examples
from training.distillation.student import Scale, augmented, build, mfccs, two_heads, with_genres
from training.distillation.teacher import TAGS_OF_GENRE, Teacher, tag_members, tag_scores
from training.genre import mfcc as genre_mfcc
from training.genre import musicnn as genre_musicnn
from training.genre.protocol import REFERENCES, TAG_AGREEMENT, Workspace
from training.musicnn.network import MSD_TAGS

RATE = 22050


def noise(seconds: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two made-up clips of 7 s for each of two genres, each by an artist of its own."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for number, genre in enumerate(("blues", "blues", "metal", "metal")):
        path = folder / f"{genre}{number}.wav"
        soundfile.write(path, noise(7.0, number), RATE)
        made.append(Clip(path.stem, path, genre, f"artist {number}|{genre}"))
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> Workspace:
    music = tmp_path_factory.mktemp("music")
    soundfile.write(music / "one.wav", noise(25.0, 10), RATE)
    soundfile.write(music / "the same.wav", noise(25.0, 10), RATE)
    soundfile.write(music / "silent.wav", np.zeros(7 * RATE, np.float32), RATE)
    soundfile.write(music / "short.wav", noise(1.0, 11), RATE)
    (music / "broken.mp3").write_bytes(b"no music")
    return Workspace(tmp_path_factory.mktemp("cache"), 1, unlabelled=(music,))


@pytest.fixture(scope="module")
def heard(clips: list[Clip], data: Workspace) -> DistillationSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_MIXES", 3)
        return clip_examples(clips, data)


def test_every_genre_has_tags_and_every_tag_of_a_genre_is_one_of_musicnns() -> None:
    assert tuple(TAGS_OF_GENRE) == GENRES
    assert {tag for tags in TAGS_OF_GENRE.values() for tag in tags} <= set(MSD_TAGS)
    assert (tag_members().sum(axis=0) == [len(tags) for tags in TAGS_OF_GENRE.values()]).all()


def random_tags(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(-3.0, 1.0, (count, len(MSD_TAGS)))


def test_a_teacher_without_evidence_goes_by_the_meaning_of_the_tags() -> None:
    reference = random_tags(500, 1)
    nothing = np.zeros((20, 200))
    teacher = Teacher.fit(nothing, random_tags(20, 2), np.arange(20) % 10, ["a", "b"] * 10, reference)
    for genre in ("blues", "country", "hiphop", "jazz"):
        tags = reference.mean(axis=0)[None].copy()
        tags[0, MSD_TAGS.index(TAGS_OF_GENRE[genre][0])] += 5.0
        assert GENRES[teacher.logits(np.zeros((1, 200)), tags).argmax()] == genre


def test_a_teacher_learns_from_clips_what_no_tag_says() -> None:
    random = np.random.default_rng(3)
    labels = np.arange(200) % 10
    embeddings = random.normal(size=(200, 200))
    embeddings[labels == GENRES.index("reggae"), :30] += 3.0
    tags = random_tags(200, 4)
    groups = [f"artist {number % 4}" for number in range(200)]
    teacher = Teacher.fit(embeddings, tags, labels, groups, tags)
    likely = teacher.probabilities(embeddings, tags)[:, GENRES.index("reggae")]
    assert likely[labels == GENRES.index("reggae")].mean() > 2 * likely[labels != GENRES.index("reggae")].mean()


def test_tag_scores_are_the_log_of_the_summed_exponents() -> None:
    tags = random_tags(3, 5)
    wanted = [
        np.logaddexp.reduce(tags[:, [MSD_TAGS.index(t) for t in names]], axis=1) for names in TAGS_OF_GENRE.values()
    ]
    np.testing.assert_allclose(tag_scores(tags), np.stack(wanted, axis=1), rtol=1e-6)


def test_lessons_hold_the_segments_their_variants_and_mixes(heard: DistillationSet, clips: list[Clip]) -> None:
    pure = heard[~heard.mixed]
    own = pure[pure.first == 0]
    # 7 s: two segments; two more half a segment later; and 7 s divided by each speed.
    assert len(own) == 2 + 1 + sum(int(6.0 / speed // 3.0) for speed in examples._SPEEDS)
    assert own.original.sum() == 2
    assert len(heard) - len(pure) <= 3 * len(clips)
    assert heard.decibels.shape[1:] == (MFCC64.frames, MFCC64.n_mels)
    assert heard.embedding.shape[1:] == (200,)
    assert heard.tags.shape[1:] == (len(MSD_TAGS),)
    assert heard.activations.shape[1:] == (LOG_MEL96.frames // examples.STEP_FRAMES, 753)


def test_nothing_of_a_clip_that_is_held_out_is_within_the_others(heard: DistillationSet) -> None:
    kept = heard[heard.within(np.array([0, 2]))]
    assert set(kept.first) | set(kept.second) <= {0, 2}
    rest = heard[~heard.within(np.array([0, 2]))]
    assert not (np.isin(rest.first, [0, 2]) & np.isin(rest.second, [0, 2])).any()


def test_single_segments_are_found_by_clip_and_position(heard: DistillationSet) -> None:
    chosen = heard.segments(np.array([1, 3]), np.array([1, 0]))
    originals = heard[heard.original]
    np.testing.assert_array_equal(chosen.embedding[0], originals[originals.first == 1].embedding[1])
    np.testing.assert_array_equal(chosen.embedding[1], originals[originals.first == 3].embedding[0])


def test_lessons_are_read_again_and_not_computed_again(
    heard: DistillationSet, clips: list[Clip], data: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "_MIXES", 3)
    monkeypatch.setattr(examples.Listener, "hear", None)
    again = clip_examples(clips, data)
    np.testing.assert_array_equal(again.embedding, heard.embedding)


def test_other_music_is_heard_once_and_what_cannot_be_heard_is_passed_over(data: Workspace) -> None:
    other = music_examples(data.unlabelled, data)
    assert other is not None
    # 25 s: eight segments as they are, the others at speeds of their own.
    assert len(other) == 8 + examples._PLAYED_SEGMENTS
    assert (other.first == -1).all()


def test_no_other_music_is_no_fault(data: Workspace, tmp_path: Path) -> None:
    assert music_examples([tmp_path], data) is None


def test_without_chance_augmentation_leaves_the_mfccs_that_serve(
    heard: DistillationSet, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_GAIN_DB": (0.0, 0.0), "_EQ_DB": 0.0, "_NOISE_SHARE": 0.0, "_CUT_SHARE": 0.0}.items():
        monkeypatch.setattr(student, name, value)
    monkeypatch.setattr(student, "_MASK_SHARE", 0.0)
    monkeypatch.setattr("training.distillation.student.tf.roll", lambda values, *_: values)
    originals = heard[heard.original]
    samples, _ = soundfile.read(clips[0].path, dtype="float32")
    meter = LevelMeter(MFCC64.sample_rate)
    meter.add(samples)
    segments = samples[: 2 * MFCC64.segment_samples].reshape(2, -1)
    served = segment_features(segments, MFCC64, track_level(meter.read()[0]))
    learnt_from = augmented(originals.decibels[:2], originals.level[:2]).numpy()
    # A third of a decibel a step, and 16-bit samples on the way.
    assert np.abs(learnt_from - served).max() < 1.0
    assert np.abs(learnt_from - served).mean() < 0.1
    assert np.abs(mfccs(originals.decibels[:2], originals.level[:2]).numpy() - served).max() < 1.0


def test_the_students_logits_begin_as_the_teachers_rule(heard: DistillationSet) -> None:
    scale = Scale.of(heard)
    labels = np.array([0, 0, 6, 6])
    teacher = genre_mfcc.fitted_teacher(heard, None, labels, np.array(list("abcd")))
    network = build(heard, len(scale.mean))
    targets, logits = with_genres(network, teacher, scale).predict(np.zeros((1, 130, 64), np.float32), verbose=0)
    told = targets * scale.deviation + scale.mean
    wanted = told[:, -10:] * teacher.scale + told[:, :200] @ teacher.weights + teacher.bias
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("module", [genre_mfcc, genre_musicnn])
def test_a_recipe_trains_on_clips_and_on_segments_and_its_network_can_be_loaded(
    module: object, clips: list[Clip], data: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_EPOCHS", "_PRETRAINING_EPOCHS"):
        monkeypatch.setattr(module, name, 1, raising=False)
    monkeypatch.setattr(examples, "_MIXES", 3)
    monkeypatch.setattr(student, "_BATCH", 8)
    protocol = module.protocol()  # type: ignore[attr-defined]
    protocol.prepare(clips, data)
    kept: list[object] = []
    network = protocol.fit(np.array([0, 2]), 1, kept.append)
    assert len(kept) == 1
    protocol.fit_segments(np.array([0, 1, 2, 3] * 2), np.array([0] * 4 + [1] * 4), 1)
    batch = (
        np.random.default_rng(0).normal(size=(2, protocol.spec.frames, protocol.spec.coefficients)).astype(np.float32)
    )
    batch = np.abs(batch)
    outputs = network.predict(batch, verbose=0)
    network = protocol.finished(network).network
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False).predict(batch, verbose=0)
    if protocol.tags is None:
        outputs, again = {"genres": outputs}, {"genres": again}
    else:
        assert outputs["tags"].shape == (2, len(protocol.tags))
        assert outputs["embedding"].shape == (2, 200)
        assert -1.0 <= protocol.notes[TAG_AGREEMENT] <= 1.0
        assert again["fit"].shape == (2, 1)
    assert outputs["genres"].shape == (2, 10)
    for name in outputs:
        np.testing.assert_allclose(again[name], outputs[name], rtol=1e-4, atol=1e-4)
    assert protocol.notes["segments_of_other_music"] > 0
    if module is genre_musicnn:
        # What it has to beat.
        assert list(protocol.notes[REFERENCES]) == [
            "logistic regression on the frozen embeddings",
            "the teacher's rule alone",
        ]


def test_the_second_head_is_in_the_units_of_the_pretrained_network(heard: DistillationSet) -> None:
    scale = Scale.of(heard)
    teacher = genre_mfcc.fitted_teacher(heard, None, np.array([0, 0, 6, 6]), np.array(list("abcd")))
    whole = with_genres(build(heard, len(scale.mean)), teacher, scale)
    batch = np.zeros((1, 130, 64), np.float32)
    standardised, logits = whole.predict(batch, verbose=0)
    heads = two_heads(whole, scale).predict(batch, verbose=0)
    told = standardised * scale.deviation + scale.mean
    np.testing.assert_allclose(heads["embedding"], told[:, :200], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(heads["tags"], told[:, 200:250], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(heads["genres"], logits)


def test_the_students_first_layer_turns_mfccs_back_into_a_spectrogram(heard: DistillationSet) -> None:
    network = build(heard, 4)
    bands = keras.Model(network.input, network.get_layer("bands").output)
    smooth = np.cos(np.linspace(0.0, 3.0, 128)) * 20.0 - 40.0
    cepstrum = scipy.fft.dct(smooth, norm="ortho")[:64].astype(np.float32)
    found = bands.predict(np.tile(cepstrum, (1, 130, 1)), verbose=0)[0, 0]
    # Half as many bands of an orthonormal transform are larger by the root of two.
    np.testing.assert_allclose(found / np.sqrt(2.0), smooth.reshape(64, 2).mean(axis=1), atol=0.1)


def test_the_agreement_of_tags_is_their_rank_correlation() -> None:
    taught = np.random.default_rng(1).random((12, 3)).astype(np.float32)
    np.testing.assert_allclose(genre_mfcc.tag_agreement(taught**3, taught), 1.0)
    np.testing.assert_allclose(genre_mfcc.tag_agreement(-taught, taught), -1.0)
