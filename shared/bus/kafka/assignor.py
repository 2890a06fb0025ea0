"""Assigns partitions to the members of a group: balanced, and with as few moves as possible.

A partition changes hands in two rounds (KIP-429). In the first the leader revokes it from its owner and assigns it to
nobody. The owner gives it up and asks for another round. Only in the second round does another member receive it. So
members that keep their partitions work on through a rebalance, and a partition never has two owners.

kafka-python ships an assignor of this kind. It is not used: it advertises what its member owned before it was expelled,
and it balances each topic by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor, RebalanceProtocol
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription
from kafka.structs import TopicPartition

#: The first version of the group protocol that carries what a member owns.
_VERSION = 1


class CooperativeAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Partitions of the same number go to the same member, so the records of a key meet in one place.

    ``owned`` says what this member owns at the time it joins.
    """

    name = "tonestream-cooperative"

    def __init__(self) -> None:
        self.owned: Callable[[], Iterable[TopicPartition]] = frozenset

    def supported_protocols(self) -> list[RebalanceProtocol]:
        return [RebalanceProtocol.COOPERATIVE]

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolSubscription:
        owned = defaultdict(list)
        for partition in sorted(self.owned()):
            owned[partition.topic].append(partition.partition)
        claims = [
            ConsumerProtocolSubscription.TopicPartition(topic=topic, partitions=numbers)
            for topic, numbers in owned.items()
        ]
        return ConsumerProtocolSubscription(
            version=_VERSION, topics=sorted(topics), user_data=b"", owned_partitions=claims
        )

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, ConsumerProtocolAssignment]:
        topics = {member.member_id: frozenset(member.metadata.topics) for member in members}
        claims = {
            member.member_id: [
                TopicPartition(claim.topic, number)
                for claim in member.metadata.owned_partitions or ()
                for number in claim.partitions
            ]
            for member in members
        }
        partitions = {
            topic: sorted(cluster.partitions_for_topic(topic) or ()) for topic in frozenset().union(*topics.values())
        }
        shares = shared_out(topics, claims, partitions)
        return {
            member_id: ConsumerProtocolAssignment(_VERSION, _by_topic(share), b"")
            for member_id, share in shares.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolAssignment, generation: int) -> None:
        """Nothing to keep: the owned partitions are read when the member joins."""


def shared_out(
    topics: Mapping[str, frozenset[str]],
    claims: Mapping[str, Iterable[TopicPartition]],
    partitions: Mapping[str, Sequence[int]],
) -> dict[str, set[TopicPartition]]:
    """What each member owns after this round, without the partitions that move from one member to another.

    ``topics`` holds what each member (by ID) reads, ``claims`` what it owns now, ``partitions`` the numbers of each
    topic's partitions.
    """
    owners: dict[TopicPartition, set[str]] = defaultdict(set)
    for member, owned in claims.items():
        for partition in owned:
            owners[partition].add(member)
    readers: dict[frozenset[str], set[str]] = defaultdict(set)
    for topic in partitions:
        readers[frozenset(member for member, read in topics.items() if topic in read)].add(topic)
    shares: dict[str, set[TopicPartition]] = {member: set() for member in topics}
    # Usually all members read the same topics. During an upgrade some read more than others.
    for members, read in readers.items():
        numbers = {number for topic in read for number in partitions[topic]}
        for number, member in _dealt(numbers, sorted(members), owners, sorted(read)).items():
            for topic in read:
                partition = TopicPartition(topic, number)
                if number in partitions[topic] and owners.get(partition, {member}) == {member}:
                    shares[member].add(partition)
    return shares


def _dealt(
    numbers: Iterable[int], members: Sequence[str], owners: Mapping[TopicPartition, set[str]], topics: Sequence[str]
) -> dict[int, str]:
    """The member of each partition number: as even as possible, with as few moves as possible."""
    kept: dict[str, list[int]] = {member: [] for member in members}
    free: list[int] = []
    for number in sorted(numbers):
        claimed = [owner for topic in topics for owner in owners.get(TopicPartition(topic, number), ())]
        candidates = [member for member in members if member in claimed]
        if candidates:
            kept[max(candidates, key=claimed.count)].append(number)
        else:
            free.append(number)
    total = sum(map(len, kept.values())) + len(free)
    least, extra = divmod(total, len(members))
    # If the numbers do not divide evenly, the members that own most keep one more.
    by_size = sorted(members, key=lambda member: (-len(kept[member]), member))
    quota = {member: least + (position < extra) for position, member in enumerate(by_size)}
    for member in members:
        free += kept[member][quota[member] :]
        kept[member] = kept[member][: quota[member]]
    free.sort()
    dealt = {number: member for member, its in kept.items() for number in its}
    for member in members:
        for _ in range(quota[member] - len(kept[member])):
            dealt[free.pop(0)] = member
    return dealt


def _by_topic(share: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    found = defaultdict(list)
    for partition in sorted(share):
        found[partition.topic].append(partition.partition)
    return sorted(found.items())
