"""What was heard: played in parts, in ranges, and drawn; gone when it is gone."""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest

from shared.audio.decode import SAMPLE_RATE, find_ffmpeg
from shared.contracts.messages import TrackRequest
from tests.support.gateway_bench import GatewayBench, answer, problem_of

URL = "https://example.org/song.mp3"
SHA = "ab" * 32
SECONDS = 4


@pytest.fixture
def heard(bench: GatewayBench) -> TrackRequest:
    """See ``play``."""
    return play(bench)


def play(bench: GatewayBench) -> TrackRequest:
    """A finished track of four seconds: silence, and a tone from the third second on."""
    time_s = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    samples = np.where(time_s < 2, 0.0, 0.5 * np.sin(2 * np.pi * 440 * time_s))
    file = bench.folder / "heard.wav"
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(SAMPLE_RATE)
        opened.writeframes((samples * 32767).astype("<i2").tobytes())
    bench.blobs.put(file, f"audio/{SHA}.wav")
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
    (request,) = bench.asked()
    bench.heard(request, SHA)
    bench.answered(answer("r"))
    return request


def decoded(mp3: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What a player makes of it."""
    done = subprocess.run(
        [find_ffmpeg(), "-v", "error", "-i", "pipe:0", "-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "1", "pipe:1"],
        input=mp3, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    return np.frombuffer(done.stdout, "<i2").astype(np.float64) / 32768


def level(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def test_a_part_is_what_was_heard_between_two_times(bench: GatewayBench, heard: TrackRequest) -> None:
    whole = bench.client.get("/v1/tracks/r/audio")
    assert whole.status_code == 200 and whole.headers["content-type"] == "audio/mpeg"
    assert abs(len(decoded(whole.content)) / SAMPLE_RATE - SECONDS) < 0.1
    silent = decoded(bench.client.get("/v1/tracks/r/audio?start=0.5&end=1.5").content)
    tone = decoded(bench.client.get("/v1/tracks/r/audio?start=2.5").content)
    assert abs(len(silent) / SAMPLE_RATE - 1.0) < 0.1 and level(silent) < 0.01
    assert abs(len(tone) / SAMPLE_RATE - 1.5) < 0.1 and 0.3 < level(tone) < 0.4


def test_players_can_seek_and_ask_whether_it_changed(bench: GatewayBench, heard: TrackRequest) -> None:
    whole = bench.client.get("/v1/tracks/r/audio")
    part = bench.client.get("/v1/tracks/r/audio", headers={"Range": "bytes=100-299"})
    assert part.status_code == 206 and part.content == whole.content[100:300]
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole.content)}"
    assert "content-encoding" not in whole.headers
    old = {"Range": "bytes=100-299", "If-Range": '"another"'}
    assert bench.client.get("/v1/tracks/r/audio", headers=old).status_code == 200
    same = {"Range": "bytes=100-299", "If-Range": whole.headers["etag"]}
    assert bench.client.get("/v1/tracks/r/audio", headers=same).status_code == 206


def test_no_part_of_the_track_is_refused(bench: GatewayBench, heard: TrackRequest) -> None:
    for query in ("start=4.5", "start=2&end=1", "start=2&end=2", "start=-1", "end=nan", "start=x"):
        refused = bench.client.get(f"/v1/tracks/r/audio?{query}")
        assert problem_of(refused) == (422, "invalid_request"), query
    assert bench.client.get("/v1/tracks/r/audio?start=1&end=1e300").status_code == 200


def test_the_waveform_follows_the_sound(bench: GatewayBench, heard: TrackRequest) -> None:
    found = bench.client.get("/v1/tracks/r/waveform?points=8").json()
    assert found["duration_s"] == SECONDS
    assert found["peaks"][:4] == [[0.0, 0.0]] * 4
    assert all(abs(low + 0.5) < 0.01 and abs(high - 0.5) < 0.01 for low, high in found["peaks"][4:])
    assert len(bench.client.get("/v1/tracks/r/waveform?points=20000").json()["peaks"]) == 20_000
    assert problem_of(bench.client.get("/v1/tracks/r/waveform?points=0")) == (422, "invalid_request")


def test_requests_that_share_the_answer_share_the_audio(bench: GatewayBench, heard: TrackRequest) -> None:
    bench.heard(heard.model_copy(update={"request_id": "follower"}), follows="r")
    bench.answered(answer("follower"))
    assert bench.client.get("/v1/tracks/follower/audio").status_code == 200
    # A server that says that nothing has changed: the answer comes without audio.
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "unchanged"})
    bench.asked()
    result = answer("unchanged")
    track = result.track.model_copy(update={"key": heard.track_key})
    bench.answered(result.model_copy(update={"track": track}))
    assert bench.client.get("/v1/tracks/unchanged/waveform").status_code == 200


def test_audio_that_is_gone_is_gone(bench: GatewayBench, heard: TrackRequest) -> None:
    bench.blobs.delete(f"blob:audio/{SHA}.wav")
    for what in ("audio", "waveform"):
        refused = bench.client.get(f"/v1/tracks/r/{what}")
        assert problem_of(refused) == (410, "audio_gone") and refused.json()["request_id"] == "r"


def test_without_ffmpeg_only_the_audio_is_missing(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, ffmpeg=tmp_path / "nothing") as bench:
        play(bench)
        refused = bench.client.get("/v1/tracks/r/audio")
        assert problem_of(refused) == (503, "unavailable") and "TONESTREAM_FFMPEG" in refused.json()["detail"]
        assert bench.client.get("/v1/tracks/r/waveform").status_code == 200
