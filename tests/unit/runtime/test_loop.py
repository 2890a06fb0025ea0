"""The service loop on the memory bus: what leaves with an offset, what is retried, what is buried."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.bus.base import Outgoing, Record
from shared.bus.memory import MemoryBus
from shared.contracts.codec import decode_message, encode_message
from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError, TransientError
from shared.contracts.messages import ErrorReport, IngestedTrack
from shared.contracts.topics import Channel
from shared.runtime.envelope import outgoing
from shared.runtime.health import Pulse
from shared.runtime.policy import LoopPolicy
from shared.runtime.service import Handled, Origin, Outcome
from tests.support.loop_bench import PATIENT, TOPICS, Bench, Holding, Scripted, announced, read, request, running


@pytest.mark.parametrize("keep_alive_s", [None, 0.01])
def test_each_record_leaves_its_outputs_and_is_then_cleaned_up(keep_alive_s: float | None) -> None:
    service = Scripted(lambda name: service.done(name))
    bench = Bench(service, LoopPolicy(batch_records=10, poll_s=0.02, keep_alive_s=keep_alive_s))
    bench.send(request("a"), request("b"))
    with running(bench):
        assert [track.request_id for track in bench.tracks(2)] == ["a", "b"]
    assert service.cleaned == ["a", "b"]
    assert bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]).poll(10, 0.0) == []


def test_a_transient_fault_is_tried_again_while_the_others_of_the_batch_wait_unharmed() -> None:
    tries: dict[str, int] = {}

    def script(name: str) -> Handled[IngestedTrack]:
        tries[name] = tries.get(name, 0) + 1
        if name == "flaky" and tries[name] < 3:
            return TransientError(ErrorCode.FETCH_FAILED, "not now")
        return service.done(name)

    service = Scripted(script)
    bench = Bench(service)
    bench.send(request("good"), request("flaky"))
    with running(bench):
        assert {track.error.message for track in bench.tracks(2) if track.error} == {"handled"}
    assert tries == {"good": 1, "flaky": 3}


def test_a_fault_that_does_not_heal_becomes_the_typed_answer() -> None:
    service = Scripted(lambda name: TransientError(ErrorCode.FETCH_TIMEOUT, "never"))
    bench = Bench(service)
    bench.send(request("a"))
    with running(bench):
        (track,) = bench.tracks(1)
    assert track.error is not None and track.error.code is ErrorCode.FETCH_TIMEOUT
    assert len(service.batches) == PATIENT.retry_attempts


def test_a_server_that_asks_for_more_patience_than_the_budget_is_not_waited_for() -> None:
    service = Scripted(lambda name: TransientError(ErrorCode.FETCH_FAILED, "in an hour", retry_after_s=3600.0))
    bench = Bench(service)
    bench.send(request("a"))
    with running(bench):
        bench.tracks(1)
    assert len(service.batches) == 1


def test_a_defect_buries_the_record_with_its_bytes_and_answers_the_request() -> None:
    def script(name: str) -> Handled[IngestedTrack]:
        if name == "poison":
            raise ZeroDivisionError("a defect")
        return service.done(name)

    service = Scripted(script)
    bench = Bench(service)
    bench.send(request("a"), request("poison"), request("b"))
    with running(bench):
        tracks = {track.request_id: track.error for track in bench.tracks(3)}
        (letter,) = read(bench.dead, 1)
    assert tracks["poison"] is not None and tracks["poison"].code is ErrorCode.INTERNAL
    assert tracks["a"] == tracks["b"] == announced("x").error
    assert letter.value == encode_message(request("poison"))
    assert letter.header("tonestream.errors.exception") == b"ZeroDivisionError"
    assert letter.header("tonestream.errors.topic") == TOPICS.name(Channel.REQUESTS).encode()
    assert letter.header("tonestream.errors.offset") == b"1"


def test_bytes_that_are_no_message_stop_nothing() -> None:
    service = Scripted(lambda name: service.done(name))
    bench = Bench(service)
    bench.send(request("a"), Outgoing(TOPICS.name(Channel.REQUESTS), b"one", b"\x00garbage"), request("b"))
    with running(bench):
        assert [track.request_id for track in bench.tracks(2)] == ["a", "b"]
        (letter,) = read(bench.dead, 1)
    assert letter.value == b"\x00garbage"


def test_at_the_entry_an_invalid_request_is_answered_and_not_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "answers_invalid_input", True)
    bench = Bench(Scripted(lambda name: Outcome()))
    bench.send(
        Outgoing(TOPICS.name(Channel.REQUESTS), b"one", b'{"request_id": "mine", "audio_url": "ftp://a/b"}'),
        Outgoing(TOPICS.name(Channel.REQUESTS), b"one", b"garbage"),
    )
    with running(bench):
        mine, nobodys = bench.tracks(2)
    assert mine.request_id == "mine"
    assert mine.error is not None and mine.error.code is ErrorCode.INVALID_REQUEST
    assert "audio_url: only http, https and file URLs" in mine.error.message
    assert nobodys.request_id.startswith("unit.requests/")
    assert bench.dead.poll(1, 0.0) == []


def test_while_a_dependency_is_away_nothing_fails_and_health_says_why() -> None:
    away = threading.Event()
    away.set()
    seen = threading.Event()

    def script(name: str) -> Handled[IngestedTrack]:
        if away.is_set():
            seen.set()
            raise DependencyError("Redis cannot be used")
        return service.done(name)

    service = Scripted(script)
    bench = Bench(service)
    bench.send(request("a"))
    with running(bench):
        assert seen.wait(5)
        deadline = time.monotonic() + 5
        while bench.pulse.ready(10).ok and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not bench.pulse.ready(10).ok and bench.pulse.ready(10).waiting_for == "Redis cannot be used"
        assert bench.pulse.live(10).ok
        assert bench.outputs.poll(1, 0.0) == []
        away.clear()
        assert [track.request_id for track in bench.tracks(1)] == ["a"]


def test_a_stop_while_waiting_leaves_the_batch_to_the_next_worker() -> None:
    tried = threading.Event()

    def script(name: str) -> Handled[IngestedTrack]:
        tried.set()
        raise DependencyError("gone for good")

    bench = Bench(Scripted(script), LoopPolicy(batch_records=10, poll_s=0.02, first_backoff_s=30, longest_backoff_s=30))
    bench.send(request("a"))
    with running(bench):
        assert tried.wait(5)
    assert bench.outputs.poll(1, 0.0) == []
    (record,) = bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]).poll(10, 1.0)
    assert decode_message(Channel.REQUESTS, record.value) == request("a")


def test_a_batch_that_does_not_end_after_a_stop_is_left_to_the_next_worker() -> None:
    handling, let_go = threading.Event(), threading.Event()

    def script(name: str) -> Handled[IngestedTrack]:
        handling.set()
        let_go.wait(30)
        return Outcome()

    policy = LoopPolicy(batch_records=10, poll_s=0.02, keep_alive_s=0.05, stop_grace_s=0.3)
    bench = Bench(Scripted(script), policy)
    bench.send(request("a"))
    with running(bench):
        assert handling.wait(5)
        stopped = time.monotonic()
        bench.loop.stop()
    assert 0.3 < time.monotonic() - stopped < 3.0
    let_go.set()
    (record,) = bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]).poll(10, 1.0)
    assert decode_message(Channel.REQUESTS, record.value) == request("a")


def test_a_worker_is_not_ready_before_the_first_poll_and_after_silence() -> None:
    pulse = Pulse()
    assert not pulse.ready(10).ok
    pulse.polled()
    assert pulse.ready(10).ok
    assert not pulse.ready(-1).ok


def test_a_service_that_fails_even_at_giving_up_loses_the_record_to_the_operator_and_goes_on() -> None:
    class Hopeless(Scripted):
        def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[IngestedTrack]:
            raise KeyError("no answer either")

    service = Hopeless(lambda name: service.done(name) if name == "b" else ValueError("a defect"))
    bench = Bench(service)
    bench.send(request("a"), request("b"))
    with running(bench):
        assert [track.request_id for track in bench.tracks(1)] == ["b"]
        (letter,) = read(bench.dead, 1)
    assert letter.value == encode_message(request("a"))


def test_a_record_key_of_any_length_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "answers_invalid_input", True)

    class Answering(Scripted):
        def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[IngestedTrack]:
            report = ErrorReport(code=error.code, stage=self.stage, message=error.message)
            track = IngestedTrack(request_id=origin.request_id, track_key=origin.track_key, source="s", error=report)
            return Outcome((track,))

    bench = Bench(Answering(lambda name: TonestreamError(ErrorCode.NO_AUDIO, "none")))
    bench.send(Outgoing(TOPICS.name(Channel.REQUESTS), b"\xff" * 1000, b"garbage"))
    bench.send(Outgoing(TOPICS.name(Channel.REQUESTS), b"k" * 1000, encode_message(request("a"))))
    with running(bench):
        tracks = bench.tracks(2)
    assert {track.error.code for track in tracks if track.error} == {ErrorCode.NO_AUDIO, ErrorCode.INVALID_REQUEST}
    assert bench.dead.poll(1, 0.0) == []


def test_a_service_that_is_not_ready_takes_no_work_and_stays_healthy_and_in_its_group() -> None:
    ready = threading.Event()
    asked = threading.Event()

    class Busy(Scripted):
        def ready(self) -> bool:
            asked.set()
            return ready.is_set()

    service = Busy(lambda name: service.done(name))
    bench = Bench(service, replace(PATIENT, pause_s=0.01))
    bench.send(request("a"))
    with running(bench):
        assert asked.wait(5)
        asked.clear()
        assert asked.wait(5)
        assert service.batches == []
        assert bench.pulse.ready(10).ok
        ready.set()
        assert [track.request_id for track in bench.tracks(1)] == ["a"]


def test_a_worker_without_work_is_ready_as_soon_as_it_owns_partitions() -> None:
    bench = Bench(Scripted(lambda name: Outcome()), replace(PATIENT, poll_s=5.0))
    began = time.monotonic()
    with running(bench):
        while not bench.pulse.ready(10).ok and time.monotonic() < began + 10:
            time.sleep(0.01)
        assert time.monotonic() < began + 4.0
        bench.loop.stop()
        bench.send(request("last"))  # which ends the poll


@pytest.mark.parametrize("keep_alive_s", [None, 0.01])
def test_a_record_that_is_held_holds_its_partition_and_the_others_go_out(keep_alive_s: float | None) -> None:
    service = Holding({"held"})
    bench = Bench(service, replace(PATIENT, keep_alive_s=keep_alive_s))
    names = ["before", "held", "behind"]
    bench.send(*(request(name) for name in names))
    bench.bus.publisher().publish([outgoing(TOPICS, request(name), key="another") for name in ("else", "where")])
    with running(bench):
        assert {track.request_id for track in bench.tracks(3)} == {"before", "else", "where"}
        bench.bus.publisher().publish([outgoing(TOPICS, request("later"), key="another")])
        assert [track.request_id for track in bench.tracks(1)] == ["later"]
        deadline = time.monotonic() + 5
        while bench.pulse.ready(10).waiting_for is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert bench.pulse.ready(10).waiting_for == "held needs a model"
        service.missing.clear()
        assert [track.request_id for track in bench.tracks(2)] == ["held", "behind"]
    handled = [name for batch in service.batches for name in batch]
    assert sorted(handled) == sorted([*names, "else", "where", "later"])  # none of them twice


def test_a_partition_full_of_held_records_does_not_starve_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBus, "_collect", collected_as_by_kafka)
    held = [f"held-{number}" for number in range(20)]
    ready = [f"ready-{number}" for number in range(6)]
    service = Holding(set(held))
    bench = Bench(service, replace(PATIENT, batch_records=2))
    bench.send(*(request(name) for name in held))
    for name in ready:
        bench.bus.publisher().publish([outgoing(TOPICS, request(name), key=name)])
    with bench.bus.reader([TOPICS.name(Channel.REQUESTS)]) as reader:
        partitions = {
            decode_message(Channel.REQUESTS, record.value).request_id: record.partition
            for record in read(reader, len(held) + len(ready))
        }
    elsewhere = {name for name in ready if partitions[name] != partitions[held[0]]}
    assert elsewhere
    with running(bench):
        assert {track.request_id for track in bench.tracks(len(elsewhere))} == elsewhere
        service.missing.clear()
        assert len(bench.tracks(len(partitions) - len(elsewhere))) == len(partitions) - len(elsewhere)


def collected_as_by_kafka(
    bus: MemoryBus, slots: Sequence[tuple[str, int]], positions: dict[tuple[str, int], int], max_records: int
) -> list[Record]:
    """One partition is drained before the next has its turn; here the longest comes first."""
    left = {slot: bus._partition(slot).end - positions[slot] for slot in slots}
    found: list[Record] = []
    for slot in sorted(slots, key=left.__getitem__, reverse=True):
        partition = bus._partition(slot)
        begin = positions[slot] - partition.start
        taken = list(partition.records)[begin : begin + max_records - len(found)]
        found += taken
        positions[slot] += len(taken)
    return found


def test_a_worker_that_stops_leaves_what_is_held_to_the_next_one() -> None:
    bench = Bench(Holding({"held"}))
    bench.send(request("before"), request("held"), request("behind"))
    with running(bench):
        assert [track.request_id for track in bench.tracks(1)] == ["before"]
    left = bench.bus.join("g", [TOPICS.name(Channel.REQUESTS)]).poll(10, 1.0)
    assert [decode_message(Channel.REQUESTS, record.value) for record in left] == [request("held"), request("behind")]
