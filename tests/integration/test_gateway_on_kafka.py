"""The gateway on real Kafka and Redis, with a worker of each service: a client of the topics like any other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaProducer

from shared.contracts.codec import encode_message
from shared.contracts.messages import TrackResult
from shared.contracts.topics import Channel
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.rows import ok_result
from tests.support.served import Served
from tests.support.signatures import verified
from tests.support.web_server import Exchange, Request, WebServer

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
ONE, OTHER, *_ = sorted(SAMPLES.glob("*.mp3"))
QUICK = "mfcc-lstm"


@pytest.mark.kafka
@pytest.mark.redis
def test_the_view_follows_the_topics_over_restarts_and_fills_again_when_it_is_deleted(
    tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names
) -> None:
    view = tmp_path / "gateway"
    view.mkdir()
    with Pipeline(tmp_path, bootstrap_servers, redis_url, names.prefix, keep_audio_s="600") as pipeline:
        with Served(view, "--kafka", environment=pipeline.environment) as served:
            first = served.finished(served.upload(ONE, model=QUICK))
            assert first["stage"] == "ok", first
            assert served.client.get(f"/v1/tracks/{first['request_id']}/audio?start=0&end=3").status_code == 200
            again = served.client.post(
                "/v1/tracks", json={"audio_url": "http://127.0.0.1/a.mp3"}, headers={"Idempotency-Key": "gone"}
            )
            assert served.finished(again.json())["result"]["errors"][0]["code"] == "fetch_forbidden"
            assert served.client.get("/readyz").status_code == 200
            before = served.client.get("/v1/results?sort=finished").json()
            assert served.end()[0] == 130, served.said()
        # Meanwhile another client asks for something.
        submitted = pipeline.command("submit", str(OTHER), "--model", QUICK)
        assert submitted.returncode == 0, submitted.stderr
        request_id = submitted.stdout.split("\t")[0]
        with Served(view, "--kafka", environment=pipeline.environment) as served:
            later = served.seen(request_id)
            assert later["stage"] == "ok"
            after = served.client.get("/v1/results?sort=finished").json()
            assert after["results"][:2] == before["results"] and after["total"] == 3
            assert served.end()[0] == 130
        for file in view.glob("library.sqlite*"):
            file.unlink()
        with Served(view, "--kafka", environment=pipeline.environment) as served:
            for done in (first, later):
                found = served.seen(done["request_id"])
                assert TrackResult.model_validate(found["result"]) == TrackResult.model_validate(done["result"])
            served.seen("gone")
            assert served.client.get("/v1/results?sort=finished").json() == after


@pytest.mark.kafka
@pytest.mark.redis
def test_every_result_reaches_each_webhook_although_receivers_fail_and_the_gateway_is_killed(
    tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names
) -> None:
    """It is killed while a result is on its way, and another result comes while it is dead."""
    settings = {"gateway_webhook_private": "true", "gateway_webhook_retries_s": "0.1,0.1,600"}
    view = tmp_path / "gateway"
    view.mkdir()
    # Without workers: the test publishes the results.
    topics = Pipeline(tmp_path, bootstrap_servers, redis_url, names.prefix, services=(), **settings)
    with WebServer() as web, topics as pipeline:
        failing = iter([500, 503])
        web.add("/steady")
        web.add_handler("/failing", lambda exchange: exchange.answer(next(failing, 200)))
        with Served(view, "--kafka", environment=pipeline.environment) as served:
            secrets = {path: _registered(served, web.url(path)) for path in ("/steady", "/failing")}
            _answer(pipeline, "first")
            _until(lambda: len(_arrived(web, "/steady", "first")) == 1 and len(_arrived(web, "/failing", "first")) == 3)

            def kill(exchange: Exchange) -> None:
                served.process.kill()

            web.add_handler("/deadly", kill)
            secrets["/deadly"] = _registered(served, web.url("/deadly"))
            _answer(pipeline, "second")
            _until(lambda: served.process.poll() is not None and bool(_arrived(web, "/deadly", "second")))
        _answer(pipeline, "third")
        web.add("/deadly")
        with Served(view, "--kafka", environment=pipeline.environment) as served:
            _until(lambda: all(_arrived(web, path, name) for path in secrets for name in ("second", "third")))
            _until(lambda: len(_arrived(web, "/deadly", "second")) >= 2)
            hooks = served.client.get("/v1/webhooks").json()["webhooks"]
            _until(lambda: all(hook["pending"] == 0 for hook in served.client.get("/v1/webhooks").json()["webhooks"]))
            assert len(hooks) == 3
    for request in web.requests:
        assert verified(request, secrets[request.path])
    for request_id in ("first", "second", "third"):
        attempts = [request for path in secrets for request in _arrived(web, path, request_id)]
        assert len({request.headers["webhook-id"] for request in attempts}) == 1


def _registered(served: Served, url: str) -> str:
    """Register a webhook; its secret."""
    return str(served.client.post("/v1/webhooks", json={"url": url}).json()["secret"])


def _answer(pipeline: Pipeline, request_id: str) -> None:
    """Publish the result of that request."""
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    producer.send(pipeline.topics.name(Channel.RESULTS), value=encode_message(ok_result(request_id)))
    producer.close(timeout=30)


def _arrived(web: WebServer, path: str, request_id: str) -> list[Request]:
    """The deliveries of that result at that receiver, failed ones included."""
    return [
        request
        for request in list(web.requests)
        if request.path == path and json.loads(request.body)["data"]["request_id"] == request_id
    ]


def _until(true: Callable[[], bool], patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
