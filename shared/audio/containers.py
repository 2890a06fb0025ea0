"""Recognises an audio file by its bytes. Its name and the server's content type do not count."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shared.contracts.errors import ErrorCode, TonestreamError

#: How far into a file the first MPEG or AC-3 frames are searched for, in bytes after an ID3 tag. Splitters, rippers and
#: taggers leave zeros, cut frames, line ends and the headers of servers there.
SEARCHED_BYTES: Final = 1024 * 1024
#: This many frames in a row are no coincidence.
_FRAMES_IN_A_ROW: Final = 3
#: ffmpeg's demuxer by the first bytes of the file: (offset, magic, demuxer).
_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"RIFF", "wav"),
    (0, b"RIFX", "wav"),
    (0, b"RF64", "wav"),
    (0, b"BW64", "wav"),
    (0, b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", "w64"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mov"),
    # Old QuickTime files have no type box. They begin with any of these.
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (4, b"pnot", "mov"),
    (0, b"FORM", "aiff"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    (0, b"#!AMR", "amr"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
)
#: These magics also occur in other files, so a second one at byte 8 is required.
_FORM_TYPES: Final[dict[str, tuple[bytes, ...]]] = {"wav": (b"WAVE",), "aiff": (b"AIFF", b"AIFC")}
#: By format tag and bits per sample.
_RIFX_DECODERS: Final = {
    (1, 8): "pcm_u8", (1, 16): "pcm_s16be", (1, 24): "pcm_s24be", (1, 32): "pcm_s32be",
    (3, 32): "pcm_f32be", (3, 64): "pcm_f64be",
}  # fmt: skip
#: MP4 brands of still pictures, which hold no sound.
_PICTURES: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jxl ")
#: Common formats without a listed decoder. The error names the format instead of saying "not an audio file". No frames
#: are searched for in them: the audio inside an archive or a film is not what the user submitted.
_NOT_READ: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"MAC ", "Monkey's Audio (APE)"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSD (DSF)"),
    (0, b"FRM8", "DSD (DFF)"),
    (0, b"tBaK", "TAK"),
    (0, b"ajkg", "Shorten"),
    (0, b".RMF", "RealMedia"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"MThd", "MIDI, which is notes and no sound"),
    (8, b"AVI ", "AVI"),
    (0, b"FLV\x01", "Flash Video"),
    (0, b"\x00\x00\x01\xba", "MPEG video"),
    (0, b"PK\x03\x04", "an archive (ZIP)"),
    (0, b"PK\x05\x06", "an archive (ZIP)"),
    (0, b"Rar!", "an archive (RAR)"),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z)"),
    (0, b"\x1f\x8b", "an archive (gzip)"),
    (0, b"BZh", "an archive (bzip2)"),
    (0, b"\xfd7zXZ\x00", "an archive (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "an archive (zstd)"),
    (257, b"ustar", "an archive (tar)"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"\x89PNG", "a picture"),
    (0, b"GIF8", "a picture"),
    (8, b"WEBP", "a picture"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"SQLite format 3", "a database"),
)
_LAYER_III_KBPS: Final = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2
    0: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2.5
}
_LAYER_II_KBPS: Final = _LAYER_III_KBPS | {3: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)}
_SAMPLE_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
#: Frame sizes of AC-3 in 16-bit words: at 48 and 32 kHz by half the size code, at 44.1 kHz by the size code.
_AC3_KBPS: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
#: Packet sizes of a transport stream: plain, with a leading timestamp (Blu-ray), with a trailing checksum.
_TS_STEPS: Final = (188, 192, 204)
_TS_PACKETS: Final = 5
_HEAD_BYTES: Final = (_TS_PACKETS + 1) * max(_TS_STEPS)
#: What may precede a file without being part of it: an HTTP response header, zeros, white space.
_IN_FRONT: Final = re.compile(rb"(?:(?:HTTP/\d|ICY )[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)?[\0\s]*")
_IN_FRONT_BYTES: Final = 64 * 1024
#: How far into a RIFX file its format chunk is searched for, in bytes.
_RIFX_BYTES: Final = 64 * 1024
_READ: Final = "MP3, MP2, WAV, FLAC, OGG, M4A, AAC, AIFF, AU, CAF, WavPack, TTA, AC-3, DTS, AMR, WMA, MKV, MOV and WebM"


@dataclass(frozen=True, slots=True)
class Container:
    """``demuxer`` is ffmpeg's name. The audio begins ``skip`` bytes into the file. ``decoder`` overrides ffmpeg's
    choice where that is wrong."""

    demuxer: str
    skip: int = 0
    decoder: str | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame header: the distance to the next one in bytes (0 if unknown), and what all frames of a stream share."""

    demuxer: str
    length: int
    shared: object


def container(file: Path) -> Container:
    """The kind of the audio file. Raises TonestreamError: corrupt_audio for a file that is empty or holds only tags,
    unsupported_media for anything that is not audio; OSError."""
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
        if not head:
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file is empty")
        if head[:3] == b"ID3" and len(head) < 10:
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file holds tags and no audio")
        start = _end_of_tags(opened, head)
        if start:
            opened.seek(start)
            head = opened.read(_HEAD_BYTES)
            if not head.strip(b"\0") and not opened.read(1):
                raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file holds tags and no audio")
        if found := _by_magic(head):
            return _of(found, start, opened, head)
        if frame := _mpeg_frame(head):
            return Container(frame.demuxer)
        if _is_transport_stream(head):
            return Container("mpegts")
        if name := _named(head):
            raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, f"the file is {name}; read are {_READ}")
        opened.seek(start)
        if behind := _behind_what_is_no_part_of_it(opened, start):
            return behind
        opened.seek(start)
        if searched := _first_frames(opened.read(SEARCHED_BYTES)):
            return Container(searched.demuxer, start + searched.skip)
        if start:
            return Container("mp3")  # nothing else has such tags; its frames are damaged or far into the file
    raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, f"not an audio file; read are {_READ}")


def _behind_what_is_no_part_of_it(opened: BinaryIO, start: int) -> Container | None:
    """The file that begins after zeros, white space or an HTTP response header."""
    in_front = _IN_FRONT.match(opened.read(_IN_FRONT_BYTES))
    if in_front is None or not in_front.end():
        return None
    # The first length field of an MP4 file begins with zeros itself.
    for at in range(in_front.end(), max(in_front.end() - 4, 0), -1):
        opened.seek(start + at)
        head = opened.read(_HEAD_BYTES)
        if found := _by_magic(head):
            return _of(found, start + at, opened, head)
        if _is_transport_stream(head):
            return Container("mpegts", start + at)
    return None


def _of(demuxer: str, start: int, opened: BinaryIO, head: bytes) -> Container:
    if head[:4] != b"RIFX":
        return Container(demuxer, start)
    opened.seek(start)
    return Container(demuxer, start, _big_endian(opened.read(_RIFX_BYTES)))


def _end_of_tags(opened: BinaryIO, head: bytes) -> int:
    """The offset after the leading ID3 tags. There may be several."""
    end = 0
    while head[:3] == b"ID3" and len(head) >= 10:
        # The length is stored in seven bits per byte. A footer of ten bytes may follow.
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        end += 10 + size + (10 if head[5] & 0x10 else 0)
        opened.seek(end)
        head = opened.read(10)
    return end


def _by_magic(head: bytes) -> str | None:
    for offset, magic, demuxer in _MAGIC:
        if head[offset : offset + len(magic)] == magic and head[8:12] in _FORM_TYPES.get(demuxer, (head[8:12],)):
            if magic == b"ftyp" and head[8:12] in _PICTURES:
                raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, "the file is a picture")
            return demuxer
    return None


def _big_endian(head: bytes) -> str:
    """The decoder of a RIFX file. ffmpeg reads the big-endian header correctly but takes the samples for
    little-endian."""
    at = 12
    while at + 8 <= len(head) and head[at : at + 4] != b"fmt ":
        size = int.from_bytes(head[at + 4 : at + 8], "big")
        at += 8 + size + size % 2
    if at + 24 <= len(head):
        kind = int.from_bytes(head[at + 8 : at + 10], "big"), int.from_bytes(head[at + 22 : at + 24], "big")
        if decoder := _RIFX_DECODERS.get(kind):
            return decoder
    raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, "of RIFX files only those of plain samples are read")


def _named(head: bytes) -> str | None:
    """The name of a format that is recognised but not supported; None for anything else."""
    return next((name for at, magic, name in _NOT_READ if head[at : at + len(magic)] == magic), None)


def _is_transport_stream(head: bytes) -> bool:
    """Whether packets follow that each begin with the sync byte 0x47 (``G``). The first packet may be cut."""
    return any(
        head[start : start + _TS_PACKETS * step : step] == b"G" * _TS_PACKETS
        for step in _TS_STEPS
        for start in range(step)
    )


def _first_frames(data: bytes) -> Container | None:
    """The offset at which ``_FRAMES_IN_A_ROW`` frames begin."""
    for sync, parse in ((b"\xff", _mpeg_frame), (b"\x0b\x77", _ac3_frame)):
        at = data.find(sync)
        while at >= 0:
            if (frame := parse(data[at : at + 8])) and _goes_on(data, at, frame, parse):
                return Container(frame.demuxer, at)
            at = data.find(sync, at + 1)
    return None


def _goes_on(data: bytes, at: int, frame: _Frame, parse: Callable[[bytes], _Frame | None]) -> bool:
    first = frame
    for _ in range(_FRAMES_IN_A_ROW - 1):
        if not frame.length:
            return False
        at += frame.length
        following = parse(data[at : at + 8])
        if following is None or (following.demuxer, following.shared) != (first.demuxer, first.shared):
            return False
        frame = following
    return True


def _mpeg_frame(head: bytes) -> _Frame | None:
    """A frame of MP3, MP2 (both ``mp3`` to ffmpeg) or AAC with ADTS headers."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = (head[1] >> 1) & 0b11
    if layer == 0b00:
        if head[1] & 0xF0 != 0xF0 or (head[2] >> 2) & 0b1111 > 12:
            return None
        length = (head[3] & 0b11) << 11 | head[4] << 3 | head[5] >> 5
        return _Frame("aac", length, (head[1], head[2] & 0xFD))
    if layer == 0b11:
        return None  # Layer I: nobody has such files, and UTF-16 text begins like one
    version, bitrate, rate = (head[1] >> 3) & 0b11, head[2] >> 4, (head[2] >> 2) & 0b11
    if version == 0b01 or bitrate == 0b1111 or rate == 0b11:
        return None
    kbps = (_LAYER_III_KBPS if layer == 0b01 else _LAYER_II_KBPS)[version][bitrate]
    samples = 72 if layer == 0b01 and version != 3 else 144
    length = samples * kbps * 1000 // _SAMPLE_RATES[version][rate] + ((head[2] >> 1) & 1)
    return _Frame("mp3", length if kbps else 0, (version, layer, rate))


def _ac3_frame(head: bytes) -> _Frame | None:
    """A frame of AC-3 or of E-AC-3."""
    if len(head) < 6 or head[:2] != b"\x0b\x77":
        return None
    stream_type = head[5] >> 3
    if stream_type > 10:
        return _Frame("eac3", 2 * ((((head[2] & 0b111) << 8) | head[3]) + 1), stream_type)
    rate, code = head[4] >> 6, head[4] & 0b111111
    if rate == 0b11 or code // 2 >= len(_AC3_KBPS):
        return None
    kbps = _AC3_KBPS[code // 2]
    words = {0: 2 * kbps, 1: kbps * 1000 * 1536 // 44100 // 16 + code % 2, 2: 3 * kbps}[rate]
    return _Frame("ac3", 2 * words, (rate, stream_type))
