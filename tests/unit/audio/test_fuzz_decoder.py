"""Files made at random: whatever the bytes, audio within the limits comes out or TonestreamError, and nothing else."""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.audio.containers import container
from shared.audio.decode import DecodeLimits, decode, find_ffmpeg
from shared.audio.file_tags import FileTags, parsed
from shared.contracts.errors import ErrorCode, TonestreamError
from tests.support.fuzzing import cases
from tests.support.hostile import WITH_FORGED_HEADERS, WITHOUT_AUDIO

LIMITS: Final = DecodeLimits(max_duration_s=20.0, timeout_s=60.0)
DEMUXERS: Final = {
    "mp3", "aac", "wav", "w64", "flac", "ogg", "mov", "aiff", "au", "caf", "wv", "tta", "amr", "dts", "ac3", "eac3",
    "mpegts", "matroska", "asf",
}  # fmt: skip
CODES: Final = {ErrorCode.UNSUPPORTED_MEDIA, ErrorCode.CORRUPT_AUDIO, ErrorCode.TOO_LONG}
MAGICS: Final = [
    b"", b"ID3\x03\0\0", b"ID3\x04\0\xff", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"RF64", b"fLaC\0\0\0\x22", b"OggS\0\x02",
    b"\0\0\0\x18ftypM4A ", b"FORM\0\0\0\0AIFF", b".snd", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"\xff\xfb\x90", b"\xff\xf1\x50", b"\xff\xe3", b"#EXTM3U\n", b"wvpk", b"TTA1", b"caff", b"\x0b\x77", b"#!AMR\n",
    b"\x7f\xfe\x80\x01", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", b"\0\0\0\x08wide", b"RIFX\0\0\0\0WAVE",
]  # fmt: skip

#: How each kind of file is made: its suffix and ffmpeg's options.
KINDS: Final = {
    "mp3": (), "flac": (), "wav": (), "ogg": ("-c:a", "libvorbis"), "opus": ("-c:a", "libopus"), "m4a": (),
    "aac": (), "aiff": (), "au": (), "mka": ("-c:a", "flac"), "webm": (), "wma": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return find_ffmpeg()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str) -> dict[str, bytes]:
    """A third of a second in every format, with tags."""
    folder = tmp_path_factory.mktemp("sound")
    source = ["-f", "lavfi", "-i", "sine=d=0.3:r=44100", "-metadata", "title=Title", "-metadata", "artist=Artist"]
    for suffix, options in KINDS.items():
        command = [ffmpeg, "-nostdin", "-loglevel", "error", *source, *options, str(folder / f"a.{suffix}")]
        subprocess.run(command, check=True)
    return {suffix: (folder / f"a.{suffix}").read_bytes() for suffix in KINDS}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def told(file: Path) -> None:
    """The guard in front of the decoder."""
    try:
        assert container(file).demuxer in DEMUXERS
    except TonestreamError as error:
        assert error.code in CODES


def assert_printable(tags: FileTags) -> None:
    for text in (tags.title, tags.artist):
        assert text is None or (text.isprintable() and len(text) <= 300)


@cases(quick=300, long=10_000)
@given(st.binary(max_size=400), st.sampled_from([b"", b"title=", b"ARTIST=\\", b"[CHAPTER]\n", b"\n=\n"]))
def test_any_metadata_gives_printable_tags(content: bytes, start: bytes) -> None:
    assert_printable(parsed(b";FFMETADATA1\n" + start + content))


def mutated(content: bytes, data: st.DataObject) -> bytes:
    """Damaged in a few places, the head more than the rest; or cut, repeated, or joined to something else."""
    changed = bytearray(content)
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.sampled_from([1, 2, 5, 20, 200]))):
        place = chance.randrange(len(changed) if chance.random() < 0.5 else min(len(changed), 200))
        changed[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    what = data.draw(st.sampled_from(["as it is", "cut", "gap", "repeated", "behind a tag", "joined"]))
    place = chance.randrange(1, len(changed))
    if what == "cut":
        return bytes(changed[:place])
    if what == "gap":
        return bytes(changed[:place] + changed[place + chance.randrange(200) :])
    if what == "repeated":
        return bytes(changed[:place] + changed)
    if what == "behind a tag":
        return b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + bytes(changed)
    if what == "joined":
        return bytes(changed[:place]) + data.draw(st.sampled_from(list(WITHOUT_AUDIO.values())))[:100_000]
    return bytes(changed)


@cases(quick=200, long=5000)
@given(st.sampled_from(MAGICS), st.binary(max_size=200))
def test_any_bytes_are_told_apart(folder: Path, magic: bytes, content: bytes) -> None:
    file = folder / "source"
    file.write_bytes(magic + content)
    told(file)


@cases(quick=150, long=4000)
@given(st.sampled_from(list(KINDS)), st.data())
def test_damaged_files_are_told_apart(folder: Path, sound: dict[str, bytes], kind: str, data: st.DataObject) -> None:
    file = folder / "source"
    file.write_bytes(mutated(sound[kind], data))
    told(file)


@pytest.mark.timeout(7200)
@cases(quick=25, long=2000)
@given(st.sampled_from([*KINDS, "forged"]), st.data())
def test_damaged_files_are_decoded_within_the_limits_or_refused(
    folder: Path, sound: dict[str, bytes], ffmpeg: str, kind: str, data: st.DataObject
) -> None:
    if kind == "forged":
        content = data.draw(st.sampled_from([made for made in WITH_FORGED_HEADERS.values() if len(made) < 200_000]))
    else:
        content = sound[kind]
    source, out = folder / "source", folder / "out.wav"
    source.write_bytes(mutated(content, data))
    try:
        audio = decode(source, out, LIMITS, ffmpeg)
    except TonestreamError as error:
        assert error.code in CODES, error
        assert error.message.isprintable() and str(folder) not in error.message
        assert not out.exists()
    else:
        assert 0 < audio.duration_s <= LIMITS.max_duration_s
        assert out.stat().st_size == 44 + 2 * audio.samples
        assert_printable(audio.tags)
        out.unlink()
