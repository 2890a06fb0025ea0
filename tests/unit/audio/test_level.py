"""The level of a track, and that features, tags and silence do not depend on it."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest

from shared.audio.decode import SAMPLE_RATE, DecodeLimits, decode, find_ffmpeg
from shared.audio.level import (
    NOISE_DBFS,
    REFERENCE_DBFS,
    SILENCE_DBFS,
    LevelMeter,
    at_gain,
    gain_db,
    silence_dbfs,
    track_level,
)
from shared.audio.segment_features.extraction import segment_features
from shared.audio.segments import (
    MOST_STRETCHES,
    Stretch,
    is_silent,
    level_dbfs,
    silent_stretches,
    sounding_stretches,
)
from shared.audio.spec import LOG_MEL96, MFCC13, MFCC40, FeatureSpec
from shared.audio.wav import iter_segments
from tests.support.samples import SAMPLES

Array = npt.NDArray[np.float32]
SILENT = float("-inf")


def noise(dbfs: float, seconds: float) -> Array:
    random = np.random.default_rng(int(seconds))
    return at_gain(random.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32), dbfs)


def levels(samples: Array) -> tuple[float, ...]:
    meter = LevelMeter(SAMPLE_RATE)
    meter.add(samples)
    return meter.read()[0]


def recorded(samples: Array, db: float) -> Array:
    """At a gain, and rounded to 16 bits as a decoder does."""
    pcm = np.rint(at_gain(samples, db) * 32768.0).astype("<i2")
    samples_as_read: Array = np.divide(pcm, 32768.0, dtype=np.float32)
    return samples_as_read


@pytest.fixture(scope="module", params=[SAMPLES[0], SAMPLES[-1]], ids=lambda path: str(path.stem))
def music(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Array:
    wav = tmp_path_factory.mktemp("level") / "decoded.wav"
    decode(request.param, wav, DecodeLimits(), find_ffmpeg())
    parts = [samples for _, samples in iter_segments(io.BytesIO(wav.read_bytes()), MFCC13, 32)]
    return np.concatenate(parts).ravel()


def test_the_level_of_each_second_does_not_depend_on_the_pieces_it_comes_in() -> None:
    samples = noise(-20.0, 5.5)
    meter = LevelMeter(SAMPLE_RATE)
    for part in np.array_split(samples, 37):
        meter.add(part)
    each, whole = meter.read()
    assert each == pytest.approx(levels(samples), abs=1e-6)
    assert len(each) == 6
    assert whole == pytest.approx(level_dbfs(samples), abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([-20.0] * 30, -20.0),
        ([-20.0] * 30 + [SILENT] * 1200, -20.0),
        ([-20.0] * 30 + [-45.0] * 300, -20.0),
        ([SILENT] * 10, SILENT),
        ([], SILENT),
        ([-95.0] * 10, SILENT),
        ([-60.0] * 10, -60.0),
    ],
    ids=["music", "silence behind it", "a quiet part", "silence", "nothing", "dither", "quiet music"],
)
def test_the_level_of_a_track_is_that_of_what_sounds_in_it(seconds: list[float], expected: float) -> None:
    assert track_level(seconds) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("gain", [6.0, -10.0, -30.0, -40.0])
def test_a_gain_changes_the_level_of_a_track_by_just_that_gain(music: Array, gain: float) -> None:
    assert track_level(levels(recorded(music, gain - 6.0))) == pytest.approx(
        track_level(levels(music)) + gain - 6.0, abs=0.05
    )


def test_a_track_whose_level_is_not_known_is_taken_as_it_is() -> None:
    assert gain_db(None) == gain_db(SILENT) == 0.0
    assert gain_db(-30.0) == REFERENCE_DBFS + 30.0
    samples = noise(-20.0, 3.0)
    assert at_gain(samples, 0.0) is samples
    np.testing.assert_array_equal(
        segment_features(samples[np.newaxis], MFCC13),
        segment_features(samples[np.newaxis], MFCC13.model_copy(update={"level_dbfs": None}), -40.0),
    )


@pytest.mark.parametrize("spec", [MFCC13, MFCC40, LOG_MEL96], ids=lambda spec: str(spec.id))
@pytest.mark.parametrize("gain", [-10.0, -30.0, -40.0])
def test_features_do_not_depend_on_the_volume(music: Array, spec: FeatureSpec, gain: float) -> None:
    quiet = recorded(music, gain)
    segment = slice(2 * spec.segment_samples, 3 * spec.segment_samples)
    original = segment_features(music[np.newaxis, segment], spec, track_level(levels(music)))
    found = segment_features(quiet[np.newaxis, segment], spec, track_level(levels(quiet)))
    # Quantisation to 16 bits is all that is left of the gain: a noise at -98 dBFS.
    assert np.abs(found - original).mean() < 0.01 * np.abs(original).mean() * 10.0 ** ((-gain - 10.0) / 20.0)
    as_it_is = segment_features(quiet[np.newaxis, segment], spec)
    assert np.abs(found - original).mean() < 0.2 * np.abs(as_it_is - original).mean()


@pytest.mark.parametrize(
    ("track", "segment", "silent"),
    [
        (-18.0, -69.0, False),
        (-18.0, -71.0, True),
        (-48.0, -85.0, False),
        (-8.0, -61.0, True),
        (-58.0, -91.0, True),
        (None, -69.0, False),
    ],
)
def test_silence_is_as_far_below_every_track_and_never_within_the_noise_of_16_bits(
    track: float | None, segment: float, silent: bool
) -> None:
    assert is_silent(noise(segment, 3.0), track) is silent
    assert silence_dbfs(track) >= NOISE_DBFS


@pytest.mark.parametrize("gain", [0.0, -20.0, -40.0])
def test_where_something_sounds_does_not_depend_on_the_volume(gain: float) -> None:
    seconds = [level + gain for level in [-20.0] * 30 + [-80.0] * 60 + [-45.0] * 9]
    assert sounding_stretches(seconds) == (Stretch(0, 30), Stretch(90, 99))


def test_nothing_sounds_in_a_track_below_70_dbfs() -> None:
    assert sounding_stretches([SILENCE_DBFS - 1.0] * 30) == ()
    assert sounding_stretches([SILENCE_DBFS + 1.0] * 30) == (Stretch(0, 30),)


def test_short_silences_are_named_by_whole_segments_and_of_too_many_the_longest() -> None:
    silent = -120.0
    assert silent_stretches([-20.0] * 9) == ()
    assert silent_stretches([silent] * 4 + [-20.0] * 8 + [silent] * 8) == (Stretch(0, 3), Stretch(12, 20))
    many = ([-20.0] * 3 + [silent] * 3) * 100 + [-20.0] * 3 + [silent] * 9
    found = silent_stretches(many)
    assert (
        len(found) == MOST_STRETCHES
        and found[-1] == Stretch(603, 612)
        and list(found) == sorted(found, key=lambda one: one.start_s)
    )
