"""Training: splits that keep artists apart, figures that say what they should, and features that are kept."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from samples.tracks import EXCERPTS, SCORES
from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.audio.file_tags import FileTags
from shared.audio.segments import segment_count
from shared.audio.spec import MFCC13
from shared.contracts.labels import GENRES
from tests.support.sounds import clicks, noise, sine
from tests.support.wav_files import wav_bytes
from training.data.clips import read_clips
from training.data.features import limit_bandwidth, read_segments
from training.data.splits import fold_of_each, train_and_test
from training.data.variations import VARIATIONS, Variation, varied_file
from training.reports.metrics import (
    accuracy,
    calibrated_by_fold,
    confusion,
    expected_calibration_error,
    fit_temperature,
    mean_by_track,
    softmax,
)

ROOT = Path(__file__).resolve().parents[3]


# Splits


def labelled_groups() -> tuple[list[str], list[str]]:
    """Ten labels; each has one artist with nine songs and six with one or two."""
    labels: list[str] = []
    groups: list[str] = []
    for genre in GENRES:
        for artist, songs in enumerate((9, 2, 2, 1, 1, 1, 1)):
            labels += [genre] * songs
            groups += [f"{artist}|{genre}"] * songs
    return labels, groups


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_artist_is_ever_in_both_training_and_test(seed: int) -> None:
    labels, groups = labelled_groups()
    tested: list[int] = []
    for train, test in train_and_test(fold_of_each(labels, groups, 5, seed)):
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert {labels[i] for i in train} == set(GENRES)
        tested += test.tolist()
    assert sorted(tested) == list(range(len(labels)))


def test_every_fold_tests_every_label_where_there_are_artists_enough() -> None:
    labels, groups = labelled_groups()
    for _, test in train_and_test(fold_of_each(labels, groups, 5, 1)):
        assert {labels[i] for i in test} == set(GENRES)


def test_a_split_follows_from_its_seed() -> None:
    labels, groups = labelled_groups()
    first, again, other = (fold_of_each(labels, groups, 5, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_label_by_a_single_artist_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="two groups"):
        fold_of_each(["blues", "blues", "jazz", "jazz"], ["a", "a", "b", "c"], 2, 1)


# Figures


def test_the_interval_of_an_accuracy_is_wider_when_songs_share_artists() -> None:
    right = np.random.default_rng(1).random(200) < 0.5
    truth = np.ones(200, np.intp)
    alone = accuracy(right.astype(np.intp), truth, [str(i) for i in range(200)])
    by_artist = np.repeat(right[::10], 10).astype(np.intp)
    shared = accuracy(by_artist, truth, [str(i // 10) for i in range(200)])
    assert alone.low < alone.value < alone.high
    assert shared.high - shared.low > 2 * (alone.high - alone.low)


def test_the_interval_holds_the_true_accuracy_about_95_times_in_100() -> None:
    random = np.random.default_rng(4)
    groups = [str(i) for i in range(80)]
    held = 0
    for _ in range(60):
        interval = accuracy((random.random(80) < 0.7).astype(np.intp), np.ones(80, np.intp), groups)
        held += interval.low <= 0.7 <= interval.high
    assert held >= 51


def test_confusion_counts_truth_in_rows() -> None:
    counts = confusion(np.array([1, 1, 0]), np.array([0, 1, 0]), 2)
    assert counts.tolist() == [[1, 1], [0, 1]]


def overconfident(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``temperature`` times too large, and answers drawn from the right probabilities."""
    random = np.random.default_rng(9)
    logits = random.standard_normal((count, 4)) * 1.5
    right = softmax(logits)
    truth = (right.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return logits * temperature, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_undoes_overconfidence(temperature: float) -> None:
    logits, truth = overconfident(temperature)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)
    fold_of = np.arange(len(truth)) % 5
    assert expected_calibration_error(calibrated_by_fold(logits, truth, fold_of), truth) < 0.02


def test_the_calibration_error_of_the_overconfident_is_large() -> None:
    logits, truth = overconfident(3.0)
    assert expected_calibration_error(softmax(logits), truth) > 0.1
    sure_and_wrong = np.array([[1.0, 0.0]] * 10)
    assert expected_calibration_error(sure_and_wrong, np.ones(10, np.intp)) == pytest.approx(1.0)


def test_the_mean_by_track_is_over_the_tracks_own_segments() -> None:
    means = mean_by_track(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 1]))
    assert means.tolist() == [[0.5, 0.5], [0.0, 1.0]]


# Data


def write_clips(folder: Path, artists: int = 2, length_s: float = 3.5) -> Path:
    """Two made-up clips a genre by two artists, and an index."""
    rows = []
    for position, genre in enumerate(GENRES):
        (folder / genre).mkdir(parents=True)
        for artist in range(artists):
            tone = sine(110.0 * 2 ** (position / 3), -12.0, length_s) + noise(0.01, length_s)
            pcm = np.round((tone + clicks(60.0 + 12 * position, length_s)) * 20_000)
            (folder / genre / f"{genre}.{artist}.wav").write_bytes(wav_bytes(pcm))
            rows.append(
                {"track": f"{genre}.{artist}", "genre": genre, "group": f"{artist}|{genre}", "native_rate": 22050}
            )
    with (folder / "index.csv").open("w", newline="") as index:
        writer = csv.DictWriter(index, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_an_index_gives_the_groups_and_without_one_every_file_is_its_own(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips")
    indexed = read_clips(folder)
    assert [clip.name for clip in indexed] == sorted(clip.name for clip in indexed)
    assert indexed[0].group == "0|blues"
    assert indexed[0].native_rate == 22050
    (folder / "index.csv").unlink()
    plain = read_clips(folder)
    assert [clip.path for clip in plain] == [clip.path for clip in indexed]
    assert len({clip.group for clip in plain}) == len(plain) == 20


def test_a_folder_without_clips_or_with_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clips"):
        read_clips(tmp_path)
    folder = write_clips(tmp_path / "clips")
    (folder / "jazz" / "jazz.1.wav").unlink()
    with pytest.raises(ValueError, match=r"jazz\.1"):
        read_clips(folder)


def test_limited_bandwidth_removes_what_is_above_and_keeps_what_is_below() -> None:
    high, low = sine(9500.0, -6.0, 3.0), sine(1000.0, -6.0, 3.0)
    limited = limit_bandwidth(np.stack([high, low]), 22050, 8000)
    assert limited.shape == (2, len(high))
    assert np.abs(limited[0, 500:-500]).max() < 0.01
    np.testing.assert_allclose(limited[1, 500:-500], low[500:-500], atol=0.01)


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda one: one.name)
def test_a_variation_changes_what_it_says_and_nothing_else(variation: Variation, tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(wav_bytes(sine(440.0, -6.0, 9.5) * 32_000))
    plain = read_segments(tmp_path / "tone.wav", MFCC13)
    varied = read_segments(varied_file(tmp_path / "tone.wav", variation, tmp_path), MFCC13)
    assert len(varied) == (2 if variation.name == "1 s later" else 3)
    spectrum = np.abs(np.fft.rfft(varied[0] * np.hanning(len(varied[0]))))
    cents = 1200 * np.log2(spectrum.argmax() / 3.0 / 440.0)
    expected = {"10 cents higher": 10.0, "10 cents lower": -10.0}.get(variation.name, 0.0)
    assert cents == pytest.approx(expected, abs=1.5)
    # Every variation comes back to the reference level.
    assert np.std(varied) == pytest.approx(np.std(plain), rel=0.02)


# Samples

SAMPLES = (*EXCERPTS, *SCORES)


def test_the_samples_are_complete_tagged_and_small(tmp_path: Path) -> None:
    folder = ROOT / "samples"
    assert sum(mp3.stat().st_size for mp3 in folder.glob("*.mp3")) < 2_000_000
    assert {mp3.stem for mp3 in folder.glob("*.mp3")} == {sample.name for sample in SAMPLES}
    assert {score.stem for score in (folder / "scores").glob("*.mma")} == {score.name for score in SCORES}
    credits = (folder / "README.md").read_text(encoding="utf-8")
    for sample in SAMPLES:
        decoded = decode(folder / f"{sample.name}.mp3", tmp_path / "a.wav", DecodeLimits(), find_ffmpeg())
        assert decoded.tags == FileTags(sample.title, sample.artist)
        assert all(part in credits for part in (sample.name, sample.title, sample.artist, sample.licence))
        assert 12.0 <= decoded.duration_s <= 35.0


def test_the_samples_decode_to_segments_that_sound() -> None:
    for sample in SAMPLES[:2]:
        segments = read_segments(ROOT / "samples" / f"{sample.name}.mp3", MFCC13)
        assert len(segments) >= 4
        assert len(segments) == segment_count(segments.size, MFCC13)
        # At the reference level, peaks may exceed full scale.
        assert 0.3 < np.abs(segments).max() < 3.0


# The cache of features


def test_the_feature_cache_never_shows_half_an_entry(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from training.data.features import _cached

    source, cache = tmp_path / "clip", tmp_path / "cache"
    source.write_bytes(b"the same recording for everyone")
    expected = np.arange(200_000, dtype=np.float32)

    def look_up(number: int) -> bool:
        return np.array_equal(_cached(cache, "test", source, lambda path: expected), expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look_up, range(64)))
    assert [file.suffix for file in cache.iterdir()] == [".npy"]
