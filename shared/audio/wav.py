"""Reading the decoded track: a 16-bit mono WAV, in pieces of bounded size."""

from __future__ import annotations

import contextlib
import wave
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from shared.audio.segments import Stretch, heard_segments, segment_count
from shared.audio.spec import FeatureSpec
from shared.contracts.errors import ErrorCode, TonestreamError

_FULL_SCALE: Final = 32768.0


@contextlib.contextmanager
def open_wav(file: BinaryIO, sample_rate: int) -> Iterator[wave.Wave_read]:
    """``file`` as a 16-bit mono WAV of that rate. Raises TonestreamError (corrupt_audio) for anything else."""
    try:
        with wave.open(file, "rb") as opened:
            form = (opened.getnchannels(), opened.getsampwidth(), opened.getframerate())
            if form != (1, 2, sample_rate):
                raise TonestreamError(
                    ErrorCode.CORRUPT_AUDIO,
                    f"decoded audio is 1 channel of 2 bytes at {sample_rate} Hz,"
                    f" not {form[0]} of {form[1]} at {form[2]}",
                )
            yield opened
    except (wave.Error, EOFError) as error:
        raise TonestreamError(ErrorCode.CORRUPT_AUDIO, f"the decoded audio is no WAV file: {error}") from error


def read_samples(opened: wave.Wave_read, count: int) -> npt.NDArray[np.float32]:
    """The next ``count`` samples, or as many as are left, float32 in [-1, 1).

    Raises TonestreamError (corrupt_audio) if the file is shorter than its header says.
    """
    expected = min(count, opened.getnframes() - opened.tell())
    data = opened.readframes(expected)
    if len(data) != 2 * expected:
        raise TonestreamError(
            ErrorCode.CORRUPT_AUDIO,
            f"the decoded audio is cut off: its header names {opened.getnframes()} samples",
        )
    return float_samples(data)


def float_samples(pcm: bytes) -> npt.NDArray[np.float32]:
    """16-bit little-endian samples [n] as float32 in [-1, 1)."""
    return np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(_FULL_SCALE)


def iter_segments(
    file: BinaryIO,
    spec: FeatureSpec,
    batch: int,
    limit: int | None = None,
    chosen: Sequence[int] | None = None,
    sounding: Sequence[Stretch] = (),
) -> Iterator[tuple[Sequence[int], npt.NDArray[np.float32]]]:
    """The whole segments of the track, at most ``batch`` at a time: (their positions in it, float32 [n, samples]).

    With ``limit`` only the ``heard_segments`` are read; with ``chosen`` only the chosen ones. Memory holds one batch,
    however long the track is. Raises TonestreamError (corrupt_audio).
    """
    with open_wav(file, spec.sample_rate) as opened:
        count = segment_count(opened.getnframes(), spec)
        if chosen is None:
            positions = heard_segments(count, limit, spec, sounding)
        else:
            positions = [one for one in chosen if one < count]
        for start in range(0, len(positions), batch):
            part = positions[start : start + batch]
            samples = np.empty((len(part), spec.segment_samples), np.float32)
            for row, position in enumerate(part):
                opened.setpos(position * spec.segment_samples)
                samples[row] = read_samples(opened, spec.segment_samples)
            yield part, samples
