"""Segments that are no music, for the head `content` of the student: speech, and other sounds.

Recordings of both come from folders with a subfolder a source; many are shorter than a segment, so those of a source
are put one after another. Noise, hum, clicks and tones are made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.signal

from shared.audio.level import REFERENCE_DBFS
from shared.audio.segments import is_silent
from shared.audio.spec import MFCC64
from shared.contracts.errors import TonestreamError, TransientError
from shared.contracts.labels import CONTENTS
from training.data.clips import audio_files
from training.data.features import read_audio
from training.distillation.distillation_set import in_decibels
from training.genre.protocol import Workspace

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.intp]

#: At most so many recordings of a source, drawn by chance, and so many segments of it.
_RECORDINGS: Final = 300
_SEGMENTS: Final = 240
_PAUSE_S: Final = 0.15
#: The source of what is made up.
MADE_UP: Final = "made up"


@dataclass(frozen=True, slots=True)
class ContentSet:
    """n segments: ``decibels`` and ``level`` as in `DistillationSet`, position in CONTENTS, and the source of each."""

    decibels: npt.NDArray[np.uint8]
    level: Array
    labels: Integers
    sources: tuple[str, ...]


def content_examples(speech: Sequence[Path], sounds: Sequence[Path], data: Workspace) -> ContentSet:
    """Everything that is no music: the recordings in the folders ``speech`` and ``sounds``, and made-up noise."""
    sources = [(folder, "speech") for folder in _sources(speech)] + [(folder, "other") for folder in _sources(sounds)]
    parts = [(_recorded(folder, data), label, folder.name) for folder, label in sources]
    parts.append((_made_up(), "other", MADE_UP))
    kept = [(samples, label, name) for samples, label, name in parts if len(samples)]
    decibels, levels = zip(*(in_decibels(samples) for samples, _, _ in kept), strict=True)
    labels = [CONTENTS.index(label) for samples, label, _ in kept for _ in samples]
    names = [name for samples, _, name in kept for _ in samples]
    return ContentSet(np.concatenate(decibels), np.concatenate(levels), np.array(labels, np.intp), tuple(names))


def _sources(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(child for child in folder.iterdir() if child.is_dir())


def _recorded(folder: Path, data: Workspace) -> Array:
    files = audio_files(folder)
    chosen = np.random.default_rng(0).permutation(len(files))[:_RECORDINGS]
    pause = np.zeros(round(_PAUSE_S * MFCC64.sample_rate), np.float32)

    def heard(file: Path) -> Array:
        try:
            return np.concatenate([read_audio(file, MFCC64.level_dbfs), pause])
        except TransientError:
            raise
        except TonestreamError:
            return np.empty(0, np.float32)

    with ThreadPoolExecutor(data.threads) as pool:
        recordings = pool.map(heard, [files[number] for number in chosen])
        found = list(data.progress.track(recordings, folder.name, len(chosen)))
    stream = np.concatenate([np.empty(0, np.float32), *found])
    count = len(stream) // MFCC64.segment_samples
    segments = stream[: count * MFCC64.segment_samples].reshape(count, MFCC64.segment_samples)
    sounding = segments[[not is_silent(segment) for segment in segments]] if count else segments
    order = np.random.default_rng(0).permutation(len(sounding))[:_SEGMENTS]
    return sounding[np.sort(order)]


def _made_up() -> Array:
    """Noise of many colours, hum, clicks in a pulse or at random, chirps: at the reference level."""
    random = np.random.default_rng(0)
    count, rate = MFCC64.segment_samples, MFCC64.sample_rate
    time = np.arange(count) / rate
    segments = []
    for number in range(_SEGMENTS):
        kind = number % 5
        if kind in (0, 1):
            spectrum = np.fft.rfft(random.standard_normal(count))
            hertz = np.maximum(np.fft.rfftfreq(count, 1.0 / rate), 20.0)
            made = np.fft.irfft(spectrum * hertz ** random.uniform(-1.5, 0.5), count)
            if kind == 1:  # wind and waves swell
                made = made * (1.0 + np.sin(2 * np.pi * random.uniform(0.1, 6.0) * time + random.uniform(0, 6)))
        elif kind == 2:
            base = random.uniform(40.0, 1500.0)
            partials = [np.sin(2 * np.pi * base * h * time) * random.random() for h in range(1, 6)]
            made = np.sum(partials, axis=0) + random.uniform(0.0, 0.2) * random.standard_normal(count)
        elif kind == 3:
            made = np.zeros(count)
            places = np.arange(random.integers(1000), count, random.integers(3000, 22000))
            if random.random() < 0.5:
                places = np.sort(random.integers(0, count, random.integers(3, 30)))
            made[places] = 1.0
            tone = random.uniform(500.0, 5000.0)
            click = np.exp(-np.arange(2000) / random.uniform(20, 400)) * np.sin(
                2 * np.pi * tone * np.arange(2000) / rate
            )
            made = scipy.signal.fftconvolve(made, click)[:count]
        else:  # birds and sirens
            low, high = np.sort(random.uniform(500.0, 8000.0, 2))
            sweep = low + (high - low) * (
                0.5 + 0.5 * scipy.signal.sawtooth(2 * np.pi * random.uniform(0.3, 9.0) * time)
            )
            gate = scipy.signal.square(2 * np.pi * random.uniform(0.5, 4.0) * time) > 0
            made = np.sin(2 * np.pi * np.cumsum(sweep) / rate) * gate
        segments.append(made * 10.0 ** (REFERENCE_DBFS / 20.0) / np.sqrt(np.mean(np.square(made)) + 1e-12))
    return np.array(segments, np.float32)
