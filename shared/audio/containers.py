"""What kind of file it is, by its bytes; its name and a server's word play no part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shared.contracts.errors import ErrorCode, TonestreamError

#: How far into a file the first MPEG or AC-3 frames are looked for, in bytes behind an ID3 tag. Splitters, rippers and
#: taggers leave zeros, cut frames, line ends and the headers of servers there.
SEARCHED_BYTES: Final = 1024 * 1024
#: So many frames in a row are no coincidence.
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
    # QuickTime before it had a type: the file begins with any of its parts.
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
#: Second magic that these need, at byte 8: other files begin like them too.
_FORM_TYPES: Final[dict[str, tuple[bytes, ...]]] = {"wav": (b"WAVE",), "aiff": (b"AIFF", b"AIFC")}
#: By format tag and bits a sample.
_RIFX_DECODERS: Final = {
    (1, 8): "pcm_u8", (1, 16): "pcm_s16be", (1, 24): "pcm_s24be", (1, 32): "pcm_s32be",
    (3, 32): "pcm_f32be", (3, 64): "pcm_f64be",
}  # fmt: skip
#: The types of pictures among those of MP4: no player looks for sound in them.
_PICTURES: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jxl ")
#: What people have and no decoder on the list reads: better named than called no audio file. No frames are looked for
#: in these: what an archive or a film holds is not what its name promises.
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
    (0, b"\x1f\x8b\x08", "an archive (gzip)"),
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
    (0, b"SQLite format 3", "a database"),
)
_LAYER_III_KBPS: Final = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2
    0: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2.5
}
_LAYER_II_KBPS: Final = _LAYER_III_KBPS | {3: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)}
_SAMPLE_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
#: Words (of 16 bits) of an AC-3 frame at 48 kHz by half its size code; at 44.1 kHz, by the code; at 32 kHz as at 48.
_AC3_KBPS: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_TS_PACKET: Final = 188
_READ: Final = "MP3, MP2, WAV, FLAC, OGG, M4A, AAC, AIFF, AU, CAF, WavPack, TTA, AC-3, DTS, AMR, WMA, MKV, MOV and WebM"


@dataclass(frozen=True, slots=True)
class Container:
    """``demuxer`` is ffmpeg's; the audio begins ``skip`` bytes into the file. ``decoder`` is the one to take where
    ffmpeg's own choice is wrong."""

    demuxer: str
    skip: int = 0
    decoder: str | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame header: the bytes to the next one (0 where it does not say), and what all frames of a stream share."""

    demuxer: str
    length: int
    shared: object


def container(file: Path) -> Container:
    """What kind of audio file it is. Raises TonestreamError: corrupt_audio for an empty file or one of tags alone,
    unsupported_media for anything that is not audio; OSError."""
    with file.open("rb") as opened:
        head = opened.read(_TS_PACKET * 3)
        if not head:
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file is empty")
        if head[:3] == b"ID3" and len(head) < 10:
            raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file holds tags and no audio")
        start = _end_of_tags(opened, head)
        if start:
            opened.seek(start)
            head = opened.read(_TS_PACKET * 3)
            if not head.strip(b"\0") and not opened.read(1):
                raise TonestreamError(ErrorCode.CORRUPT_AUDIO, "the file holds tags and no audio")
        if found := _by_magic(head):
            return Container(found, start, _big_endian(head) if head[:4] == b"RIFX" else None)
        if frame := _mpeg_frame(head):
            return Container(frame.demuxer)
        if _is_transport_stream(head):
            return Container("mpegts")
        if name := _named(head):
            raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, f"the file is {name}; read are {_READ}")
        opened.seek(start)
        if searched := _first_frames(opened.read(SEARCHED_BYTES)):
            return Container(searched.demuxer, start + searched.skip)
        if start:
            return Container("mp3")  # nothing else has such tags; its frames are damaged or far away
    raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, f"not an audio file; read are {_READ}")


def _end_of_tags(opened: BinaryIO, head: bytes) -> int:
    """Where the ID3 tags at the beginning end: there may be several."""
    end = 0
    while head[:3] == b"ID3" and len(head) >= 10:
        # The length is stored with seven bits a byte; a footer of ten bytes may follow.
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
    """The decoder of a RIFX file: ffmpeg reads its numbers from the right end and its samples from the wrong one."""
    if head[12:16] == b"fmt " and len(head) >= 36:
        kind = int.from_bytes(head[20:22], "big"), int.from_bytes(head[34:36], "big")
        if decoder := _RIFX_DECODERS.get(kind):
            return decoder
    raise TonestreamError(ErrorCode.UNSUPPORTED_MEDIA, "of RIFX files only those of plain samples are read")


def _named(head: bytes) -> str | None:
    """What it is that is not read; None where it has no such name."""
    if head[:2] == b"MZ":  # audio may begin with two such bytes; a program says at byte 60 where its second head is
        second = int.from_bytes(head[60:64], "little")
        return "a program" if head[second : second + 2] in (b"PE", b"NE", b"LE") else None
    return next((name for at, magic, name in _NOT_READ if head[at : at + len(magic)] == magic), None)


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes that begin with a G, on a Blu-ray with four bytes before each."""
    return any(
        len(head) > start + 2 * step and all(head[start + packet * step] == 0x47 for packet in range(3))
        for start, step in ((0, _TS_PACKET), (4, _TS_PACKET + 4))
    )


def _first_frames(data: bytes) -> Container | None:
    """Where ``_FRAMES_IN_A_ROW`` frames begin."""
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
