"""Files as people have them: with something before the music, in rarer formats, partly silent, or all of one value."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.audio.containers import SEARCHED_BYTES, container
from shared.audio.decode import DecodedAudio, DecodeLimits, decode, find_ffmpeg
from shared.audio.level import SILENCE_DBFS
from shared.audio.segments import (
    LONG_SILENCE_S,
    MOST_STRETCHES,
    Stretch,
    chosen_segments,
    heard_segments,
    is_silent,
    sounding_stretches,
)
from shared.audio.spec import FeatureSpec
from shared.contracts.errors import ErrorCode, TonestreamError

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "gravel-road.mp3"
LIMITS = DecodeLimits(max_duration_s=1500.0, timeout_s=60.0)
SPEC = FeatureSpec(id="s")

#: ffmpeg's options for a file, and the demuxer that reads it.
FORMATS = {
    "a.wv": (("-c:a", "wavpack", "-frame_size", "4096", "-compression_level", "0"), "wv"),
    "a.tta": (("-c:a", "tta"), "tta"),
    "a.w64": ((), "w64"),
    "a.caf": ((), "caf"),
    "a.mov": (("-c:a", "pcm_s16be"), "mov"),
    "a.ts": (("-c:a", "aac"), "mpegts"),
    "a.m2ts": (("-c:a", "ac3", "-mpegts_m2ts_mode", "1"), "mpegts"),
    "a.ac3": (("-c:a", "ac3"), "ac3"),
    "a.eac3": (("-c:a", "eac3"), "eac3"),
    "a.dts": (("-c:a", "dca", "-strict", "-2"), "dts"),
    "a.mp2": (("-c:a", "mp2"), "mp3"),
    "a.m4b": (("-c:a", "aac", "-f", "ipod"), "mov"),
    "a.aifc": (("-c:a", "pcm_f32be", "-f", "aiff"), "aiff"),
    "a.3gp": (("-c:a", "aac"), "mov"),
}


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return find_ffmpeg()


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("made")

    def made(name: str, *options: str, source: tuple[str, ...] = ("-t", "4", "-i", str(SAMPLE))) -> Path:
        path = folder / name
        subprocess.run([ffmpeg, "-nostdin", "-loglevel", "error", "-y", *source, *options, str(path)], check=True)
        return path

    return made


@pytest.fixture(scope="module")
def frames(make: Callable[..., Path]) -> bytes:
    """An MP3 that begins with its first frame."""
    return make("bare.mp3", "-b:a", "128k", "-write_xing", "0", "-id3v2_version", "0").read_bytes()


@pytest.fixture
def decoded(tmp_path: Path, ffmpeg: str) -> Callable[[bytes], DecodedAudio]:
    def done(content: bytes) -> DecodedAudio:
        (tmp_path / "source").write_bytes(content)
        return decode(tmp_path / "source", tmp_path / "out.wav", LIMITS, ffmpeg)

    return done


@pytest.mark.parametrize("name", FORMATS)
def test_what_ffmpeg_reads_is_told_by_its_bytes_and_read(
    name: str, make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    options, demuxer = FORMATS[name]
    file = make(name, *options)
    assert container(file).demuxer == demuxer
    audio = decoded(file.read_bytes())
    assert audio.duration_s == pytest.approx(4.0, abs=0.2)
    # Bytes in the wrong order are loud noise.
    assert audio.level_dbfs == pytest.approx(decoded(make("plain.wav").read_bytes()).level_dbfs, abs=1.0)


def test_a_wav_in_its_other_spellings_is_read(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    wav = make("a.wav", "-bitexact", "-map_metadata", "-1").read_bytes()
    plain = decoded(wav)
    tag = b"ID3\x03\0\0\0\0\x02\x00" + bytes(256)
    assert decoded(tag + wav).sha256 == plain.sha256
    assert decoded(tag + tag + wav).sha256 == plain.sha256
    rf64 = make("b.wav", "-bitexact", "-map_metadata", "-1", "-rf64", "always").read_bytes()
    assert decoded(b"BW64" + rf64[4:]).sha256 == plain.sha256
    swapped = (
        b"RIFX" + wav[7:3:-1] + b"WAVEfmt " + wav[19:15:-1] + wav[21:19:-1] + wav[23:21:-1] + wav[27:23:-1]
        + wav[31:27:-1] + wav[33:31:-1] + wav[35:33:-1] + b"data" + wav[43:39:-1]
        + np.frombuffer(wav[44:], "<i2").astype(">i2").tobytes()
    )  # fmt: skip
    assert decoded(swapped).sha256 == plain.sha256


def test_a_film_of_quicktime_before_it_had_a_type_is_read(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    content = make("old.mov", "-c:a", "pcm_s16be", "-f", "mov").read_bytes()
    at = content.index(b"ftyp") - 4
    size = int.from_bytes(content[at : at + 4], "big")
    assert decoded(
        content[:at] + content[at + 4 : at + 4] + b"\0\0\0\x08wide" * (size // 8) + content[at + size :]
    ).samples


BEFORE = {
    "zeros": bytes(1000),
    "a line end": b"\r\n",
    "the header of a server": b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 12345\r\n\r\n",
    "a tag of another kind": b"TAG" + b"name".ljust(125, b"\0"),
    "noise": np.random.default_rng(7).bytes(200_000),
    "a tag and zeros": b"ID3\x03\0\0\0\0\x02\x00" + bytes(256) + bytes(3000),
    "the last part of a page": b"</body></html>\n",
}


@pytest.mark.parametrize("what", BEFORE)
def test_anything_may_stand_before_the_first_mp3_frame(
    what: str, frames: bytes, decoded: Callable[[bytes], DecodedAudio]
) -> None:
    assert decoded(BEFORE[what] + frames).duration_s == pytest.approx(4.0, abs=0.15)


def test_an_mp3_and_an_aac_that_begin_in_the_middle_of_a_frame_are_read(
    frames: bytes, make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    assert decoded(frames[100:]).duration_s == pytest.approx(4.0, abs=0.15)
    aac = make("a.aac").read_bytes()
    assert decoded(b"\0" * 50 + aac[10:]).duration_s == pytest.approx(4.0, abs=0.2)


def test_frames_are_looked_for_within_a_bound_and_never_in_noise_or_text(frames: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (
        bytes(SEARCHED_BYTES + 10) + frames,
        np.random.default_rng(3).bytes(SEARCHED_BYTES),
        b"not music\n" * 1000,
        ("\ufeff" + "text " * 5000).encode("utf-16"),
    ):
        file.write_bytes(content)
        with pytest.raises(TonestreamError) as caught:
            container(file)
        assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"MAC \x96\x0f", "Monkey's Audio"), (b"MPCK", "Musepack"), (b"DSD \x1c", "DSD"), (b"MThd", "MIDI"),
     (b"\0\0\0\x18ftypheic", "picture"), (b"PK\x03\x04", "archive"), (b"%PDF-1.7", "PDF")],
)  # fmt: skip
def test_what_cannot_be_read_is_called_by_its_name(head: bytes, name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(head + bytes(1000))
    with pytest.raises(TonestreamError, match=name):
        container(file)


def test_a_track_of_one_constant_value_is_as_silent_as_none(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    constant = make("dc.wav", source=("-f", "lavfi", "-i", "anullsrc=d=8,dcshift=0.5"))
    assert max(decoded(constant.read_bytes()).levels_dbfs) < SILENCE_DBFS


def test_the_level_of_each_second_is_known(make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]) -> None:
    tone = "aevalsrc='if(lt(t,2),0.5*sin(2*PI*440*t),0)':d=4.5:s=22050"
    audio = decoded(make("part.wav", source=("-f", "lavfi", "-i", tone)).read_bytes())
    assert len(audio.levels_dbfs) == 5
    assert audio.levels_dbfs[:2] == pytest.approx((-9.03, -9.03), abs=0.1)
    assert max(audio.levels_dbfs[2:]) < SILENCE_DBFS


def test_segments_are_chosen_among_those_that_sound() -> None:
    levels = [-20.0] * 18 + [float("-inf")] * 1200
    count, limit = 406, 10
    heard = list(heard_segments(count, limit, SPEC, sounding_stretches(levels)))
    assert len(heard) == limit and heard == sorted(set(heard))
    assert set(range(6)) <= set(heard), "all that sounds is heard"
    middle = [float("-inf")] * 600 + [-20.0] * 300 + [float("-inf")] * 318
    assert all(200 <= number <= 299 for number in heard_segments(count, limit, SPEC, sounding_stretches(middle)))


@pytest.mark.parametrize("levels", [[-20.0] * 1218, [float("-inf")] * 1218])
def test_where_all_or_nothing_sounds_segments_are_spread_evenly_as_ever(levels: list[float]) -> None:
    for count, limit in ((406, 10), (5, 10), (406, None)):
        assert list(heard_segments(count, limit, SPEC, sounding_stretches(levels))) == list(
            chosen_segments(count, limit)
        )


@pytest.mark.parametrize(
    "levels",
    [[-20.0] * 300 + [float("-inf")] * 14, [float("-inf")] * 14 + [-20.0] * 300,
     [-20.0] * 100 + [float("-inf")] * 14 + [-20.0] * 100, [-20.0] * 10 + [-69.9] * 200],
)  # fmt: skip
def test_a_track_without_long_silence_is_sampled_evenly_as_ever(levels: list[float]) -> None:
    count = len(levels) // 3
    stretches = sounding_stretches(levels)
    assert stretches == (Stretch(0, len(levels)),)
    assert list(heard_segments(count, 10, SPEC, stretches)) == list(chosen_segments(count, 10))


def test_ticks_in_silence_are_silence_by_the_one_rule_for_segments() -> None:
    tick = np.zeros(3 * 22050, np.float32)
    tick[:22050] = 10 ** (-69.0 / 20) * np.resize([1.0, -1.0], 22050)
    assert is_silent(tick)
    levels = [-69.0 if second % 3 == 0 else float("-inf") for second in range(1200)]
    assert sounding_stretches(levels) == ()
    levels[600:618] = [-20.0] * 18
    assert sounding_stretches(levels) == (Stretch(600, 618),)


def test_a_track_of_many_pauses_is_described_in_few_words() -> None:
    levels = ([-20.0] * 3 + [float("-inf")] * 30) * 400
    stretches = sounding_stretches(levels)
    assert 1 <= len(stretches) <= MOST_STRETCHES
    assert stretches[0].start_s == 0 and len(levels) - stretches[-1].end_s <= 30
    assert sounding_stretches([-20.0] * 3 + [float("-inf")] * LONG_SILENCE_S + [-20.0] * 3)[0] == Stretch(0, 3)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_stream_that_is_marked_as_default_is_heard_as_in_a_player(
    suffix: str, make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    sources = ("-f", "lavfi", "-i", "sine=d=3:f=440", "-f", "lavfi", "-i", "sine=d=3:f=1000:r=44100")
    marks = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    both = make(f"two.{suffix}", "-map", "0", "-map", "1", "-c:a", "aac", *marks, source=sources)
    second = make(f"second.{suffix}", "-map", "1", "-c:a", "aac", source=sources)
    assert decoded(both.read_bytes()).sha256 == decoded(second.read_bytes()).sha256


def test_a_stream_that_is_empty_or_of_an_unknown_kind_is_passed_over(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    sources = ("-f", "lavfi", "-i", "sine=d=3:f=440", "-f", "lavfi", "-i", "sine=d=3:f=1000:r=44100")
    content = make(
        "unknown.mkv", "-map", "0", "-map", "1", "-c:a:0", "aac", "-c:a:1", "flac", source=sources
    ).read_bytes()
    assert decoded(content.replace(b"A_AAC", b"A_XYZ")).duration_s == pytest.approx(3.0, abs=0.1)
    empty = ("-filter_complex", "[0:a]atrim=0:0[e]", "-map", "[e]", "-map", "1", "-c:a", "aac")
    assert decoded(make("empty.mkv", *empty, source=sources).read_bytes()).duration_s == pytest.approx(3.0, abs=0.1)
    with pytest.raises(TonestreamError, match="in a format that is not read") as caught:
        decoded(content.replace(b"A_AAC", b"A_XYZ").replace(b"A_FLAC", b"A_XYZW"))
    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA


def test_channels_that_cancel_for_a_part_of_the_track_are_not_mixed_away(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    half = "aevalsrc='0.3*sin(2*PI*440*t)|0.3*sin(2*PI*440*t)*if(lt(t,6),1,-1)':d=12:s=44100"
    audio = decoded(make("half.wav", source=("-f", "lavfi", "-i", half)).read_bytes())
    assert audio.levels_dbfs == pytest.approx([-13.5] * 12, abs=0.2)


def test_surround_channels_that_cancel_are_not_mixed_away(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    rear = "aevalsrc='0|0|0|0|0.3*sin(2*PI*440*t)|-0.3*sin(2*PI*440*t)':c=5.1:d=4:s=44100"
    assert decoded(make("rear.flac", source=("-f", "lavfi", "-i", rear)).read_bytes()).level_dbfs > -40.0


def test_ordinary_stereo_keeps_the_samples_that_its_results_are_cached_by(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio], ffmpeg: str
) -> None:
    wide = "aevalsrc='0.3*sin(2*PI*440*t)*min(1,t)|0.2*sin(2*PI*660*t)*min(1,12-t)':d=12:s=44100"
    for name, options, source in (
        ("wide.flac", (), ("-f", "lavfi", "-i", wide)),
        ("faded.flac", ("-af", "apad=pad_dur=8"), ("-f", "lavfi", "-i", wide)),
        ("quiet.flac", ("-af", "volume=-40dB"), ("-f", "lavfi", "-i", wide)),
        ("music.mp3", (), ("-i", str(SAMPLE))),
        ("music.m4a", ("-c:a", "aac"), ("-i", str(SAMPLE))),
    ):
        file = make(name, *options, source=source)
        mean = ("-map", "0:a:0", "-ac", "1", "-ar", "22050", "-bitexact", "-c:a", "pcm_s16le", "-f", "s16le", "-")
        plain = subprocess.run([ffmpeg, "-loglevel", "error", "-i", file, *mean], check=True, capture_output=True)
        assert decoded(file.read_bytes()).sha256 == hashlib.sha256(plain.stdout).hexdigest(), name


BARE = {
    "a.flac": (), "a.wav": (), "b.ogg": ("-c:a", "libvorbis"), "b.m4a": ("-c:a", "aac"), "b.mka": ("-c:a", "flac"),
    "a.wv": ("-frame_size", "4096", "-compression_level", "0"), "c.ts": ("-c:a", "aac"),
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
def test_what_servers_and_disks_leave_may_stand_before_any_file(
    name: str, make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    content = make(name, *BARE[name]).read_bytes()
    plain = decoded(content).sha256
    header = b"HTTP/1.1 200 OK\r\nContent-Type: audio/x\r\n\r\n"
    for before in (bytes(3000), b"\r\n", header, b"ID3\x03\0\0\0\0\x02\x00" + bytes(256)):
        assert decoded(before + content).sha256 == plain, before[:20]


def test_a_transport_stream_that_begins_within_a_packet_or_has_check_sums_is_read(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    content = make("d.ts", "-c:a", "aac").read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    for odd in (content[100:], b"".join(packet + bytes(16) for packet in packets)):
        assert decoded(odd).duration_s == pytest.approx(4.0, abs=0.2)


def test_a_rifx_file_may_have_anything_before_its_format(
    make: Callable[..., Path], decoded: Callable[[bytes], DecodedAudio]
) -> None:
    wav = make("e.wav", "-bitexact", "-map_metadata", "-1").read_bytes()
    fields = (
        wav[19:15:-1] + wav[21:19:-1] + wav[23:21:-1] + wav[27:23:-1] + wav[31:27:-1] + wav[33:31:-1] + wav[35:33:-1]
    )
    samples = np.frombuffer(wav[44:], "<i2").astype(">i2").tobytes()
    junk = b"JUNK\0\0\0\x1c" + bytes(28)
    rifx = b"RIFX" + wav[7:3:-1] + b"WAVE" + junk + b"fmt " + fields + b"data" + wav[43:39:-1] + samples
    assert decoded(rifx).sha256 == decoded(wav).sha256
