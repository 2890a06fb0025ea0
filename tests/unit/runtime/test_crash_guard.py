"""Records that kill their worker: told from innocent ones, handled alone, and buried in the end."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from shared.bus.base import Committed, Outgoing, Record
from shared.contracts.errors import DependencyError, ErrorCode
from shared.contracts.messages import IngestedTrack, TrackRequest
from shared.contracts.topics import Channel
from shared.runtime.crash_guard import CrashGuard, Unit
from shared.runtime.service import Delivery, Handled, Origin, Outcome
from shared.state.in_flight import Crashes
from tests.support.crashing import KEYS, Died, client, live, process, supervise
from tests.support.loop_bench import TOPICS, Bench, Scripted, read, request, running


def records(*offsets: int, partition: int = 0) -> list[Record]:
    return [Record("t", partition, offset, b"k", b"v") for offset in offsets]


def at(offset: int, partition: int = 0) -> str:
    return f"t/{partition}@{offset}"


# The book


def test_what_a_dead_worker_had_in_hand_is_told_to_the_next_one_by_record() -> None:
    server = client()
    assert process(server).begin(records(1, 2)) == {}
    assert process(server).begin(records(2, 3)) == {at(2): Crashes(shared=1)}
    assert process(server).begin(records(2), alone=True) == {at(2): Crashes(shared=2)}
    assert process(server).begin(records(1, 2, 3, 4)) == {
        at(1): Crashes(shared=1),
        at(2): Crashes(shared=2, alone=1),
        at(3): Crashes(shared=1),
    }


def test_the_dead_of_one_service_are_none_of_another() -> None:
    server = client()
    process(server, "mood-worker").begin(records(1))
    assert process(server, "feature-extraction").begin(records(1)) == {}


@pytest.mark.parametrize("alone", [False, True])
def test_what_a_living_worker_puts_back_is_no_death(alone: bool) -> None:
    server = client()
    one = process(server)
    one.begin(records(1), alone)
    one.withdraw()
    one.withdraw()
    assert server.hgetall(KEYS.in_flight("ingestion")) == {}
    one.begin(records(1), alone)
    assert process(server).begin(records(1)) == {at(1): Crashes(*((0, 1) if alone else (1, 0)))}


def test_what_is_finished_leaves_nothing_behind_with_the_next_batch_or_when_there_is_none() -> None:
    server = client()
    process(server).begin(records(1))
    one = process(server)
    one.begin(records(1, 2))
    one.finished(records(1, 2))
    one.begin(records(3))
    assert set(server.hkeys(KEYS.in_flight("ingestion"))) == {at(3)}
    one.finished(records(3))
    one.flush()
    assert server.hkeys(KEYS.in_flight("ingestion")) == []


def test_of_a_batch_that_was_committed_in_part_the_rest_is_put_back() -> None:
    server = client()
    one = process(server)
    one.begin(records(1, 2, 3))
    one.finished(records(1))
    one.withdraw()
    one.flush()
    assert server.hkeys(KEYS.in_flight("ingestion")) == []


def test_a_worker_that_lost_its_partitions_alive_takes_back_only_its_own() -> None:
    server = client()
    zombie, heir = process(server), process(server)
    zombie.begin(records(1, 2))
    assert heir.begin(records(1, 2)) == {at(1): Crashes(1), at(2): Crashes(1)}
    heir.finished(records(1))
    heir.flush()
    zombie.withdraw()  # fenced at its commit
    assert set(server.hkeys(KEYS.in_flight("ingestion"))) == {at(2)}
    assert process(server).begin(records(1, 2)) == {at(2): Crashes(1)}


def test_beginning_again_because_an_answer_got_lost_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = client()
    one = process(server)
    begin, withdraw = one._begin, one._withdraw

    def answer_lost(**arguments: Any) -> None:
        begin(**arguments)
        raise redis.TimeoutError("no answer")

    def away(**arguments: Any) -> None:
        raise redis.ConnectionError("away")

    for _ in range(5):
        monkeypatch.setattr(one, "_begin", answer_lost)
        monkeypatch.setattr(one, "_withdraw", away)
        with pytest.raises(DependencyError):
            one.begin(records(1))
    monkeypatch.setattr(one, "_begin", begin)
    monkeypatch.setattr(one, "_withdraw", withdraw)
    assert one.begin(records(1)) == {}
    assert process(server).begin(records(1)) == {at(1): Crashes(1)}


def test_a_batch_costs_one_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    server = client()
    one = process(server)
    calls: list[str] = []
    execute: Callable[..., Any] = server.execute_command

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(str(arguments[0]))
        return execute(*arguments, **options)

    one.begin(records(0))
    monkeypatch.setattr(server, "execute_command", counted)
    for number in range(1, 4):
        batch = records(*range(500 * number, 500 * number + 500))
        one.begin(batch)
        one.begin(batch)
        one.finished(batch)
    assert calls == ["EVALSHA"] * 3
    one.flush()
    one.flush()
    assert calls == ["EVALSHA"] * 3 + ["HDEL"]


def test_batches_of_any_size_are_written_down_and_put_back() -> None:
    server = client()
    batch = records(*range(2500))
    process(server).begin(batch)
    one = process(server)
    assert one.begin(batch) == {at(offset): Crashes(1) for offset in range(2500)}
    one.finished(batch[:1200])
    one.withdraw()
    one.begin(records(9999))
    assert set(server.hkeys(KEYS.in_flight("ingestion"))) == {at(offset) for offset in range(1200, 2500)} | {at(9999)}
    assert process(server).begin(batch[1200:]) == {at(offset): Crashes(1) for offset in range(1200, 2500)}


def test_what_nobody_comes_back_for_expires() -> None:
    server = client()
    process(server).begin(records(1))
    assert 0 < server.ttl(KEYS.in_flight("ingestion")) <= 1000


# The units


@dataclass
class Written:
    """Crashes as they are given; remembers what was begun and put back."""

    crashes: dict[str, Crashes]
    begun: list[int] = field(default_factory=list)
    withdrawn: int = 0

    def begin(self, given: Sequence[Record], alone: bool = False) -> dict[str, Crashes]:
        self.begun.append(len(given))
        return self.crashes

    def finished(self, given: Sequence[Record]) -> None:
        pass

    def withdraw(self) -> None:
        self.withdrawn += 1

    def flush(self) -> None:
        pass

    def tidy(self, committed: Committed) -> None:
        pass


def test_a_batch_without_suspects_is_one_unit_that_has_begun() -> None:
    written = Written({at(1): Crashes(2, 0)})
    assert CrashGuard(written).units(records(1, 2)) == [Unit(tuple(records(1, 2)))]
    assert (written.begun, written.withdrawn) == ([2], 0)


def test_suspects_are_units_of_their_own_in_order_and_keep_no_other_partition_waiting() -> None:
    written = Written({at(2): Crashes(3, 0), at(3): Crashes(0, 3), at(8, 1): Crashes(1, 1)})
    batch = [*records(1, 2, 3, 4, 5), *records(7, 8, partition=1)]
    assert CrashGuard(written).units(batch) == [
        Unit((*records(1), *records(7, 8, partition=1))),
        Unit(tuple(records(2)), alone=True),
        Unit(tuple(records(3)), alone=True),
        Unit(tuple(records(4, 5))),
    ]
    assert written.withdrawn == 1


# Workers that die. A death is played by abandoning the loop where it stands: nothing of it is tidied up.


class Mortal(Scripted):
    """Dies of ``killers``, and by chance when ``chance`` says so. ``company`` are the batches it died in."""

    def __init__(self, killers: set[str], chance: Callable[[], bool] = lambda: False) -> None:
        super().__init__(lambda name: self.done(name))
        self.killers = killers
        self.chance = chance
        self.died_with: list[list[str]] = []

    def handle(self, deliveries: Sequence[Delivery[TrackRequest]]) -> Sequence[Handled[IngestedTrack]]:
        names = [delivery.message.request_id for delivery in deliveries]
        if self.killers.intersection(names) or self.chance():
            self.died_with.append(names)
            raise Died
        return super().handle(deliveries)


def test_a_killer_is_buried_after_three_deaths_in_company_and_five_alone_and_its_neighbours_go_through() -> None:
    names = ["a", "b", "killer", "c", "d"]
    service = Mortal({"killer"})
    bench = supervise(service, names)
    assert service.died_with == [names] * 3 + [["killer"]] * 5
    tracks = {track.request_id: track.error for track in bench.tracks(5)}
    assert tracks["killer"] is not None and tracks["killer"].code is ErrorCode.INTERNAL
    assert {name for name, error in tracks.items() if error and error.message == "handled"} == {"a", "b", "c", "d"}
    (letter,) = read(bench.dead, 1)
    assert letter.header("tonestream.errors.exception") == b"CrashLoop"
    assert letter.header("tonestream.errors.attempts") == b"8"
    assert b"8 workers died of it, 5 of them" in (letter.header("tonestream.errors.message") or b"")


def test_two_killers_side_by_side_are_both_found() -> None:
    service = Mortal({"k1", "k2"})
    bench = supervise(service, ["a", "k1", "k2", "b"])
    assert {letter.header("tonestream.errors.exception") for letter in read(bench.dead, 2)} == {b"CrashLoop"}
    assert Counter(map(tuple, service.died_with))[("k1",)] == Counter(map(tuple, service.died_with))[("k2",)] == 5


def test_other_partitions_get_on_while_a_killer_is_found_out() -> None:
    bus_keys = ("one", "another")
    service = Mortal({"killer"})
    bench = supervise(service, ["killer", "a", "b", "c"], bus_keys)
    order = [track.request_id for track in bench.tracks(4)]
    assert set(order[:2]) == {"a", "c"} and set(order[2:]) == {"killer", "b"}
    # Theirs are committed at the first suspicion: they die with it three times, and never again.
    assert [len(names) for names in service.died_with] == [4] * 3 + [1] * 5


def test_an_answer_that_kills_as_well_is_given_up_for_the_operator() -> None:
    class Deadly(Mortal):
        def give_up(self, origin: Origin, error: Any) -> Outcome[IngestedTrack]:
            raise Died

    service = Deadly({"killer"})
    bench = Bench(service)
    bench.loop._membership.close()
    bench.send(request("killer"), request("a"))
    server = client()
    answered = bench.bus.reader([TOPICS.name(Channel.TRACKS)])
    lives = 0
    while not live(bench.bus, service, server, lambda: bool(answered.poll(10, 0.0))):
        lives += 1
        assert lives < 20
    assert lives == 3 + 5 + 3
    assert [track.request_id for track in bench.tracks(1)] == ["a"]
    read(bench.dead, 1)


@pytest.mark.parametrize("seed", range(3))
def test_random_kills_bury_no_innocent_record(seed: int) -> None:
    # Every third batch dies, far more than any machine does to its workers: the lives are short and many.
    chance = random.Random(seed)
    names = [f"r{number}" for number in range(40)]
    service = Mortal(set(), lambda: chance.random() < 0.33)
    bench = supervise(service, names, [f"k{number}" for number in range(7)], lives=1000)
    tracks = bench.tracks(len(names))
    assert {track.request_id for track in tracks} == set(names)
    assert {track.error.message for track in tracks if track.error} == {"handled"}
    assert read(bench.dead, 0) == []


def test_a_worker_told_to_stop_or_waiting_for_a_dependency_leaves_no_death_behind() -> None:
    tried = threading.Event()

    def script(name: str) -> Handled[IngestedTrack]:
        tried.set()
        raise DependencyError("the blob store cannot be read")

    server = client()
    service = Scripted(script)
    bench = Bench(service, in_flight=process(server))
    bench.send(request("a"))
    with running(bench):
        assert tried.wait(5)
    assert server.hgetall(KEYS.in_flight("ingestion")) == {}


def test_while_redis_is_away_nothing_is_handled_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    server = client()
    registry = process(server)
    begin = registry._begin
    refused = threading.Event()

    def away(**arguments: Any) -> None:
        refused.set()
        raise redis.ConnectionError("away")

    monkeypatch.setattr(registry, "_begin", away)
    service = Scripted(lambda name: service.done(name))
    bench = Bench(service, in_flight=registry)
    bench.send(request("a"))
    with running(bench):
        assert refused.wait(5)
        assert service.batches == []
        monkeypatch.setattr(registry, "_begin", begin)
        assert [track.request_id for track in bench.tracks(1)] == ["a"]
    assert server.hgetall(KEYS.in_flight("ingestion")) == {}


def test_bytes_that_are_no_message_are_written_down_like_any_record() -> None:
    server = client()
    bench = Bench(Scripted(lambda name: Outcome()), in_flight=process(server))
    bench.send(Outgoing(TOPICS.name(Channel.REQUESTS), b"one", b"garbage"))
    with running(bench):
        read(bench.dead, 1)
    assert server.hgetall(KEYS.in_flight("ingestion")) == {}
