"""Real music through the real thing: every worker a process of its own, on real Kafka and Redis.

The user is an outsider here: plain kafka-python, plain JSON, nothing of ours.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.topology import SERVICE_NAMES
from shared.audio.decode import find_ffmpeg
from shared.contracts.topics import Channel
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.samples import SAMPLES
from tests.support.web_server import WebServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(420)]

SPOTIFY_ID = "4uLU6hMCjMI75M1A2tKUQC"
PATIENCE_S = 180.0


def ffmpeg(*arguments: str) -> None:
    subprocess.run([find_ffmpeg(), "-nostdin", "-loglevel", "error", "-y", *arguments], check=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files in several formats and bad ones of several kinds."""
    folder = tmp_path_factory.mktemp("library")
    for sample in SAMPLES[:4]:
        shutil.copy(sample, folder)
    ffmpeg("-i", str(SAMPLES[0]), "-ar", "48000", str(folder / "good.flac"))
    ffmpeg("-i", str(SAMPLES[1]), "-ac", "2", str(folder / "good.wav"))
    ffmpeg("-i", str(SAMPLES[2]), "-c:a", "aac", str(folder / "good.m4a"))
    ffmpeg("-i", str(SAMPLES[3]), "-c:a", "libvorbis", str(folder / "good.ogg"))
    ffmpeg("-i", str(SAMPLES[0]), "-t", "2", str(folder / "short.mp3"))
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo", "-t", "8", str(folder / "silent.mp3"))
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "corrupt.mp3").write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(range(256)) * 40)
    (folder / "page.mp3").write_text("<!doctype html><title>not music</title>")
    return folder


@pytest.fixture(scope="module")
def web(library: Path) -> Iterator[str]:
    """The library on a web server of this machine; the URL of its root."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(library)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def twenty_requests(web: str, wave: str) -> list[dict[str, Any]]:
    """Good files, the same audio twice, and every kind of trouble a user can ask for."""
    urls = [f"{web}/{sample.name}" for sample in SAMPLES[:4]]
    urls += [f"{web}/good.{suffix}" for suffix in ("flac", "wav", "m4a", "ogg")]
    urls += [urls[0], f"{web}/short.mp3", f"{web}/silent.mp3", f"{web}/empty.mp3", f"{web}/corrupt.mp3"]
    urls += [f"{web}/page.mp3", f"{web}/missing.mp3", "http://169.254.169.254/latest/meta-data"]
    requests: list[dict[str, Any]] = [{"audio_url": url} for url in urls]
    requests.append({"track_id": SPOTIFY_ID})
    requests.append({"track_id": f"https://open.spotify.com/track/{SPOTIFY_ID}", "audio_url": urls[1]})
    requests.append({"audio_url": "ftp://example.org/song.mp3"})
    requests.append({"track_id": "spotify:album:1234"})
    assert len(requests) == 20
    return [{"request_id": f"{wave}-{number:02d}", **request} for number, request in enumerate(requests)]


#: Status and error codes by position in ``twenty_requests``; those that are not named are ok.
TROUBLE = {
    9: ("failed", {"too_short"}),
    10: ("failed", {"silent_audio"}),
    11: ("failed", {"corrupt_audio"}),
    12: ("failed", {"corrupt_audio"}),
    13: ("failed", {"unsupported_media"}),
    14: ("failed", {"fetch_failed"}),
    15: ("failed", {"fetch_forbidden"}),
    16: ("failed", {"spotify_unavailable"}),
    18: ("failed", {"invalid_request"}),
    19: ("failed", {"invalid_request"}),
}


def check(results: list[dict[str, Any]], wave: str) -> None:
    """Exactly one result a request, and the right one."""
    mine = {result["request_id"]: result for result in results if result["request_id"].startswith(wave)}
    assert set(mine) == {f"{wave}-{number:02d}" for number in range(20)}
    for number in range(20):
        result = mine[f"{wave}-{number:02d}"]
        status, codes = TROUBLE.get(number, ("ok", set()))
        told = {error["code"] for error in result["errors"]}
        assert (result["status"], told) == (status, codes), result
        if status == "ok":
            assert result["mood"]["source"] == "audio"
            duration, segments = result["track"]["duration_s"], result["genre"]["segments"]
            assert len(segments) == int(duration // 3)
            assert segments[0]["start_s"] == 0.0 and segments[-1]["end_s"] == 3.0 * len(segments)
            assert sum(result["genre"]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        else:
            assert result["genre"] is None and result["mood"] is None
    # The same bytes under the same address and the same audio beside a Spotify ID: the same answer.
    for first, second in ((0, 8), (1, 17)):
        one, other = mine[f"{wave}-{first:02d}"], mine[f"{wave}-{second:02d}"]
        assert one["genre"] == other["genre"] and one["mood"] == other["mood"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.2)


def test_twenty_requests_get_twenty_results_and_twenty_more_while_the_genre_workers_double(
    tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names, web: str
) -> None:
    with Pipeline(tmp_path, bootstrap_servers, redis_url, names.prefix, fetch_allow="127.0.0.1") as pipeline:
        first = twenty_requests(web, "first")
        # The same request again, under the same ID, is no new request.
        pipeline.publish([*first, first[0]])
        check(pipeline.results(20, PATIENCE_S), "first")

        # Forced, so that the workers work: nothing comes from the cache.
        second = [{**request, "force": True} for request in twenty_requests(web, "second")]
        pipeline.start("genre-worker")
        pipeline.publish(second[:10])
        wait_until(lambda: pipeline.members("genre-worker") == 2)
        pipeline.publish(second[10:])
        results = pipeline.results(40, PATIENCE_S)
        check(results, "first")
        check(results, "second")
        counted = Counter(result["request_id"] for result in results)
        assert set(counted.values()) == {1}, counted.most_common(3)
        assert not any(result["cached"] for result in results if result["request_id"].startswith("second"))

        # And what was asked before comes from the cache, in the new request's name.
        pipeline.publish([{"request_id": "third", "audio_url": f"{web}/{SAMPLES[2].name}"}])
        (third,) = [r for r in pipeline.results(41, PATIENCE_S) if r["request_id"] == "third"]
        (before,) = [r for r in results if r["request_id"] == "first-02"]
        assert third["cached"] is True
        assert third["genre"] == before["genre"]

        # Nothing is left behind: no votes, no audio.
        assert [file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()] == []

        assert set(pipeline.stop().values()) == {0}
        last_words = [line for line in pipeline.logs().splitlines() if '"message": "stopped"' in line]
        assert len(last_words) == 6


def _has_one_member(pipeline: Pipeline, service: str) -> bool:
    return pipeline.members(service) == 1


def test_without_mood_workers_a_request_ends_partial_when_its_time_is_up(
    tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names, web: str
) -> None:
    with Pipeline(
        tmp_path, bootstrap_servers, redis_url, names.prefix,
        services=[name for name in SERVICE_NAMES if name != "mood-worker"], fetch_allow="127.0.0.1",
        result_deadline_s="10",
    ) as pipeline:  # fmt: skip
        for service in ("feature-extraction", "genre-worker"):
            wait_until(partial(_has_one_member, pipeline, service))
        pipeline.publish([{"request_id": "late", "audio_url": f"{web}/{SAMPLES[0].name}"}])
        (result,) = pipeline.results(1, PATIENCE_S, but_not="mood-worker")
        assert result["status"] == "partial"
        assert result["genre"] is not None and result["mood"] is None
        assert [(error["code"], error["stage"]) for error in result["errors"]] == [("internal", "aggregator")]
        # Now there is a worker: its mood comes too late, and makes no second result.
        pipeline.start("mood-worker")
        wait_until(lambda: not pipeline.lag())
        assert len(pipeline.results(1, PATIENCE_S)) == 1


@pytest.fixture(scope="module")
def common_pipeline(
    tmp_path_factory: pytest.TempPathFactory, bootstrap_servers: str, redis_url: str
) -> Iterator[Pipeline]:
    """For the tests that leave all workers alive. Each finds the results of those before it."""
    folder, names = tmp_path_factory.mktemp("common"), Names.unique("common")
    with Pipeline(folder, bootstrap_servers, redis_url, names.prefix, fetch_allow="127.0.0.1") as pipeline:
        yield pipeline


def test_ten_requests_for_the_same_audio_at_once_are_one_piece_of_work(common_pipeline: Pipeline) -> None:
    pipeline = common_pipeline
    with WebServer() as site:
        site.add("/song.mp3", SAMPLES[0].read_bytes())
        site.add("/same.mp3", SAMPLES[0].read_bytes())
        paths = ["/song.mp3"] * 8 + ["/same.mp3"] * 2
        pipeline.publish({"request_id": f"s{n}", "audio_url": site.url(path)} for n, path in enumerate(paths))
        results = pipeline.results(10, PATIENCE_S)
        assert Counter(result["request_id"] for result in results) == Counter(f"s{n}" for n in range(10))
        assert Counter(result["cached"] for result in results) == {False: 1, True: 9}
        assert len({json.dumps([result["genre"], result["mood"]], sort_keys=True) for result in results}) == 1
        assert all(result["track"]["source"].endswith(paths[int(result["request_id"][1:])]) for result in results)
        assert site.count("/song.mp3") + site.count("/same.mp3") <= 3


def test_a_killed_genre_worker_costs_time_and_no_results(
    tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names, web: str
) -> None:
    with Pipeline(
        tmp_path, bootstrap_servers, redis_url, names.prefix, fetch_allow="127.0.0.1",
        kafka_session_timeout_s="6", kafka_transaction_timeout_s="5", batch_records="4",
    ) as pipeline:  # fmt: skip
        wait_until(lambda: pipeline.members("genre-worker") == 1)
        pipeline.publish(
            {"request_id": f"k{n}", "audio_url": f"{web}/{SAMPLES[n % 4].name}", "force": True} for n in range(20)
        )
        ((_, victim),) = [worker for worker in pipeline.workers if worker[0] == "genre-worker"]
        wait_until(lambda: pipeline.read(Channel.PREDICTIONS) > 0)
        victim.kill()
        victim.wait()
        pipeline.workers = [worker for worker in pipeline.workers if worker[1] is not victim]
        pipeline.start("genre-worker")
        results = pipeline.results(20, PATIENCE_S)
        assert Counter(result["request_id"] for result in results) == Counter(f"k{n}" for n in range(20))
        assert {result["status"] for result in results} == {"ok"}


def test_the_command_line_submits_and_reads_and_a_worker_tells_its_health(common_pipeline: Pipeline, web: str) -> None:
    from tests.support.processes import free_port

    port = free_port()
    pipeline = common_pipeline
    pipeline.start("aggregator", TONESTREAM_HEALTH_PORT=str(port))
    before = {json.loads(line)["request_id"] for line in pipeline.command("results").stdout.splitlines()}
    # Another track than those of the tests before it.
    submitted = pipeline.command("submit", "-", stdin=f"{web}/{SAMPLES[1].name}\n{web}/missing.mp3\n")
    assert submitted.returncode == 0, submitted.stderr
    good, missing = (line.split("\t")[0] for line in submitted.stdout.splitlines())

    followed = pipeline.command("results", "--follow", "--timeout", "120", "--request-id", good, "--json")
    assert followed.returncode == 0, followed.stderr + pipeline.logs()
    (result,) = map(json.loads, followed.stdout.splitlines())
    assert (result["request_id"], result["status"], result["cached"]) == (good, "ok", False)

    pipeline.results(len(before) + 2, PATIENCE_S)
    now = pipeline.command("results")
    assert {json.loads(line)["request_id"] for line in now.stdout.splitlines()} == before | {good, missing}

    unknown = pipeline.command("results", "--request-id", "nobody")
    assert unknown.returncode == 1 and "no result (yet) for nobody" in unknown.stderr
    wrong = pipeline.command("submit", "spotify:album:1234")
    assert wrong.returncode == 2 and "only single tracks" in wrong.stderr

    well = pipeline.command("health", "--port", str(port))
    assert well.returncode == 0 and json.loads(well.stdout)["live"] is True
    well = pipeline.command("health", "--ready", "--port", str(port))
    assert well.returncode == 0 and "Kafka and Redis answer" in json.loads(well.stdout)["because"]
