"""The musical key of a track: tonic, mode, and how likely they are.

Spectral peaks between 55 and 2000 Hz vote for pitch classes, after the tuning of the recording is known. Those below
and above 250 Hz are counted apart, because the bass says more about the tonic. The shares of the twelve classes in both
bands are compared with 24 keys by profiles that were fitted to annotated clips (`training.key`). docs/key.md has the
figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.special

from shared.audio.decode import SAMPLE_RATE
from shared.audio.windows import hann

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Mode = Literal["major", "minor"]

TONICS: Final = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MODES: Final[tuple[Mode, Mode]] = ("major", "minor")
PROFILES: Final = Path(__file__).with_name("key_profiles.json")

_N_FFT: Final = 8192
_HOP: Final = 4096
#: The bands whose pitch classes are counted apart, Hz.
_BANDS_HZ: Final = ((55.0, 250.0), (250.0, 2000.0))
#: A peak counts for the classes nearer than this, in semitones.
_REACH: Final = 0.6
#: How many classes on either side of the nearest one may be within reach.
_STEPS: Final = 1
#: Peaks this far below the strongest of their frame are noise (-40 dB).
_WEAKEST: Final = 0.01
_A4_HZ: Final = 440.0
_A: Final = 9


class Key(NamedTuple):
    """A key and the probability that it is the right one of 24."""

    tonic: str
    mode: Mode
    confidence: float


@dataclass(frozen=True, slots=True)
class KeyProfiles:
    """How the shares of the pitch classes [2 bands, 12 from the tonic] speak for each mode.

    ``weights`` [2 modes, 24] apply to shares standardised by ``mean`` and ``deviation`` [24]; ``minor_bias`` is what a
    minor key has in advance; the logits are divided by ``temperature``.
    """

    weights: Floats
    mean: Floats
    deviation: Floats
    minor_bias: float
    temperature: float = 1.0

    def logits(self, shares: Floats) -> Floats:
        """Logits of the 24 keys, [n, 24]: twelve major ones from C, then the minor ones. ``shares`` are [n, 2, 12]."""
        turned = rotations(shares)
        scores = (turned - self.mean) / self.deviation @ self.weights.T
        scores[:, :, 1] += self.minor_bias
        logits: Floats = scores.transpose(0, 2, 1).reshape(len(shares), -1) / self.temperature
        return logits


def rotations(shares: Floats) -> Floats:
    """``shares`` [n, 2, 12] as each tonic hears them, [n, 12 tonics, 24]."""
    turned = [np.roll(shares, -tonic, axis=2).reshape(len(shares), -1) for tonic in range(len(TONICS))]
    return np.stack(turned, axis=1)


def key_of(excerpts: Sequence[Array]) -> Key | None:
    """The key of a track, from ``excerpts`` [n] at 22.05 kHz; None without a pitch."""
    shares = pitch_class_shares(excerpts)
    if shares is None:
        return None
    probabilities = scipy.special.softmax(_profiles().logits(shares[None])[0])
    best = int(probabilities.argmax())
    return Key(TONICS[best % 12], MODES[best // 12], float(probabilities[best]))


def pitch_class_shares(excerpts: Sequence[Array]) -> Floats | None:
    """Mean shares of the twelve pitch classes from C, [2 bands, 12]; None without a pitch in either band."""
    found = [_peaks(part) for part in excerpts if len(part) > _HOP]
    if not sum(len(one.hertz) for one in found):
        return None
    hertz = np.concatenate([one.hertz for one in found])
    magnitude = np.concatenate([one.magnitude for one in found])
    starts = np.cumsum([0, *(one.frames for one in found[:-1])])
    frame = np.concatenate([one.frame + start for one, start in zip(found, starts, strict=True)])
    pitch = 12.0 * np.log2(hertz / _A4_HZ)
    pitch -= _tuning(pitch, magnitude)
    shares = np.zeros((len(_BANDS_HZ), len(TONICS)))
    for band, (low, high) in enumerate(_BANDS_HZ):
        inside = (hertz >= low) & (hertz < high)
        shares[band] = _band_shares(pitch[inside], magnitude[inside], frame[inside])
    return shares if shares.any() else None


@dataclass(frozen=True, slots=True)
class _Peaks:
    frame: npt.NDArray[np.intp]
    hertz: Floats
    magnitude: Floats
    frames: int


def _peaks(samples: Array) -> _Peaks:
    """The spectral peaks of each frame, between the bins by a parabola through the logarithms."""
    padded = np.pad(samples, _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    low, high = (round(hertz * _N_FFT / SAMPLE_RATE) for hertz in (_BANDS_HZ[0][0], _BANDS_HZ[-1][1]))
    spectrum = np.abs(scipy.fft.rfft(frames * hann(_N_FFT), axis=1)[:, low - 1 : high + 2])
    middle = spectrum[:, 1:-1]
    peak = (middle > spectrum[:, :-2]) & (middle >= spectrum[:, 2:])
    peak &= middle > _WEAKEST * np.maximum(middle.max(axis=1, keepdims=True), 1e-6)
    frame, place = np.nonzero(peak)
    before, here, after = (np.log(spectrum[frame, place + step] + 1e-12) for step in (0, 1, 2))
    offset = np.clip(0.5 * (before - after) / (before - 2.0 * here + after - 1e-12), -0.5, 0.5)
    hertz = (low + place + offset) * SAMPLE_RATE / _N_FFT
    return _Peaks(frame, hertz, np.exp(here - 0.25 * (before - after) * offset), len(frames))


def _tuning(pitch: Floats, magnitude: Floats) -> float:
    """How far the recording is from 440 Hz, in semitones from -0.5 to 0.5."""
    return float(np.angle((np.sqrt(magnitude) * np.exp(2j * np.pi * pitch)).sum()) / (2.0 * np.pi))


def _band_shares(pitch: Floats, magnitude: Floats, frame: npt.NDArray[np.intp]) -> Floats:
    if not len(pitch):
        return np.zeros(len(TONICS))
    # A peak speaks for the classes within reach of its pitch, which are a few of the twelve.
    frames, tonics = int(frame.max()) + 1, len(TONICS)
    nearest = np.rint(pitch)
    flat = np.zeros(frames * tonics)
    for step in range(-_STEPS, _STEPS + 1):
        distance = pitch - nearest - step
        near = np.where(np.abs(distance) < _REACH, np.cos(np.pi / 2.0 * distance / _REACH) ** 2, 0.0)
        tonic = (nearest.astype(int) + _A + step) % tonics
        flat += np.bincount(frame * tonics + tonic, near * magnitude, minlength=frames * tonics)
    counted = flat.reshape(frames, tonics)
    total = counted.sum(axis=1)
    sounding = total > 0.0
    shares = (counted[sounding] / total[sounding, None]).mean(axis=0) if sounding.any() else np.zeros(len(TONICS))
    strongest = shares.max()
    return shares / strongest if strongest > 0.0 else shares


@lru_cache(maxsize=1)
def _profiles() -> KeyProfiles:
    stored = json.loads(PROFILES.read_text(encoding="utf-8"))
    return KeyProfiles(
        np.array(stored["weights"]),
        np.array(stored["mean"]),
        np.array(stored["deviation"]),
        stored["minor_bias"],
        stored["temperature"],
    )
