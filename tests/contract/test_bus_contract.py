"""What every bus promises, held against the memory bus and a real Kafka alike."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from kafka import KafkaProducer

from shared.bus.base import (
    BackPressureError,
    Bus,
    BusUnavailableError,
    FencedError,
    Membership,
    MessageTooLargeError,
    Outgoing,
    Publisher,
    Reader,
    Record,
    TopicSpec,
    parsed_coordinates,
)
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.memory import MemoryBus
from tests.support.kafka_broker import GivenBroker, KafkaBroker
from tests.support.names import Names

#: Long enough for a rebalance on a busy computer; nothing waits for it unless something is wrong.
PATIENCE_S = 20.0
LIMIT_BYTES = 50_000
PARTITIONS = 4
POLL_INTERVAL_S = 3.0

BusFactory = Callable[..., Bus]


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """The bus under test, with a group that is quick to miss a silent member."""
    made: Bus
    if request.param == "memory":
        made = MemoryBus(capacity_records=200, patience_s=0.2)
    else:
        servers = request.getfixturevalue("bootstrap_servers")
        made = KafkaBus(KafkaConfig(servers, session_timeout_s=6.0, max_poll_interval_s=POLL_INTERVAL_S))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def source(bus: Bus, names: Names) -> str:
    """A topic to read from."""
    return _created(bus, names.topic("source"))


@pytest.fixture
def target(bus: Bus, names: Names) -> str:
    """A topic to write to."""
    return _created(bus, names.topic("target"))


def _created(bus: Bus, name: str) -> str:
    bus.create_topics([TopicSpec(name, PARTITIONS, max_message_bytes=LIMIT_BYTES)])
    return name


def _numbered(topic: str, count: int, start: int = 0) -> list[Outgoing]:
    """Records whose keys are spread over the partitions and whose values say which they are."""
    return [Outgoing(topic, b"key-%d" % (n % 16), b"%d" % n) for n in range(start, start + count)]


def _publish(bus: Bus, outputs: Sequence[Outgoing]) -> None:
    with bus.publisher() as publisher:
        publisher.publish(outputs)


def _values(records: Sequence[Record]) -> list[int]:
    return sorted(int(record.value) for record in records)


def _take(source: Membership | Reader, count: int, max_records: int = 100) -> list[Record]:
    """Poll until there are ``count`` records."""
    deadline = time.monotonic() + PATIENCE_S
    records: list[Record] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += source.poll(min(max_records, count - len(records)), 0.5)
    return records


def _until(condition: Callable[[], bool], *alive: Membership) -> None:
    """Wait for a condition while ``alive`` stay in their groups."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        for membership in alive:
            membership.keep_alive()
        time.sleep(0.01)


def _drained(reader: Reader) -> list[Record]:
    """All that is committed by now."""
    deadline = time.monotonic() + PATIENCE_S
    records: list[Record] = []
    while not reader.at_end():
        assert time.monotonic() < deadline, "the end did not come"
        records += reader.poll(100, 0.5)
    return records


def _balanced(members: Sequence[Membership], partitions: int = PARTITIONS) -> bool:
    owned = [membership.assigned() for membership in members]
    return all(owned) and len(frozenset.union(*owned)) == sum(map(len, owned)) == partitions


# Delivery


def test_records_of_a_key_arrive_in_the_order_in_which_they_were_published(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 100))
    with bus.join(names.group("g"), [source]) as member:
        records = _take(member, 100)
    by_key: dict[bytes, list[int]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(int(record.value))
    assert len(by_key) == 16
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def test_records_of_a_key_stay_in_one_partition(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 64))
    with bus.join(names.group("g"), [source]) as member:
        records = _take(member, 64)
    partitions: dict[bytes, set[int]] = {}
    for record in records:
        partitions.setdefault(record.key, set()).add(record.partition)
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


def test_keys_values_and_headers_arrive_as_they_were_sent(bus: Bus, source: str, names: Names) -> None:
    every_byte = bytes(range(256))
    sent = [
        Outgoing(source, b"", b""),
        Outgoing(source, every_byte, every_byte, (("twice", b"1"), ("empty", b""), ("twice", every_byte))),
        Outgoing(source, "käse".encode(), b"\x00", (("Größe", b"\xff"),)),
    ]
    _publish(bus, sent)
    before = time.time() * 1000
    with bus.join(names.group("g"), [source]) as member:
        received = _take(member, len(sent))
    assert {(r.topic, r.key, r.value, r.headers) for r in received} == {
        (o.topic, o.key, o.value, o.headers) for o in sent
    }
    assert next(r for r in received if r.key == every_byte).header("twice") == every_byte
    assert all(abs(record.timestamp_ms - before) < 60_000 for record in received)


def test_a_poll_delivers_at_most_what_was_asked_for(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 50))
    with bus.join(names.group("g"), [source]) as member:
        records: list[Record] = []
        while len(records) < 50:
            polled = member.poll(3, PATIENCE_S)
            assert 1 <= len(polled) <= 3
            records += polled
        assert _values(records) == list(range(50))


def test_a_poll_without_records_returns_after_its_time(bus: Bus, source: str, names: Names) -> None:
    with bus.join(names.group("g"), [source]) as member:
        _until(lambda: len(member.assigned()) == PARTITIONS, member)
        started = time.monotonic()
        assert member.poll(10, 0.6) == []
        assert 0.5 < time.monotonic() - started < 3.0


def test_a_waiting_poll_is_woken_by_a_record(bus: Bus, source: str, names: Names) -> None:
    with bus.join(names.group("g"), [source]) as member, bus.publisher() as publisher:
        publisher.publish(_numbered(source, 1))
        _take(member, 1)
        later = threading.Timer(0.3, publisher.publish, [_numbered(source, 1, start=1)])
        later.start()
        started = time.monotonic()
        assert _values(member.poll(10, PATIENCE_S)) == [1]
        assert time.monotonic() - started < 5.0
        later.join()


def test_each_group_gets_every_record(bus: Bus, source: str, names: Names) -> None:
    with bus.join(names.group("one"), [source]) as one, bus.join(names.group("two"), [source]) as two:
        _publish(bus, _numbered(source, 40))
        for member in (one, two):
            records = _take(member, 40)
            assert _values(records) == list(range(40))
            member.commit([], records)


def test_a_member_may_follow_several_topics(bus: Bus, source: str, target: str, names: Names) -> None:
    _publish(bus, [*_numbered(source, 10), *_numbered(target, 10, start=10)])
    with bus.join(names.group("g"), [source, target]) as member:
        assert _values(_take(member, 20)) == list(range(20))
        assert len(member.assigned()) == 2 * PARTITIONS


# Units of work


def test_outputs_and_offsets_are_committed_together(bus: Bus, source: str, target: str, names: Names) -> None:
    _publish(bus, _numbered(source, 20))
    reader = bus.reader([target])
    with bus.join(names.group("g"), [source]) as member:
        records = _take(member, 20)
        assert reader.at_end()
        member.commit([Outgoing(target, r.key, r.value, r.headers) for r in records], records)
        assert _values(_drained(reader)) == list(range(20))
    with bus.join(names.group("g"), [source]) as successor:
        _publish(bus, _numbered(source, 1, start=20))
        assert _values(successor.poll(100, PATIENCE_S)) == [20]


def test_offsets_alone_can_be_committed(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 10))
    with bus.join(names.group("g"), [source]) as member:
        member.commit([], _take(member, 10))
    with bus.join(names.group("g"), [source]) as successor:
        _publish(bus, _numbered(source, 1, start=10))
        assert _values(successor.poll(100, PATIENCE_S)) == [10]


def test_outputs_alone_can_be_committed(bus: Bus, source: str, target: str, names: Names) -> None:
    with bus.join(names.group("g"), [source]) as member, bus.reader([target]) as reader:
        member.commit(_numbered(target, 3), [])
        assert _values(_drained(reader)) == [0, 1, 2]


def test_part_of_what_was_polled_can_be_committed(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, [Outgoing(source, b"one key", b"%d" % n) for n in range(10)])
    with bus.join(names.group("g"), [source]) as member:
        member.commit([], _take(member, 10)[:4])
        member.rewind()
        assert _values(_take(member, 6)) == list(range(4, 10))


def test_what_a_member_did_not_commit_goes_to_its_successor(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 20))
    crashed = bus.join(names.group("g"), [source])
    assert _values(_take(crashed, 20)) == list(range(20))
    crashed.close()
    with bus.join(names.group("g"), [source]) as successor:
        assert _values(_take(successor, 20)) == list(range(20))


def test_records_that_were_polled_are_not_delivered_again_without_a_rewind(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 10))
    with bus.join(names.group("g"), [source]) as member:
        _take(member, 10)
        assert member.poll(10, 0.5) == []


def test_a_rewind_brings_back_what_was_not_committed(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 30))
    with bus.join(names.group("g"), [source]) as member:
        done = _take(member, 10)
        member.commit([], done)
        rest = _take(member, 20)
        member.rewind()
        assert _values(_take(member, 20)) == _values(rest)
        assert _values(done + rest) == list(range(30))


def test_what_is_put_aside_is_not_delivered_for_its_time_and_all_else_is(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 60))
    with bus.join(names.group("g"), [source]) as member:
        first = _take(member, 60)
        by_partition = Counter((record.topic, record.partition) for record in first)
        assert len(by_partition) > 1
        member.rewind()
        # Of the one that is put aside a part is delivered, and the rest lies ready in the client.
        (record,) = _take(member, 1)
        aside = (record.topic, record.partition)
        most = by_partition[aside]
        member.rewind()
        member.put_aside([aside], 4.0)
        began = time.monotonic()
        member.keep_alive()
        # However small the polls are: the partition with the most records would fill them.
        others = [record for _ in range(60) for record in member.poll(2, 0.05)]
        assert time.monotonic() - began < 4.0
        expected = [record for record in first if (record.topic, record.partition) != aside]
        assert sorted(_values(others)) == sorted(_values(expected))
        back = _take(member, most)
        assert time.monotonic() - began >= 3.5
        assert {(record.topic, record.partition) for record in back} == {aside}
        member.commit([], [*others, *back])


def test_a_member_is_told_what_its_group_has_committed_and_nothing_else(bus: Bus, source: str, names: Names) -> None:
    _publish(bus, _numbered(source, 20))
    with bus.join(names.group("g"), [source]) as member:
        done = _take(member, 20)
        partitions = sorted({(record.topic, record.partition) for record in done})
        assert all(offset == 0 for offset in member.committed(partitions).values())
        member.commit([], done)
        ends = {(record.topic, record.partition): record.offset + 1 for record in done}
        assert member.committed(partitions) == ends
        assert member.committed([]) == {}
        (record, *_) = done
        assert parsed_coordinates(record.coordinates) == (record.topic, record.partition, record.offset)


def test_the_lag_is_what_is_not_committed_of_the_partitions_that_a_member_owns(
    bus: Bus, source: str, target: str, names: Names
) -> None:
    group = names.group("workers")
    with bus.join(group, [source]) as member:
        _until(lambda: len(member.assigned()) == PARTITIONS, member)
        _publish(bus, _numbered(source, 20))
        records = _take(member, 20)
        _until(lambda: sum(member.lag().values()) == 20, member)
        member.commit([Outgoing(target, b"k", b"1")], records)
        assert set(member.lag()) == {(source, partition) for partition in range(PARTITIONS)}
        # A transaction leaves a marker behind its last record, which an idle member passes.
        _until(lambda: not member.poll(1, 0.1) and sum(member.lag().values()) == 0)


def test_nothing_of_a_refused_unit_is_visible_and_its_records_come_again(
    bus: Bus, source: str, target: str, names: Names
) -> None:
    _publish(bus, _numbered(source, 5))
    reader = bus.reader([target])
    with bus.join(names.group("g"), [source]) as member, bus.join(names.group("t"), [target]) as follower:
        records = _take(member, 5)
        too_large = Outgoing(target, b"culprit", os.urandom(2 * LIMIT_BYTES))
        with pytest.raises(MessageTooLargeError, match=r"\d+ bytes.*target"):
            member.commit([*_numbered(target, 5), too_large, *_numbered(target, 5, start=5)], records)
        assert _drained(reader) == []
        member.rewind()
        again = _take(member, 5)
        assert _values(again) == list(range(5))
        # The member is as good as before.
        member.commit(_numbered(target, 1, start=99), again)
        assert _values(_drained(reader)) == [99]
        assert _values(follower.poll(10, PATIENCE_S)) == [99]


# Groups


def test_members_of_a_group_share_the_partitions_and_miss_nothing(
    bus: Bus, source: str, target: str, names: Names
) -> None:
    """One member, then two, then the other alone, while records keep coming: each is handled exactly once."""
    reader = bus.reader([target])
    first = bus.join(names.group("g"), [source])
    with bus.publisher() as publisher:
        publisher.publish(_numbered(source, 40))
        _work([first], target, lambda: bool(first.assigned()))
        second = bus.join(names.group("g"), [source])
        publisher.publish(_numbered(source, 40, start=40))
        _work([first, second], target, lambda: _balanced([first, second]))
        publisher.publish(_numbered(source, 40, start=80))
        _work([first, second], target, lambda: True)
        first.close()
        publisher.publish(_numbered(source, 40, start=120))
        seen: list[Record] = []

        def complete() -> bool:
            seen.extend(_drained(reader))
            return len(seen) >= 160 and len(second.assigned()) == PARTITIONS

        _work([second], target, complete)
    assert _values(seen) == list(range(160))
    second.close()


def _work(members: Sequence[Membership], target: str, done: Callable[[], bool]) -> None:
    """Copy records to ``target``, as a service would, until ``done`` and a little further."""
    deadline = time.monotonic() + PATIENCE_S
    rounds_after = 2
    while rounds_after:
        assert time.monotonic() < deadline, "it did not come true"
        for member in members:
            records = member.poll(7, 0.1)
            try:
                member.commit([Outgoing(target, r.key, r.value) for r in records], records)
            except FencedError:
                member.rewind()
        if done():
            rounds_after -= 1


def test_a_member_that_lost_partitions_is_fenced(bus: Bus, source: str, target: str, names: Names) -> None:
    _publish(bus, _numbered(source, 32))
    reader = bus.reader([target])
    with bus.join(names.group("g"), [source]) as stale:
        records = _take(stale, 32)
        with bus.join(names.group("g"), [source]) as other:
            taken: list[Record] = []

            def shared() -> bool:
                taken.extend(other.poll(100, 0.05))
                return _balanced([stale, other])

            _until(shared, stale)
            taken = [r for r in taken if (r.topic, r.partition) in other.assigned()]
            with pytest.raises(FencedError):
                stale.commit([Outgoing(target, r.key, r.value) for r in records], records)
            assert _drained(reader) == []
            stale.rewind()
            mine = _take(stale, sum((r.topic, r.partition) in stale.assigned() for r in records))
            taken += _take(other, 32 - len(mine) - len(taken)) if len(mine) + len(taken) < 32 else []
            for member, share in ((stale, mine), (other, taken)):
                member.commit([Outgoing(target, r.key, r.value) for r in share], share)
            assert _values(_drained(reader)) == list(range(32))


def test_a_rebalance_does_not_disturb_work_on_partitions_that_stay(
    bus: Bus, source: str, target: str, names: Names
) -> None:
    _publish(bus, _numbered(source, 32))
    with bus.join(names.group("g"), [source]) as member, bus.reader([target]) as reader:
        records = _take(member, 32)
        with bus.join(names.group("g"), [source]) as other:
            _until(lambda: _balanced([member, other]), member, other)
            stayed = [r for r in records if (r.topic, r.partition) in member.assigned()]
            assert 0 < len(stayed) < 32
            member.commit([Outgoing(target, r.key, r.value) for r in stayed], stayed)
            assert _values(_drained(reader)) == _values(stayed)


def test_keep_alive_keeps_the_membership_through_a_long_unit(bus: Bus, source: str, target: str, names: Names) -> None:
    _publish(bus, _numbered(source, 20))
    with bus.join(names.group("g"), [source]) as member, bus.reader([target]) as reader:
        records = _take(member, 10)
        finished = time.monotonic() + (0.5 if isinstance(bus, MemoryBus) else 1.7 * POLL_INTERVAL_S)
        while time.monotonic() < finished:
            member.keep_alive()
            time.sleep(0.2)
        member.commit([Outgoing(target, r.key, r.value) for r in records], records)
        rest = _take(member, 10)
        member.commit([Outgoing(target, r.key, r.value) for r in rest], rest)
        assert _values(_drained(reader)) == list(range(20))


@pytest.mark.kafka
def test_a_kafka_member_that_stays_silent_too_long_is_fenced(bootstrap_servers: str, names: Names) -> None:
    bus = KafkaBus(KafkaConfig(bootstrap_servers, session_timeout_s=6.0, max_poll_interval_s=1.0))
    source = _created(bus, names.topic("source"))
    _publish(bus, _numbered(source, 4))
    with bus.join(names.group("g"), [source]) as silent:
        records = _take(silent, 4)
        with bus.join(names.group("g"), [source]) as successor:
            again = _take(successor, 4)
            with pytest.raises(FencedError):
                silent.commit([], records)
            successor.commit([], again)
        silent.rewind()
        _publish(bus, _numbered(source, 1, start=4))
        assert _values(_take(silent, 1)) == [4]
    bus.close()


# Readers


def test_a_reader_sees_what_is_committed_in_order_and_knows_the_end(bus: Bus, source: str) -> None:
    with bus.reader([source]) as reader, bus.publisher() as publisher:
        assert reader.at_end()
        publisher.publish([Outgoing(source, b"k", b"%d" % n) for n in range(10)])
        assert not reader.at_end()
        assert [int(r.value) for r in _take(reader, 10, max_records=4)] == list(range(10))
        assert reader.at_end()
        assert reader.poll(10, 0.1) == []


def test_a_reader_may_begin_at_the_end(bus: Bus, source: str) -> None:
    with bus.publisher() as publisher, bus.reader([source]):
        publisher.publish(_numbered(source, 20))
        with bus.reader([source], from_beginning=False) as reader:
            publisher.publish(_numbered(source, 20, start=20))
            assert _values(_drained(reader)) == list(range(20, 40))


def test_a_reader_goes_on_where_another_stopped(bus: Bus, source: str) -> None:
    with bus.publisher() as publisher, bus.reader([source]):
        publisher.publish(_numbered(source, 20))
        with bus.reader([source], from_beginning=False) as first:
            assert first.positions()  # known before anything arrives
            publisher.publish(_numbered(source, 20, start=20))
            seen = _values(_take(first, 7, max_records=7))
            stopped = first.positions()
        publisher.publish(_numbered(source, 20, start=40))
        with bus.reader([source], from_beginning=False, positions=stopped) as second:
            assert sorted(seen + _values(_drained(second))) == list(range(20, 60))
            assert second.at_end()


def test_a_smaller_record_is_taken_at_once_where_a_larger_one_was_refused(
    bus: Bus, source: str, target: str, names: Names
) -> None:
    """Of the same key, so in the same partition: what becomes of a refused record must not stand in its way."""
    _publish(bus, _numbered(source, 2))
    reader = bus.reader([target])
    with bus.join(names.group("g"), [source]) as member:
        records = _take(member, 2)
        for size in (3 * LIMIT_BYTES, 2 * LIMIT_BYTES):
            with pytest.raises(MessageTooLargeError):
                member.commit([Outgoing(target, b"k", os.urandom(size))], records)
        member.commit([Outgoing(target, b"k", b"1")], records[:1])
        member.commit([Outgoing(target, b"k", b"2")], records[1:])
        assert _values(_drained(reader)) == [1, 2]


def test_readers_do_not_disturb_each_other(bus: Bus, source: str) -> None:
    with bus.reader([source]) as one, bus.reader([source]) as two:
        _publish(bus, _numbered(source, 10))
        assert _values(_drained(one)) == _values(_drained(two)) == list(range(10))


# Publishers and topics


def test_a_publisher_is_told_that_a_record_is_too_large(bus: Bus, source: str) -> None:
    with bus.publisher() as publisher, bus.reader([source]) as reader:
        for size in (2 * LIMIT_BYTES, 8 * 1024 * 1024):
            with pytest.raises(MessageTooLargeError):
                publisher.publish([Outgoing(source, b"k", os.urandom(size))])
        publisher.publish([Outgoing(source, b"k", b"1")])
        assert _values(_drained(reader)) == [1]


def test_threads_may_share_a_publisher(bus: Bus, source: str) -> None:
    with bus.publisher() as publisher, bus.reader([source]) as reader:
        threads = [
            threading.Thread(target=publisher.publish, args=[_numbered(source, 20, start=20 * n)]) for n in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert _values(_drained(reader)) == list(range(100))


def test_a_fast_publisher_does_not_drown_a_slow_consumer(bus: Bus, source: str, names: Names) -> None:
    """The publisher goes on offering what does not fit; in the end all of it has arrived, once."""
    count = 600
    with bus.join(names.group("g"), [source]) as member, bus.publisher() as publisher:
        published = threading.Thread(target=_publish_patiently, args=[publisher, _numbered(source, count)])
        published.start()
        received: list[Record] = []
        while len(received) < count:
            records = _take(member, 1) + member.poll(30, 0)
            if isinstance(bus, MemoryBus):
                assert bus.unread_bytes() <= 200 * 16
            member.commit([], records)
            received += records
        published.join()
        assert _values(received) == list(range(count))


def _publish_patiently(publisher: Publisher, outputs: Sequence[Outgoing]) -> None:
    for begin in range(0, len(outputs), 50):
        while True:
            try:
                publisher.publish(outputs[begin : begin + 50], timeout_s=5.0)
                break
            except BackPressureError:
                continue


def test_topics_are_created_once(bus: Bus, names: Names) -> None:
    specs = [TopicSpec(names.topic(name), 2) for name in ("a", "b")]
    assert bus.create_topics(specs[:1]) == [specs[0].name]
    assert bus.create_topics(specs) == [specs[1].name]
    assert bus.create_topics(specs) == []
    assert bus.create_topics([]) == []


def test_topics_that_exist_are_told_as_they_are(bus: Bus, names: Names) -> None:
    small = TopicSpec(names.topic("small"), 1, retention_ms=3_600_000, max_message_bytes=70_000)
    usual = TopicSpec(names.topic("usual"), 3)
    bus.create_topics([small, usual])
    found = bus.existing([usual.name, small.name, names.topic("none")])
    assert set(found) == {small.name, usual.name}
    assert found[small.name] == small
    assert found[usual.name].partitions == 3
    assert bus.existing([]) == bus.existing([names.topic("none")]) == {}


def test_the_broker_stamps_the_records_of_a_topic_that_is_to_have_it_so(bus: Bus, names: Names) -> None:
    """Whoever publishes with a clock of their own: here the memory bus has no other clock anyway."""
    topic = TopicSpec(names.topic("stamped"), 1, stamped_by_broker=True)
    bus.create_topics([topic])
    before_ms = time.time() * 1000
    if isinstance(bus, KafkaBus):
        producer = KafkaProducer(bootstrap_servers=bus._config.bootstrap_servers)
        producer.send(topic.name, b"x", timestamp_ms=1)
        producer.flush(10)
        producer.close()
    else:
        with bus.publisher() as publisher:
            publisher.publish([Outgoing(topic.name, b"", b"x")])
    with bus.reader([topic.name]) as reader:
        (record,) = reader.poll(10, PATIENCE_S)
    assert before_ms - 1000 <= record.timestamp_ms <= time.time() * 1000 + 1000


# Only one of them


def test_the_memory_bus_pushes_back_when_nobody_consumes(names: Names) -> None:
    bus = MemoryBus(capacity_records=10, patience_s=0.1)
    bus.create_topics([TopicSpec("in", 1), TopicSpec("out", 1)])
    member, follower = bus.join("g", ["in"]), bus.join("h", ["out"])
    publisher = bus.publisher()
    publisher.publish(_numbered("in", 10))
    with pytest.raises(BackPressureError):
        publisher.publish(_numbered("in", 1), timeout_s=0.1)
    member.commit(_numbered("out", 10), member.poll(1, 0))
    blocked = member.poll(1, 0)
    with pytest.raises(BackPressureError):
        member.commit(_numbered("out", 1), blocked)
    follower.commit([], follower.poll(10, 0))
    member.commit(_numbered("out", 1), blocked)
    assert len(follower.poll(10, 0)) == 1


def test_a_commit_that_waits_for_room_on_the_memory_bus_goes_on_as_soon_as_a_reader_makes_some() -> None:
    bus = MemoryBus(capacity_records=10, patience_s=PATIENCE_S)
    bus.create_topics([TopicSpec("in", 1), TopicSpec("out", 1)])
    member, reader = bus.join("g", ["in"]), bus.reader(["out"])
    member.commit(_numbered("out", 10), [])
    waiting = threading.Thread(target=member.commit, args=[_numbered("out", 5, start=10), []])
    waiting.start()
    assert _values(_take(reader, 15)) == list(range(15))
    waiting.join(PATIENCE_S / 4)
    assert not waiting.is_alive()


def test_the_memory_bus_lets_a_unit_above_its_capacity_into_an_empty_topic() -> None:
    bus = MemoryBus(capacity_records=10)
    bus.create_topics([TopicSpec("in", 1)])
    member = bus.join("g", ["in"])
    bus.publisher().publish(_numbered("in", 30), timeout_s=0.1)
    assert len(member.poll(100, 0)) == 30


def test_the_memory_bus_keeps_the_newest_records_of_a_topic_that_nobody_follows() -> None:
    bus = MemoryBus(capacity_records=10)
    bus.create_topics([TopicSpec("dead-letters", 1)])
    for n in range(25):
        bus.publisher().publish(_numbered("dead-letters", 1, start=n), timeout_s=0)
    assert _values(bus.reader(["dead-letters"]).poll(100, 0)) == list(range(15, 25))


def test_the_memory_bus_keeps_nothing_that_everyone_has_passed() -> None:
    bus = MemoryBus()
    bus.create_topics([TopicSpec("in", 4)])
    one, two, reader = bus.join("one", ["in"]), bus.join("two", ["in"]), bus.reader(["in"])
    bus.publisher().publish(_numbered("in", 50))
    one.commit([], one.poll(100, 0))
    reader.poll(100, 0)
    assert bus.unread_bytes() > 0
    two.commit([], two.poll(100, 0))
    assert bus.unread_bytes() == 0


def test_a_kafka_that_is_not_there_is_reported_in_bounded_time(names: Names) -> None:
    bus = KafkaBus(KafkaConfig("127.0.0.1:1", connect_timeout_s=0.5))
    threads = threading.active_count()
    attempts: list[Callable[[], object]] = [
        lambda: bus.join("g", ["t"]),
        lambda: bus.publisher(),
        lambda: bus.reader(["t"]),
        lambda: bus.create_topics([TopicSpec("t", 1)]),
    ]
    for attempt in attempts:
        started = time.monotonic()
        with pytest.raises(BusUnavailableError):
            attempt()
        assert time.monotonic() - started < 5.0
    _until(lambda: threading.active_count() == threads)


@pytest.mark.kafka
def test_a_kafka_member_gets_over_a_restart_of_the_broker(kafka_broker: KafkaBroker, names: Names) -> None:
    if isinstance(kafka_broker, GivenBroker):
        pytest.skip("the broker was given by KAFKA_BOOTSTRAP_SERVERS and is not ours to restart")
    bus = KafkaBus(
        KafkaConfig(kafka_broker.bootstrap_servers, session_timeout_s=10.0, commit_timeout_s=2.0, connect_timeout_s=1.0)
    )
    source, target = _created(bus, names.topic("source")), _created(bus, names.topic("target"))
    _publish(bus, _numbered(source, 20))
    with bus.join(names.group("g"), [source]) as member, bus.join(names.group("idle"), [source]) as bystander:
        bystander.commit([], _take(bystander, 20))
        first = _take(member, 10)
        member.commit([Outgoing(target, r.key, r.value) for r in first], first)
        records = _take(member, 10)
        kafka_broker.stop()
        try:
            with pytest.raises(BusUnavailableError):
                member.commit([Outgoing(target, r.key, r.value) for r in records], records)
            with pytest.raises(BusUnavailableError):
                member.rewind()
            started = time.monotonic()
            with pytest.raises(BusUnavailableError):
                member.poll(10, 0.5)
            assert bystander.poll(10, 0.5) == []
            assert time.monotonic() - started < 10
        finally:
            kafka_broker.start()
        with bus.reader([target]) as reader:
            seen: list[Record] = []
            deadline = time.monotonic() + 2 * PATIENCE_S
            while len(seen) < 20:
                assert time.monotonic() < deadline, f"{len(seen)} of 20 came"
                try:
                    again = member.poll(10, 0.5)
                    member.commit([Outgoing(target, r.key, r.value) for r in again], again)
                except BusUnavailableError:
                    time.sleep(0.1)
                except FencedError:
                    member.rewind()
                seen += _drained(reader)
            assert _values(seen) == list(range(20))
        _publish(bus, _numbered(source, 5, start=20))
        assert _values(_take(bystander, 5)) == list(range(20, 25))
    bus.close()


@pytest.mark.kafka
def test_a_kafka_member_whose_transactions_were_fenced_goes_on_after_a_rewind(
    bootstrap_servers: str, names: Names
) -> None:
    """So it is when the broker ended a transaction that took too long: it bumps the epoch of its producer."""
    config = KafkaConfig(bootstrap_servers)
    bus = KafkaBus(config)
    source, target = _created(bus, names.topic("source")), _created(bus, names.topic("target"))
    _publish(bus, _numbered(source, 10))
    with bus.join(names.group("g"), [source]) as member, bus.reader([target]) as reader:
        first = _take(member, 5)
        member.commit([Outgoing(target, r.key, r.value) for r in first], first)
        settings = config.producer("usurper", transactional_id=member._transactional_id)
        usurper = KafkaProducer(**settings)
        usurper.init_transactions()
        usurper.close(timeout=5)
        rest = _take(member, 5)
        with pytest.raises(BusUnavailableError):
            member.commit([Outgoing(target, r.key, r.value) for r in rest], rest)
        member.rewind()
        again = _take(member, 5)
        assert _values(again) == _values(rest)
        member.commit([Outgoing(target, r.key, r.value) for r in again], again)
        assert _values(_drained(reader)) == list(range(10))
    bus.close()
