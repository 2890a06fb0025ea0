"""The key of made-up chords and cadences, in every transposition and tuning; points and profiles of the training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shared.audio.track_features.key import MODES, PROFILES, TONICS, key_of, pitch_class_shares
from shared.audio.track_features.measures import measure_wav
from training.data.clips import DataError
from training.genre.protocol import Workspace
from training.key.profiles import fit_profiles, points, read_key_clips, train_keys

RATE = 22050
MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 11)


def cadence(tonic: int, mode: str, cents: float = 0.0, seconds: float = 12.0) -> np.ndarray:
    """I IV V I over and over, with the root in the bass, each note with four harmonics."""
    scale = MAJOR if mode == "major" else MINOR
    time = np.arange(round(RATE * seconds / 4)) / RATE
    parts = []
    for degree in (0, 3, 4, 0):
        notes = [scale[(degree + step) % 7] + 12 * ((degree + step) // 7) for step in (0, 2, 4)]
        pitches = [48 + tonic + notes[0] - 12, *(60 + tonic + note for note in notes)]
        hertz = [440.0 * 2 ** ((pitch - 69 + cents / 100) / 12) for pitch in pitches]
        parts.append(sum(np.sin(2 * np.pi * f * h * time) / h for f in hertz for h in (1, 2, 3, 4)))
    return (np.concatenate(parts) * 0.05).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tonic", range(12))
def test_a_cadence_is_in_its_key(tonic: int, mode: str) -> None:
    key = key_of([cadence(tonic, mode)])
    assert key is not None
    assert (key.tonic, key.mode) == (TONICS[tonic], mode)
    assert key.confidence > 0.3


@pytest.mark.parametrize("cents", [-45.0, -20.0, 30.0, 45.0])
def test_a_recording_out_of_tune_has_the_same_key(cents: float) -> None:
    key = key_of([cadence(3, "minor", cents)])
    assert key is not None and (key.tonic, key.mode) == ("D#", "minor")


def test_excerpts_count_together_and_those_too_short_do_not() -> None:
    part = cadence(7, "major")
    assert key_of([part[: len(part) // 2], part[len(part) // 2 :], part[:100]]) is not None
    assert key_of([part[:100]]) is None
    assert key_of([]) is None


def test_silence_has_no_key() -> None:
    assert key_of([np.zeros(5 * RATE, np.float32)]) is None


def test_the_volume_does_not_matter() -> None:
    loud, quiet = (pitch_class_shares([np.float32(gain) * cadence(2, "minor")]) for gain in (1.0, 0.01))
    assert loud is not None and quiet is not None
    np.testing.assert_allclose(loud, quiet, atol=1e-6)


def test_a_measured_track_has_a_key(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "track.wav", cadence(9, "minor"), RATE)
    key = measure_wav(tmp_path / "track.wav").key
    assert key is not None and (key.tonic, key.mode) == ("A", "minor")


def test_a_silent_track_has_no_key(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(5 * RATE, np.float32), RATE)
    assert measure_wav(tmp_path / "silent.wav").key is None


def test_points_are_those_of_mirex() -> None:
    c_major, c_minor, g_major, f_major, a_minor, e_flat_major = 0, 12, 7, 5, 21, 3
    truth = np.array([c_major] * 6 + [c_minor] * 3)
    answers = np.array([c_major, g_major, f_major, a_minor, c_minor, 2, e_flat_major, c_major, 19])
    assert points(answers, truth).tolist() == [1.0, 0.5, 0.5, 0.3, 0.2, 0.0, 0.3, 0.2, 0.5]


def clips_with_keys(folder: Path) -> Path:
    (folder / "blues").mkdir()
    rows = ["track,genre,artist,key"]
    for number in range(24):
        tonic, mode = number % 12, MODES[number // 12]
        soundfile.write(folder / "blues" / f"{number:02}.wav", cadence(tonic, mode, seconds=4.0), RATE)
        # The annotations count from A.
        rows.append(f"{number:02},blues,artist {number},{(tonic - 9) % 12 + 12 * (number // 12)}")
    (folder / "blues" / "unknown.wav").write_bytes((folder / "blues" / "00.wav").read_bytes())
    rows.append("unknown,blues,nobody,-1")
    (folder / "index.csv").write_text("\n".join(rows))
    return folder


def test_profiles_are_fitted_to_the_clips_with_a_key(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = Workspace(tmp_path / "cache", 1)
    folder = clips_with_keys(tmp_path / "data")
    clips = read_key_clips(folder, data)
    assert clips.keys.tolist() == list(range(24))
    assert (fit_profiles(clips).logits(clips.shares).argmax(axis=1) == clips.keys).all()
    profiles, card = tmp_path / "profiles.json", tmp_path / "key.md"
    text = train_keys(folder, "the command", 1, data, profiles, card)
    assert card.read_text() == text and "the command" in text
    assert set(json.loads(profiles.read_text())) == set(json.loads(PROFILES.read_text()))


def test_clips_without_a_key_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "blues").mkdir()
    soundfile.write(tmp_path / "blues" / "one.wav", np.zeros(4 * RATE, np.float32), RATE)
    with pytest.raises(DataError, match="no column key"):
        read_key_clips(tmp_path, Workspace(tmp_path / "cache", 1))
