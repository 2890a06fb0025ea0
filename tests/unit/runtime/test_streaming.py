"""The streaming loop on the memory bus: nobody waits for the slowest, and all promises of the loop for batches hold."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from shared.bus.base import Record
from shared.contracts.errors import DependencyError, ErrorCode
from shared.contracts.messages import IngestedTrack, TrackRequest
from shared.contracts.topics import Channel
from shared.runtime.envelope import outgoing
from shared.runtime.service import Delivery, Handled
from shared.runtime.streaming import StreamingLoop
from tests.support.crashing import KEYS, client, process, supervise
from tests.support.loop_bench import PATIENT, TOPICS, Bench, Scripted, read, request, running
from tests.unit.runtime import test_crash_guard

# What holds for batches holds here: the same tests, with the other loop.
from tests.unit.runtime.test_crash_guard import *  # noqa: F403
from tests.unit.runtime.test_loop import *  # noqa: F403

# Who dies with whom is another matter here: see the tests of suspects below.
del test_a_killer_is_buried_after_three_deaths_in_company_and_five_alone_and_its_neighbours_go_through  # noqa: F821
del test_two_killers_side_by_side_are_both_found  # noqa: F821
del test_other_partitions_get_on_while_a_killer_is_found_out  # noqa: F821
# A window is not a batch: what is held stays in it, and what it holds up is bounded by its size.
del test_a_partition_full_of_held_records_does_not_starve_the_others  # noqa: F821

REQUESTS = TOPICS.name(Channel.REQUESTS)


@pytest.fixture(autouse=True)
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "loop_type", StreamingLoop)


class Slow(Scripted):
    """Keeps each request in hand until its name is let go of. ``delays_s`` by name."""

    streams = True
    answers_invalid_input = True

    def __init__(self) -> None:
        super().__init__(self.done)
        self.started: list[str] = []
        self.abandoned: list[str] = []
        self.most = 0
        self.delays_s: dict[str, float] = {}
        self.in_a_queue: set[str] = set()
        self._gates: dict[str, threading.Event] = {}
        self._running = 0
        self._lock = threading.Lock()

    def gate(self, name: str) -> threading.Event:
        with self._lock:
            return self._gates.setdefault(name, threading.Event())

    def handle(self, deliveries: Sequence[Delivery[TrackRequest]]) -> Sequence[Handled[IngestedTrack]]:
        (delivery,) = deliveries
        name = delivery.message.request_id
        with self._lock:
            self.started.append(name)
            self._running += 1
            self.most = max(self.most, self._running)
        gate = self.gate(name)
        while not gate.wait(0.01):
            if name in self.in_a_queue:
                delivery.queueing()
            if delivery.abandoned.is_set():
                self.abandoned.append(name)
                break
        with self._lock:
            self._running -= 1
        return [self.done(name)]

    def wait_s(self, record: Record) -> float:
        return self.delays_s.get(record.key.decode(), 0.0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def send(bench: Bench, key: str, *names: str) -> None:
    """One key, one partition; "a" to "f" are in different ones."""
    bench.bus.publisher().publish([outgoing(TOPICS, request(name), key=key) for name in names])


def committed(bench: Bench) -> int:
    slots = [(REQUESTS, partition) for partition in range(12)]
    return sum(bench.bus._committed("g", slots).values())


def test_what_is_ready_leaves_while_a_slow_one_is_still_being_handled() -> None:
    service = Slow()
    bench = Bench(service)
    send(bench, "a", "slow")
    send(bench, "b", "quick")
    with running(bench):
        service.gate("quick").set()
        assert [track.request_id for track in bench.tracks(1)] == ["quick"]
        until(lambda: service.cleaned == ["quick"])
        # And more comes in and goes out meanwhile.
        send(bench, "b", "next")
        service.gate("next").set()
        assert [track.request_id for track in bench.tracks(1)] == ["next"]
        service.gate("slow").set()
        assert [track.request_id for track in bench.tracks(1)] == ["slow"]
    assert committed(bench) == 3


def test_no_offset_passes_a_record_that_is_not_finished() -> None:
    service = Slow()
    bench = Bench(service)
    send(bench, "a", "first", "second", "third")
    with running(bench):
        service.gate("second").set()
        service.gate("third").set()
        until(lambda: len(service.started) == 3)
        time.sleep(0.1)
        assert committed(bench) == 0 and bench.outputs.poll(10, 0.0) == []
        service.gate("first").set()
        assert [track.request_id for track in bench.tracks(3)] == ["first", "second", "third"]
    assert committed(bench) == 3


def test_no_more_records_are_in_hand_than_the_window_takes() -> None:
    service = Slow()
    bench = Bench(service, replace(PATIENT, batch_records=3))
    names = [f"r{number}" for number in range(10)]
    for number, name in enumerate(names):
        send(bench, f"k{number}", name)
    with running(bench):
        until(lambda: len(service.started) == 3)
        time.sleep(0.1)
        assert len(service.started) == 3
        for name in names:
            service.gate(name).set()
        bench.tracks(10)
    assert service.most == 3


def test_a_record_starts_at_its_time_and_lets_others_pass() -> None:
    service = Slow()
    service.delays_s["a"] = 0.4
    bench = Bench(service)
    send(bench, "a", "later")
    send(bench, "b", "now")
    for name in ("later", "now"):
        service.gate(name).set()
    with running(bench):
        began = time.monotonic()
        assert [track.request_id for track in bench.tracks(1)] == ["now"]
        assert [track.request_id for track in bench.tracks(1)] == ["later"]
        assert time.monotonic() - began >= 0.3


def test_what_can_be_finished_at_a_stop_is_committed_and_the_rest_abandoned_for_the_next_worker() -> None:
    service = Slow()
    bench = Bench(service, replace(PATIENT, stop_grace_s=0.3))
    send(bench, "a", "endless")
    send(bench, "b", "short")
    with running(bench):
        until(lambda: len(service.started) == 2)
        bench.loop.stop()
        service.gate("short").set()
    assert [track.request_id for track in bench.tracks(1)] == ["short"]
    until(lambda: service.abandoned == ["endless"])
    (left,) = bench.bus.join("g", [REQUESTS]).poll(10, 1.0)
    assert left.key == b"a"


def test_a_late_outcome_of_a_lost_partition_is_ignored_and_each_request_is_answered_once() -> None:
    service = Slow()
    bench = Bench(service)
    names = [f"r{number}" for number in range(24)]
    for name in names:
        send(bench, name, name)
    with running(bench):
        until(lambda: len(service.started) == 10)
        # Another member takes half of the partitions, and leaves again: what was in hand is of an earlier ownership.
        bench.bus.join("g", [REQUESTS]).close()
        for name in names:
            service.gate(name).set()
        tracks = bench.tracks(24)
    assert Counter(track.request_id for track in tracks) == Counter(names)
    assert committed(bench) == 24


def test_where_one_meets_a_missing_dependency_all_is_dropped_and_done_again() -> None:
    service = Slow()
    away = threading.Event()
    away.set()
    handle = service.handle

    def fails_at_first(deliveries: Sequence[Delivery[TrackRequest]]) -> Sequence[Handled[IngestedTrack]]:
        if deliveries[0].message.request_id == "unlucky" and away.is_set():
            raise DependencyError("Redis cannot be used")
        return handle(deliveries)

    service.handle = fails_at_first  # type: ignore[method-assign]
    bench = Bench(service)
    send(bench, "a", "slow")
    with running(bench):
        until(lambda: service.started == ["slow"])
        send(bench, "b", "unlucky")
        until(lambda: "slow" in service.abandoned)
        assert bench.outputs.poll(10, 0.0) == []
        away.clear()
        for name in ("slow", "unlucky"):
            service.gate(name).set()
        assert {track.request_id for track in bench.tracks(2)} == {"slow", "unlucky"}


def test_the_watchdog_sees_the_record_that_takes_longest() -> None:
    service = Slow()
    bench = Bench(service)
    send(bench, "a", "slow")
    with running(bench):
        until(lambda: bench.pulse.seconds_in_batch() > 0.2)
        service.gate("slow").set()
        bench.tracks(1)
        until(lambda: bench.pulse.seconds_in_batch() == 0.0)


def test_the_watchdog_lets_a_record_wait_for_its_turn() -> None:
    service = Slow()
    service.in_a_queue.add("patient")
    bench = Bench(service)
    send(bench, "a", "patient")
    with running(bench):
        until(lambda: service.started == ["patient"])
        longest = 0.0
        for _ in range(40):
            time.sleep(0.01)
            longest = max(longest, bench.pulse.seconds_in_batch())
        assert longest < 0.2
        service.in_a_queue.clear()
        until(lambda: bench.pulse.seconds_in_batch() > 0.2)
        service.gate("patient").set()
        bench.tracks(1)


def test_a_killer_is_handled_alone_and_buried_and_nobody_dies_with_it_for_good() -> None:
    names = ["a", "killer", "b", "c"]
    service = test_crash_guard.Mortal({"killer"})
    bench = supervise(service, names, ("one", "another"))
    assert service.died_with == [["killer"]] * 8
    tracks = {track.request_id: track.error for track in bench.tracks(4)}
    assert tracks["killer"] is not None and tracks["killer"].code is ErrorCode.INTERNAL
    assert {name for name, error in tracks.items() if error and error.message == "handled"} == {"a", "b", "c"}
    (letter,) = read(bench.dead, 1)
    assert b"8 workers died of it, 5 of them" in (letter.header("tonestream.errors.message") or b"")


def test_a_valid_request_goes_before_an_invalid_one_with_its_id_and_later_ones_with_it_wait() -> None:
    service = Slow()
    bench = Bench(service)
    (valid,) = [outgoing(TOPICS, request("one"), key="b")]
    invalid = replace(valid, value=b'{"request_id": "one", "nonsense": 1}', key=b"a")
    publisher = bench.bus.publisher()
    publisher.publish([invalid, valid, valid])
    with running(bench):
        until(lambda: service.started == ["one"])
        time.sleep(0.1)
        assert service.started == ["one"] and committed(bench) == 0
        service.gate("one").set()
        tracks = bench.tracks(3)
    assert [track.error.code for track in tracks if track.error] == [ErrorCode.NO_AUDIO] * 2 + [
        ErrorCode.INVALID_REQUEST
    ], "the invalid one was refused last"


def test_nothing_runs_beside_a_suspect() -> None:
    server = client()
    service = Slow()
    bench = Bench(service)
    send(bench, "a", "suspect", "behind")
    send(bench, "b", "other")
    (suspect,) = [one for one in bench.bus.join("look", [REQUESTS]).poll(10, 1.0) if b"suspect" in one.value]
    for _ in range(3):
        process(server).begin([suspect])
    bench.loop._in_flight = process(server)
    with running(bench):
        until(lambda: "other" in service.started)
        time.sleep(0.1)
        assert service.started == ["other"]
        service.gate("other").set()
        until(lambda: service.started == ["other", "suspect"])
        send(bench, "b", "late")
        time.sleep(0.2)
        assert service.started == ["other", "suspect"]
        for name in ("suspect", "behind", "late"):
            service.gate(name).set()
        assert len(bench.tracks(4)) == 4
    assert server.hgetall(KEYS.in_flight("ingestion")) == {}


def test_dead_letters_over_the_limit_stop_the_loop_and_what_stands_before_them_is_committed() -> None:
    from tests.support.dead_letter_desk import run_to_its_end

    service = Scripted(lambda name: ValueError("a defect") if name.startswith("bad") else service.done(name))
    bench = Bench(service, replace(PATIENT, dead_letter_limit=2))
    send(bench, "a", "good", "bad1", "bad2", "bad3", "last")
    assert len(run_to_its_end(bench)) == 1
    assert [track.request_id for track in bench.tracks(3)] == ["good", "bad1", "bad2"]
    assert committed(bench) == 3
