"""WAV files in memory."""

from __future__ import annotations

import io
import wave
from typing import BinaryIO

import numpy as np


def wav_bytes(pcm: np.ndarray, rate: int = 22050, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as wav:
        wav.setnchannels(channels)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(pcm.astype("<i2").tobytes())
    return buffer.getvalue()


class _Endless(io.RawIOBase):
    """A WAV of three hours that exists only where it is read."""

    def __init__(self, header: bytes, size: int) -> None:
        self._header, self._size, self._at = header, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = max(0, min(size, self._size - self._at))
        data = self._header[self._at : self._at + size].ljust(size, b"\1")
        self._at += size
        return data


def endless_wav(hours: float) -> BinaryIO:
    data = int(hours * 3600 * 22050) * 2
    header = bytearray(wav_bytes(np.zeros(0)))
    header[4:8] = (36 + data).to_bytes(4, "little")
    header[40:44] = data.to_bytes(4, "little")
    return _Endless(bytes(header), 44 + data)  # type: ignore[return-value]
