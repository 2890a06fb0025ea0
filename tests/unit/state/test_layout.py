"""The keys of an older version are moved once, and a request that was under way goes on where it was."""

from __future__ import annotations

import queue
import time

import pytest
import redis

from shared.bus.base import Record
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import ErrorReport, IngestedTrack, MoodPrediction, Stage, Status, Track, TrackResult
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.layout import NewerStateError, bring_up_to_date, require_own_layout
from shared.state.probe import RedisProbe
from shared.state.requests import Phase, Requests
from tests.support.state import left_over

KEYS = Keys("t")
ERROR = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="x")
TRACK = IngestedTrack(request_id="r1", track_key="k", source="s", error=ERROR)
MOOD = MoodPrediction(request_id="r1", track_key="k", error=ERROR)
LAST = Record("t.moods", 0, 9, b"k", b"")


@pytest.fixture
def client() -> redis.Redis:
    """Redis as version 1 left it: r1 waits for its mood and is followed by r2, r3 is closed."""
    made = connect(f"memory://{time.monotonic_ns()}")
    made.set("t:request:r1", "t.requests/0@1", ex=500)
    made.hset("t:votes:r1", mapping={"track": TRACK.model_dump_json(), "s0": "{}", "s1": "{}"})
    made.expire("t:votes:r1", 900)
    made.zadd("t:waiting", {"r1": time.time() + 60})
    made.set("t:work:source:a", "r1", ex=60)
    made.sadd("t:leads:r1", "t:work:source:a")
    made.sadd("t:followers:r1", "r2")
    made.set("t:request:r2", "t.requests/0@2", ex=500)
    made.sadd("t:audio:r1", "ab" * 32)
    made.sadd("t:owners:" + "ab" * 32, "r1")
    made.set("t:request:r3", "t.requests/0@3", ex=500)
    made.set("t:answered:r3", "closed t.moods/0@3", ex=500)
    made.hset("t:handling:ingestion", "t.requests/0@1", "abca ")
    made.set("t:fence:ingestion:t.requests:0", "old#1")
    made.set("t:result:abc", "{}")
    return made


def test_a_request_under_way_is_answered_and_cleaned_up_after_the_move(client: redis.Redis) -> None:
    assert bring_up_to_date(client, KEYS) > 0
    requests = Requests.open(client, KEYS, "s", 1000, 100.0)
    claims = requests.claims(["r1", "r2", "r3", "new"])
    phases = {request_id: one.phase for request_id, one in claims.items()}
    assert phases == {"r1": Phase.WAITING, "r2": Phase.ACCEPTED, "r3": Phase.CLOSED, "new": Phase.NEW}
    assert claims["r1"].accepted_by == "t.requests/0@1" and requests.unfinished() == 1
    assert not requests.accept("r3", Record("t.requests", 0, 3, b"k", b"")), "a closed request stays closed"
    requests.add([(MOOD, LAST)])
    state = requests.states(["r1"])["r1"]
    assert state.complete and state.segments == 0, "the track without audio has none of the segments"
    assert requests.answer("r1", LAST)
    assert Coalescing(requests).end("r1", _result()) == ["r2"]
    assert requests.close("r1", LAST.coordinates)
    requests.forget("r1", LAST.coordinates)
    client.delete(KEYS.owners("ab" * 32))
    assert left_over(client, KEYS) == {}


def test_nothing_of_the_older_version_is_left_but_what_both_share(client: redis.Redis) -> None:
    bring_up_to_date(client, KEYS)
    assert [key for key in map(str, client.keys("*")) if "{t}" not in key] == ["t:result:abc"]
    assert 500 < client.ttl(KEYS.request("r1")) <= 900, "it lives as long as the longest-lived of its parts"


def test_it_is_done_once(client: redis.Redis) -> None:
    assert bring_up_to_date(client, KEYS) > 0
    client.set("t:request:r9", "left alone")
    assert bring_up_to_date(client, KEYS) == 0
    assert client.get("t:request:r9") == "left alone"


def _result() -> TrackResult:
    track = Track(key="k", source="s")
    return TrackResult(request_id="r1", status=Status.FAILED, track=track, errors=(ERROR,))


def test_the_state_of_a_newer_version_is_left_alone_and_named() -> None:
    client = connect(f"memory://{time.monotonic_ns()}")
    assert bring_up_to_date(client, KEYS) == 0
    require_own_layout(client, KEYS)
    client.set(KEYS.layout(), "3")
    client.set("t:request:r1", "t.requests/0@1")
    for look in (bring_up_to_date, require_own_layout):
        with pytest.raises(
            NewerStateError, match=r"newer version of Tonestream .layout '3', and this one reads 2.: upgrade"
        ):
            look(client, KEYS)
    assert client.get(KEYS.layout()) == "3" and client.exists("t:request:r1")


def test_a_worker_that_runs_notices_that_a_newer_version_has_moved_the_state_on() -> None:
    client = connect(f"memory://{time.monotonic_ns()}")
    noticed: queue.SimpleQueue[NewerStateError] = queue.SimpleQueue()
    probe = RedisProbe(client, KEYS, noticed.put, every_s=0.01)
    time.sleep(0.1)
    assert noticed.empty() and probe.silent_s() < 5
    client.set(KEYS.layout(), "3")
    assert "newer version" in str(noticed.get(timeout=5))
    probe.close()
