"""What a newer version wrote waits for it, what is not replicated is not committed, and clean-up holds nobody up."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest

from shared.bus.base import Outgoing
from shared.contracts.codec import encode_message
from shared.contracts.errors import DependencyError, ErrorCode
from shared.contracts.topics import Channel
from shared.runtime.dead_letters import DeadLetter
from shared.runtime.service import Outcome
from tests.support.loop_bench import PATIENT, TOPICS, Bench, Scripted, announced, read, request, running


def newer(name: str) -> Outgoing:
    value = json.dumps({**json.loads(encode_message(request(name))), "schema_version": 99}).encode()
    return Outgoing(TOPICS.name(Channel.REQUESTS), b"newer", value)


def wait_until_it_says(bench: Bench, because: str) -> None:
    deadline = time.monotonic() + 5
    while because not in bench.pulse.ready(60.0).because:
        assert time.monotonic() < deadline, bench.pulse.ready(60.0).because
        time.sleep(0.001)


def test_a_message_of_a_newer_version_waits_and_other_partitions_go_on() -> None:
    service = Scripted(lambda name: service.done(name))
    bench = Bench(service, replace(PATIENT, newer_wait_s=60.0))
    bench.send(newer("later"), request("now"))
    with running(bench):
        assert [track.request_id for track in bench.tracks(1)] == ["now"]
        wait_until_it_says(bench, "schema_version 99 is newer than 1")
        assert read(bench.dead, 0) == []
    # Of a version that reads it: nothing was lost.
    assert [record.value for record in bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]).poll(10, 1.0)] == [
        newer("later").value
    ]


def test_after_the_wait_it_goes_to_the_dead_letters_and_its_request_is_answered() -> None:
    service = Scripted(lambda name: service.done(name))
    bench = Bench(service, replace(PATIENT, newer_wait_s=0.1))
    bench.send(newer("later"))
    with running(bench):
        (answer,) = bench.tracks(1)
        assert answer.error is not None and answer.error.code is ErrorCode.INTERNAL
        (letter,) = read(bench.dead, 1)
    assert DeadLetter.of(letter).exception == "NewerSchemaError"


def test_nothing_is_committed_while_replicas_lack_what_it_rests_on() -> None:
    service = Scripted(lambda name: service.done(name))
    bench = Bench(service)
    reached = threading.Event()

    def replicated() -> None:
        if not reached.is_set():
            raise DependencyError("0 of 1 replicas")

    bench.loop._replicated = replicated
    bench.send(request("a"))
    with running(bench):
        wait_until_it_says(bench, "0 of 1 replicas")
        assert read(bench.outputs, 0) == [] and service.cleaned == []
        reached.set()
        assert [track.request_id for track in bench.tracks(1)] == ["a"]


def test_a_worker_that_cleans_up_slowly_stays_in_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_alive, cleaned = threading.Event(), threading.Event()

    def clean_up() -> None:
        kept_alive.wait(5)
        cleaned.set()

    service = Scripted(lambda name: Outcome((announced(name),), (clean_up,)))
    bench = Bench(service)
    monkeypatch.setattr(bench.loop._membership, "keep_alive", kept_alive.set)
    bench.send(request("a"))
    with running(bench):
        assert cleaned.wait(5) and kept_alive.is_set()
