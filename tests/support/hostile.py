"""Audio files made to do harm: written here byte by byte, so that it is known what is in them."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
from typing import Final

RATE: Final = 44100


def noise(seconds: float, channels: int = 1, rate: int = RATE) -> bytes:
    """16-bit samples."""
    return random.Random(7).randbytes(int(seconds * rate) * channels * 2)


def wav(
    data: bytes,
    *,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    form: int = 1,
    claimed: int | None = None,
    align: int | None = None,
) -> bytes:
    """A WAV file whose header says what it is told to; ``claimed`` bytes of samples."""
    size = len(data) if claimed is None else claimed
    align = (channels * bits // 8 if align is None else align) & 0xFFFF
    head = struct.pack("<HHIIHH", form, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + body


def au(data: bytes, *, channels: int = 1, rate: int = RATE, encoding: int = 3, offset: int = 24) -> bytes:
    """A Sun audio file."""
    return b".snd" + struct.pack(">5I", offset, 0xFFFFFFFF, encoding, rate, channels) + data


def aiff(data: bytes, *, channels: int = 1, rate: bytes = b"\x40\x0e\xac\x44" + bytes(6), bits: int = 16) -> bytes:
    """An AIFF file; ``rate`` as the 80-bit float it is written as."""
    frames = len(data) // max(1, channels * bits // 8)
    common = struct.pack(">HIH", channels, frames, bits) + rate
    chunks = b"COMM" + struct.pack(">I", len(common)) + common
    chunks += b"SSND" + struct.pack(">III", len(data) + 8, 0, 0) + data
    return b"FORM" + struct.pack(">I", 4 + len(chunks)) + b"AIFF" + chunks


def id3(size: int, content: bytes = b"") -> bytes:
    """An ID3v2 tag that claims ``size`` bytes and holds ``content``."""
    return b"ID3\x03\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + content


def box(name: bytes, *content: bytes) -> bytes:
    """A box of an MP4 file."""
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + name + body


def mp4_of_many_tracks(count: int) -> bytes:
    """An MP4 file that says it has that many audio tracks, without a sample in any."""
    sample = struct.pack(">6xHQHHHHI", 1, 0, 2, 16, 0, 0, RATE << 16)
    full = bytes(4)
    table = box(
        b"stbl",
        box(b"stsd", full, struct.pack(">I", 1), box(b"mp4a", sample)),
        *(box(name, full, struct.pack(">I", 0)) for name in (b"stts", b"stsc", b"stco")),
        box(b"stsz", full, struct.pack(">II", 0, 0)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", full, struct.pack(">IIIII", 0, 0, RATE, 0xFFFFFFFF, 0)),
        box(b"hdlr", full, bytes(4), b"soun", bytes(13)),
        box(b"minf", table),
    )
    tracks = b"".join(
        box(b"trak", box(b"tkhd", full, struct.pack(">IIIII", 0, 0, number + 1, 0, 0xFFFFFFFF), bytes(60)), media)
        for number in range(count)
    )
    head = box(b"mvhd", full, struct.pack(">IIII", 0, 0, RATE, 0xFFFFFFFF), bytes(80))
    return box(b"ftyp", b"M4A \0\0\0\0M4A ") + box(b"moov", head, tracks)


def nested_mp4(depth: int) -> bytes:
    """Boxes in boxes in boxes."""
    content = b""
    for _ in range(depth):
        content = box(b"moov", content)
        if len(content) > 1 << 20:
            break
    return box(b"ftyp", b"M4A \0\0\0\0M4A ") + content


def zip_of(name: str, content: bytes) -> bytes:
    """A ZIP file with one member."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


HLS: Final = b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT: Final = b"ffconcat version 1.0\nfile '/etc/passwd'\nduration 3\n"

#: Not one of them holds music that could be had: each is to end in a typed error.
WITHOUT_AUDIO: Final[dict[str, bytes]] = {
    "nothing": b"",
    "one byte": b"\xff",
    "only zeros": bytes(100_000),
    "only a tag": id3(1000, bytes(1000)),
    "a tag that claims 256 MB": id3(0x0FFFFFFF),
    "a tag in a tag in a tag": b"".join(id3(10 * (1000 - number)) for number in range(1000)),
    "a WAV of 44 bytes": wav(b""),
    "a WAV of 44 bytes that claims 4 GB": wav(b"", claimed=0xFFFFFFFF),
    "a WAV without channels": wav(noise(0.1), channels=0),
    "a WAV without a rate": wav(noise(0.1), rate=0),
    "a WAV without bits": wav(noise(0.1), bits=0, align=2),
    "a WAV of a codec nobody knows": wav(noise(0.1), form=0x4242),
    "a WAV of films": wav(noise(0.1), form=0x0010, bits=4),
    "an AU without channels": au(noise(0.1), channels=0),
    "an AU without a rate": au(noise(0.1), rate=0),
    "an AU whose data begin beyond its end": au(noise(0.1), offset=0x7FFFFFFF),
    "an AIFF without channels": aiff(noise(0.1), channels=0),
    "an AIFF without a rate": aiff(noise(0.1), rate=bytes(10)),
    "an MP4 of 2,000 empty tracks": mp4_of_many_tracks(2000),
    "an MP4 in an MP4 in an MP4": nested_mp4(20_000),
    "an MP4 with a box of 2^64 bytes": box(b"ftyp", b"M4A \0\0\0\0") + struct.pack(">I4sQ", 1, b"moov", 2**64 - 1),
    "a FLAC of its head alone": b"fLaC\x00\0\0\x22" + bytes(34),
    "a FLAC with metadata without end": b"fLaC\x00\0\0\x22" + bytes(34) + b"\x04\0\0\0" * 100_000,
    "an Ogg of empty pages": (b"OggS" + bytes(23)) * 20_000,
    "a Matroska that is one huge element": b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + bytes(1000),
    "an ASF of its head alone": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c" + b"\xff" * 200,
    "an HLS playlist": HLS,
    "an HLS playlist behind a tag": id3(10, bytes(10)) + HLS,
    "a concat script": CONCAT,
    "a concat script behind a tag": id3(10, bytes(10)) + CONCAT,
    "a playlist that begins like a WAV": b"RIFF\xff\0\0\0WAVE" + HLS,
    "a playlist that begins like an MP4": box(b"ftyp", b"M4A \0\0\0\0") + HLS,
    "a session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a gzip bomb": gzip.compress(bytes(50_000_000), 9),
    "a zip bomb": zip_of("song.mp3", bytes(50_000_000)),
    "a program": b"\x7fELF" + bytes(1000),
    "a PDF with an MP3 in it": b"%PDF-1.4\n" + b"\xff\xfb\x90\x64" + bytes(413),
}

#: Forged, but with samples in them: what is heard may be anything, within the limits.
WITH_FORGED_HEADERS: Final[dict[str, bytes]] = {
    "a WAV of one sample a second": wav(noise(1.0), rate=1),
    "a WAV of 7 samples a second": wav(noise(1.0), rate=7),
    "a WAV of 384 kHz": wav(noise(1.0), rate=384_000),
    "a WAV of 2 GHz": wav(noise(1.0), rate=0x7FFFFFFF),
    "a WAV of 4 GHz": wav(noise(1.0), rate=0xFFFFFFFF),
    "a WAV of 64 channels": wav(noise(0.2, 64), channels=64),
    "a WAV of 255 channels": wav(noise(0.1, 255), channels=255),
    "a WAV of 65,535 channels": wav(noise(3.0), channels=65535),
    "a WAV of 24 hours by its header": wav(noise(1.0), claimed=0xFFFFFFF0),
    "a WAV of frames of 65,535 bytes": wav(noise(1.0), align=65535),
    "an AU of 64 channels": au(noise(0.2, 64), channels=64),
    "an AU of 4 billion channels": au(noise(1.0), channels=0xFFFFFFFF),
    "an AU of one sample a second": au(noise(1.0), rate=1),
    "an AIFF of 64 channels": aiff(noise(0.2, 64), channels=64),
    "an AIFF of a rate beyond numbers": aiff(noise(0.5), rate=b"\x7f\xff" + b"\xff" * 8),
    "an AIFF of a negative rate": aiff(noise(0.5), rate=b"\xc0\x0e\xac\x44" + bytes(6)),
    "MP3 frames of every rate in turn": b"".join(
        bytes((0xFF, 0xE0 | version << 3 | 0b011, 0x90 | rate << 2, 0x64)) + bytes(400)
        for version in (3, 2, 0) for rate in (0, 1, 2) for _ in range(20)
    ),
    "ADTS frames of every rate and channel in turn": b"".join(
        b"\xff\xf1" + bytes((0x40 | rate << 2 | channels >> 2, (channels & 3) << 6 | 0, 0x0D, 0x7F, 0xFC)) + bytes(97)
        for rate in range(16) for channels in range(8)
    ),
}  # fmt: skip
