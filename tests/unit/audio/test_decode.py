"""The decoder with a real ffmpeg: every format by whatever name, damaged and hostile files, and its limits."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
import time
import wave
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.audio.containers import container
from shared.audio.decode import (
    SAMPLE_RATE,
    DecodedAudio,
    DecodeLimits,
    MissingDependencyError,
    decode,
    find_ffmpeg,
)
from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError, TransientError
from tests.support.scripted_ffmpeg import SECONDS, script

TONE_HZ = 1000.0
#: Amplitude of the tone: left, right.
LEFT, RIGHT = 0.5, 0.25
LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=20.0)
NO_AUDIO = {ErrorCode.UNSUPPORTED_MEDIA, ErrorCode.CORRUPT_AUDIO}

Make = Callable[..., Path]


@dataclass(frozen=True)
class Format:
    """``output``: ffmpeg's options; ``demuxer``: what the first bytes tell."""

    suffix: str
    output: tuple[str, ...]
    demuxer: str


FORMATS = {
    "mp3 of constant bitrate": Format("mp3", ("-b:a", "192k"), "mp3"),
    "mp3 of variable bitrate": Format("mp3", ("-q:a", "4"), "mp3"),
    "mp3 without tag and Xing header": Format("mp3", ("-id3v2_version", "0", "-write_xing", "0"), "mp3"),
    "mp3 of a low rate": Format("mp3", ("-ar", "16000", "-b:a", "32k"), "mp3"),
    "wav of 8 bits": Format("wav", ("-c:a", "pcm_u8"), "wav"),
    "wav of 24 bits": Format("wav", ("-c:a", "pcm_s24le"), "wav"),
    "wav of floats": Format("wav", ("-c:a", "pcm_f32le"), "wav"),
    "wav of 48 kHz": Format("wav", ("-ar", "48000"), "wav"),
    "wav of 22.05 kHz": Format("wav", ("-ar", "22050"), "wav"),
    "wav of 8 kHz": Format("wav", ("-ar", "8000"), "wav"),
    "wav beyond 4 GB by its header": Format("wav", ("-rf64", "always"), "wav"),
    "flac": Format("flac", (), "flac"),
    "ogg vorbis": Format("ogg", ("-c:a", "libvorbis"), "ogg"),
    "opus": Format("opus", ("-c:a", "libopus"), "ogg"),
    "flac in ogg": Format("ogg", ("-c:a", "flac"), "ogg"),
    "m4a with its index at the end": Format("m4a", (), "mov"),
    "m4a with its index in front": Format("m4a", ("-movflags", "+faststart"), "mov"),
    "aac in adts": Format("aac", (), "aac"),
    "aiff": Format("aiff", (), "aiff"),
    "au": Format("au", (), "au"),
    "webm": Format("webm", (), "matroska"),
    "matroska": Format("mka", ("-c:a", "flac"), "matroska"),
    "wma": Format("wma", (), "asf"),
}


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return find_ffmpeg()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audio")


def write_wav(path: Path, channels: list[np.ndarray[Any, Any]], rate: int = 44100) -> Path:
    samples = np.round(np.stack(channels, axis=1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(len(channels))
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(samples.tobytes())
    return path


def tone(hertz: float, seconds: float = SECONDS, amplitude: float = 0.5, rate: int = 44100) -> np.ndarray[Any, Any]:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def stereo(folder: Path) -> Path:
    """Three seconds of a tone, louder on the left."""
    return write_wav(folder / "stereo.wav", [tone(TONE_HZ, amplitude=LEFT), tone(TONE_HZ, amplitude=RIGHT)])


@pytest.fixture(scope="module")
def make(folder: Path, stereo: Path, ffmpeg: str) -> Make:
    """``make(suffix, *options)``: the tone in another format; made once each."""
    made: dict[tuple[str, ...], Path] = {}

    def once(suffix: str, *options: str) -> Path:
        key = (suffix, *options)
        if key not in made:
            path = folder / f"made-{len(made)}.{suffix}"
            command = [ffmpeg, "-nostdin", "-loglevel", "error", "-y", "-i", str(stereo), *options, str(path)]
            subprocess.run(command, check=True)
            made[key] = path
        return made[key]

    return once


@pytest.fixture(scope="module")
def mp3(make: Make) -> bytes:
    return make("mp3", "-b:a", "192k").read_bytes()


@pytest.fixture
def decoded(tmp_path: Path, ffmpeg: str) -> Callable[[bytes], DecodedAudio]:
    """Decodes bytes by the name of ``source.mp3``."""

    def these(content: bytes) -> DecodedAudio:
        source = tmp_path / "source.mp3"
        source.write_bytes(content)
        return decode(source, tmp_path / "out.wav", LIMITS, ffmpeg)

    return these


def samples_of(audio: DecodedAudio) -> np.ndarray[Any, Any]:
    """What stands in the WAV, which is the WAV that was promised."""
    with wave.open(str(audio.path), "rb") as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, SAMPLE_RATE)
        assert wav.getnframes() == audio.samples
        content = wav.readframes(audio.samples + 1)
    assert hashlib.sha256(content).hexdigest() == audio.sha256
    return np.frombuffer(content, "<i2").astype(np.float64) / 32768


def peak_hz(samples: np.ndarray[Any, Any]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / len(samples)


def level(samples: np.ndarray[Any, Any]) -> float:
    """Amplitude of a tone, from the middle of the samples."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.sqrt(2 * np.mean(middle**2)))


def id3(size: int, content: bytes = b"") -> bytes:
    """An ID3v2 tag of ``size`` bytes."""
    digits = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + digits + content.ljust(size, b"\0")


# Formats


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_told_by_its_bytes_and_keeps_length_pitch_and_level(
    name: str, make: Make, tmp_path: Path, ffmpeg: str
) -> None:
    wanted = FORMATS[name]
    source = shutil.copy(make(wanted.suffix, *wanted.output), tmp_path / "source.txt")
    assert container(Path(source)).demuxer == wanted.demuxer
    audio = decode(Path(source), tmp_path / "out.wav", LIMITS, ffmpeg)
    samples = samples_of(audio)
    assert audio.duration_s == pytest.approx(SECONDS, abs=0.06)
    assert peak_hz(samples) == pytest.approx(TONE_HZ, abs=1.0)
    # LAME itself takes 5 % off at low bitrates.
    assert level(samples) == pytest.approx((LEFT + RIGHT) / 2, rel=0.06)


def test_a_big_tag_with_a_cover_in_front_of_an_mp3_is_stepped_over(
    stereo: Path, tmp_path: Path, ffmpeg: str, mp3: bytes, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    tagged, cover = tmp_path / "tagged.mp3", tmp_path / "cover.png"
    quiet = [ffmpeg, "-nostdin", "-loglevel", "error"]
    picture = ["-f", "lavfi", "-i", "testsrc=size=640x640:rate=1:duration=1", "-frames:v", "1"]
    subprocess.run([*quiet, *picture, str(cover)], check=True)
    inputs = ["-i", str(stereo), "-i", str(cover), "-map", "0:a", "-map", "1:v"]
    options = ["-c:v", "copy", "-disposition:v", "attached_pic", "-metadata", "title=Titel", "-b:a", "192k"]
    subprocess.run([*quiet, *inputs, *options, str(tagged)], check=True)
    assert samples_of(decoded(tagged.read_bytes())).size / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.06)
    assert decoded(id3(3_000_000) + mp3).duration_s == pytest.approx(SECONDS, abs=0.06)


@pytest.mark.parametrize("junk", [b"\0" * 50, b"\0" * 5000, b"junk" * 300, b"TAG" + b" " * 125])
def test_junk_between_the_tag_and_the_audio_is_stepped_over(
    mp3: bytes, decoded: Callable[[bytes], DecodedAudio], junk: bytes
) -> None:
    frames = mp3[45:] if mp3.startswith(b"ID3") else mp3
    assert peak_hz(samples_of(decoded(id3(100) + junk + frames))) == pytest.approx(TONE_HZ, abs=1.0)


@pytest.mark.parametrize("suffix", ["flac", "aac"])
def test_a_tag_of_mp3_files_is_stepped_over_in_front_of_other_formats(
    suffix: str, make: Make, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    audio = decoded(id3(500) + make(suffix).read_bytes())
    assert audio.duration_s == pytest.approx(SECONDS, abs=0.06)


def test_a_sound_above_the_new_range_does_not_come_back_as_another(tmp_path: Path, ffmpeg: str, folder: Path) -> None:
    source = write_wav(folder / "high.wav", [tone(15_000.0, amplitude=0.9)])
    samples = samples_of(decode(source, tmp_path / "out.wav", LIMITS, ffmpeg))
    # Its edges are clicks, which hold every frequency.
    assert 20 * np.log10(max(level(samples), 1e-9) / 0.9) < -60


def test_the_range_that_is_left_is_not_dulled(tmp_path: Path, ffmpeg: str, folder: Path) -> None:
    source = write_wav(folder / "treble.wav", [tone(9_500.0)])
    samples = samples_of(decode(source, tmp_path / "out.wav", LIMITS, ffmpeg))
    assert level(samples) == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize("left_over", [0.0, 0.01])
def test_sound_is_never_mixed_away_where_the_channels_cancel(
    left_over: float, tmp_path: Path, ffmpeg: str, folder: Path
) -> None:
    noise = left_over * np.random.default_rng(1).standard_normal(int(SECONDS * 44100))
    source = write_wav(folder / f"opposed-{left_over}.wav", [tone(TONE_HZ) + noise, noise - tone(TONE_HZ)])
    audio = decode(source, tmp_path / "out.wav", LIMITS, ffmpeg)
    assert level(samples_of(audio)) == pytest.approx(0.5, rel=0.02)
    assert audio.path.read_bytes()[44:] and hashlib.sha256(audio.path.read_bytes()[44:]).hexdigest() == audio.sha256
    assert [file.name for file in tmp_path.iterdir()] == ["out.wav"]


def test_quiet_stereo_is_mixed_as_ever(tmp_path: Path, ffmpeg: str, folder: Path) -> None:
    source = write_wav(folder / "quiet.wav", [tone(TONE_HZ, amplitude=0.02), tone(TONE_HZ, amplitude=0.01)])
    assert level(samples_of(decode(source, tmp_path / "out.wav", LIMITS, ffmpeg))) == pytest.approx(0.015, rel=0.02)


def test_full_scale_on_both_channels_does_not_clip_or_shrink(tmp_path: Path, ffmpeg: str, folder: Path) -> None:
    source = write_wav(folder / "loud.wav", [tone(TONE_HZ, amplitude=0.99)] * 2)
    assert level(samples_of(decode(source, tmp_path / "out.wav", LIMITS, ffmpeg))) == pytest.approx(0.99, rel=0.01)


def test_the_same_bytes_are_the_same_audio_from_many_threads_at_once(mp3: bytes, tmp_path: Path, ffmpeg: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(mp3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: decode(source, tmp_path / f"{n}.wav", LIMITS, ffmpeg), range(16)))
    assert len({audio.sha256 for audio in found}) == 1
    assert len({audio.path.read_bytes() for audio in found}) == 1


@pytest.mark.parametrize(
    "name",
    [
        "-i.mp3",
        "-y",
        "two\nlines.mp3",
        'it\'s "quoted".mp3',
        "$(touch x) `id` ;|&.mp3",
        "Ünïcödé ♫ 音楽.mp3",
        "%03d.mp3",
        "http:x.mp3",
        "concat:a|b",
        "a\\b.mp3",
        " ",
        "x" * 250,
    ],
)
def test_no_name_of_a_file_means_anything(name: str, mp3: bytes, tmp_path: Path, ffmpeg: str) -> None:
    source = tmp_path / name
    source.write_bytes(mp3)
    assert decode(source, tmp_path / "out.wav", LIMITS, ffmpeg).duration_s == pytest.approx(SECONDS, abs=0.06)


def test_paths_relative_to_the_working_folder_are_good(
    mp3: bytes, tmp_path: Path, ffmpeg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(mp3)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "ffmpeg").symlink_to(ffmpeg)
    monkeypatch.chdir(tmp_path)
    relative = find_ffmpeg(Path("tools/ffmpeg"))
    assert decode(Path("source"), Path("out.wav"), LIMITS, relative).samples > 0


# Damaged files


def test_a_truncated_mp3_gives_what_is_there(mp3: bytes, decoded: Callable[[bytes], DecodedAudio]) -> None:
    audio = decoded(mp3[: len(mp3) * 2 // 3])
    assert audio.duration_s == pytest.approx(SECONDS * 2 / 3, abs=0.1)
    assert peak_hz(samples_of(audio)) == pytest.approx(TONE_HZ, abs=1.0)


@pytest.mark.parametrize("name", ["mp3 of constant bitrate", "ogg vorbis", "m4a with its index in front", "flac"])
@pytest.mark.parametrize("seed", range(3))
def test_a_file_with_flipped_bits_is_decoded_or_called_corrupt(
    name: str, seed: int, make: Make, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    content = bytearray(make(FORMATS[name].suffix, *FORMATS[name].output).read_bytes())
    chance = random.Random(seed)
    for _ in range((1, 30, 1000)[seed]):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    try:
        samples_of(decoded(bytes(content)))
    except TonestreamError as error:
        assert error.code in NO_AUDIO


@pytest.mark.parametrize("length", [1, 3, 4, 9, 10, 44, 100, 1000])
def test_the_first_bytes_of_any_format_alone_are_no_audio_or_a_little(
    length: int, make: Make, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    for name in ("mp3 of constant bitrate", "wav of 24 bits", "flac", "ogg vorbis", "m4a with its index in front"):
        content = make(FORMATS[name].suffix, *FORMATS[name].output).read_bytes()
        try:
            assert decoded(content[:length]).duration_s < 0.2
        except TonestreamError as error:
            assert error.code in NO_AUDIO


def wav_header(data_bytes: int, rate: int = 44100) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVE" + form + b"data" + struct.pack("<I", data_bytes)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", ErrorCode.CORRUPT_AUDIO),
        (id3(1000), ErrorCode.CORRUPT_AUDIO),
        (id3(1000) + b"\0" * 5000, ErrorCode.CORRUPT_AUDIO),
        (id3(100_000)[:500], ErrorCode.CORRUPT_AUDIO),
        (b"ID3", ErrorCode.CORRUPT_AUDIO),
        (wav_header(0), ErrorCode.CORRUPT_AUDIO),
        (wav_header(1000), ErrorCode.CORRUPT_AUDIO),
        (b"OggS" + b"\0" * 5000, ErrorCode.CORRUPT_AUDIO),
        (random.Random(1).randbytes(50_000), ErrorCode.UNSUPPORTED_MEDIA),
        (b"\0" * 50_000, ErrorCode.UNSUPPORTED_MEDIA),
        (b"<!DOCTYPE html><html></html>", ErrorCode.UNSUPPORTED_MEDIA),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 500, ErrorCode.UNSUPPORTED_MEDIA),
        (b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 100, ErrorCode.UNSUPPORTED_MEDIA),
        (b"RIFF\x24\0\0\0AVI LIST" + b"\0" * 100, ErrorCode.UNSUPPORTED_MEDIA),
        (b"\xff\xfeh\0e\0l\0l\0o\0", ErrorCode.UNSUPPORTED_MEDIA),
    ],
    ids=lambda value: value.name if isinstance(value, ErrorCode) else repr(value[:12]),
)
def test_what_holds_no_audio_is_told_so(
    content: bytes, code: ErrorCode, decoded: Callable[[bytes], DecodedAudio], tmp_path: Path
) -> None:
    with pytest.raises(TonestreamError) as caught:
        decoded(content)
    assert caught.value.code is code
    assert str(tmp_path) not in caught.value.message
    assert not (tmp_path / "out.wav").exists()


def test_an_archive_of_audio_is_no_audio(mp3: bytes, tmp_path: Path, decoded: Callable[[bytes], DecodedAudio]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.mp3", mp3)
    with pytest.raises(TonestreamError) as caught:
        decoded((tmp_path / "a.zip").read_bytes())
    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA


def test_a_header_that_claims_ten_hours_counts_for_nothing(decoded: Callable[[bytes], DecodedAudio]) -> None:
    forged = wav_header(8000 * 2 * 36_000, rate=8000) + b"\1\0" * 8000
    assert decoded(forged).duration_s == pytest.approx(1.0, abs=0.01)


# Files that refer to others


def test_a_playlist_is_no_audio_and_nothing_it_names_is_opened(
    stereo: Path, tmp_path: Path, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    victim = tmp_path / "victim"
    os.mkfifo(victim)  # who opens it waits for ever
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{victim}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXTINF:3,\nconcat:{stereo}|{victim}\n",
        f"ffconcat version 1.0\nfile '{victim}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        f"[playlist]\nFile1={victim}\n",
        f'<?xml version="1.0"?><MPD><BaseURL>{victim}</BaseURL></MPD>',
    ]
    for playlist in playlists:
        for content in (playlist.encode(), id3(10) + playlist.encode(), b"\xff\xfb\x90\x64" + playlist.encode()):
            with pytest.raises(TonestreamError) as caught:
                decoded(content)
            assert caught.value.code in NO_AUDIO


def test_an_mp4_that_keeps_its_audio_in_another_file_does_not_get_it_read(
    make: Make, tmp_path: Path, ffmpeg: str, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    whole = make("mov", "-c:a", "pcm_s16le").read_bytes()
    local = whole.index(b"url \0\0\0\1")
    victim = tmp_path / "victim"
    victim.write_bytes(whole)
    # In place of "in this file": an alias record that names the victim, as QuickTime writes it.
    name = victim.name.encode()
    path = str(victim).encode()
    record = bytearray(150)
    record[6:8], record[50] = b"\0\2", len(name)
    record[51 : 51 + len(name)] = name
    record[130:134] = b"\0\1\0\1"  # one level up and one down: beside this file
    record += struct.pack(">HH", 2, len(path)) + path + b"\0" * (len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    alias = b"alis\0\0\0\0" + bytes(record)
    grown = bytearray(whole[: local - 4] + struct.pack(">I", 4 + len(alias)) + alias + whole[local + 8 :])
    delta = len(alias) - 8
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        # The last box of that name before the entry is the one around it.
        at = whole.rindex(box, 0, local)
        grown[at - 4 : at] = struct.pack(">I", struct.unpack(">I", whole[at - 4 : at])[0] + delta)
    # Without audio of its own it must have none.
    data = grown.index(b"mdat") + 4
    size = struct.unpack(">I", grown[data - 8 : data - 4])[0]
    grown[data : data + size - 8] = b"\0" * (size - 8)
    try:
        assert np.abs(samples_of(decoded(bytes(grown)))).max() == 0
    except TonestreamError as error:
        assert error.code is ErrorCode.CORRUPT_AUDIO
    # Asked to, ffmpeg would read it: so the file above is a trap indeed.
    trusting = [ffmpeg, "-nostdin", "-loglevel", "error", "-enable_drefs", "1", "-i", str(tmp_path / "source.mp3")]
    heard = subprocess.run([*trusting, "-f", "s16le", "pipe:1"], capture_output=True, check=False).stdout
    assert np.abs(np.frombuffer(heard, "<i2")).max(initial=0) > 1000


# Limits


def test_a_track_longer_than_allowed_is_refused_and_one_that_just_fits_is_not(
    folder: Path, make: Make, tmp_path: Path, ffmpeg: str
) -> None:
    out = tmp_path / "out.wav"
    for rate in (22050, 44100, 48000, 8000):
        source = write_wav(folder / "exact.wav", [tone(TONE_HZ, 2.0, rate=rate)], rate)
        assert decode(source, out, DecodeLimits(max_duration_s=2.0), ffmpeg).duration_s == pytest.approx(2.0, abs=0.01)
        out.unlink()
        with pytest.raises(TonestreamError) as caught:
            decode(source, out, DecodeLimits(max_duration_s=1.9), ffmpeg)
        assert caught.value.code is ErrorCode.TOO_LONG
        assert not out.exists()
    exact = make("mp3", "-b:a", "192k")
    assert decode(exact, out, DecodeLimits(max_duration_s=SECONDS), ffmpeg).samples > 0


def processes_in(group_file: Path) -> list[str]:
    """The processes that are left of the group that wrote its ID there, zombies aside."""
    group = group_file.read_text().strip()
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if its_group == group and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    "stuck", ["sleep 60", "exec sleep 60", "head -c 9999 /dev/zero; sleep 60 & wait", "trap '' TERM; sleep 60"]
)
def test_a_decoder_that_is_stuck_is_ended_with_all_it_started(stuck: str, mp3: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(mp3)
    fake = script(tmp_path / "ffmpeg", f"echo $$ > {tmp_path}/group; {stuck}")
    started = time.monotonic()
    with pytest.raises(TonestreamError) as caught:
        decode(source, tmp_path / "out.wav", DecodeLimits(timeout_s=0.6), fake)
    assert time.monotonic() - started < 5.0
    assert caught.value.code is ErrorCode.INTERNAL
    assert "0.6 s" in caught.value.message
    assert not (tmp_path / "out.wav").exists()
    # Killed is not yet gone: that takes a moment where the machine is busy.
    deadline = time.monotonic() + 5.0
    while (left := processes_in(tmp_path / "group")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_a_decoder_that_writes_without_end_is_ended_at_the_longest_track(mp3: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(mp3)
    fake = script(tmp_path / "ffmpeg", "exec cat /dev/zero")
    with pytest.raises(TonestreamError) as caught:
        decode(source, tmp_path / "out.wav", DecodeLimits(max_duration_s=1.0), fake)
    assert caught.value.code is ErrorCode.TOO_LONG


@pytest.mark.parametrize("death", ["kill -KILL $$", "kill -TERM $$", "exit 255"])
def test_a_decoder_ended_from_outside_says_nothing_about_the_file(death: str, mp3: bytes, tmp_path: Path) -> None:
    """Half a track must not pass for the whole one, nor the file for a damaged one."""
    source = tmp_path / "source"
    source.write_bytes(mp3)
    fake = script(tmp_path / "ffmpeg", f"head -c 9999 /dev/zero; {death}")
    with pytest.raises(TransientError) as caught:
        decode(source, tmp_path / "out.wav", LIMITS, fake)
    assert caught.value.code is ErrorCode.INTERNAL


def test_a_decoder_that_crashes_on_a_file_calls_the_file_corrupt(mp3: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(mp3)
    with pytest.raises(TonestreamError) as caught:
        decode(source, tmp_path / "out.wav", LIMITS, script(tmp_path / "ffmpeg", "kill -SEGV $$"))
    assert caught.value.code is ErrorCode.CORRUPT_AUDIO
    assert not isinstance(caught.value, TransientError)


# What the machine lacks


def test_a_machine_without_ffmpeg_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.write_text("not a program")
    for configured in (tmp_path / "missing", tmp_path, text):
        with pytest.raises(MissingDependencyError, match="cannot be run"):
            find_ffmpeg(configured)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingDependencyError, match="install"):
        find_ffmpeg()


def test_an_ffmpeg_that_vanished_is_no_fault_of_the_file(mp3: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(mp3)
    (tmp_path / "text").write_text("not a program")
    for gone in (tmp_path / "missing", tmp_path / "text", tmp_path):
        with pytest.raises(MissingDependencyError) as caught:
            decode(source, tmp_path / "out.wav", LIMITS, str(gone))
        assert isinstance(caught.value, DependencyError)


def test_a_disk_that_gives_out_is_no_fault_of_the_file(mp3: bytes, tmp_path: Path, ffmpeg: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(mp3)
    for destination in (tmp_path / "missing" / "out.wav", Path("/dev/full"), tmp_path):
        with pytest.raises(DependencyError):
            decode(source, destination, LIMITS, ffmpeg)
    assert Path("/dev/full").exists()
    with pytest.raises(DependencyError):
        decode(tmp_path / "vanished", tmp_path / "out.wav", LIMITS, ffmpeg)


def test_the_ffmpeg_of_the_wheel_gives_the_same_audio(mp3: bytes, tmp_path: Path, ffmpeg: str) -> None:
    wheel = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    source = tmp_path / "source"
    source.write_bytes(mp3)
    ours = decode(source, tmp_path / "ours.wav", LIMITS, ffmpeg)
    other = decode(source, tmp_path / "other.wav", LIMITS, str(wheel))
    assert other.samples == pytest.approx(ours.samples, abs=SAMPLE_RATE * 0.06)
    assert level(samples_of(other)) == pytest.approx((LEFT + RIGHT) / 2, rel=0.04)
