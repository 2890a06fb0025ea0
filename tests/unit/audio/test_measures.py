"""The measured features, on audio whose answer is known."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal

from shared.audio.track_features import loudness
from shared.audio.track_features.loudness import block_powers, integrated_loudness, k_weighted
from shared.audio.track_features.measures import SILENCE_DB, measure, measure_wav
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode, TonestreamError
from tests.support.sounds import RATE, Array, clicks, noise, sine
from tests.support.wav_files import endless_wav, wav_bytes
from training.data.features import limit_bandwidth

UNIT_RANGE = AUDIO_FEATURES[3:]


def seconds(count: float) -> npt.NDArray[np.float64]:
    return np.arange(round(count * RATE)) / RATE


def chord(length_s: float = 15.0) -> Array:
    """A held, soft, dark chord."""
    partials = [np.sin(2 * np.pi * hertz * seconds(length_s)) for hertz in (130.8, 164.8, 196.0)]
    return np.asarray(0.05 * np.sum(partials, axis=0), np.float32)


@pytest.mark.parametrize("bpm", [60.0, 72.5, 90.0, 101.3, 120.0, 128.0, 140.0, 174.0])
def test_the_tempo_of_a_click_track_is_right_within_two_percent_or_an_octave_off(bpm: float) -> None:
    ratio = measure(clicks(bpm)).tempo / bpm
    assert min(abs(ratio / octave - 1.0) for octave in (0.5, 1.0, 2.0)) < 0.02


@pytest.mark.parametrize("bpm", [90.0, 101.3, 120.0, 128.0, 140.0])
def test_the_tempo_of_a_moderate_click_track_is_right_to_the_octave(bpm: float) -> None:
    assert measure(clicks(bpm)).tempo == pytest.approx(bpm, rel=0.02)


@pytest.mark.parametrize("rate", [22050, 48000])
@pytest.mark.parametrize(("hertz", "weight_db"), [(997.0, 0.69), (100.0, -1.1)])
def test_the_loudness_of_a_tone_is_the_one_of_bs_1770(rate: int, hertz: float, weight_db: float) -> None:
    # A sine of 997 Hz at full scale in one channel is -3.01 LUFS: its K-weighting makes up for the offset of
    # -0.691 dB.
    expected = -20.0 - 3.01 - 0.691 + weight_db
    tone = sine(hertz, -20.0, rate=rate)
    assert integrated_loudness(block_powers(tone, rate)) == pytest.approx(expected, abs=0.1)
    if rate == RATE:
        assert measure(tone).loudness == pytest.approx(expected, abs=0.1)


def test_a_stereo_reference_tone_of_minus_23_lufs_reads_3_db_less_in_mono() -> None:
    # EBU Tech 3341, case 1: both channels of a 1 kHz sine at -23 dBFS are -23.0 LUFS together, one alone is half of it.
    assert measure(sine(1000.0, -23.0, 20.0)).loudness == pytest.approx(-23.0 - 3.01, abs=0.1)


@pytest.mark.parametrize("gain_db", [-6.0, -20.0, -30.0])
def test_loudness_follows_the_gain_and_nothing_else_does(gain_db: float) -> None:
    track = (clicks(120.0, 15.0) + chord()) * 0.5
    loud, quiet = measure(track).as_dict(), measure(track * np.float32(10 ** (gain_db / 20))).as_dict()
    expected = max(loud.pop("loudness") + gain_db, SILENCE_DB)
    assert quiet.pop("loudness") == pytest.approx(expected, abs=0.1)
    assert quiet == pytest.approx(loud, abs=1e-3)


def test_pauses_are_gated_out_of_the_loudness() -> None:
    tone = sine(997.0, -20.0)
    with_pause = np.concatenate([tone, np.zeros(30 * RATE, np.float32)])
    assert measure(with_pause).loudness == pytest.approx(measure(tone).loudness, abs=0.5)


@pytest.mark.parametrize("samples", [0, 100, 5 * RATE])
def test_silence_has_no_tempo_no_energy_and_the_lowest_loudness(samples: int) -> None:
    silent = measure(np.zeros(samples, np.float32))
    assert (silent.tempo, silent.energy, silent.loudness) == (0.0, 0.0, SILENCE_DB)


@pytest.mark.parametrize(
    "track",
    [noise(0.5), noise(1e-4), chord(), clicks(100.0, 5.0), sine(440.0, -6.0, 0.05), np.ones(RATE, np.float32),
     np.sign(sine(50.0, 0.0)), sine(10_500.0, -6.0), sine(5.0, -6.0)],
    ids=["noise", "faint noise", "chord", "clicks", "50 ms", "constant", "square wave", "10.5 kHz", "5 Hz"],
)  # fmt: skip
def test_every_feature_is_finite_and_in_its_range(track: Array) -> None:
    measured = measure(track).as_dict()
    assert tuple(measured) == AUDIO_FEATURES
    assert all(np.isfinite(list(measured.values())))
    assert all(0.0 <= measured[name] <= 1.0 for name in UNIT_RANGE)
    assert -60.0 <= measured["loudness"] <= 0.0
    assert measured["duration_ms"] == pytest.approx(len(track) / RATE * 1000)


def test_noise_with_a_beat_has_more_energy_and_is_less_acoustic_than_a_chord() -> None:
    loud, soft = measure(noise(0.3) + clicks(130.0, 15.0)), measure(chord())
    assert loud.energy > soft.energy + 0.2
    assert loud.acousticness < soft.acousticness - 0.3


def test_a_steady_beat_is_more_danceable_than_a_held_chord_or_random_clicks() -> None:
    random = np.random.default_rng(11)
    irregular = np.zeros(30 * RATE, np.float32)
    for start in random.integers(0, len(irregular) - 800, 60):
        irregular[start : start + 800] += noise(0.3)[:800]
    steady = measure(clicks(120.0)).danceability
    assert steady > measure(chord(30.0)).danceability + 0.2
    assert steady > measure(irregular).danceability + 0.2


def syllables(length_s: float = 20.0) -> Array:
    """Like speech: a buzz of gliding pitch through moving formants, four syllables a second, with pauses."""
    random = np.random.default_rng(13)
    parts: list[np.ndarray] = []
    while sum(len(part) for part in parts) < length_s * RATE:
        if random.random() < 0.25:
            parts.append(np.zeros(round(random.uniform(0.2, 0.5) * RATE)))
        t = np.arange(round(random.uniform(0.12, 0.2) * RATE)) / RATE
        pitch = random.uniform(90, 150) * (1 + random.uniform(-0.3, 0.3) * t / t[-1])
        formants = random.uniform([300, 900, 2200], [800, 2000, 3200])
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        harmonics = np.arange(1, 30)
        strength = sum(np.exp(-(((harmonics * 120 - f) / 150) ** 2)) for f in formants)
        voiced = (strength[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)
        hiss = random.standard_normal(len(t)) * 0.15
        parts += [(voiced * 0.1 + hiss * 0.1) * np.hanning(len(t)), np.zeros(round(0.06 * RATE))]
    return np.concatenate(parts)[: round(length_s * RATE)].astype(np.float32)


def piano(length_s: float = 20.0, third: int = 4) -> Array:
    """Decaying partials: broken major chords (minor with a ``third`` of 3), a note every third of a second."""
    track = np.zeros(round(length_s * RATE))
    t = np.arange(2 * RATE) / RATE
    for number in range(round(length_s * 3)):
        hertz = 220.0 * 2 ** ((0, third, 7, 12, 7, third)[number % 6] / 12)
        note = np.sum([np.sin(2 * np.pi * hertz * p * t) * np.exp(-t * (1.5 + p)) / p for p in range(1, 8)], axis=0)
        start = number * RATE // 3
        track[start : start + len(t)] += 0.1 * note[: len(track) - start]
    return track.astype(np.float32)


def test_speech_is_told_from_music_and_is_no_instrument() -> None:
    spoken, played = measure(syllables()), measure(piano())
    assert spoken.speechiness > 0.66 > 0.15 > played.speechiness
    assert spoken.instrumentalness < 0.2 < played.instrumentalness


def test_a_piano_is_more_acoustic_and_less_energetic_than_noise_with_a_beat() -> None:
    played, noisy = measure(piano()), measure(noise(0.3) + clicks(130.0, 15.0))
    assert played.acousticness > noisy.acousticness + 0.2
    assert played.energy < noisy.energy - 0.15


def test_a_major_chord_is_more_cheerful_than_its_minor_one_and_a_quick_one_than_a_held_one() -> None:
    major, minor = measure(piano()).valence, measure(piano(third=3)).valence
    assert major > minor + 0.003  # the mode is a small part of a fifth: the rest is for the tags
    assert major > measure(chord(20.0)).valence + 0.02


def test_noise_in_the_pauses_reads_as_an_audience() -> None:
    with_pauses = piano() * (np.arange(20 * RATE) % (4 * RATE) < 2 * RATE)
    assert measure(with_pauses + noise(0.03, 20.0)).liveness > 0.4 > 0.1 > measure(with_pauses).liveness


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="there is no espeak-ng")
def test_a_speaking_machine_speaks(tmp_path: Path) -> None:
    text = (
        "Tonestream tells the genre of music. It is a pipeline of small services. Nobody understands a word of it. " * 2
    )
    raw = tmp_path / "speech.wav"
    subprocess.run(["espeak-ng", "-w", str(raw), text], check=True)
    import soundfile

    samples, rate = soundfile.read(raw, dtype="float32")
    assert rate == RATE
    assert measure(samples).speechiness > 0.5


@pytest.mark.parametrize(
    ("feature", "more", "less"),
    [
        ("energy", "metal", "mellow"),
        ("danceability", "party", "ambient"),
        ("acousticness", "acoustic", "electronic"),
        ("instrumentalness", "instrumental", "female vocalists"),
        ("speechiness", "hip-hop", None),
        ("valence", "happy", "sad"),
    ],
)
def test_tags_move_the_feature_they_speak_of_and_unknown_ones_move_nothing(
    feature: str, more: str, less: str | None
) -> None:
    track = piano(10.0)
    untagged = measure(track).as_dict()
    assert measure(track, tags={"bagpipe": 0.9}).as_dict() == untagged
    tagged = measure(track, tags={more: 0.9}).as_dict()
    assert tagged[feature] > untagged[feature] + 0.03
    assert all(0.0 <= tagged[name] <= 1.0 for name in UNIT_RANGE)
    assert tagged["tempo"] == untagged["tempo"] and tagged["loudness"] == untagged["loudness"]
    if less:
        assert measure(track, tags={less: 0.9}).as_dict()[feature] < untagged[feature] - 0.03


def test_a_track_of_which_nothing_is_left_above_8_khz_measures_like_its_original() -> None:
    track = noise(0.05) + clicks(100.0, 15.0) + chord()
    narrow = limit_bandwidth(track[None, :], RATE, 8000)[0]
    full, cut = measure(track).as_dict(), measure(narrow).as_dict()
    assert full["tempo"] == pytest.approx(cut["tempo"], rel=0.01)
    assert full["loudness"] == pytest.approx(cut["loudness"], abs=2.0)  # what is gone was as loud as its band is wide
    assert [cut[name] for name in UNIT_RANGE] == pytest.approx([full[name] for name in UNIT_RANGE], abs=0.05)


def test_the_measures_need_no_tensorflow() -> None:
    modules = "shared.audio.track_features.measures, shared.models.heard_track"
    script = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_short_track_is_measured_whole_by_both_ways_in() -> None:
    pcm = np.round(clicks(110.0, 20.0) * 32767)
    measured = measure_wav(io.BytesIO(wav_bytes(pcm))).features.as_dict()
    expected = measure((pcm / 32768).astype(np.float32)).as_dict()
    assert measured == pytest.approx(expected)


def test_excerpts_of_a_long_steady_track_measure_like_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "long.wav"
    file.write_bytes(wav_bytes(np.round(clicks(110.0, 150.0) * 32767)))
    measured = measure_wav(file, max_analysed_s=45.0).features
    assert measured.duration_ms == pytest.approx(150_000)
    assert measured.tempo == pytest.approx(110.0, rel=0.02)
    assert measured.loudness == pytest.approx(measure_wav(file, max_analysed_s=200.0).features.loudness, abs=0.2)


def test_a_track_of_three_hours_takes_no_more_time_or_memory_than_one_of_minutes() -> None:
    measure(noise(0.1, 3.0))  # librosa is imported once
    tracemalloc.start()
    started = time.perf_counter()
    try:
        measured = measure_wav(endless_wav(3.0)).features
        elapsed = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert measured.duration_ms == pytest.approx(3 * 3600 * 1000)
    assert peak < 150 * 1024**2
    assert elapsed < 5.0


def test_a_wav_that_is_cut_off_is_corrupt_audio() -> None:
    with pytest.raises(TonestreamError) as caught:
        measure_wav(io.BytesIO(wav_bytes(np.ones(5 * RATE))[:-1000]))
    assert caught.value.code is ErrorCode.CORRUPT_AUDIO


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="one channel"):
        measure(np.zeros((100, 2), np.float32))


@pytest.mark.parametrize(("rate", "samples"), [(22050, 200_001), (48000, 70_000), (22050, 100), (8000, 33_000)])
def test_the_weighting_by_spectra_is_that_of_the_recursive_filters(rate: int, samples: int) -> None:
    random = np.random.default_rng(samples)
    given = (random.standard_normal(samples) * 0.1 + 0.2).astype(np.float32)
    wanted = scipy.signal.sosfilt(loudness._k_weighting(rate), given)
    np.testing.assert_allclose(k_weighted(given, rate), wanted, atol=2e-6)
