"""Webhooks with receivers that really listen: they fail, are slow, refuse, and come back."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.gateway.follower import FOLLOWED
from services.gateway.problems import GatewayCode, Problem
from services.gateway.view.database import ViewError
from services.gateway.webhooks.schedule import Schedule
from services.gateway.webhooks.sender import Sender
from services.gateway.webhooks.service import MOST_HOOKS, Policy, Webhooks
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import TrackResult
from shared.contracts.topics import Topics
from tests.support.gateway_bench import GatewayBench, answer
from tests.support.results import record
from tests.support.signatures import verified
from tests.support.web_server import Exchange, WebServer

TOPICS = Topics("t")
SOON = Policy(Schedule((0.05,) * 200), disable_after_s=3600.0)
PATIENCE_S = 30.0


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "webhooks.sqlite"


@contextmanager
def running(file: Path, policy: Policy = SOON, timeout_s: float = 10.0, remembers: bool = True) -> Iterator[Webhooks]:
    webhooks = Webhooks(file, TOPICS, Sender(timeout_s, private=True), policy, remembers)
    webhooks.start()
    try:
        yield webhooks
    finally:
        webhooks.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def delivered(web: WebServer, path: str) -> list[str]:
    """The request IDs of the results that arrived there, each as often as it did."""
    return [json.loads(one.body)["data"]["request_id"] for one in list(web.requests) if one.path == path]


def test_a_result_arrives_signed_in_its_envelope(web: WebServer, file: Path) -> None:
    web.add("/hook")
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, 0, "one", timestamp_ms=int(time.time() * 1000))])
        until(lambda: webhooks.hook(hook.id).delivered == 1)
    (request,) = web.requests
    assert verified(request, hook.secret)
    body = json.loads(request.body)
    assert list(body) == ["type", "timestamp", "data"]
    assert body["type"] == "result" and body["timestamp"].endswith("Z")
    assert TrackResult.model_validate(body["data"]).request_id == "one"


def test_a_receiver_that_fails_and_comes_back_gets_everything_under_the_same_ids(web: WebServer, file: Path) -> None:
    answers = iter([500, 503, 404])
    web.add_handler("/hook", lambda exchange: exchange.answer(next(answers, 200)))
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, number, f"r{number}") for number in range(3)])
        until(lambda: webhooks.hook(hook.id).delivered == 3)
        assert webhooks.hook(hook.id).pending == 0
        assert webhooks.hook(hook.id).last_fault is None
    ids: dict[str, set[str]] = {}
    for request in web.requests:
        assert verified(request, hook.secret)
        ids.setdefault(json.loads(request.body)["data"]["request_id"], set()).add(request.headers["webhook-id"])
    assert sorted(ids) == ["r0", "r1", "r2"]
    assert all(len(same) == 1 for same in ids.values())
    assert len(web.requests) == 6


def test_a_slow_receiver_holds_up_nobody(web: WebServer, file: Path) -> None:
    web.hang("/slow")
    web.add("/swift")
    with running(file) as webhooks:
        slow = webhooks.register(web.url("/slow"), None)
        swift = webhooks.register(web.url("/swift"), None)
        webhooks.take([record(TOPICS, number, f"r{number}") for number in range(50)])
        until(lambda: webhooks.hook(swift.id).delivered == 50)
        assert webhooks.hook(slow.id).delivered == 0
        assert webhooks.hook(slow.id).pending == 50
        assert web.count("/slow") <= 4


def test_nothing_is_lost_when_the_process_ends_in_between(web: WebServer, file: Path) -> None:
    web.add("/hook", status=500)
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, number, f"r{number}") for number in range(5)])
        until(lambda: webhooks.hook(hook.id).failures > 0)
    web.add("/hook")
    with running(file) as webhooks:
        until(lambda: webhooks.hook(hook.id).pending == 0)
        assert webhooks.hook(hook.id).delivered == 5


def test_where_the_bus_forgets_a_request_that_is_answered_again_after_a_crash_keeps_its_id(
    web: WebServer, file: Path
) -> None:
    web.add("/hook")
    with running(file, remembers=False) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        for number in range(2):
            webhooks.take([record(TOPICS, number, "r", timestamp_ms=int(time.time() * 1000) + number)])
            until(lambda: webhooks.hook(hook.id).pending == 0 and len(web.requests) > number)  # noqa: B023
    assert len({request.headers["webhook-id"] for request in web.requests}) == 1


def test_results_that_were_taken_are_not_delivered_again_when_the_view_is_rebuilt(web: WebServer, file: Path) -> None:
    web.add("/hook")
    old = [record(TOPICS, number, f"r{number}") for number in range(3)]
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take(old)
        until(lambda: webhooks.hook(hook.id).delivered == 3)
    with running(file) as webhooks:
        webhooks.take([*old, record(TOPICS, 3, "new"), record(TOPICS, 0, "elsewhere", partition=1)])
        until(lambda: webhooks.hook(hook.id).delivered == 5)
        webhooks.take(old)
        assert webhooks.hook(hook.id).pending == 0
    assert sorted(delivered(web, "/hook")) == ["elsewhere", "new", "r0", "r1", "r2"]


def test_a_gateway_whose_view_was_deleted_sends_only_what_is_new(web: WebServer, tmp_path: Path) -> None:
    web.add("/hook")
    bus = MemoryBus()
    bus.create_topics(topic_specs(TOPICS))
    keeper = bus.reader([TOPICS.name(channel) for channel in FOLLOWED])  # makes a log of it, as Kafka's is
    with GatewayBench(tmp_path, bus, mode="kafka", gateway_webhook_private=True) as first:
        first.answered(answer("before"))
        registered = first.client.post("/v1/webhooks", json={"url": web.url("/hook")})
        assert registered.status_code == 201 and registered.json()["secret"].startswith("whsec_")
        location = registered.headers["location"]
        first.answered(answer("one"))
        until(lambda: first.client.get(location).json()["delivered"] == 1)
        view = first.view
    for suffix in ("", "-wal", "-shm"):
        view.with_name(view.name + suffix).unlink(missing_ok=True)
    with GatewayBench(tmp_path, bus, mode="kafka", gateway_webhook_private=True) as second:
        assert "secret" not in second.client.get(location).json()
        until(lambda: second.results()["total"] == 2)
        second.answered(answer("two"))
        until(lambda: second.client.get(location).json()["delivered"] == 2)
        assert second.client.delete(location).status_code == 204
        assert second.client.get(location).status_code == 404
    keeper.close()
    assert delivered(web, "/hook") == ["one", "two"]
    assert verified(web.requests[0], registered.json()["secret"])


def test_a_bus_that_forgets_begins_anew_with_every_process(web: WebServer, file: Path) -> None:
    web.add("/hook")
    for request_id in ("first", "second"):
        with running(file, remembers=False) as webhooks:
            if not webhooks.hooks():
                webhooks.register(web.url("/hook"), None)
            webhooks.take([record(TOPICS, 0, request_id)])
            # What has arrived and is not noted yet would be sent once more.
            until(lambda: request_id in delivered(web, "/hook") and webhooks.pending() == 0)  # noqa: B023
    assert delivered(web, "/hook") == ["first", "second"]


def test_a_hook_gets_no_results_from_before_it_was_registered(web: WebServer, file: Path) -> None:
    web.add("/hook")
    with running(file) as webhooks:
        webhooks.take([record(TOPICS, 0, "before")])
        hook = webhooks.register(web.url("/hook"), None)
        long_ago = int((time.time() - 3600) * 1000)
        webhooks.take([record(TOPICS, 0, "before"), record(TOPICS, 1, "old", timestamp_ms=long_ago)])
        webhooks.take([record(TOPICS, 2, "after")])
        until(lambda: webhooks.hook(hook.id).delivered == 1)
    assert delivered(web, "/hook") == ["after"]


def test_a_receiver_that_is_gone_is_disabled_at_once(web: WebServer, file: Path) -> None:
    web.add("/hook", status=410)
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, number, f"r{number}") for number in range(20)])
        until(lambda: webhooks.hook(hook.id).state == "disabled")
        now = webhooks.hook(hook.id)
        assert now.disabled_because is not None and "410" in now.disabled_because
        assert now.pending == 0
        asked = len(web.requests)
        webhooks.take([record(TOPICS, 20, "more")])
        assert webhooks.hook(hook.id).pending == 0
    assert asked <= 8


def test_a_receiver_that_fails_for_too_long_is_disabled_and_the_reason_is_said(web: WebServer, file: Path) -> None:
    web.add("/hook", status=500)
    with running(file, Policy(SOON.schedule, disable_after_s=0.2)) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, 0, "one")])
        until(lambda: webhooks.hook(hook.id).state == "disabled")
        said = webhooks.hook(hook.id).disabled_because
    assert said is not None and "status 500" in said


def test_a_delivery_is_given_up_when_its_time_is_over_and_the_hook_goes_on(web: WebServer, file: Path) -> None:
    def picky(exchange: Exchange) -> None:
        exchange.answer(500 if b'"poison"' in exchange.request.body else 200)

    web.add_handler("/hook", picky)
    with running(file, Policy(Schedule((0.05, 0.05)), disable_after_s=3600.0)) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, 0, "poison"), record(TOPICS, 1, "food")])
        until(lambda: webhooks.hook(hook.id).pending == 0)
        webhooks.take([record(TOPICS, 2, "dessert")])
        until(lambda: webhooks.hook(hook.id).delivered == 2)
        assert webhooks.hook(hook.id).given_up == 1
        assert webhooks.hook(hook.id).state == "active"


def test_a_result_that_was_read_late_has_as_much_time_as_any(web: WebServer, file: Path) -> None:
    answers = iter([500])
    web.add_handler("/hook", lambda exchange: exchange.answer(next(answers, 200)))
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        connection = sqlite3.connect(file)
        connection.execute("UPDATE hooks SET created_ms = 0")
        connection.commit()
        connection.close()
        days_ago = int((time.time() - 3 * 86400) * 1000)
        webhooks.take([record(TOPICS, 0, "old", timestamp_ms=days_ago)])
        until(lambda: webhooks.hook(hook.id).delivered == 1)
        assert webhooks.hook(hook.id).given_up == 0


def test_a_wait_that_the_receiver_asks_for_holds_for_all_that_it_gets(web: WebServer, file: Path) -> None:
    web.add("/hook", status=429, headers={"Retry-After": "600"})
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, 0, "one")])
        until(lambda: webhooks.hook(hook.id).failures == 1)
        webhooks.take([record(TOPICS, number, f"r{number}") for number in range(1, 10)])
        assert webhooks.hook(hook.id).resumes_ms > (time.time() + 500) * 1000
    assert len(web.requests) == 1


def test_a_removed_hook_gets_nothing_more_and_its_queue_is_emptied(web: WebServer, file: Path) -> None:
    web.hang("/hook")
    with running(file) as webhooks:
        hook = webhooks.register(web.url("/hook"), None)
        webhooks.take([record(TOPICS, number, f"r{number}") for number in range(10)])
        until(lambda: web.count("/hook") > 0)
        webhooks.remove(hook.id)
        with pytest.raises(Problem) as caught:
            webhooks.remove(hook.id)
        assert caught.value.code is GatewayCode.NOT_FOUND
        assert webhooks.hooks() == []
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    connection.close()


def test_what_cannot_be_registered_is_said_without_secrets(file: Path) -> None:
    with running(file) as webhooks:
        for url, code in (
            ("http://user:hunter2@example.org/", ErrorCode.FETCH_FORBIDDEN),
            ("http://[", ErrorCode.INVALID_REQUEST),
            ("http://169.254.169.254/", ErrorCode.FETCH_FORBIDDEN),
        ):
            with pytest.raises(Problem) as caught:
                webhooks.register(url, None)
            assert caught.value.code is code
            assert "hunter2" not in caught.value.detail
        with pytest.raises(Problem, match="24 to 64"):
            webhooks.register("https://example.org/", "whsec_short")
        for number in range(MOST_HOOKS):
            webhooks.register(f"https://example.org/{number}", None)
        with pytest.raises(Problem) as caught:
            webhooks.register("https://example.org/more", None)
        assert caught.value.code is GatewayCode.CONFLICT


def test_a_damaged_file_is_named_and_left_alone(file: Path) -> None:
    file.write_bytes(b"this is no database" * 1000)
    with pytest.raises(ViewError, match="webhooks"):
        Webhooks(file, TOPICS, Sender(1.0, private=True), SOON, remembers=True)
    assert file.read_bytes().startswith(b"this is no database")


def test_only_its_owner_reads_the_file_with_the_secrets(file: Path) -> None:
    with running(file):
        assert file.stat().st_mode & 0o077 == 0
