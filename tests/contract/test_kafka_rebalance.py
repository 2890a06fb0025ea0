"""What a rebalance takes from whom, and what a group's lag is at rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from shared.bus.base import Outgoing, TopicSpec
from shared.bus.kafka.assignor import shared_out
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from tests.support.committed_offsets import commits
from tests.support.names import Names
from tests.support.records import PATIENCE_S, publish_numbered, take

pytestmark = pytest.mark.kafka

SESSION_S = 6.0
PARTITIONS = 6


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


@pytest.fixture
def target(bus: KafkaBus, names: Names) -> str:
    topic = names.topic("target")
    bus.create_topics([TopicSpec(topic, 2)])
    return topic


def _lag(servers: str, group: str, topic: str) -> dict[int, int]:
    """What a dashboard shows: from the committed offset to the last stable one, where they differ."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, group_id=group, isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(partitions)
        found = {one.partition: ends[one] - (consumer.committed(one) or 0) for one in partitions}
        return {number: behind for number, behind in found.items() if behind}
    finally:
        consumer.close()


def test_a_kill_takes_only_the_dead_members_partitions_away_and_for_ten_seconds_at_most(
    bus: KafkaBus, source: str, target: str, names: Names, bootstrap_servers: str, tmp_path: Path
) -> None:
    """The dead member is replaced at once, as a supervisor does: that rebalance waits for the dead one's session."""
    group = names.group("g")

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.group_member", "--servers", bootstrap_servers]
        command += ["--group", group, "--topics", source, "--target", target]
        command += ["--session-s", f"{SESSION_S:g}", "--work-s", "0.05"]
        with (tmp_path / f"member-{number}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    members = [start(number) for number in range(3)]
    try:
        with bus.publisher() as publisher:

            def flow(seconds: float) -> None:
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    publisher.publish([Outgoing(source, b"key-%d" % n, b"x") for n in range(24)])
                    time.sleep(0.1)

            flow(12.0)
            members[0].kill()
            killed_ms = time.time() * 1000
            members[0].wait()
            members.append(start(3))
            flow(14.0)
    finally:
        for member in members:
            member.send_signal(signal.SIGKILL)
            member.wait()
    longest: dict[int, float] = {}
    latest: dict[int, float] = {}
    for commit in commits(bootstrap_servers, group):
        if commit.timestamp_ms >= killed_ms:
            pause = commit.timestamp_ms - max(latest.get(commit.partition, 0.0), killed_ms)
            longest[commit.partition] = max(longest.get(commit.partition, 0.0), pause / 1000)
        latest[commit.partition] = commit.timestamp_ms
    print(f"longest pause of each partition after the kill: { {p: round(s, 1) for p, s in sorted(longest.items())} }")
    assert set(longest) == set(range(PARTITIONS))
    assert max(longest.values()) <= 10.0
    assert sum(pause > SESSION_S / 2 for pause in longest.values()) <= PARTITIONS / 3, longest


def test_the_lag_of_a_group_at_rest_is_zero_behind_committed_and_aborted_transactions(
    bus: KafkaBus, source: str, target: str, names: Names, bootstrap_servers: str
) -> None:
    first, second = names.group("first"), names.group("second")
    publish_numbered(bus, source, 60, keys=60)
    with bus.join(first, [source]) as copier, bus.join(second, [target]) as follower:
        records = take(copier, 60)
        copier.commit([Outgoing(target, r.key, r.value) for r in records], records)
        producer = copier._ready_producer()
        producer.begin_transaction()
        for number in range(10):
            producer.send(target, key=b"key-%d" % number, value=b"never")
        producer.flush()
        producer.abort_transaction()
        copied = take(follower, 60)
        follower.commit([], copied)
        deadline = time.monotonic() + PATIENCE_S
        while _lag(bootstrap_servers, second, target) and time.monotonic() < deadline:
            assert follower.poll(10, 0.5) == []
        assert _lag(bootstrap_servers, second, target) == {}
        assert _lag(bootstrap_servers, first, source) == {}
        # What comes afterwards is delivered, and nothing twice.
        with bus.publisher() as publisher:
            publisher.publish([Outgoing(target, b"key-1", b"last")])
        assert [record.value for record in take(follower, 1)] == [b"last"]


def test_what_is_polled_and_not_committed_stays_in_the_lag_while_its_member_polls_on(
    bus: KafkaBus, source: str, names: Names, bootstrap_servers: str
) -> None:
    group = names.group("g")
    publish_numbered(bus, source, 12, keys=12)
    with bus.join(group, [source]) as member:
        held = take(member, 12)
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            assert member.poll(10, 0.5) == []
        assert sum(_lag(bootstrap_servers, group, source).values()) == 12
        member.commit([], held)
        assert _lag(bootstrap_servers, group, source) == {}


# Who owns what, without a broker


def _owners(shares: dict[str, set[TopicPartition]]) -> dict[TopicPartition, str]:
    owners: dict[TopicPartition, str] = {}
    for member, share in shares.items():
        for partition in share:
            assert partition not in owners
            owners[partition] = member
    return owners


def _settled(
    topics: dict[str, frozenset[str]], claims: dict[str, set[TopicPartition]]
) -> dict[str, set[TopicPartition]]:
    """The shares once nothing moves any more; no partition ever moves without its owner's letting go of it."""
    partitions = {topic: range(12) for read in topics.values() for topic in read}
    for _ in range(3):
        shares = shared_out(topics, claims, partitions)
        for partition, owner in _owners(shares).items():
            assert all(member == owner or partition not in claims.get(member, ()) for member in topics)
        if shares == claims:
            break
        claims = shares
    assert sum(map(len, shares.values())) == sum(map(len, partitions.values()))
    return shares


def test_members_get_even_shares_of_the_same_numbers_in_every_topic_and_keep_what_they_can() -> None:
    read = frozenset({"tracks", "moods"})
    claims: dict[str, set[TopicPartition]] = {}
    for count in (1, 2, 5, 3, 12, 13, 4):
        topics = {f"m{n}": read for n in range(count)}
        before = {member: owned for member, owned in claims.items() if member in topics}
        claims = _settled(topics, {member: before.get(member, set()) for member in topics})
        sizes = sorted(len({p.partition for p in share}) for share in claims.values())
        assert sizes[-1] - sizes[0] <= 1
        for member, share in claims.items():
            numbers = {topic: {p.partition for p in share if p.topic == topic} for topic in read}
            assert numbers["tracks"] == numbers["moods"]
            kept = len(share & before.get(member, set()))
            assert kept == min(len(before.get(member, ())), len(share))


def test_a_partition_that_two_members_claim_goes_to_nobody_until_they_let_go() -> None:
    read = frozenset({"tracks"})
    disputed = TopicPartition("tracks", 3)
    topics = {"a": read, "b": read}
    shares = shared_out(topics, {"a": {disputed}, "b": {disputed}}, {"tracks": range(12)})
    assert disputed not in _owners(shares)
    assert len(_owners(_settled(topics, shares))) == 12


def test_a_topic_that_only_new_members_read_is_shared_among_these() -> None:
    topics = {"old": frozenset({"tracks"}), "new": frozenset({"tracks", "retries"})}
    owners = _owners(_settled(topics, {"old": set(), "new": set()}))
    assert {owner for partition, owner in owners.items() if partition.topic == "retries"} == {"new"}
    assert {owner for partition, owner in owners.items() if partition.topic == "tracks"} == {"old", "new"}
