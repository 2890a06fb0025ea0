"""The gateway on real Kafka and Redis, with a worker of each service: a client of the topics like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.contracts.messages import TrackResult
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.served import Served

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
