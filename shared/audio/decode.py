"""Decodes any audio file to a 22.05 kHz mono 16-bit WAV with a guarded ffmpeg.

The guard: the container is recognised by the file's bytes and must be on a list, which has no playlists. The name and
the server's content type do not count. ffmpeg is forced to use that demuxer, may use only listed audio decoders,
may open only local files and pipes, and sees the file under a path we chose. CPU time, memory, wall time and decoded
seconds are limited; the seconds that a header claims do not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

import numpy as np

from shared.audio.containers import Container, container
from shared.audio.file_tags import FileTags, MetadataReader
from shared.audio.level import LevelMeter
from shared.audio.wav import float_samples
from shared.contracts.errors import AbandonedError, DependencyError, ErrorCode, TonestreamError, TransientError

#: Sample rate of all decoded audio, Hz.
SAMPLE_RATE: Final = 22050

_BYTES_PER_SAMPLE: Final = 2
_CHUNK: Final = 1 << 18
_STDERR_KEPT: Final = 4000
#: How much of ffmpeg's stream list is kept, in bytes. It follows the metadata of the file.
_LISTING_KEPT: Final = 64 * 1024
#: Abandoned decoding ends within this time, seconds.
_SLICE_S: Final = 0.25
#: The most bytes of samples that a WAV file can hold: its 32-bit length counts them plus 36 bytes of header.
_MOST_IN_WAV: Final = 0xFFFFFFFF - 36
#: The shell's exit statuses for a program it cannot run.
_NOT_RUN: Final = frozenset({126, 127})
#: ffmpeg's exit status after SIGTERM or SIGINT: the output is not the whole file.
_INTERRUPTED: Final = 255
#: Signals that a damaged file cannot cause.
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
#: The decoders that ffmpeg may use. Pictures, video and subtitles have no decoder.
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
#: ffmpeg's prefix of a log line: the component and its address in memory.
_ADDRESSES: Final = re.compile(r"\[[^][]*@ 0x[0-9a-f]+\]\s*")
#: How many audio streams of a file are tried.
_MOST_STREAMS: Final = 16
#: ffmpeg's demuxers of files that may hold several audio streams.
_SEVERAL_STREAMS: Final = frozenset({"mov", "matroska", "asf", "ogg", "mpegts"})
#: These containers hold absolute offsets to the samples, so nothing may precede them.
_OFFSETS_INSIDE: Final = frozenset({"mov"})
#: How ffmpeg lists the streams of a file. Older versions indent further.
_STREAM: Final = re.compile(r"^ {2,4}Stream #0:\d+[^ ]*: (\w+): (.*)$", re.MULTILINE)
#: If a track is quieter than this, its first channel is decoded as well.
_SUSPICIOUSLY_QUIET_DBFS: Final = -28.0
#: The same for a track in which some seconds are this far below its level, dB.
_SUSPICIOUS_PAUSE_DB: Final = 24.0
#: Cancellation shorter than this, in seconds, is no reason to drop a channel.
_LEAST_MIXED_AWAY_S: Final = 3
#: Seconds of the first channel count as music unless they are further than this below its level.
_MUSIC_DB: Final = 20.0
#: The left channel of stereo; of more channels, the downmix to the left side.
_FIRST_CHANNEL: Final = ("aformat=channel_layouts=stereo", "pan=mono|c0=c0")
#: ffmpeg hands each frame from thread to thread. Larger frames than those of a codec save a tenth of its CPU time. They
#: are made at our rate: at the rate of a forged file, one of them might last for days.
_LARGE_FRAMES: Final = (f"aformat=sample_rates={SAMPLE_RATE}:channel_layouts=mono", "asetnsamples=n=32768:p=0")
#: Channels cancel each other if the first one alone is louder than their mean by this much, dB.
_MIXED_AWAY_DB: Final = 12.0


class DecodeTimeoutError(TonestreamError):
    """Decoding did not end in time. The file may not be at fault, so this failure is not cached for it."""

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

    CPU time is limited to a few times the wall time, which ends a decoder whose worker died.
    """

    max_duration_s: float = 4 * 3600.0
    timeout_s: float = 120.0
    memory_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """A WAV at ``path``: ``samples`` samples, and the SHA-256 (hex) of their bytes, which identifies the audio.

    ``levels_dbfs``: the RMS level of each second (the last may be shorter) without its DC offset, dB relative to full
    scale. ``level_dbfs``: the level of the whole track. ``tags``: title and artist from the file.
    """

    path: Path
    samples: int
    sha256: str
    levels_dbfs: tuple[float, ...] = ()
    level_dbfs: float = float("-inf")
    tags: FileTags = field(default_factory=FileTags)

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.samples / SAMPLE_RATE


def find_ffmpeg(configured: Path | None = None) -> str:
    """The ffmpeg to use: the configured one, the system's, or the one of the imageio-ffmpeg wheel.

    Raises MissingDependencyError, which says how to install one.
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


def decode(
    source: Path, destination: Path, limits: DecodeLimits, ffmpeg: str, abandoned: threading.Event | None = None
) -> DecodedAudio:
    """Decode ``source`` to a WAV at ``destination``: mono, 16 bits, 22.05 kHz, the same for the same bytes.

    The output is the mean of all channels. If these cancel each other, even for a few seconds, it is the first channel
    throughout. If there are several audio streams, the one marked as default is taken, or else the first that can be
    decoded. A damaged frame is skipped, as players do. A file that yields no sample is corrupt_audio.

    Raises TonestreamError (unsupported_media, corrupt_audio, too_long; DecodeTimeoutError); TransientError if something
    outside ended the decoder; AbandonedError once ``abandoned`` is set, which ends the decoder; DependencyError if the
    disk is full or the decoder cannot be run. A failure leaves no file at ``destination``. Memory does not grow with
    the track. Safe from many threads.
    """
    decoder = _Decoder(source, destination, limits, ffmpeg, abandoned or threading.Event())
    try:
        return decoder.decode()
    except BaseException:
        if destination.is_file():  # and not a device
            destination.unlink(missing_ok=True)
        raise


class _UndecodableError(TonestreamError):
    """This stream has no listed decoder, or yielded nothing. Another stream may."""


class _NoSuchStreamError(TonestreamError):
    """The file has no such stream."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNSUPPORTED_MEDIA, "the file has no audio track")


class _Decoder:
    """Decodes one file."""

    def __init__(
        self, source: Path, destination: Path, limits: DecodeLimits, ffmpeg: str, abandoned: threading.Event
    ) -> None:
        self._destination = destination
        self._limits = limits
        self._ffmpeg = ffmpeg
        self._abandoned = abandoned
        self._deadline = time.monotonic() + limits.timeout_s
        try:
            self._container = container(source)
            self._source = source.absolute()
        except OSError as error:
            raise DependencyError(f"the audio cannot be read: {error}") from error

    def decode(self) -> DecodedAudio:
        """See ``decode`` of the module."""
        if not (self._container.skip and self._container.demuxer in _OFFSETS_INSIDE):
            return self._decode()
        bare = self._destination.with_name(f"{self._destination.name}.bare")
        try:
            with self._source.open("rb") as whole, bare.open("wb") as rest:
                whole.seek(self._container.skip)
                shutil.copyfileobj(whole, rest)
            self._source, self._container = bare.resolve(), replace(self._container, skip=0)
            return self._decode()
        except OSError as error:
            raise DependencyError(f"the audio cannot be copied: {error}") from error
        finally:
            bare.unlink(missing_ok=True)

    def _decode(self) -> DecodedAudio:
        refusal: _UndecodableError | None = None
        for stream in self._streams():
            try:
                mixed = self._run(self._destination, stream)
            except _UndecodableError as error:
                refusal = refusal or error
                continue
            except _NoSuchStreamError as error:
                raise (refusal or error) from error
            return self._with_all_that_sounds(mixed, stream)
        assert refusal is not None
        raise refusal

    def _streams(self) -> Sequence[int]:
        """The audio streams in the order in which they are tried: default streams first, as in players."""
        if self._container.demuxer not in _SEVERAL_STREAMS:
            return [0]
        with self._started(_listing(self._ffmpeg, self._container, self._source, self._limits)) as run:
            status = run.process.wait()
        self._check_ended(run, status)
        said = run.said(_LISTING_KEPT)
        audio = [about for kind, about in _STREAM.findall(said) if kind == "Audio"][:_MOST_STREAMS]
        if not audio:
            return range(_MOST_STREAMS)  # unknown: the decoder will say what is wrong
        return sorted(range(len(audio)), key=lambda stream: "(default)" not in audio[stream])

    def _with_all_that_sounds(self, mixed: DecodedAudio, stream: int) -> DecodedAudio:
        """Decode the first channel instead if the channels of the mean cancel each other."""
        if not _suspicious(mixed):
            return mixed
        beside = self._destination.with_name(f"{self._destination.name}.first")
        try:
            first = self._run(beside, stream, _FIRST_CHANNEL)
            if not _mixed_away(mixed, first):
                return mixed
            beside.replace(self._destination)
            return replace(first, path=self._destination, tags=mixed.tags)
        except OSError as error:
            raise DependencyError(f"the decoded audio cannot be written: {error}") from error
        finally:
            beside.unlink(missing_ok=True)

    def _run(self, destination: Path, stream: int, filters: Sequence[str] = ()) -> DecodedAudio:
        """One run of ffmpeg. Raises what ``decode`` raises, and the two errors above."""
        command = _command(self._ffmpeg, self._container, self._source, self._limits, stream, filters)
        with self._started(command) as run:
            assert run.process.stdout is not None
            try:
                decoded = _write_wav(run.process.stdout, destination, self._limits.max_duration_s)
            except OSError as error:
                raise DependencyError(f"the decoded audio cannot be written: {error}") from error
            status = run.process.wait()
            decoded = replace(decoded, tags=run.metadata.tags())
        self._check_ended(run, status)
        self._check(decoded, status, _Complaints(run.said(_STDERR_KEPT), status, self._source))
        return decoded

    @contextlib.contextmanager
    def _started(self, command: Sequence[str]) -> Iterator[_Run]:
        """A guarded run of ffmpeg, which has ended when the block ends. Raises DependencyError."""
        try:
            complaints = tempfile.TemporaryFile()  # noqa: SIM115 (the with statement below closes it)
        except OSError as error:
            raise DependencyError(f"the decoder cannot be started: {error}") from error
        with complaints:
            try:
                # ffmpeg writes the metadata to the standard input of the shell that starts it: a pipe whose descriptor
                # number is known.
                reading, writing = os.pipe()
            except OSError as error:
                raise DependencyError(f"the decoder cannot be started: {error}") from error
            metadata = MetadataReader(os.fdopen(reading, "rb"))
            try:
                process = subprocess.Popen(
                    command,
                    stdin=writing,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    cwd="/",
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    process_group=0,
                )
            except OSError as error:
                raise DependencyError(f"the decoder cannot be started: {error}") from error
            finally:
                os.close(writing)
                metadata.start()
            ended = threading.Event()
            guard = _Guard(process, self._deadline, self._abandoned, ended)
            guard.start()
            run = _Run(process, guard, metadata)
            try:
                yield run
            finally:
                ended.set()
                _kill(process)
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
                complaints.seek(0)
                run.complaints = complaints.read(_LISTING_KEPT)

    def _check_ended(self, run: _Run, status: int) -> None:
        """Raise if the run ended for a reason outside the file."""
        if self._abandoned.is_set():
            raise AbandonedError
        if run.guard.timed_out:
            raise DecodeTimeoutError(self._limits.timeout_s)
        if status in _NOT_RUN:
            said = _Complaints(run.said(_STDERR_KEPT), status, self._source)
            raise MissingDependencyError(f"{self._ffmpeg} cannot be run ({said.first})")
        if -status in _FROM_OUTSIDE or status == _INTERRUPTED:
            # No file causes this: it is a shutdown, or the kernel when memory is short.
            raise TransientError(ErrorCode.INTERNAL, "the decoder was stopped before its end; submit the track again")

    def _check(self, decoded: DecodedAudio, status: int, said: _Complaints) -> None:
        if decoded.samples == 0:
            if said.no_such_stream:
                raise _NoSuchStreamError
            if said.undecodable:
                raise _UndecodableError(
                    ErrorCode.UNSUPPORTED_MEDIA, f"the file's audio is in a format that is not read{said.codec}"
                )
            raise _UndecodableError(ErrorCode.CORRUPT_AUDIO, f"no audio can be decoded from the file ({said.first})")
        if status != 0:
            # ffmpeg skips damaged frames and exits with 0. Any other status means that it gave up early.
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, f"the decoder gave up on the file ({said.first})")


@dataclass
class _Run:
    """A run of ffmpeg, and its standard error once it has ended."""

    process: subprocess.Popen[bytes]
    guard: _Guard
    metadata: MetadataReader
    complaints: bytes = b""

    def said(self, most: int) -> str:
        """The first ``most`` bytes of the standard error."""
        return self.complaints[:most].decode("utf-8", "replace")


class _Guard(threading.Thread):
    """Ends a decoder that was abandoned, or whose time is up."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        deadline: float,
        abandoned: threading.Event,
        ended: threading.Event,
    ) -> None:
        super().__init__(name="decode-guard", daemon=True)
        self.timed_out = False
        self._process = process
        self._deadline = deadline
        self._abandoned = abandoned
        self._ended = ended

    def run(self) -> None:
        while not self._ended.wait(max(0.0, min(_SLICE_S, self._deadline - time.monotonic()))):
            self.timed_out = time.monotonic() >= self._deadline
            if self.timed_out or self._abandoned.is_set():
                _kill(self._process)
                return


def _suspicious(mixed: DecodedAudio) -> bool:
    """Whether channels may have cancelled each other: the track is quiet, or some seconds are far below its level."""
    levels = np.asarray(mixed.levels_dbfs)
    pauses = np.count_nonzero(levels < mixed.level_dbfs - _SUSPICIOUS_PAUSE_DB)
    return mixed.level_dbfs < _SUSPICIOUSLY_QUIET_DBFS or bool(pauses >= _LEAST_MIXED_AWAY_S)


def _mixed_away(mixed: DecodedAudio, first: DecodedAudio) -> bool:
    """Whether the first channel alone is much louder than the mean of all, as a whole or for some seconds."""
    if first.level_dbfs >= mixed.level_dbfs + _MIXED_AWAY_DB:
        return True
    alone = np.asarray(first.levels_dbfs)
    seconds = min(len(alone), len(mixed.levels_dbfs))
    music = alone[:seconds] >= first.level_dbfs - _MUSIC_DB
    lost = alone[:seconds] >= np.asarray(mixed.levels_dbfs[:seconds]) + _MIXED_AWAY_DB
    return bool(np.count_nonzero(music & lost) >= _LEAST_MIXED_AWAY_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the decoder and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _command(
    ffmpeg: str, found: Container, source: Path, limits: DecodeLimits, stream: int, filters: Sequence[str]
) -> list[str]:
    decoder = [
        *_opening(ffmpeg, found, source, "repeat+error"),
        "-map", f"0:a:{stream}", "-vn", "-sn", "-dn",
        # Decode one second beyond the limit, to distinguish a track that exceeds it from one that just fits.
        "-t", f"{limits.max_duration_s + 1:.3f}",
        "-af", ",".join((*filters, *_LARGE_FRAMES)), "-ac", "1", "-ar", str(SAMPLE_RATE), "-bitexact",
        # A flush after each packet would write the samples in pieces of 1 KB. Without it they come in blocks of 32 KB.
        "-c:a", "pcm_s16le", "-flush_packets", "0", "-f", "s16le", "pipe:1",
        # Ogg keeps the tags in the stream, other formats in the container.
        "-map_metadata", f"0:s:a:{stream}" if found.demuxer == "ogg" else "0", "-f", "ffmetadata", "pipe:0",
    ]  # fmt: skip
    return _limited(decoder, limits)


def _listing(ffmpeg: str, found: Container, source: Path, limits: DecodeLimits) -> list[str]:
    """Makes ffmpeg list the streams and exit at once, because there is no output."""
    return _limited(_opening(ffmpeg, found, source, "repeat+info"), limits)


def _opening(ffmpeg: str, found: Container, source: Path, verbosity: str) -> list[str]:
    return [
        ffmpeg, "-nostdin", "-hide_banner", "-loglevel", verbosity, "-threads", "1",
        "-protocol_whitelist", "file,pipe", "-format_whitelist", found.demuxer,
        "-codec_whitelist", ",".join(_DECODERS), "-skip_initial_bytes", str(found.skip),
        *(("-c:a", found.decoder) if found.decoder else ()), "-f", found.demuxer, "-i", f"file:{source}",
    ]  # fmt: skip


def _limited(command: Sequence[str], limits: DecodeLimits) -> list[str]:
    # A shell sets the limits and then becomes ffmpeg. A preexec function is unsafe in this multi-threaded process.
    cpu_s, memory_kib = 4 * int(limits.timeout_s) + 4, limits.memory_bytes // 1024
    # The only file it writes is its log. A damaged track produces megabytes of it. The rest is dropped at the limit,
    # and SIGXFSZ is ignored so that ffmpeg goes on.
    limited = (
        f"trap '' XFSZ; ulimit -c 0 2>/dev/null; ulimit -f 64 2>/dev/null; ulimit -t {cpu_s} 2>/dev/null; "
        f'ulimit -v {memory_kib} 2>/dev/null; exec "$@"'
    )
    return ["/bin/sh", "-c", limited, "sh", *command]


def _write_wav(pcm: IO[bytes], destination: Path, max_duration_s: float) -> DecodedAudio:
    max_duration_s = min(max_duration_s, _MOST_IN_WAV / (SAMPLE_RATE * _BYTES_PER_SAMPLE))
    most = int(max_duration_s * SAMPLE_RATE) * _BYTES_PER_SAMPLE
    digest = hashlib.sha256()
    levels = LevelMeter(SAMPLE_RATE)
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
            levels.add(float_samples(chunk[:whole]))
            rest = chunk[whole:]
    each, whole_track = levels.read()
    return DecodedAudio(destination, written // _BYTES_PER_SAMPLE, digest.hexdigest(), each, whole_track)


class _Complaints:
    """ffmpeg's standard error."""

    def __init__(self, said: str, status: int, source: Path) -> None:
        said = said.replace(f"file:{source}", "the file")
        self._said = said
        nothing = "it holds none" if status == 0 else f"exit status {status}"
        lines = [_ADDRESSES.sub("", line).strip() for line in said.splitlines()]
        self._lines = [line for line in lines if line] or [nothing]

    @property
    def no_such_stream(self) -> bool:
        return "matches no streams" in self._said

    @property
    def undecodable(self) -> bool:
        """Whether the stream has no listed decoder. ffmpeg also says so of covers and video."""
        opened = _NOT_LISTED in self._said and "opening decoder" in self._said.lower()
        return opened or "no decoder found for" in self._said

    @property
    def codec(self) -> str:
        """The codec in brackets, if ffmpeg names it."""
        found = re.search(r"dec:(\w+)", self._said)
        return f" ({found[1]})" if found else ""

    @property
    def first(self) -> str:
        """ffmpeg's first message about the audio, without our path, memory addresses and control characters."""
        # It complains first about the missing decoder of a cover or of video.
        first = next((line for line in self._lines if _NOT_LISTED not in line), self._lines[0])
        return "".join(character for character in first if character.isprintable())[:200]
