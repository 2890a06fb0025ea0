"""The bus inside one process: topics, partitions, consumer groups and atomic units, bounded in size.

A record is kept until every group and reader of its topic has passed it. A publisher that outruns the slowest of them
waits, and finally gets BackPressureError. A topic without a group or reader keeps its newest records up to the
capacity, because nobody would ever make room in it. So groups and readers must be registered before the first record is
published.

A partition that changes its owner begins a new ownership epoch. Records polled in an earlier epoch can no longer be
committed, as with the generations of a Kafka group. A rebalance does not disturb partitions that keep their owner.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from shared.bus.base import (
    BackPressureError,
    BusError,
    BusUnavailableError,
    FencedError,
    MessageTooLargeError,
    Outgoing,
    Positions,
    Record,
    TopicSpec,
)
from shared.bus.roles import Closing

Slot = tuple[str, int]


@dataclass(slots=True)
class _Partition:
    """``records`` begins at offset ``start``; earlier records have been dropped."""

    records: deque[Record] = field(default_factory=deque)
    start: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.records)


@dataclass(slots=True)
class _Topic:
    spec: TopicSpec
    partitions: list[_Partition]
    bytes: int = 0

    @property
    def records(self) -> int:
        return sum(len(partition.records) for partition in self.partitions)


@dataclass(slots=True)
class _Group:
    """``members`` by number with their topics; ``owners`` by partition.

    ``epochs`` holds the generation in which each partition got its present owner.
    """

    committed: dict[Slot, int] = field(default_factory=dict)
    members: dict[int, tuple[str, ...]] = field(default_factory=dict)
    owners: dict[Slot, int] = field(default_factory=dict)
    epochs: dict[Slot, int] = field(default_factory=dict)
    generation: int = 0


@dataclass(slots=True)
class _MemberState:
    """The positions of a member in its partitions, its ownership epochs, and until when partitions are put
    ``aside``."""

    positions: dict[Slot, int] = field(default_factory=dict)
    epochs: dict[Slot, int] = field(default_factory=dict)
    aside: dict[Slot, float] = field(default_factory=dict)


class MemoryBus:
    """``capacity_records`` and ``capacity_bytes`` bound each topic's unread records.

    A larger unit is admitted to an empty topic, because it could never pass otherwise. ``patience_s`` is how long a
    commit waits for room before BackPressureError.
    """

    def __init__(
        self, capacity_records: int = 20_000, capacity_bytes: int = 64 * 1024 * 1024, patience_s: float = 1.0
    ) -> None:
        self._capacity_records = capacity_records
        self._capacity_bytes = capacity_bytes
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, _Group] = {}
        self._readers: dict[int, dict[Slot, int]] = {}
        self._numbers = iter(range(1, 1 << 62))
        self._closed = False

    def create_topics(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> list[str]:
        del timeout_s
        with self._changed:
            missing = [spec for spec in topics if spec.name not in self._topics]
            for spec in missing:
                self._topics[spec.name] = _Topic(spec, [_Partition() for _ in range(spec.partitions)])
            return [spec.name for spec in missing]

    def existing(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        with self._changed:
            return {name: self._topics[name].spec for name in topics if name in self._topics}

    def join(self, group: str, topics: Sequence[str]) -> MemoryMembership:
        with self._changed:
            self._check_open()
            for topic in topics:
                self._known(topic)
            number = next(self._numbers)
            state = self._groups.setdefault(group, _Group())
            state.members[number] = tuple(topics)
            for topic in topics:
                for index in range(len(self._topics[topic].partitions)):
                    state.committed.setdefault((topic, index), 0)
            self._rebalance(state)
        return MemoryMembership(self, group, number)

    def publisher(self) -> MemoryPublisher:
        return MemoryPublisher(self)

    def reader(
        self, topics: Sequence[str], from_beginning: bool = True, positions: Positions | None = None
    ) -> MemoryReader:
        with self._changed:
            self._check_open()
            number = next(self._numbers)
            begin: dict[Slot, int] = {}
            for topic in topics:
                for index, partition in enumerate(self._known(topic).partitions):
                    default = partition.start if from_beginning else partition.end
                    begin[(topic, index)] = max((positions or {}).get((topic, index), default), partition.start)
            self._readers[number] = begin
        return MemoryReader(self, number)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def unread_bytes(self) -> int:
        """Bytes held in memory for records that not every group and reader has passed."""
        with self._changed:
            return sum(topic.bytes for topic in self._topics.values())

    # Called by the roles below. Each takes the lock, and nothing else touches the state.

    def _poll_member(
        self, group: str, number: int, member: _MemberState, max_records: int, timeout_s: float
    ) -> list[Record]:
        state = self._groups[group]

        def collect() -> list[Record]:
            if number not in state.members:
                raise BusError(f"this member has left {group}")
            mine = [slot for slot, owner in state.owners.items() if owner == number]
            for slot in mine:
                if slot not in member.positions or member.epochs.get(slot) != state.epochs[slot]:
                    member.positions[slot] = state.committed[slot]
                    member.epochs[slot] = state.epochs[slot]
            if member.aside:
                now = time.monotonic()
                mine = [slot for slot in mine if member.aside.get(slot, 0.0) <= now]
            return self._collect(mine, member.positions, max_records)

        return self._wait_for(collect, timeout_s)

    def _poll_reader(self, number: int, max_records: int, timeout_s: float) -> list[Record]:
        positions = self._readers[number]

        def collect() -> list[Record]:
            return self._collect(list(positions), positions, max_records)

        found = self._wait_for(collect, timeout_s)
        if found:
            with self._changed:
                self._drop_passed({record.topic for record in found})
        return found

    def _at_end(self, number: int) -> bool:
        with self._changed:
            return all(position >= self._partition(slot).end for slot, position in self._readers[number].items())

    def _positions(self, number: int) -> Positions:
        with self._changed:
            return dict(self._readers[number])

    def _commit(
        self,
        group: str,
        number: int,
        member: _MemberState,
        outputs: Sequence[Outgoing],
        consumed: Sequence[Record],
    ) -> None:
        with self._changed:
            self._check_open()
            self._check_sizes(outputs)
            self._wait_for_room(outputs, self._patience_s)
            # Checked only now: the partitions may have changed their owner during the wait.
            state = self._groups[group]
            if number not in state.members:
                raise FencedError(f"this member has left {group}")
            upto: dict[Slot, int] = {}
            for record in consumed:
                slot = (record.topic, record.partition)
                if state.owners.get(slot) != number or member.epochs.get(slot) != state.epochs[slot]:
                    raise FencedError(f"{record.coordinates} was given to another member of {group} meanwhile")
                upto[slot] = max(upto.get(slot, state.committed[slot]), record.offset + 1)
            self._append(outputs)
            state.committed.update(upto)
            self._drop_passed({topic for topic, _ in upto})

    def _publish(self, outputs: Sequence[Outgoing], timeout_s: float) -> None:
        with self._changed:
            self._check_open()
            self._check_sizes(outputs)
            self._wait_for_room(outputs, timeout_s)
            self._append(outputs)
            self._changed.notify_all()

    def _assigned(self, group: str, number: int) -> frozenset[Slot]:
        with self._changed:
            return frozenset(slot for slot, owner in self._groups[group].owners.items() if owner == number)

    def _lag(self, group: str, number: int) -> dict[Slot, int]:
        with self._changed:
            state = self._groups[group]
            mine = [slot for slot, owner in state.owners.items() if owner == number]
            return {slot: self._partition(slot).end - state.committed[slot] for slot in mine}

    def _committed(self, group: str, partitions: Sequence[Slot]) -> dict[Slot, int]:
        with self._changed:
            known = self._groups[group].committed
            return {slot: known[slot] for slot in partitions if slot in known}

    def _leave(self, group: str, number: int) -> None:
        with self._changed:
            state = self._groups[group]
            if state.members.pop(number, None) is not None:
                self._rebalance(state)

    def _forget_reader(self, number: int) -> None:
        with self._changed:
            positions = self._readers.pop(number, {})
            self._drop_passed({topic for topic, _ in positions})

    # Inside the lock

    def _check_open(self) -> None:
        if self._closed:
            raise BusUnavailableError("the bus was closed")

    def _known(self, topic: str) -> _Topic:
        try:
            return self._topics[topic]
        except KeyError:
            raise BusError(f"there is no topic {topic!r}; create it first") from None

    def _partition(self, slot: Slot) -> _Partition:
        return self._topics[slot[0]].partitions[slot[1]]

    def _wait_for(self, collect: Callable[[], list[Record]], timeout_s: float) -> list[Record]:
        with self._changed:
            self._check_open()
            deadline = time.monotonic() + timeout_s
            while not (found := collect()) and not self._closed:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            return found

    def _collect(self, slots: Sequence[Slot], positions: dict[Slot, int], max_records: int) -> list[Record]:
        """Up to ``max_records`` from the positions on, which advance.

        Each partition with records gets a share, so that a long one does not starve the others.
        """
        found: list[Record] = []
        waiting = [slot for slot in slots if positions[slot] < self._partition(slot).end]
        for turn, slot in enumerate(waiting):
            partition = self._partition(slot)
            share = -(-(max_records - len(found)) // (len(waiting) - turn))
            begin = max(positions[slot], partition.start)
            end = min(partition.end, begin + share)
            found.extend(partition.records[offset - partition.start] for offset in range(begin, end))
            positions[slot] = end
        return found

    def _check_sizes(self, outputs: Sequence[Outgoing]) -> None:
        for output in outputs:
            limit = self._known(output.topic).spec.max_message_bytes
            if limit is not None and _size(output) > limit:
                raise MessageTooLargeError(f"{_size(output)} bytes for {output.topic!r}, which takes at most {limit}")

    def _followed(self, topic: str) -> bool:
        """Whether a group or reader will make room in the topic."""
        first = (topic, 0)
        return any(first in group.committed for group in self._groups.values()) or any(
            first in positions for positions in self._readers.values()
        )

    def _wait_for_room(self, outputs: Sequence[Outgoing], timeout_s: float) -> None:
        needed: dict[str, tuple[int, int]] = {}
        for output in outputs:
            records, size = needed.get(output.topic, (0, 0))
            needed[output.topic] = (records + 1, size + _size(output))

        def fits() -> bool:
            return all(
                self._topics[name].records == 0
                or not self._followed(name)
                or (
                    self._topics[name].records + records <= self._capacity_records
                    and self._topics[name].bytes + size <= self._capacity_bytes
                )
                for name, (records, size) in needed.items()
            )

        if not self._changed.wait_for(lambda: self._closed or fits(), timeout_s):
            raise BackPressureError(f"{', '.join(needed)}: full of records that are not yet read")
        self._check_open()

    def _append(self, outputs: Sequence[Outgoing]) -> None:
        now = int(time.time() * 1000)
        for output in outputs:
            topic = self._topics[output.topic]
            index = zlib.crc32(output.key) % len(topic.partitions)
            partition = topic.partitions[index]
            partition.records.append(
                Record(output.topic, index, partition.end, output.key, output.value, output.headers, now)
            )
            topic.bytes += _size(output)
        for name in {output.topic for output in outputs}:
            if not self._followed(name):
                self._drop_oldest(self._topics[name])

    def _drop_oldest(self, topic: _Topic) -> None:
        while topic.records > self._capacity_records or (topic.bytes > self._capacity_bytes and topic.records > 1):
            longest = max(topic.partitions, key=lambda partition: len(partition.records))
            self._drop_first(topic, longest)

    @staticmethod
    def _drop_first(topic: _Topic, partition: _Partition) -> None:
        topic.bytes -= _size(partition.records.popleft())
        partition.start += 1

    def _drop_passed(self, topics: set[str]) -> None:
        for name in topics:
            topic = self._topics[name]
            for index, partition in enumerate(topic.partitions):
                slot = (name, index)
                positions = [group.committed[slot] for group in self._groups.values() if slot in group.committed]
                positions += [reader[slot] for reader in self._readers.values() if slot in reader]
                passed = min(positions, default=0)
                while partition.start < passed and partition.records:
                    self._drop_first(topic, partition)
        # Wakes publishers that wait for room.
        self._changed.notify_all()

    def _rebalance(self, state: _Group) -> None:
        """Assign the partitions of each topic round-robin to its members.

        Partitions of the same number go to the same member, so records of one key meet in one place.
        """
        state.generation += 1
        owners: dict[Slot, int] = {}
        for topic in {topic for topics in state.members.values() for topic in topics}:
            members = sorted(number for number, topics in state.members.items() if topic in topics)
            for index in range(len(self._topics[topic].partitions)):
                owners[(topic, index)] = members[index % len(members)]
        for slot, owner in owners.items():
            if state.owners.get(slot) != owner:
                state.epochs[slot] = state.generation
        state.owners = owners
        self._changed.notify_all()


class MemoryMembership(Closing):
    """A member of a group of the memory bus."""

    def __init__(self, bus: MemoryBus, group: str, number: int) -> None:
        self._bus = bus
        self._group = group
        self._number = number
        self._progress = _MemberState()

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        return self._bus._poll_member(self._group, self._number, self._progress, max_records, timeout_s)

    def keep_alive(self) -> None:
        """Nothing to do: a member in the same process cannot be mistaken for dead."""

    def commit(self, outputs: Sequence[Outgoing], consumed: Sequence[Record]) -> None:
        self._bus._commit(self._group, self._number, self._progress, outputs, consumed)

    def confirm(self, records: Sequence[Record]) -> None:
        """Nothing to check: see ``keep_alive``."""

    def rewind(self) -> None:
        self._progress.positions.clear()

    def put_aside(self, partitions: Collection[Slot], seconds: float) -> None:
        self._progress.aside.update(dict.fromkeys(partitions, time.monotonic() + seconds))

    def committed(self, partitions: Sequence[Slot]) -> dict[Slot, int]:
        return self._bus._committed(self._group, partitions)

    def assigned(self) -> frozenset[Slot]:
        return self._bus._assigned(self._group, self._number)

    def lag(self, timeout_s: float = 1.0) -> dict[Slot, int]:
        return self._bus._lag(self._group, self._number)

    def silent_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self._bus._leave(self._group, self._number)


class MemoryPublisher(Closing):
    """Appends records from outside the groups."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def publish(self, outputs: Sequence[Outgoing], timeout_s: float = 30.0) -> None:
        self._bus._publish(outputs, timeout_s)

    def close(self) -> None:
        """Nothing is held."""


class MemoryReader(Closing):
    """Follows topics. Unread records are kept for it."""

    def __init__(self, bus: MemoryBus, number: int) -> None:
        self._bus = bus
        self._number = number

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        return self._bus._poll_reader(self._number, max_records, timeout_s)

    def at_end(self) -> bool:
        return self._bus._at_end(self._number)

    def positions(self) -> Positions:
        return self._bus._positions(self._number)

    def close(self) -> None:
        self._bus._forget_reader(self._number)


def _size(record: Outgoing | Record) -> int:
    return len(record.key) + len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
