"""Title and artist from a file's own tags: read where they are, never in the way."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from services.ingestion.tags import read_tags
from shared.audio.decode import find_ffmpeg


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


def test_a_file_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    assert read_tags(tmp_path / "missing") == (None, None)
    assert read_tags(tmp_path) == (None, None)


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
    for length in (0, 1, 7, 50, 400, 3000) * 5:
        file.write_bytes(magic + chance.randbytes(length))
        for found in read_tags(file):
            assert found is None or found.isprintable()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", ["mp3", "m4a", "ogg", "flac", "wav", "wma"])
def test_damaged_tags_do_no_harm(suffix: str, tmp_path: Path) -> None:
    content = tagged(tmp_path / f"a.{suffix}", "title=Title", "artist=Artist", "comment=" + "x" * 100).read_bytes()
    chance = random.Random(suffix)
    file = tmp_path / "source"
    for round_ in range(150):
        damaged = bytearray(content[: chance.randrange(1, len(content))] if round_ % 3 == 0 else content)
        for _ in range(1 + round_ % 20):
            damaged[chance.randrange(min(len(damaged), 600))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        file.write_bytes(damaged)
        for found in read_tags(file):
            assert found is None or found.isprintable()
