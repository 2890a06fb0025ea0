"""The one decoder: any audio file to 22.05 kHz mono 16-bit WAV, by ffmpeg under guard.

The guard: the container is told from the file's own bytes against a list (never a playlist, never from the name or a
server's word), ffmpeg gets that demuxer forced and no other, opens no decoders but those of audio on a list, may open
local files and pipes only, sees the file under a path we chose, and is held to limits of CPU time, memory, wall time
and decoded seconds (not the seconds the header claims).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from shared.contracts.errors import AbandonedError, DependencyError, ErrorCode, TonestreamError, TransientError

#: Sample rate of all decoded audio, Hz.
SAMPLE_RATE: Final = 22050

_BYTES_PER_SAMPLE: Final = 2
_CHUNK: Final = 1 << 18
_STDERR_KEPT: Final = 4000
#: How long it takes at most to notice that decoding was abandoned, seconds.
_SLICE_S: Final = 0.25
#: What a WAV file can hold, in bytes of samples: its header counts them, and 36 of its own, in 32 bits.
_MOST_IN_WAV: Final = 0xFFFFFFFF - 36
#: The shell's exit statuses for a program it cannot run.
_NOT_RUN: Final = frozenset({126, 127})
#: ffmpeg's exit status when it was asked to end: what it decoded so far is not the whole file.
_INTERRUPTED: Final = 255
#: Signals that no damaged file brings about.
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
#: ffmpeg's demuxer by the first bytes of the file: (offset, magic, demuxer).
_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"RIFF", "wav"),
    (0, b"RF64", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mov"),
    (0, b"FORM", "aiff"),
    (0, b".snd", "au"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
)
#: The decoders ffmpeg may use: what music comes in. Pictures, films and subtitles in a file meet no decoder at all.
_DECODERS: Final = (
    "mp3float", "mp3", "mp2float", "mp2", "aac", "aac_fixed", "aac_latm", "ac3", "ac3_fixed", "eac3", "dca", "alac",
    "flac", "vorbis", "libvorbis", "opus", "libopus", "speex", "libspeex", "wavpack", "tta",
    "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "amrnb", "amrwb", "gsm", "gsm_ms", "qdm2",
    "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_g722", "g722", "g726", "g726le", "mace3", "mace6",
    "pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s8_planar", "pcm_s64le", "pcm_s64be",
    "pcm_s16le", "pcm_s16be", "pcm_s16le_planar", "pcm_s16be_planar", "pcm_u16le", "pcm_u16be",
    "pcm_s24le", "pcm_s24be", "pcm_s24le_planar", "pcm_u24le", "pcm_u24be",
    "pcm_s32le", "pcm_s32be", "pcm_s32le_planar", "pcm_u32le", "pcm_u32be",
    "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be",
)  # fmt: skip
_NOT_LISTED: Final = "not on whitelist"
#: Second magic that RIFF and FORM need, at byte 8: other files begin like them too.
_FORM_TYPES: Final[dict[str, tuple[bytes, ...]]] = {"wav": (b"WAVE",), "aiff": (b"AIFF", b"AIFC")}


class DecodeTimeoutError(TonestreamError):
    """Decoding did not end in time. Not the file's fault for certain, so not a code that is remembered for it."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            ErrorCode.INTERNAL,
            f"decoding did not end within {timeout_s:g} s (TONESTREAM_DECODE_TIMEOUT_S): the file is forged, or the"
            " machine overloaded",
        )


class MissingDependencyError(DependencyError, RuntimeError):
    """A program the pipeline needs is not on this machine, or cannot be run."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """``max_duration_s`` of decoded audio; ``timeout_s`` of wall time; ``memory_bytes`` of address space.

    CPU time is limited too, to a few times the wall time: that ends a decoder whose worker died.
    """

    max_duration_s: float = 4 * 3600.0
    timeout_s: float = 120.0
    memory_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """A WAV at ``path``: ``samples`` samples, and the SHA-256 (hex) of their bytes, which names the audio."""

    path: Path
    samples: int
    sha256: str

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.samples / SAMPLE_RATE


def find_ffmpeg(configured: Path | None = None) -> str:
    """The ffmpeg to use: the configured one, the system's, or the one of the imageio-ffmpeg wheel.

    Raises MissingDependencyError, with what to do about it.
    """
    if configured is not None:
        if not (configured.is_file() and os.access(configured, os.X_OK)):
            raise MissingDependencyError(f"TONESTREAM_FFMPEG names {configured}, which cannot be run")
        return str(configured.absolute())
    if system := shutil.which("ffmpeg"):
        return str(Path(system).absolute())
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            "no ffmpeg: install it (`apt install ffmpeg`, `brew install ffmpeg`) or `pip install imageio-ffmpeg`"
        ) from error


def sniff_format(file: Path) -> str:
    """ffmpeg's demuxer for the file, by its first bytes; its name plays no part.

    Raises TonestreamError: corrupt_audio for an empty file, unsupported_media for anything that is not audio.
    """
    with file.open("rb") as opened:
        head = opened.read(64)
        if not head:
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file is empty")
        if head[:3] == b"ID3":
            # The audio begins behind the tag, whose length is stored with seven bits a byte.
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
            opened.seek(10 + size)
            behind = opened.read(64)
            if not behind.strip(b"\0") and not opened.read(1):
                raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file holds tags and no audio")
            return "flac" if behind[:4] == b"fLaC" else _mpeg_kind(behind) or "mp3"
    for offset, magic, demuxer in _MAGIC:
        if head[offset : offset + len(magic)] == magic and head[8:12] in _FORM_TYPES.get(demuxer, (head[8:12],)):
            return demuxer
    if kind := _mpeg_kind(head):
        return kind
    raise TonestreamError(
        ErrorCode.UNSUPPORTED_MEDIA,
        "not an audio file (MP3, WAV, FLAC, OGG, M4A, AAC, AIFF, AU, WMA and WebM are read)",
    )


def _mpeg_kind(head: bytes) -> str | None:
    """``mp3`` or ``aac`` (ADTS) by the frame header at the start; None where there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = (head[1] >> 1) & 0b11
    if layer == 0b00:
        return "aac" if head[1] & 0xF0 == 0xF0 else None
    if layer == 0b11:
        return None  # Layer I: nobody has such files, and UTF-16 text begins like one
    version, bitrate, rate = (head[1] >> 3) & 0b11, head[2] >> 4, (head[2] >> 2) & 0b11
    return None if version == 0b01 or bitrate == 0b1111 or rate == 0b11 else "mp3"


def decode(
    source: Path, destination: Path, limits: DecodeLimits, ffmpeg: str, abandoned: threading.Event | None = None
) -> DecodedAudio:
    """Decode ``source`` to a WAV at ``destination``: mono, 16 bits, 22.05 kHz, the same for the same bytes.

    A damaged frame is skipped, as every player does; a file of which nothing can be decoded is corrupt_audio. Raises
    TonestreamError (unsupported_media, corrupt_audio, too_long; DecodeTimeoutError); TransientError where someone else
    ended the decoder; AbandonedError once ``abandoned`` is set, which ends the decoder; DependencyError where the disk
    gives out or the decoder cannot be run. A failure leaves no file at ``destination``. Memory does not grow with the
    track. Safe from many threads.
    """
    try:
        return _decode(source, destination, limits, ffmpeg, abandoned or threading.Event())
    except BaseException:
        if destination.is_file():  # and not a device
            destination.unlink(missing_ok=True)
        raise


def _decode(
    source: Path, destination: Path, limits: DecodeLimits, ffmpeg: str, abandoned: threading.Event
) -> DecodedAudio:
    try:
        demuxer = sniff_format(source)
        source = source.absolute()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 (the with statement below closes it)
    except OSError as error:
        raise DependencyError(f"the audio cannot be read: {error}") from error
    with complaints:
        try:
            process = subprocess.Popen(
                _command(ffmpeg, demuxer, source, limits),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                process_group=0,
            )
        except OSError as error:
            raise DependencyError(f"the decoder cannot be started: {error}") from error
        assert process.stdout is not None
        ended = threading.Event()
        guard = _Guard(process, limits.timeout_s, abandoned, ended)
        guard.start()
        try:
            decoded = _write_wav(process.stdout, destination, limits.max_duration_s)
            status = process.wait()
        except OSError as error:
            raise DependencyError(f"the decoded audio cannot be written: {error}") from error
        finally:
            ended.set()
            _kill(process)
            process.wait()
            process.stdout.close()
        if abandoned.is_set():
            raise AbandonedError
        if guard.timed_out:
            raise DecodeTimeoutError(limits.timeout_s)
        if status in _NOT_RUN:
            raise MissingDependencyError(f"{ffmpeg} cannot be run ({_complaint(complaints, status, source)})")
        if -status in _FROM_OUTSIDE or status == _INTERRUPTED:
            # Nothing in the file does that: a shutdown, or the kernel when memory is short.
            raise TransientError(ErrorCode.INTERNAL, "the decoder was stopped before its end; submit the track again")
        if decoded.samples == 0:
            said = _complaint(complaints, status, source)
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, f"no audio can be decoded from the file ({said})")
        if status != 0:
            # It skips what is damaged and ends well; otherwise it gave up on the file with most of it unread.
            said = _complaint(complaints, status, source)
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, f"the decoder gave up on the file ({said})")
    return decoded


class _Guard(threading.Thread):
    """Ends a decoder that nobody waits for any more, or whose time is up."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        timeout_s: float,
        abandoned: threading.Event,
        ended: threading.Event,
    ) -> None:
        super().__init__(name="decode-guard", daemon=True)
        self.timed_out = False
        self._process = process
        self._deadline = time.monotonic() + timeout_s
        self._abandoned = abandoned
        self._ended = ended

    def run(self) -> None:
        while not self._ended.wait(max(0.0, min(_SLICE_S, self._deadline - time.monotonic()))):
            self.timed_out = time.monotonic() >= self._deadline
            if self.timed_out or self._abandoned.is_set():
                _kill(self._process)
                return


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the decoder with whatever it may have started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _command(ffmpeg: str, demuxer: str, source: Path, limits: DecodeLimits) -> list[str]:
    decoder = [
        ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "repeat+error", "-threads", "1",
        "-protocol_whitelist", "file,pipe", "-format_whitelist", demuxer, "-codec_whitelist", ",".join(_DECODERS),
        "-f", demuxer, "-i", f"file:{source}",
        "-map", "0:a:0", "-vn", "-sn", "-dn",
        # Decode one second beyond the limit, so that a track over it is told from one that just fits.
        "-t", f"{limits.max_duration_s + 1:.3f}",
        "-ac", "1", "-ar", str(SAMPLE_RATE), "-bitexact", "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1",
    ]  # fmt: skip
    # A shell sets the limits and becomes ffmpeg: nothing runs between fork and exec in this many-threaded process.
    cpu_s, memory_kib = 4 * int(limits.timeout_s) + 4, limits.memory_bytes // 1024
    # The one file it writes are its complaints. A damaged track brings megabytes of them; beyond the limit they are
    # lost, and the signal that would end it for that is ignored.
    limited = (
        f"trap '' XFSZ; ulimit -c 0 2>/dev/null; ulimit -f 64 2>/dev/null; ulimit -t {cpu_s} 2>/dev/null; "
        f'ulimit -v {memory_kib} 2>/dev/null; exec "$@"'
    )
    return ["/bin/sh", "-c", limited, "sh", *decoder]


def _write_wav(pcm: IO[bytes], destination: Path, max_duration_s: float) -> DecodedAudio:
    max_duration_s = min(max_duration_s, _MOST_IN_WAV / (SAMPLE_RATE * _BYTES_PER_SAMPLE))
    most = int(max_duration_s * SAMPLE_RATE) * _BYTES_PER_SAMPLE
    digest = hashlib.sha256()
    written = 0
    with destination.open("wb") as file, wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(_BYTES_PER_SAMPLE)
        wav.setframerate(SAMPLE_RATE)
        rest = b""
        while chunk := pcm.read(_CHUNK):
            written += len(chunk)
            if written > most:
                raise TonestreamError(
                    ErrorCode.TOO_LONG,
                    f"the track is longer than {max_duration_s:g} s, the most that is taken (TONESTREAM_MAX_TRACK_S)",
                )
            chunk = rest + chunk
            whole = len(chunk) - len(chunk) % _BYTES_PER_SAMPLE
            digest.update(chunk[:whole])
            wav.writeframesraw(chunk[:whole])
            rest = chunk[whole:]
    return DecodedAudio(destination, written // _BYTES_PER_SAMPLE, digest.hexdigest())


def _complaint(complaints: IO[bytes], status: int, source: Path) -> str:
    """What ffmpeg said first of the audio, without our path and without control characters."""
    complaints.seek(0)
    said = complaints.read(_STDERR_KEPT).decode("utf-8", "replace").replace(f"file:{source}", "the file")
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [f"exit status {status}"]
    # Of a cover or a film it says that it has no decoder for it, before anything else.
    first = next((line for line in lines if _NOT_LISTED not in line), lines[0])
    return "".join(character for character in first if character.isprintable())[:200]
