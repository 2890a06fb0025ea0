"""A member that slept through its own expulsion commits nothing of what it held, neither at once nor later."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kafka.future import Future
from kafka.structs import OffsetAndMetadata, TopicPartition

from shared.bus.base import FencedError, TopicSpec
from shared.bus.kafka.bus import KafkaBus, KafkaConfig, KafkaMembership
from tests.support.committed_offsets import commits, commits_that_went_back
from tests.support.names import Names
from tests.support.records import PATIENCE_S, publish_numbered, take

pytestmark = pytest.mark.kafka

SESSION_S = 2.0
PARTITIONS = 4


@pytest.fixture
def bus(bootstrap_servers: str) -> Iterator[KafkaBus]:
    bus = KafkaBus(KafkaConfig(bootstrap_servers, session_timeout_s=SESSION_S, transaction_timeout_s=5.0))
    try:
        yield bus
    finally:
        bus.close()


@pytest.fixture
def source(bus: KafkaBus, names: Names) -> str:
    topic = names.topic("source")
    bus.create_topics([TopicSpec(topic, PARTITIONS)])
    return topic


def _sleep(member: KafkaMembership) -> None:
    """Until the broker has expelled the member, which does not notice: its heartbeats have stopped."""
    member._consumer._coordinator._disable_heartbeat()
    time.sleep(2 * SESSION_S)


def _wake(member: KafkaMembership) -> None:
    member._consumer._coordinator._enable_heartbeat()


def test_what_the_broker_refused_to_a_sleeper_is_not_committed_with_its_next_unit(
    bus: KafkaBus, source: str, names: Names, bootstrap_servers: str
) -> None:
    group = names.group("g")
    publish_numbered(bus, source, 32, keys=16)
    with bus.join(group, [source]) as sleeper:
        held = take(sleeper, 32)
        _sleep(sleeper)
        with bus.join(group, [source]) as successor:
            successor.commit([], take(successor, 32))
            publish_numbered(bus, source, 32, keys=16)
            successor.commit([], take(successor, 32))
            with pytest.raises(FencedError):
                sleeper.commit([], held)
            _wake(sleeper)
            sleeper.rewind()
            deadline = time.monotonic() + PATIENCE_S
            while not (sleeper.assigned() and successor.assigned() and sleeper.assigned() != successor.assigned()):
                assert time.monotonic() < deadline
                assert not sleeper.poll(10, 0.1)
                assert not successor.poll(10, 0.1)
            publish_numbered(bus, source, 64, keys=16)
            mine = take(sleeper, 1, successor)
            sleeper.commit([], mine)
    assert commits_that_went_back(bootstrap_servers, group) == []


def test_no_commit_leaves_without_a_member_id_and_a_generation(
    bus: KafkaBus, source: str, names: Names, bootstrap_servers: str
) -> None:
    """The broker takes such a commit from anybody, and any offset with it."""
    group = names.group("g")
    publish_numbered(bus, source, 32, keys=16)
    with bus.join(group, [source]) as member, bus.join(group, [source]) as other:
        held = take(member, 1, other)
        member._consumer._coordinator.reset_generation()
        with pytest.raises(FencedError, match="expelled"):
            member.commit([], held)
    assert commits(bootstrap_servers, group) == []


def test_a_member_that_is_expelled_while_it_rejoins_may_commit_nothing_of_before(
    bus: KafkaBus, source: str, names: Names
) -> None:
    """kafka-python tells no listener what is lost if the member was about to join anyway."""
    publish_numbered(bus, source, 32, keys=16)
    with bus.join(names.group("g"), [source]) as member:
        held = take(member, 32)
        coordinator = member._consumer._coordinator
        coordinator.rejoining = True
        coordinator.reset_generation()
        again = take(member, 32)
        with pytest.raises(FencedError, match="given to another member"):
            member.commit([], held)
        member.commit([], again)


def test_an_answer_to_a_join_is_void_once_the_membership_it_belongs_to_has_ended(
    bus: KafkaBus, source: str, names: Names
) -> None:
    publish_numbered(bus, source, 32, keys=16)
    with bus.join(names.group("g"), [source]) as member:
        take(member, 32)
        coordinator = member._consumer._coordinator
        coordinator.request_rejoin()
        deadline = time.monotonic() + PATIENCE_S
        while coordinator._join_task is None or not coordinator._join_task.is_done:
            assert time.monotonic() < deadline
            coordinator.poll(timeout_ms=0)
            time.sleep(0.2)
        coordinator.reset_generation()
        again = take(member, 32)
        member.commit([], again)
        assert {(record.topic, record.partition) for record in again} <= member.assigned()


def test_a_members_first_read_of_a_partition_begins_where_the_group_is_and_not_where_an_old_answer_says(
    bus: KafkaBus, source: str, names: Names
) -> None:
    """kafka-python shares one answer about committed offsets among all who ask, also across a rebalance."""
    group = names.group("g")
    publish_numbered(bus, source, 8, keys=16)
    with bus.join(group, [source]) as member:
        member.commit([], take(member, 8))
        coordinator = member._consumer._coordinator
        stale: Future = Future()
        stale.success({TopicPartition(source, number): OffsetAndMetadata(0, "", -1) for number in range(PARTITIONS)})
        coordinator._offset_fetch_futures[frozenset(TopicPartition(source, n) for n in range(PARTITIONS))] = stale
        coordinator.reset_generation()
        publish_numbered(bus, source, 1, keys=16)
        assert [record.value for record in take(member, 1)] == [b"0"]
        assert member.poll(10, 1.0) == []
