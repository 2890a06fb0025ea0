"""Title and artist from a file's own tags: read where they are, never in the way."""

from __future__ import annotations

import random
import struct
import subprocess
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.audio.file_tags import KEPT_BYTES, FileTags, parsed
from shared.contracts.errors import TonestreamError
from tests.support.fuzzing import PROFILE
from tests.support.samples import SAMPLE

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=20.0)


def read_tags(file: Path, limits: DecodeLimits = LIMITS) -> tuple[str | None, str | None]:
    """(title, artist), as they come with the decoded audio; neither where nothing can be decoded."""
    try:
        tags = decode(file, file.with_name("decoded.wav"), limits, find_ffmpeg()).tags
    except TonestreamError:
        return None, None
    return tags.title, tags.artist


def tagged(path: Path, *metadata: str, options: tuple[str, ...] = ()) -> Path:
    """A moment of silence with tags."""
    silence = ["-f", "lavfi", "-i", "anullsrc=r=44100:cl=mono", "-t", "0.2"]
    tags = [part for pair in metadata for part in ("-metadata", pair)]
    subprocess.run([find_ffmpeg(), "-nostdin", "-loglevel", "error", *silence, *tags, *options, str(path)], check=True)
    return path


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "ogg", "opus", "flac", "wav", "aiff"])
def test_title_and_artist_are_read_whatever_the_file_is_called(suffix: str, tmp_path: Path) -> None:
    options = ("-write_id3v2", "1") if suffix == "aiff" else ()
    made = tagged(tmp_path / f"a.{suffix}", "title=Für Elise", "artist=Ludwig van Beethoven", options=options)
    renamed = made.rename(tmp_path / "source")
    title, artist = read_tags(renamed)
    assert artist == "Ludwig van Beethoven"
    assert title in {"Für Elise"} if suffix != "wav" else title is not None


@pytest.mark.parametrize("version", ["3", "4"])
def test_letters_of_any_script_come_through(version: str, tmp_path: Path) -> None:
    made = tagged(tmp_path / "a.mp3", "title=音楽 ♫", "artist=Мумий Тролль", options=("-id3v2_version", version))
    assert read_tags(made) == ("音楽 ♫", "Мумий Тролль")


def test_blanks_are_one_space_and_control_characters_nothing(tmp_path: Path) -> None:
    made = tagged(tmp_path / "a.flac", "title=\x1b[31m one\n\ttwo\u3000three\x07 ", "artist=" + "x" * 5000)
    title, artist = read_tags(made)
    assert title == "[31m one two three"
    assert artist == "x" * 300


def test_a_file_without_tags_has_none(tmp_path: Path) -> None:
    made = tagged(tmp_path / "a.mp3", options=("-id3v2_version", "0"))
    assert read_tags(made) == (None, None)
    assert read_tags(tagged(tmp_path / "b.mp3", "title=  ")) == (None, None)


def test_what_is_no_metadata_has_no_tags() -> None:
    for metadata in (b"", b";FFMETADATA2\ntitle=x\n", b"title=x\n", b";FFMETADATA1\ntitle"):
        assert parsed(metadata) == FileTags()


def test_signs_that_the_format_escapes_come_through(tmp_path: Path) -> None:
    title = r"a=b; #c \ d"
    assert read_tags(tagged(tmp_path / "a.mp3", f"title={title}", "artist==;#")) == (title, "=;#")


def test_names_of_chapters_are_not_the_tracks() -> None:
    assert parsed(b";FFMETADATA1\nartist=A\n[CHAPTER]\ntitle=One\n") == FileTags(None, "A")


@pytest.mark.parametrize("end", range(0, 60, 3))
def test_metadata_that_is_cut_anywhere_names_what_it_can(end: int) -> None:
    whole = ";FFMETADATA1\ntitle=Für Elise\nartist=\\=B\n".encode()
    tags = parsed(whole[:end])
    assert (tags.title or "") in "Für Elise" and (tags.artist or "") in "=B"


@pytest.mark.parametrize("title", ["Für Elise", "Café", "Ü"])
def test_letters_of_id3v1_come_through(title: str, tmp_path: Path) -> None:
    bare = tagged(tmp_path / "a.mp3", options=("-id3v2_version", "0")).read_bytes()
    file = tmp_path / "source"
    file.write_bytes(bare + b"TAG" + title.encode("latin-1").ljust(30, b"\0") + b"Bj\xf6rk".ljust(94, b"\0") + b"\xff")
    assert read_tags(file) == (title, "Björk")


MAGICS = [
    b"",
    b"ID3\x03\0\0\0\0\x7f\x7f",
    b"ID3\x04\0\xff",
    b"OggS",
    b"fLaC",
    b"RIFF\xff\xff\xff\xffWAVE",
    b"FORM",
    b"\xff\xfb",
    b"\0\0\0\x18ftypM4A \0\0\0\0",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("magic", MAGICS)
def test_garbage_has_no_tags_and_does_no_harm(magic: bytes, tmp_path: Path) -> None:
    chance = random.Random(magic)
    file = tmp_path / "source"
    for length in (0, 1, 7, 50, 400, 3000):
        file.write_bytes(magic + chance.randbytes(length))
        for found in read_tags(file):
            assert found is None or found.isprintable()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", ["mp3", "m4a", "ogg", "flac", "wav", "wma"])
def test_damaged_tags_do_no_harm(suffix: str, tmp_path: Path) -> None:
    content = tagged(tmp_path / f"a.{suffix}", "title=Title", "artist=Artist", "comment=" + "x" * 100).read_bytes()
    chance = random.Random(suffix)
    file = tmp_path / "source"
    for round_ in range(30 if PROFILE == "long" else 12):
        damaged = bytearray(content[: chance.randrange(1, len(content))] if round_ % 3 == 0 else content)
        for _ in range(1 + round_ % 20):
            damaged[chance.randrange(min(len(damaged), 600))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        file.write_bytes(damaged)
        for found in read_tags(file):
            assert found is None or found.isprintable()


def id3(*frames: tuple[bytes, bytes], size: int | None = None) -> bytes:
    """An ID3v2.3 tag of these frames, which claims ``size`` bytes."""
    body = b"".join(name + struct.pack(">IH", len(content), 0) + content for name, content in frames)
    digits = bytes(((len(body) if size is None else size) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + digits + body


def many_values(count: int) -> bytes:
    """That many different values of one field."""
    return b"\0" + b"\0".join(b"%d" % number for number in range(count))


def ogg_comments(count: int) -> bytes:
    """The first packets of an Ogg Vorbis file with that many titles."""
    comments = [b"title=%d" % number for number in range(count)]
    packet = b"\x03vorbis" + struct.pack("<I", 0) + struct.pack("<I", count)
    packet += b"".join(struct.pack("<I", len(comment)) + comment for comment in comments)
    head = b"\x01vorbis" + struct.pack("<IBIiiiBB", 0, 2, 44100, 0, 128000, 0, 0xB8, 1)
    pages = [head, *(packet[start : start + 65025] for start in range(0, len(packet), 65025))]
    written = b""
    for number, page in enumerate(pages):
        lacing = b"\xff" * (len(page) // 255) + (bytes([len(page) % 255]) if len(page) % 255 else b"")
        written += b"OggS\0" + struct.pack("<BqIIIB", 0, 0, 7, number, 0, len(lacing)) + lacing + page
    return written


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "content",
    [
        id3((b"TIT2", b"\0" + b"x" * 100_000_000)),
        id3((b"COMM", b"\0eng\0" + b"x" * 20_000_000), (b"TIT2", b"\0Title")),
        id3((b"TIT2", many_values(100_000)), (b"TPE1", many_values(100_000))),
        id3(*[(b"TIT2", b"\0%d" % number) for number in range(100_000)]),
        id3(*[(b"ZZZZ", b"")] * 2_000_000),
        id3((b"TIT2", b"\0"), size=0x0FFFFFFF),
        ogg_comments(300_000),
        b"\0\0\0\x18ftypM4A \0\0\0\0" + b"\0\0\0\x08free" * 3_000_000,
        b"fLaC" + b"\x01\0\0\0" * 5_000_000,
        b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 3_000_000,
    ],
    ids=lambda content: f"{content[:4]!r}, {len(content)} bytes",
)
def test_tags_without_end_cost_little_time_and_memory(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "source"
    file.write_bytes(content + (SAMPLE.read_bytes() if content.startswith(b"ID3") else b""))
    del content
    started = time.process_time()
    tracemalloc.start()
    read_tags(file, replace(LIMITS, timeout_s=3.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 8.0  # tracing slows it several times
    assert peak < 60_000_000


def test_a_title_behind_a_large_cover_is_found(tmp_path: Path) -> None:
    cover = b"\0image/png\0\x03\0" + b"\x89PNG" * 2_000_000
    file = tmp_path / "source"
    tag = id3((b"APIC", cover), (b"TIT2", b"\0Behind it"), (b"TPE1", b"\0One\0Two"))
    file.write_bytes(tag + SAMPLE.read_bytes())
    assert read_tags(file) == ("Behind it", "One")


def test_metadata_without_end_does_not_hold_up_the_decoder(tmp_path: Path) -> None:
    frames = [(b"TXXX", b"\0%d\0" % number + b"x" * 1000) for number in range(3000)]
    file = tmp_path / "source"
    file.write_bytes(id3(*frames, (b"TIT2", b"\0Last")) + SAMPLE.read_bytes())
    decoded = decode(file, tmp_path / "decoded.wav", LIMITS, find_ffmpeg())
    assert decoded.samples == decode(SAMPLE, tmp_path / "sample.wav", LIMITS, find_ffmpeg()).samples
    assert decoded.tags in {FileTags("Last"), FileTags()}, f"found within {KEPT_BYTES} bytes, or not at all"
