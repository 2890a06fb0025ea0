"""Measures the ten audio features, in the units and ranges of Spotify's Web API.

Three are measurements in the plain sense:

- ``duration_ms``: milliseconds, 0 or more; samples by sample rate.
- ``tempo``: BPM, 50 to 220, or 0 without a beat; the periodicity of onsets, with a preference for the tempi that people
  tap (`shared.audio.track_features.rhythm`, after Ellis 2007).
- ``loudness``: dB, -60 to 0; integrated loudness of the mono mix in LUFS (`.loudness`, ITU-R BS.1770-4).
  Only this feature depends on the volume. The others are measured at the reference level (`shared.audio.level`), and
  the mood model takes the loudness at that level (``Measured.levelled``).

The seven others are estimates without a unit, 0 to 1. Spotify has never published how it computes its own: each follows
the one sentence in Spotify's documentation and its order (more is a higher number), and does not reproduce Spotify's
values. So a model trained on Spotify's values cannot use them. The mood model is trained on these measures
(`training.mood.listeners`). Signal processing provides one part. What it cannot detect (voices, electric instruments,
parties, sadness) comes from the tags of a network trained on listeners' annotations (musicnn, Pons and Serra 2019, or
its student). Each function names its tags. Without tags those parts take average values. ``liveness`` is a weak proxy.

The mood model's card reports how well each keeps its order over recordings of ten genres
(`training.mood.feature_checks`), and how well the mood agrees with listeners. Everything but the loudness is measured
below 8 kHz, so that a file of low bit rate measures like its original.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from shared.audio.decode import SAMPLE_RATE
from shared.audio.level import BLOCK_S, SILENCE_DBFS, LevelMeter, at_gain, gain_db, track_level
from shared.audio.segment_features.mel_filters import BandedProduct, mel_basis
from shared.audio.segment_features.mfcc import power_spectrum
from shared.audio.segments import Stretch, is_silent
from shared.audio.track_features.key import Key, key_of
from shared.audio.track_features.loudness import block_powers, integrated_loudness
from shared.audio.track_features.rhythm import Rhythm, onset_strength, rhythm
from shared.audio.track_features.tag_scores import likely
from shared.audio.wav import open_wav, read_samples
from shared.contracts.audio_features import AudioFeatures

Array = npt.NDArray[np.float32]
#: Probabilities of tags by name, from `shared.models.heard_track`. A missing tag counts as average.
Tags = Mapping[str, float]

#: No tags are known: every tag counts as average.
NO_TAGS: Final[Tags] = MappingProxyType({})
#: Loudness of silence, dB: the lowest value Spotify gives.
SILENCE_DB: Final = -60.0

_N_FFT: Final = 2048
_HOP: Final = 512
_BANDS: Final = 64
_TOP_HZ: Final = 8000.0
#: Spectra below this power count as empty, relative to the loudest frame (-80 dB).
_FLOOR: Final = 1e-8
_EXCERPT_S: Final = 15.0
#: The length of a segment, in samples.
_BLOCK: Final = BLOCK_S * SAMPLE_RATE
_PITCH_HZ: Final = (100.0, 2000.0)
_VOICE_HZ: Final = (300.0, 3400.0)
_TREBLE_HZ: Final = 2500.0


def measure(samples: Array, tags: Tags = NO_TAGS) -> AudioFeatures:
    """The ten features of a whole mono track, float32 [n] in [-1, 1] at 22.05 kHz, whose ``tags`` are known.

    Cost and memory grow with its length.

    Silence has tempo 0, loudness -60 dB, energy 0, and 0.5 for undefined features. Raises ValueError unless there is
    one channel.
    """
    if samples.ndim != 1:
        raise ValueError(f"one channel [n] is needed, not {samples.shape}")
    return _measured([samples], tags, len(samples) / SAMPLE_RATE, _own_level([samples])).features


def measure_wav(
    file: Path | BinaryIO,
    tags: Tags = NO_TAGS,
    max_analysed_s: float = 60.0,
    sounding: Sequence[Stretch] = (),
    track_level_dbfs: float | None = None,
) -> Measured:
    """The ten features of a decoded track (16-bit mono WAV at 22.05 kHz).

    ``tags`` are its music tags, ``track_level_dbfs`` is its level (`shared.audio.level.track_level`; the level of the
    excerpts if None). At most ``max_analysed_s`` seconds are read, in evenly spaced excerpts of 15 s; a shorter track
    is read whole. If the ``sounding`` parts of the track are given, the rest is skipped. The loudness is measured in
    the excerpts, too. Raises TonestreamError (corrupt_audio).
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return measure_wav(opened, tags, max_analysed_s, sounding, track_level_dbfs)
    with open_wav(file, SAMPLE_RATE) as wav:
        duration_s = wav.getnframes() / SAMPLE_RATE
        excerpts = _excerpts(wav, max_analysed_s, sounding)
    level_dbfs = _own_level(excerpts) if track_level_dbfs is None else track_level_dbfs
    return replace(_measured(excerpts, tags, duration_s, level_dbfs), key=key_of(excerpts))


def measure_segment(samples: Array, tags: Tags, track_level_dbfs: float | None, duration_ms: float) -> AudioFeatures:
    """The ten features of a segment [n] of a track of that level and duration, with the loudness at the reference
    level. The segment counts as if all of the track were like it. What needs longer than a segment, such as the tempo,
    is rough."""
    level_dbfs = _own_level([samples]) if track_level_dbfs is None else track_level_dbfs
    return replace(_measured([samples], tags, 0.0, level_dbfs).levelled, duration_ms=duration_ms)


@dataclass(frozen=True, slots=True)
class Measured:
    """The ten ``features`` of a track as recorded, and ``levelled``: with its loudness at the reference level.

    ``key`` is None if nothing has a pitch.
    """

    features: AudioFeatures
    levelled: AudioFeatures
    key: Key | None = None


def _own_level(excerpts: Sequence[Array]) -> float:
    levels: list[float] = []
    for part in excerpts:
        meter = LevelMeter(SAMPLE_RATE)
        meter.add(part)
        levels += meter.read()[0]
    return track_level(levels)


def _excerpts(wav: wave.Wave_read, max_analysed_s: float, sounding: Sequence[Stretch]) -> list[Array]:
    frames = wav.getnframes()
    stretches = [
        (min(stretch.start_s * SAMPLE_RATE, frames), min(stretch.end_s * SAMPLE_RATE, frames)) for stretch in sounding
    ] or [(0, frames)]
    excerpts = []
    for start, length in _spread(sum(end - start for start, end in stretches), max_analysed_s):
        for first, last in _pieces(stretches, start, length):
            wav.setpos(first)
            excerpts.append(read_samples(wav, last - first))
    return excerpts


def _spread(total: int, max_analysed_s: float) -> list[tuple[int, int]]:
    """The beginnings of the excerpts of ``total`` samples, and their length."""
    most = round(max_analysed_s * SAMPLE_RATE)
    if total <= most:
        return [(0, total)]
    count = max(1, round(max_analysed_s / _EXCERPT_S))
    length = most // count
    # The gaps before, between and after the excerpts are equal: fades at both ends stay out.
    starts = [round((total - most) * (i + 1) / (count + 1)) + i * length for i in range(count)]
    return [(start, length) for start in starts]


def _pieces(stretches: Sequence[tuple[int, int]], start: int, length: int) -> Iterator[tuple[int, int]]:
    """The samples [from, to) of the track that ``length`` samples of its stretches are, laid end to end."""
    passed = 0
    for first, last in stretches:
        begin, end = max(start - passed, 0), min(start + length - passed, last - first)
        if begin < end:
            yield first + begin, first + end
        passed += last - first


@dataclass(frozen=True, slots=True)
class _Sound:
    """The inputs of the estimates, pooled over all excerpts: the sounding frames, and the rhythm.

    ``mel`` is power [frames, bands] re the loudest frame, ``power`` its sum over the bands, ``flatness`` the spectral
    flatness of each frame in dB and ``evenness`` its median, ``chroma`` the mean share of the twelve pitch classes from
    C, ``onsets`` the onset strength in dB and ``busyness`` its mean, ``modulation`` the syllabic share and ``spoken``
    how likely it is speech (0..1).
    """

    loudness: float
    mel: Array
    power: Array
    flatness: Array
    evenness: float
    onsets: Array
    busyness: float
    chroma: Array
    tonality: float
    modulation: float
    spoken: float
    rhythm: Rhythm


def _measured(excerpts: Sequence[Array], tags: Tags, duration_s: float, level_dbfs: float) -> Measured:
    gain = gain_db(level_dbfs)
    # Removes the DC offset, which would count as loud.
    flat = [part - part.mean(dtype=np.float64).astype(np.float32) if len(part) else part for part in excerpts]
    at_reference = [at_gain(part, gain) for part in flat]
    levelled_lufs = integrated_loudness(np.concatenate([block_powers(part, SAMPLE_RATE) for part in at_reference]))
    heard = any(_sounds(part, level_dbfs) for part in flat)
    sound = _listen(at_reference, levelled_lufs) if heard else None
    levelled = _features(sound, tags, duration_s, _in_range(levelled_lufs))
    return Measured(replace(levelled, loudness=_in_range(levelled_lufs - gain)), levelled)


def _in_range(loudness: float) -> float:
    return min(max(loudness, SILENCE_DB), 0.0)


def _features(sound: _Sound | None, tags: Tags, duration_s: float, loudness: float) -> AudioFeatures:
    if sound is None:
        return AudioFeatures(duration_s * 1000.0, 0.0, loudness, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.5)
    return AudioFeatures(
        duration_ms=duration_s * 1000.0,
        tempo=sound.rhythm.tempo,
        loudness=loudness,
        energy=energy(sound, tags),
        danceability=danceability(sound, tags),
        acousticness=acousticness(sound, tags),
        instrumentalness=instrumentalness(sound, tags),
        liveness=liveness(sound),
        speechiness=speechiness(sound, tags),
        valence=valence(sound, tags),
    )


def _sounds(samples: Array, level_dbfs: float) -> bool:
    """Whether a part of a track of this level is audible, by the rules for tracks and for segments."""
    blocks = (samples[at : at + _BLOCK] for at in range(0, len(samples), _BLOCK))
    return level_dbfs >= SILENCE_DBFS and any(not is_silent(block, level_dbfs) for block in blocks)


def _listen(excerpts: Sequence[Array], loudness: float) -> _Sound | None:
    """The content below 8 kHz; None if there is none."""
    frame_rate = SAMPLE_RATE / _HOP
    powers = [power_spectrum(part, _N_FFT, _HOP) for part in excerpts if len(part)]
    reference = max(float(power.sum(axis=1).max()) for power in powers)
    in_bands, _ = _bands()
    mels = [in_bands(power) / np.float32(reference) for power in powers]
    decibels = [10.0 * np.log10(np.maximum(mel, np.float32(_FLOOR))) for mel in mels]
    onsets = [onset_strength(part) for part in decibels]
    spectrum = np.concatenate([_pitched(power) for power in powers]) / np.float32(reference)
    mel = np.concatenate(mels)
    sounding = mel.sum(axis=1) > _FLOOR * 100
    if not sounding.any():
        return None
    mel = mel[sounding]
    power = mel.sum(axis=1)
    flatness = _flatness_db(np.concatenate(decibels)[sounding], mel)
    heard_onsets = np.concatenate(onsets)[sounding]
    tonality = _tonality(spectrum[sounding])
    modulation = _syllabic_modulation(mels, frame_rate)
    return _Sound(
        loudness=loudness,
        mel=mel,
        power=power,
        flatness=flatness,
        evenness=float(np.median(flatness)),
        onsets=heard_onsets,
        busyness=float(heard_onsets.mean()),
        chroma=_chroma(spectrum[sounding]),
        tonality=tonality,
        modulation=modulation,
        spoken=_spoken(power, modulation, tonality),
        rhythm=rhythm(onsets, frame_rate),
    )


def energy(sound: _Sound, tags: Tags = NO_TAGS) -> float:
    """Intensity, 0..1: half signal (loudness, busyness of onsets, evenness of the spectrum), half tags.

    Spotify: "a perceptual measure of intensity and activity"; loudness, onset rate, timbre and entropy contribute. The
    tags show what the signal of a quietly mastered recording does not: metal, hard rock, punk, party, dance and electro
    against mellow, chill, beautiful and acoustic. Checked: metal above classical; power and tension of listeners.
    Limit: it confuses power with tension.
    """
    signal = np.mean(
        [
            _ramp(sound.loudness, -32.0, -9.0),
            _ramp(sound.busyness, 0.4, 2.2),
            _ramp(sound.evenness, -24.0, -8.0),
        ]
    )
    intense = ("metal", "hard rock", "punk", "party", "dance", "electro")
    return 0.5 * float(signal) + 0.5 * likely(tags, intense, ("mellow", "chill", "beautiful", "acoustic"))


def danceability(sound: _Sound, tags: Tags = NO_TAGS) -> float:
    """How well a steady beat carries, 0..1: half signal (clear, strong beat; tempo near 115 BPM), half tags.

    Spotify: "tempo, rhythm stability, beat strength, and overall regularity". The clarity is the pulse clarity of
    Lartillot et al. 2008 (height of the autocorrelation of onsets); it is low for syncopated music, so the tags dance,
    party, funk, house and hip-hop count against ambient, experimental and beautiful. Checked: disco and hip-hop
    above classical; a steady click above random ones.
    """
    clear = _ramp(sound.rhythm.clarity, 0.03, 0.5)
    octaves = np.log2(max(sound.rhythm.tempo, 1.0) / 115.0)
    comfortable = float(np.exp(-0.5 * np.square(octaves / 0.6)))
    beat = _ramp(float(np.percentile(sound.onsets, 95)), 1.5, 8.0)
    signal = 0.6 * clear + 0.2 * comfortable + 0.2 * beat
    danced = likely(tags, ("dance", "party", "funk", "house", "hip-hop"), ("ambient", "experimental", "beautiful"))
    return 0.5 * signal + 0.5 * danced


def acousticness(sound: _Sound, tags: Tags = NO_TAGS) -> float:
    """Confidence that only acoustic instruments sound, 0..1: 0.4 signal, 0.6 tags.

    Spotify: "a confidence measure of whether the track is acoustic". The signal shows timbre only: little treble,
    tonal, soft onsets. So a dark synthesiser counts as acoustic. The tags are acoustic, folk, jazz and guitar against
    electronic, electro, rock and metal. Checked: classical above disco, country above metal; a piano above noise with a
    beat.
    """
    centres = _bands()[1]
    treble = float(sound.mel[:, centres > _TREBLE_HZ].sum() / sound.mel.sum())
    signal = np.mean(
        [
            1.0 - _ramp(np.log10(treble + 1e-6), -3.0, -0.7),
            1.0 - _ramp(sound.evenness, -24.0, -8.0),
            _ramp(sound.tonality, 0.3, 0.8),
            1.0 - _ramp(sound.busyness, 0.4, 2.2),
        ]
    )
    tagged = likely(tags, ("acoustic", "folk", "jazz", "guitar"), ("electronic", "electro", "rock", "metal"))
    return 0.4 * float(signal) + 0.6 * tagged


def instrumentalness(sound: _Sound, tags: Tags = NO_TAGS) -> float:
    """Confidence that nobody sings or speaks, 0..1, from tags: instrumental and ambient against voices and pop.

    Spotify: "predicts whether a track contains no vocals". Solo winds and strings resemble voices in their frequency
    band and modulation, so the signal contributes only the detection of speech. Checked: classical and jazz above pop;
    speech near 0. Limit: without tags it is 0.5 for all music.
    """
    voices = ("female vocalists", "male vocalists", "female vocalist", "pop")
    return likely(tags, ("instrumental", "ambient"), voices, slope=1.5) * (1.0 - _ramp(sound.spoken, 0.5, 1.0))


def liveness(sound: _Sound) -> float:
    """A proxy for an audience, 0..1: how loud and how noise-like the quiet moments are.

    Spotify: "detects the presence of an audience in the recording". Applause and room sound fill the pauses with
    broadband noise; the measure is our own. Limits: distorted guitars and tape hiss do the same, no tag helps, and it
    was not checked against recordings with and without an audience.
    """
    level = 10.0 * np.log10(sound.power + _FLOOR)
    quiet = level <= np.percentile(level, 10)
    depth = float(np.median(level) - level[quiet].mean())
    evenness = float(np.median(sound.flatness[quiet]))
    return float(_ramp(-depth, -20.0, -2.0) * _ramp(evenness, -24.0, -6.0))


def speechiness(sound: _Sound, tags: Tags = NO_TAGS) -> float:
    """Spoken words, 0..1: speech by its signal, rap by the tag hip-hop, which by itself reaches 0.5 at most.

    Spotify: above 0.66 "probably made entirely of spoken words", 0.33 to 0.66 "both music and speech, including such
    cases as rap". Checked: hip-hop above the other genres; speech above 0.66; a piano below 0.15.
    """
    return 1.0 - (1.0 - sound.spoken) * (1.0 - 0.5 * likely(tags, ("hip-hop",), slope=2.0) ** 2)


def _spoken(power: Array, modulation: float, tonality: float) -> float:
    """Speech rather than music, 0..1: syllables (modulation near 4 Hz), many short pauses, no pitch held.

    Scheirer and Slaney 1997, "Construction and evaluation of a robust multifeature speech/music discriminator". 19 of
    20 clips of music stay below 0.3, half of them below 0.02.
    """
    pauses = float((power < 0.5 * power.mean()).mean())
    spoken = _ramp(modulation, 0.2, 0.6) * _ramp(pauses, 0.2, 0.7)
    unpitched = 1.0 - 0.5 * _ramp(tonality, 0.3, 0.8)
    return float(min(1.0, spoken * unpitched / 0.3) ** 1.5)


def valence(sound: _Sound, tags: Tags = NO_TAGS) -> float:
    """Cheerfulness, 0..1: a fifth signal (major key, quick, clear beat, bright), the rest tags.

    Spotify: "the musical positiveness conveyed by a track". The mode is the better fit of Krumhansl's major or minor
    profile (Krumhansl 1990). Mode and tempo are the classic cues of happy and sad music (Hunter, Schellenberg and
    Schimmack 2010), but correlate weakly with what listeners say. The tags happy, party, catchy and funk against sad,
    beautiful and mellow do so better. Checked: joyful activation and sadness of listeners; disco and reggae above
    classical.
    """
    major, minor = _key_fit(sound.chroma)
    centres = _bands()[1]
    centroid = float((sound.mel.sum(axis=0) * np.log2(centres)).sum() / sound.mel.sum())
    signal = (
        0.3 * _ramp(major - minor, -0.2, 0.2)
        + 0.25 * _ramp(sound.busyness, 0.4, 2.2)
        + 0.25 * _ramp(sound.rhythm.clarity, 0.03, 0.5)
        + 0.2 * _ramp(centroid, 8.0, 10.5)
    )
    return 0.2 * signal + 0.8 * likely(tags, ("happy", "party", "catchy", "funk"), ("sad", "beautiful", "mellow"))


def _ramp(value: float, low: float, high: float) -> float:
    """0 at ``low`` and below, 1 at ``high`` and above. The ends are about the 5th and 95th percentile of real music."""
    # np.clip takes twenty times as long for one number.
    return float(min(max((value - low) / (high - low), 0.0), 1.0))


def _flatness_db(decibels: Array, mel: Array) -> Array:
    """Spectral flatness of each frame over the mel bands, dB: 0 for even noise, low for a few partials."""
    mean = 10.0 * np.log10(np.maximum(mel.mean(axis=1), np.float32(_FLOOR)))
    flatness: Array = decibels.mean(axis=1) - mean
    return flatness


@lru_cache(maxsize=1)
def _bands() -> tuple[BandedProduct, Array]:
    """The mel bands below 8 kHz: (from power spectra to them, centre frequencies in Hz [bands])."""
    basis = mel_basis(SAMPLE_RATE, _N_FFT, _BANDS)
    hertz = np.arange(len(basis), dtype=np.float32) * SAMPLE_RATE / _N_FFT
    centres = (basis * hertz[:, None]).sum(axis=0) / basis.sum(axis=0)
    below = centres < _TOP_HZ
    return BandedProduct(basis[:, below]), centres[below]


def _pitched(power: Array) -> Array:
    low, high = (round(hertz * _N_FFT / SAMPLE_RATE) for hertz in _PITCH_HZ)
    pitched: Array = power[:, low:high]
    return pitched


def _chroma(spectrum: Array) -> Array:
    """Shares of the twelve pitch classes from C, from magnitudes between 100 Hz and 2 kHz."""
    pitch_class, bins = _pitch_classes(spectrum.shape[1])
    weights = np.sqrt(spectrum).sum(axis=0)
    chroma = np.bincount(pitch_class, weights / bins, minlength=12)
    shares: Array = (chroma / max(float(chroma.sum()), 1e-12)).astype(np.float32)
    return shares


@lru_cache(maxsize=1)
def _pitch_classes(count: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """The pitch class, from C, of each of ``count`` bins from 100 Hz on, and how many bins its class has."""
    hertz = (round(_PITCH_HZ[0] * _N_FFT / SAMPLE_RATE) + np.arange(count)) * SAMPLE_RATE / _N_FFT
    pitch_class = np.round(12.0 * np.log2(hertz / 440.0) + 9.0).astype(int) % 12
    return pitch_class, np.bincount(pitch_class, minlength=12)[pitch_class]


def _tonality(spectrum: Array) -> float:
    """Share of power, 0..1, in the strongest tenth of the bins of a frame: pure tones 1, noise 0.3."""
    strongest = spectrum.shape[1] // 10
    total = spectrum.sum(axis=1)
    peaks = np.partition(spectrum, -strongest, axis=1)[:, -strongest:].sum(axis=1)
    audible = total > _FLOOR
    return float(np.median(peaks[audible] / total[audible])) if audible.any() else 0.0


def _syllabic_modulation(mels: Sequence[Array], frame_rate: float) -> float:
    """Share, 0..1, of the fluctuation of the voice band between 0.5 and 16 Hz that lies between 2.5 and 6 Hz."""
    centres = _bands()[1]
    voice = (centres > _VOICE_HZ[0]) & (centres < _VOICE_HZ[1])
    syllabic = total = 0.0
    for mel in mels:
        envelope = np.sqrt(mel[:, voice].sum(axis=1))
        fluctuation = np.square(np.abs(np.fft.rfft(envelope - envelope.mean())))
        rate = np.fft.rfftfreq(len(envelope), 1.0 / frame_rate)
        syllabic += float(fluctuation[(rate >= 2.5) & (rate <= 6.0)].sum())
        total += float(fluctuation[(rate >= 0.5) & (rate <= 16.0)].sum())
    return syllabic / total if total > 0.0 else 0.0


#: Krumhansl 1990, "Cognitive Foundations of Musical Pitch": how well each degree fits a major and a minor key.
_MAJOR: Final = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR: Final = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])


def _key_fit(chroma: Array) -> tuple[float, float]:
    """Correlation of ``chroma`` with the best major and the best minor key."""
    if float(np.ptp(chroma)) == 0.0:
        return 0.0, 0.0
    centred = chroma - chroma.mean(dtype=np.float64)
    major, minor = (_key_profiles() @ centred).max(axis=1) / np.sqrt(centred @ centred)
    return float(major), float(minor)


@lru_cache(maxsize=1)
def _key_profiles() -> npt.NDArray[np.float64]:
    """Both profiles for each tonic from C, [2, 12 tonics, 12], each with mean 0 and length 1.

    Their products with centred shares are correlations.
    """
    centred = [profile - profile.mean() for profile in (_MAJOR, _MINOR)]
    return np.array([[np.roll(one / np.sqrt(one @ one), tonic) for tonic in range(12)] for one in centred])
