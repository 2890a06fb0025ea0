"""What was heard of a track: parts of its decoded audio as MP3, and its outline for a waveform."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import numpy as np

from services.gateway.problems import GatewayCode, Problem, unavailable
from services.gateway.view import requests
from services.gateway.view.database import Database
from shared.audio.decode import SAMPLE_RATE, MissingDependencyError, find_ffmpeg
from shared.audio.wav import float_samples, open_wav
from shared.blobs.store import BlobGoneError, BlobStore
from shared.contracts.errors import ErrorCode
from shared.settings import Settings
from shared.state.audio import SharedAudio
from shared.system.work_folder import work_folder

log = logging.getLogger(__name__)

#: The longest part that is made at once, seconds: 159 MB of samples in memory.
LONGEST_PART_S: Final = 3600.0
_BITRATE: Final = "96k"
#: Parts and outlines that are made at the same time; each takes a core.
_AT_ONCE: Final = 2
_MOST_KEPT_BYTES: Final = 256 * 1024 * 1024
_MOST_OUTLINES: Final = 64
_READ_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """An MP3 file with a part of a track. ``tag`` names its content."""

    file: Path
    tag: str


@dataclass(frozen=True, slots=True)
class Outline:
    """``peaks``: the least and the greatest sample of each of as many equal pieces, -1 to 1."""

    duration_s: float
    peaks: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """A part in the folder: its size in bytes, and the hash of the track's audio."""

    size: int
    sha256: str


class HeardAudio:
    """A context manager over a temporary folder with the parts that were made last. Safe from many threads."""

    def __init__(self, settings: Settings, blobs: BlobStore, database: Database) -> None:
        self._ffmpeg = settings.ffmpeg
        self._blobs = blobs
        self._database = database
        self._exit = contextlib.ExitStack()
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._workers = anyio.CapacityLimiter(_AT_ONCE)
        self._parts: OrderedDict[str, _Made] = OrderedDict()  # the least recently used first
        self._outlines: OrderedDict[tuple[str, int], Outline] = OrderedDict()

    def close(self) -> None:
        """Remove the folder."""
        self._exit.close()

    async def part(self, request_id: str, start_s: float | None, end_s: float | None) -> Part:
        """The part between two times in seconds, by default all of it. Raises Problem: not_found, audio_gone,
        invalid_request, unavailable."""
        return await anyio.to_thread.run_sync(self._part, request_id, start_s, end_s, limiter=self._workers)

    async def outline(self, request_id: str, points: int) -> Outline:
        """The outline in that many pieces. Raises Problem: not_found, audio_gone."""
        return await anyio.to_thread.run_sync(self._outline, request_id, points, limiter=self._workers)

    def _part(self, request_id: str, start_s: float | None, end_s: float | None) -> Part:
        sha256 = self._audio_of(request_id)
        with self._open(sha256, request_id) as opened:
            count = opened.getnframes()
            first = 0 if start_s is None else min(count, round(start_s * SAMPLE_RATE))
            last = count if end_s is None else min(count, round(end_s * SAMPLE_RATE))
            if first >= last:
                raise Problem(
                    ErrorCode.INVALID_REQUEST,
                    f"start and end: no part of the track, which has {count / SAMPLE_RATE:.2f} s",
                )
            if last - first > LONGEST_PART_S * SAMPLE_RATE:
                raise Problem(
                    ErrorCode.INVALID_REQUEST, f"at most {LONGEST_PART_S:.0f} s can be had at once; use start and end"
                )
            tag = hashlib.sha256(f"{sha256}:{first}:{last}:{_BITRATE}".encode()).hexdigest()[:32]
            if (file := self._kept(tag)) is not None:
                return Part(file, tag)
            opened.setpos(first)
            return Part(self._encode(opened.readframes(last - first), tag, sha256), tag)

    def forget(self, sha256: str) -> None:
        """Remove what was made of that audio."""
        with self._lock:
            for key in [key for key in self._outlines if key[0] == sha256]:
                del self._outlines[key]
            for tag in [tag for tag, made in self._parts.items() if made.sha256 == sha256]:
                del self._parts[tag]
                assert self._folder is not None
                (self._folder / f"{tag}.mp3").unlink(missing_ok=True)

    def _outline(self, request_id: str, points: int) -> Outline:
        sha256 = self._audio_of(request_id)
        with self._lock:
            if (known := self._outlines.get((sha256, points))) is not None:
                self._outlines.move_to_end((sha256, points))
                return known
        with self._open(sha256, request_id) as opened:
            count = opened.getnframes()
            edges = np.linspace(0, count, min(points, max(1, count)) + 1).astype(np.int64)
            least = np.zeros(len(edges) - 1, np.float32)
            most = np.zeros(len(edges) - 1, np.float32)
            pieces_at_once = max(1, _READ_AT_ONCE * (len(edges) - 1) // max(1, count))
            for begin in range(0, len(edges) - 1, pieces_at_once):
                end = min(len(edges) - 1, begin + pieces_at_once)
                samples = float_samples(opened.readframes(int(edges[end] - edges[begin])))
                if not len(samples):
                    break
                places = np.minimum(edges[begin:end] - edges[begin], len(samples) - 1)
                least[begin:end] = np.minimum.reduceat(samples, places)
                most[begin:end] = np.maximum.reduceat(samples, places)
        peaks = tuple((round(float(low), 3), round(float(high), 3)) for low, high in zip(least, most, strict=True))
        outline = Outline(round(count / SAMPLE_RATE, 3), peaks)
        with self._lock:
            self._outlines[(sha256, points)] = outline
            while len(self._outlines) > _MOST_OUTLINES:
                self._outlines.popitem(last=False)
        return outline

    def _audio_of(self, request_id: str) -> str:
        """The hash of what was heard. Raises Problem."""
        with self._database.reading() as connection:
            if requests.find(connection, request_id) is None:
                raise Problem(GatewayCode.NOT_FOUND, f"no request has the ID {request_id!r}", request_id=request_id)
            sha256 = requests.audio_of(connection, request_id)
        if sha256 is None:
            raise self._gone(request_id)
        return sha256

    @contextlib.contextmanager
    def _open(self, sha256: str, request_id: str) -> Iterator[Any]:
        """The decoded audio, as a ``wave.Wave_read``. Raises Problem (audio_gone), DependencyError."""
        try:
            file = self._blobs.open(SharedAudio.reference(sha256))
        except BlobGoneError:
            raise self._gone(request_id) from None
        with file, open_wav(file, SAMPLE_RATE) as opened:
            yield opened

    @staticmethod
    def _gone(request_id: str) -> Problem:
        return Problem(
            GatewayCode.AUDIO_GONE,
            "what was heard of this track is not kept (any more); send the track again to hear it",
            request_id=request_id,
        )

    def _kept(self, tag: str) -> Path | None:
        with self._lock:
            if tag not in self._parts or self._folder is None:
                return None
            self._parts.move_to_end(tag)
            return self._folder / f"{tag}.mp3"

    def _encode(self, samples: bytes, tag: str, sha256: str) -> Path:
        # It warns where no ffmpeg is on the PATH, and has escapes that newer Pythons warn of.
        warnings.filterwarnings("ignore", module="pydub")
        from pydub import AudioSegment
        from pydub.exceptions import CouldntEncodeError

        with self._lock:
            if self._folder is None:
                self._folder = self._exit.enter_context(work_folder())
            file = self._folder / f"{tag}.mp3"
        try:
            AudioSegment.converter = find_ffmpeg(self._ffmpeg)
        except MissingDependencyError as error:
            raise unavailable(str(error)) from error
        segment = AudioSegment(data=samples, sample_width=2, frame_rate=SAMPLE_RATE, channels=1)
        part = file.with_suffix(f".{threading.get_ident()}")
        try:
            segment.export(str(part), format="mp3", bitrate=_BITRATE).close()
            part.replace(file)
        except (CouldntEncodeError, OSError) as error:
            part.unlink(missing_ok=True)
            log.warning("a part of a track could not be made: %s", error)
            raise unavailable("the part could not be made; the gateway's log says why") from None
        with self._lock:
            self._parts[tag] = _Made(file.stat().st_size, sha256)
            while sum(made.size for made in self._parts.values()) > _MOST_KEPT_BYTES and len(self._parts) > 1:
                oldest, _ = self._parts.popitem(last=False)
                # Whoever still sends it has it open.
                (self._folder / f"{oldest}.mp3").unlink(missing_ok=True)
        return file
