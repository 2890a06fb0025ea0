"""``tonestream serve`` as a person starts it: a real process on real music."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.audio.decode import SAMPLE_RATE, find_ffmpeg
from shared.contracts.messages import TrackResult
from tests.support.served import Served

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
ONE, OTHER, *_ = sorted(SAMPLES.glob("*.mp3"))
QUICK = "mfcc-lstm"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("serve")) as running:
        yield running


def test_an_upload_is_answered_and_can_be_heard_as_events_say(served: Served) -> None:
    with served.client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        accepted = served.upload(ONE, model=QUICK)
        assert accepted["stage"] == "queued" and accepted["source"] == ONE.name
        stages = []
        for line in lines:
            if line.startswith("data: ") and "stage" in (data := json.loads(line[6:])):
                stages.append(data["stage"])
            if "ok" in stages or "failed" in stages:
                break
    assert stages == ["queued", "listening", "ok"]
    state = served.finished(accepted)
    result = TrackResult.model_validate(state["result"])
    assert state["stage"] == "ok" and result.genre is not None and result.mood is not None
    assert result.track.source == ONE.name and result.embedding
    for query, seconds in (("", result.track.duration_s), ("?start=3&end=6", 3.0)):
        heard = served.client.get(f"{accepted['location']}/audio{query}")
        assert heard.status_code == 200, heard.text
        played = subprocess.run(
            [find_ffmpeg(), "-v", "error", "-i", "pipe:0", "-f", "s16le", "-ar", str(SAMPLE_RATE), "pipe:1"],
            input=heard.content, capture_output=True, check=True,
        )  # fmt: skip
        assert seconds is not None and abs(len(played.stdout) / 2 / SAMPLE_RATE - seconds) < 0.15
    assert max(high for _, high in served.client.get(f"{accepted['location']}/waveform").json()["peaks"]) > 0.1
    # The same again: its answer is cached, and so is what was heard.
    again = served.finished(served.upload(ONE, model=QUICK))
    assert again["result"]["cached"]
    assert served.client.get(f"/v1/tracks/{again['request_id']}/audio?start=0&end=3").status_code == 200


def test_what_is_no_music_fails_in_plain_words(served: Served, tmp_path: Path) -> None:
    (tmp_path / "notes.mp3").write_text("these are only words")
    state = served.finished(served.upload(tmp_path / "notes.mp3"))
    assert state["stage"] == "failed" and state["result"]["errors"][0]["code"] == "unsupported_media"
    private = served.client.post("/v1/tracks", json={"audio_url": "http://127.0.0.1:6379/"}).json()
    assert served.finished(private)["result"]["errors"][0]["code"] == "fetch_forbidden"


def test_ctrl_c_ends_it_soon_and_the_next_run_has_the_library(tmp_path: Path) -> None:
    with Served(tmp_path) as first:
        done = first.finished(first.upload(OTHER, model=QUICK))
        with first.client.stream("GET", "/v1/events"):
            status, seconds = first.end()
        assert status == 130 and seconds < 4.0, first.said()
        assert "Traceback" not in first.said()
    with Served(tmp_path) as second:
        found = second.client.get("/v1/results").json()
        assert [row["id"] for row in found["results"]] == [done["request_id"]]
        assert second.client.get(f"/v1/tracks/{done['request_id']}").json()["result"] == done["result"]
        assert second.client.get(f"/v1/tracks/{done['request_id']}/audio?start=0&end=3").status_code == 200
        assert second.end(signal.SIGTERM)[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_every_upload_that_was_accepted_is_answered_once_by_this_run_or_by_the_next(
    tmp_path: Path, ended_by: signal.Signals
) -> None:
    """The last ones are ended somewhere between their upload and their answer."""
    with Served(tmp_path) as first:
        done = first.finished(first.upload(ONE, model=QUICK))
        accepted = [first.upload(sample, model=QUICK, force="true") for sample in (*sorted(SAMPLES.glob("*.mp3")), ONE)]
        while first.client.get(accepted[0]["location"]).json()["stage"] == "queued":
            time.sleep(0.005)
        first.end(ended_by)
    with Served(tmp_path) as second:
        states = [second.finished(one) for one in accepted]
        assert [state["stage"] for state in states] == ["ok"] * len(accepted), states
        found = second.client.get("/v1/results").json()["results"]
        assert sorted(row["id"] for row in found) == sorted(one["request_id"] for one in (done, *accepted))
        deadline = time.monotonic() + 20.0
        while left := [file for file in tmp_path.glob("library-audio/*/*") if file.parent.name != "audio"]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def test_it_does_not_start_where_others_could_use_it_or_where_somebody_listens(tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "services.cli.main", "serve", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "TONESTREAM_GATEWAY_API_KEYS" in refused("--host", "0.0.0.0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in refused("--port", port)
    assert "cannot listen" in refused("--host", "127.0.0.1", "--port", "99999")
