"""Files made to do harm: each ends in a typed error or in audio, within the limits of time, memory and disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.audio.decode import DecodedAudio, DecodeLimits, decode, find_ffmpeg
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from tests.support.hostile import CONCAT, HLS, WITH_FORGED_HEADERS, WITHOUT_AUDIO, noise, wav
from tests.support.scripted_ffmpeg import SECONDS, script

LIMITS = DecodeLimits(max_duration_s=30.0, timeout_s=60.0)
NO_AUDIO = {ErrorCode.UNSUPPORTED_MEDIA, ErrorCode.CORRUPT_AUDIO}

Decoded = Callable[[bytes], DecodedAudio]


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return find_ffmpeg()


@pytest.fixture
def decoded(tmp_path: Path, ffmpeg: str) -> Decoded:
    def these(content: bytes) -> DecodedAudio:
        source = tmp_path / "song.mp3"
        source.write_bytes(content)
        return decode(source, tmp_path / "out.wav", LIMITS, ffmpeg)

    return these


def made(path: Path, ffmpeg: str, *options: str) -> bytes:
    subprocess.run([ffmpeg, "-nostdin", "-loglevel", "error", "-y", *options, str(path)], check=True)
    return path.read_bytes()


@pytest.mark.parametrize("name", WITHOUT_AUDIO)
def test_what_holds_no_music_is_told_so(name: str, decoded: Decoded, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(TonestreamError) as caught:
        decoded(WITHOUT_AUDIO[name])
    assert caught.value.code in NO_AUDIO
    assert not isinstance(caught.value, TransientError)
    assert str(tmp_path) not in caught.value.message and caught.value.message.isprintable()
    assert "root:" not in caught.value.message, "the playlists name /etc/passwd"
    assert not (tmp_path / "out.wav").exists()
    assert time.monotonic() - started < 50.0


@pytest.mark.parametrize("name", WITH_FORGED_HEADERS)
def test_a_forged_header_is_worth_no_more_than_the_samples_behind_it(name: str, decoded: Decoded) -> None:
    started = time.monotonic()
    try:
        audio = decoded(WITH_FORGED_HEADERS[name])
        assert audio.duration_s <= LIMITS.max_duration_s
        assert audio.path.stat().st_size <= 44 + LIMITS.max_duration_s * 44100
    except TonestreamError as error:
        assert error.code in NO_AUDIO | {ErrorCode.TOO_LONG}
    assert time.monotonic() - started < 50.0


def test_a_rate_of_one_sample_a_second_does_not_grow_beyond_the_longest_track(decoded: Decoded) -> None:
    """Half a megabyte that would be three days of audio, tens of gigabytes of samples."""
    with pytest.raises(TonestreamError) as caught:
        decoded(wav(noise(6.0), rate=1))
    assert caught.value.code is ErrorCode.TOO_LONG


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_a_film_the_sound_is_heard_and_nothing_else_is_decoded(
    suffix: str, tmp_path: Path, ffmpeg: str, decoded: Decoded
) -> None:
    sources = ["-f", "lavfi", "-i", f"testsrc=d={SECONDS}:s=64x64", "-f", "lavfi", "-i", f"sine=d={SECONDS}"]
    film = made(tmp_path / f"film.{suffix}", ffmpeg, *sources, "-c:v", "mpeg4", "-c:a", "aac")
    assert decoded(film).duration_s == pytest.approx(SECONDS, abs=0.1)


def test_a_film_without_sound_is_said_to_have_none(tmp_path: Path, ffmpeg: str, decoded: Decoded) -> None:
    film = made(tmp_path / "film.mp4", ffmpeg, "-f", "lavfi", "-i", "testsrc=d=1:s=64x64", "-c:v", "mpeg4")
    with pytest.raises(TonestreamError, match="the file has no audio track") as caught:
        decoded(film)
    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA


def test_a_codec_that_no_music_comes_in_meets_no_decoder(tmp_path: Path, ffmpeg: str, decoded: Decoded) -> None:
    tone = ["-f", "lavfi", "-i", "sine=d=1"]
    content = made(tmp_path / "a.mka", ffmpeg, *tone, "-ar", "8000", "-c:a", "adpcm_yamaha")
    with pytest.raises(TonestreamError, match="in a format that is not read") as caught:
        decoded(content)
    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA
    assert "0x" not in caught.value.message


def test_of_several_streams_the_first_that_can_be_decoded_is_heard(
    tmp_path: Path, ffmpeg: str, decoded: Decoded
) -> None:
    sources = ["-f", "lavfi", "-i", "testsrc=d=2:s=64x64:r=5", "-f", "lavfi", "-i", "sine=d=2:r=48000"]
    maps = ["-map", "0", "-map", "1", "-map", "1", "-c:v", "mpeg4"]
    codecs = ["-c:a:0", "truehd", "-strict", "-2", "-c:a:1", "aac"]
    film = made(tmp_path / "film.mkv", ffmpeg, *sources, *maps, *codecs)
    assert decoded(film).duration_s == pytest.approx(2.0, abs=0.1)


def test_of_many_streams_the_first_is_heard(tmp_path: Path, ffmpeg: str, decoded: Decoded) -> None:
    tones = [part for hertz in range(200, 260, 2) for part in ("-f", "lavfi", "-i", f"sine=f={hertz}:d=1")]
    maps = [part for number in range(30) for part in ("-map", str(number))]
    content = made(tmp_path / "many.mka", ffmpeg, *tones, *maps, "-c:a", "flac")
    assert decoded(content).duration_s == pytest.approx(1.0, abs=0.1)


def test_subtitles_and_attachments_in_a_file_are_stepped_over(tmp_path: Path, ffmpeg: str, decoded: Decoded) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\n" + "x" * 1000 + "\n")
    (tmp_path / "font.ttf").write_bytes(os.urandom(100_000))
    inputs = ["-f", "lavfi", "-i", "sine=d=1", "-i", str(tmp_path / "words.srt")]
    attached = ["-attach", str(tmp_path / "font.ttf"), "-metadata:s:t", "mimetype=application/x-truetype-font"]
    content = made(tmp_path / "a.mka", ffmpeg, *inputs, "-c:a", "libvorbis", "-c:s", "srt", *attached)
    assert decoded(content).duration_s == pytest.approx(1.0, abs=0.1)


def test_ffmpeg_is_held_to_its_limits_by_the_system_too(tmp_path: Path) -> None:
    """They hold where this process was killed and nobody watches the clock."""
    fake = script(
        tmp_path / "ffmpeg", f'(ulimit -t; ulimit -v; ulimit -f; ulimit -c; pwd) > {tmp_path}/limits; echo "$@" >&2'
    )
    source = tmp_path / "source"
    source.write_bytes(wav(noise(0.1)))
    with pytest.raises(TonestreamError, match="-protocol_whitelist file,pipe -format_whitelist wav"):
        decode(source, tmp_path / "out.wav", DecodeLimits(timeout_s=10.0, memory_bytes=1 << 30), fake)
    cpu_s, memory_kib, file_blocks, core_blocks, folder = (tmp_path / "limits").read_text().split()
    assert cpu_s == "44"
    assert folder == "/"
    assert core_blocks == "0" and int(file_blocks) <= 64
    if sys.platform == "linux":
        assert memory_kib == str(1 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system limits a process's memory")
def test_a_decoder_that_asks_for_more_memory_than_it_may_have_gets_none(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(wav(noise(0.1)))
    greedy = f"exec {sys.executable} -c 'bytearray(3 << 30)'"
    with pytest.raises(TonestreamError, match=r"MemoryError|Traceback") as caught:
        decode(source, tmp_path / "out.wav", LIMITS, script(tmp_path / "ffmpeg", greedy))
    assert caught.value.code is ErrorCode.CORRUPT_AUDIO


def test_a_decoder_whose_limit_of_cpu_time_ends_it_is_no_verdict_on_the_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(wav(noise(0.1)))
    spin = script(tmp_path / "ffmpeg", "ulimit -t 1; while :; do :; done")
    with pytest.raises(TransientError):
        decode(source, tmp_path / "out.wav", LIMITS, spin)


def test_the_memory_of_this_process_does_not_grow_with_what_a_file_decodes_to(tmp_path: Path, ffmpeg: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(wav(bytes(2_000), rate=1))  # a thousand seconds, 44 MB of samples
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    audio = decode(source, tmp_path / "out.wav", DecodeLimits(timeout_s=60.0), ffmpeg)
    assert audio.duration_s == pytest.approx(1000, abs=2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@pytest.mark.parametrize(("playlist", "suffix"), [(HLS, "m3u8"), (CONCAT, "mp3")], ids=["HLS", "concat"])
def test_ffmpeg_left_to_itself_would_open_the_playlists_above(
    playlist: bytes, suffix: str, tmp_path: Path, ffmpeg: str
) -> None:
    """So they are traps indeed."""
    (tmp_path / "victim.wav").write_bytes(wav(noise(1.0)))
    trap = tmp_path / f"song.{suffix}"
    for named in (b"file:///etc/passwd", b"/etc/passwd"):
        playlist = playlist.replace(named, b"victim.wav")
    trap.write_bytes(playlist)
    trusting = [ffmpeg, "-nostdin", *(("-allowed_extensions", "ALL") if suffix == "m3u8" else ()), "-i", str(trap)]
    done = subprocess.run([*trusting, "-f", "s16le", "pipe:1"], capture_output=True, check=False)
    opened = b"victim.wav' for reading" in done.stderr or len(done.stdout) > 10_000
    assert opened, done.stderr.decode(errors="replace")[-2000:]
