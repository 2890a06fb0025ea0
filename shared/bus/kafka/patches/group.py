"""Corrections of kafka-python's group membership, and what a member owns.

All of it concerns kafka-python 3.0.12, whose coordinator runs in an I/O thread of its own while the worker's thread
polls and commits. ``tests/contract/test_kafka_fencing.py`` and ``test_kafka_rebalance.py`` prove the behaviour of the
patched bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Any

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata, MemberState, TopicPartition

from shared.bus.base import FencedError

#: How long a poll serves a rebalance before it continues with the partitions that stay.
_LOOK_MS = 20
_NO_EPOCHS: Mapping[TopicPartition, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a member owned when it last joined its group. Never changed, only replaced, so any thread may read it.

    ``epochs`` has an ownership epoch for each partition. It lasts as long as the member owns the partition without a
    break, and it is unique.
    """

    generation: int = -1
    member_id: str = ""
    epochs: Mapping[TopicPartition, str] = field(default_factory=lambda: _NO_EPOCHS)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer to a join, and the membership it belongs to."""

    joined: Any
    assignment: bytes


class GroupPatches:
    """Follows a consumer's membership and corrects it."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.ownership = Ownership()
        self._consumer = consumer
        self._coordinator = consumer._coordinator
        self._answer: _Answer | None = None
        self._numbers = count(1)
        self._keep_answers()
        self._go_on_during_rebalances()

    def owned(self) -> list[TopicPartition]:
        """What this member may claim when it joins. After an expulsion it is nothing."""
        return [] if self._coordinator._generation.is_lost() else list(self.ownership.epochs)

    @property
    def rejoining(self) -> bool:
        """Whether the member is about to rejoin its group. ``KafkaConsumer`` does not expose this."""
        return bool(self._coordinator.need_rejoin())

    @property
    def awaits_assignment(self) -> bool:
        """Whether the member is in a generation and does not know yet what it owns in it."""
        joined = self._coordinator._generation
        known = self.ownership
        return not joined.is_lost() and (joined.generation_id, joined.member_id) != (known.generation, known.member_id)

    def metadata(self) -> tuple[ConsumerGroupMetadata, Ownership]:
        """The membership by which the broker may fence a commit, and what is owned in it.

        Raises FencedError if the broker would not check it: the broker accepts a commit without member ID and
        generation from any client, even if the group has members.
        """
        # The order matters: reversed, a rebalance in between would pair the old ownership with the new generation.
        membership: ConsumerGroupMetadata = self._consumer.group_metadata()
        owned = self.ownership
        if membership.generation_id < 0 or not membership.member_id:
            raise FencedError(f"this member was expelled from {membership.group_id}")
        if (membership.generation_id, membership.member_id) != (owned.generation, owned.member_id):
            raise FencedError(f"{membership.group_id} was rebalanced; this member does not know its partitions yet")
        return membership, owned

    def _keep_answers(self) -> None:
        """Keep the answer to a join that arrives between two polls, for as long as the membership is the same.

        kafka-python forgets it. Its next poll joins once more, for ever if polls are short. If new partitions were the
        reason for the join it never checks again, so a pending join counts as a reason to check. The membership may
        also end between the answer and the next poll. Then kafka-python would treat the member as stable and would not
        tell the listener what it lost.
        """
        coordinator = self._coordinator
        join, complete, need_rejoin = (
            coordinator._do_join_and_sync_async,
            coordinator._on_join_complete_async,
            coordinator.need_rejoin,
        )

        async def join_or_answer() -> bytes:
            if self._answer is not None and self._answer.joined is coordinator._generation:
                return self._answer.assignment
            self._answer = None
            if coordinator._generation.is_lost():
                self._lose_everything()
            assignment: bytes = await join()
            if coordinator._generation.is_lost():
                raise kafka_errors.IllegalGenerationError("the membership ended while it was joined")
            self._answer = _Answer(coordinator._generation, assignment)
            return assignment

        async def complete_if_joined(generation: int, member_id: str, protocol: str, assignment: bytes) -> None:
            answer, self._answer = self._answer, None
            if answer is None or answer.joined is not coordinator._generation:
                coordinator.state = MemberState.UNJOINED
                coordinator.request_rejoin()
                return
            await complete(generation, member_id, protocol, assignment)
            self._own(generation, member_id)

        coordinator._do_join_and_sync_async = join_or_answer
        coordinator._on_join_complete_async = complete_if_joined
        coordinator.need_rejoin = lambda: need_rejoin() or coordinator._join_task is not None

    def _go_on_during_rebalances(self) -> None:
        """Let a poll deliver what is owned while a join waits for other members.

        kafka-python returns nothing until the join is answered. That takes until the session of a dead member times
        out.
        """
        coordinator = self._coordinator
        poll = coordinator.poll

        def poll_and_go_on(timeout_ms: float | None = None) -> bool:
            if not (self.ownership.epochs and coordinator.need_rejoin()):
                return bool(poll(timeout_ms=timeout_ms))
            poll(timeout_ms=_LOOK_MS if timeout_ms is None else min(_LOOK_MS, timeout_ms))
            return True

        coordinator.poll = poll_and_go_on

    def _own(self, generation: int, member_id: str) -> None:
        known = self.ownership.epochs if self.ownership.member_id == member_id else _NO_EPOCHS
        epochs = {
            partition: known.get(partition) or f"{member_id}#{next(self._numbers)}"
            for partition in self._consumer._subscription.assigned_partitions()
        }
        self.ownership = Ownership(generation, member_id, MappingProxyType(epochs))
        # A pending answer belongs to an earlier membership.
        self._coordinator._offset_fetch_futures.clear()

    def _lose_everything(self) -> None:
        self.ownership = Ownership()
        self._consumer._subscription.assign_from_subscribed([])
