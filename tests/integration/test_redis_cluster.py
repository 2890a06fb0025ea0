"""The pipeline on a Redis Cluster: every script and pipeline keeps to one slot, and results spread over the nodes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis.crc import key_slot

from shared.contracts.errors import DependencyError
from shared.state.connection import connect, require_trust
from shared.state.keys import KINDS, Keys
from shared.state.layout import bring_up_to_date
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.redis_cluster import RedisCluster
from tests.support.samples import SAMPLES
from tests.support.state import left_over

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

PATIENCE_S = 120.0


def test_requests_are_answered_once_and_nothing_is_left(
    bootstrap_servers: str, redis_cluster: RedisCluster, names: Names, tmp_path: Path
) -> None:
    asked = [SAMPLES[0], SAMPLES[0], SAMPLES[1], SAMPLES[1], SAMPLES[2], tmp_path / "none.mp3"]
    requests = [{"request_id": f"r{number}", "audio_url": file.as_uri()} for number, file in enumerate(asked)]
    folder = str(SAMPLES[0].parent)
    with Pipeline(tmp_path, bootstrap_servers, redis_cluster.url, names.prefix, local_files=folder) as pipeline:
        pipeline.publish(requests[:1])
        pipeline.publish(requests)
        results = {result["request_id"]: result for result in pipeline.results(len(requests), PATIENCE_S)}
        assert pipeline.dead() == [], pipeline.logs()
        client, keys = connect(redis_cluster.url), Keys(names.prefix)
        deadline = time.monotonic() + 40.0
        while (left := left_over(client, keys)) and time.monotonic() < deadline:
            time.sleep(0.5)
    assert left == {}, "transient state is removed on a cluster too"
    assert {id_: result["status"] for id_, result in results.items()} == {
        **{request["request_id"]: "ok" for request in requests[:5]},
        "r5": "failed",
    }
    assert results["r0"]["genre"] == results["r1"]["genre"]


def test_keys_that_are_touched_together_share_a_slot_and_the_others_do_not() -> None:
    keys = Keys("t")
    together = {
        keys.request("a"), keys.request("{b}"), keys.waiting(), keys.work("source:a"), keys.owners("ab"),
        keys.fence("s", "t.requests", 0), keys.in_flight("s"), keys.lock("ab"), keys.layout(), keys.replicated(),
    }  # fmt: skip
    apart = {keys.result("a"), keys.result("b"), keys.source("k"), keys.replayed("0:1")}
    slots = [{key_slot(key.encode()) for key in some} for some in (together, apart)]
    assert len(slots[0]) == 1 and len(slots[1]) == len(apart)
    assert len(together) - 1 == sum(kind.together for kind in KINDS), "two of them are requests"


def test_a_cluster_is_asked_for_its_trust_and_moved_to_the_layout(redis_cluster: RedisCluster) -> None:
    client, keys = connect(redis_cluster.url), Keys("moved")
    assert require_trust(client) is None
    client.set("moved:request:r1", "t.requests/0@1", ex=100)
    assert bring_up_to_date(client, keys) == 1
    assert client.hgetall(keys.request("r1")) == {"accepted_by": "t.requests/0@1"}


def test_a_cluster_that_is_away_is_waited_for_and_ends_no_command_in_a_traceback(
    bootstrap_servers: str, redis_cluster: RedisCluster, names: Names, tmp_path: Path
) -> None:
    folder = str(SAMPLES[0].parent)
    with Pipeline(tmp_path, bootstrap_servers, redis_cluster.url, names.prefix, local_files=folder) as pipeline:
        pipeline.publish([{"request_id": "before", "audio_url": SAMPLES[0].as_uri()}])
        pipeline.results(1, PATIENCE_S)
        redis_cluster.stop()
        try:
            with pytest.raises(DependencyError, match="Redis cannot be used"):
                connect(redis_cluster.url, timeout_s=2.0)
            pipeline.start("aggregator")
            listed = pipeline.command("dead-letters", "list")
            assert "Traceback" not in listed.stderr
            pipeline.publish([{"request_id": "while-away", "audio_url": SAMPLES[1].as_uri()}])
            time.sleep(3.0)
            assert pipeline.dead() == [], pipeline.logs()
        finally:
            redis_cluster.start()
        found = {result["request_id"] for result in pipeline.results(2, PATIENCE_S)}
        assert found == {"before", "while-away"}, pipeline.logs()
        assert "Traceback" not in pipeline.logs()
