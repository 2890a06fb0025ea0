"""The bus: the small interface every service and client speaks.

Three roles, no more:

* a :class:`Membership` is one worker's place in a consumer group. It polls records and commits units of work:
  the outputs and the offsets of the records they came from appear together or not at all;
* a :class:`Publisher` appends records from outside any group (a user, a replay tool);
* a :class:`Reader` follows topics without a group and without leaving a trace (``results --follow``).

``kafka/`` and ``memory.py`` implement them; ``tests/contract`` holds both to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

Headers = tuple[tuple[str, bytes], ...]

#: The committed offset of a consumer group by (topic, partition); see ``Membership.committed``.
Committed = Callable[[Sequence[tuple[str, int]]], Mapping[tuple[str, int], int]]

#: The offset of the next record by (topic, partition); see ``Reader.positions``.
Positions = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record on its way to a topic. ``key`` decides the partition; order is kept within a key."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a batch of records cannot be read, and the offset at which it begins to be unreadable."""

    first_offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read from a partition.

    ``timestamp_ms`` is the time of publishing, Unix epoch in ms.

    ``epoch`` is the ownership epoch in which a member received it. It ends when the partition leaves the member, and it
    is unique. It is empty if no partition can be lost unnoticed: inside one process, and for a reader. If
    ``unreadable`` is set, the record stands for an unreadable batch: ``offset`` is the last of the batch, ``value`` its
    raw bytes. It is committed like any other and never decoded.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Headers = ()
    timestamp_ms: int = 0
    epoch: str = ""
    unreadable: Unreadable | None = None

    @property
    def coordinates(self) -> str:
        """The position of the record, e.g. ``tonestream.requests/3@17``: the same at every redelivery."""
        return f"{self.topic}/{self.partition}@{self.offset}"

    def header(self, name: str) -> bytes | None:
        """The last header of that name, as Kafka's own clients read it; None if there is none."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


class UnreadableBatch(Exception):  # noqa: N818 (the name is what an operator reads)
    """The message about a record that stands for an unreadable batch."""

    def __init__(self, record: Record) -> None:
        damage = record.unreadable or Unreadable(record.offset, "no reason is known")
        offsets = (
            f"offset {record.offset}"
            if damage.first_offset == record.offset
            else f"offsets {damage.first_offset} to {record.offset}"
        )
        super().__init__(f"{record.topic}, partition {record.partition}, {offsets} cannot be read: {damage.reason}")


def parsed_coordinates(text: str) -> tuple[str, int, int]:
    """(topic, partition, offset) of a record's ``coordinates``. Raises ValueError."""
    topic, _, place = text.rpartition("/")
    partition, _, offset = place.partition("@")
    return topic, int(partition), int(offset)


#: On so many brokers a topic loses nothing that it acknowledged when one of them dies, and none of it waits.
SAFE_REPLICAS: Final = 3


@dataclass(frozen=True, slots=True)
class Durability:
    """How well a topic keeps what it acknowledged: on how many of the cluster's ``brokers`` each partition is, how many
    of them must have a record before it is acknowledged, and what removes records but their age."""

    brokers: int
    replicas: int
    min_insync_replicas: int
    compacted: bool
    unclean_elections: bool


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. ``retention_ms`` and ``max_message_bytes`` None: the broker's default.

    ``stamped_by_broker``: records carry the time of their arrival at the broker, not the publisher's timestamp.
    ``durability`` is found out of topics that exist, where the client may see it.
    """

    name: str
    partitions: int
    retention_ms: int | None = None
    max_message_bytes: int | None = None
    stamped_by_broker: bool = False
    durability: Durability | None = field(default=None, compare=False)


class BusError(Exception):
    """The bus cannot carry out the call."""


class BusUnavailableError(BusError):
    """The broker did not answer in time. Nothing is lost: the unit of work was not committed, try again."""


class BusSecurityError(BusError):
    """The brokers and this client do not trust or understand each other: a wrong user or password, an invalid
    certificate, TLS on one side only. Only a change of settings helps; the message names the setting."""


class FencedError(BusError):
    """This member lost its partitions (rebalance, zombie): its unit of work was dropped.

    ``rewind()`` and poll again. The new owner receives the records.
    """


class BackPressureError(BusError):
    """The bus stayed full for the time allowed. The caller must slow down."""


class MessageTooLargeError(BusError):
    """One record is larger than its topic allows. Every retry would fail as well."""


class Membership(Protocol):
    """One worker's place in a consumer group. Not thread-safe: one thread calls it."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """At most ``max_records`` committed records, in partition order; empty after ``timeout_s`` without any.

        Records polled and not yet committed are not delivered again by this membership unless ``rewind`` is
        called. Raises BusUnavailableError.
        """
        ...

    def keep_alive(self) -> None:
        """Stay in the group while a long unit of work runs; delivers nothing. Call every second or so."""
        ...

    def commit(self, outputs: Sequence[Outgoing], consumed: Sequence[Record]) -> None:
        """Publish ``outputs`` and mark ``consumed`` as done, as one unit, visible together or not at all.

        Raises FencedError if the records belong to another member by now, BackPressureError or BusUnavailableError if
        the time ran out, and MessageTooLargeError, which names the record. After any of these nothing of the unit is
        visible, with one exception: after BusUnavailableError the outcome may be unknown. Then ``rewind`` and poll: the
        records come again only if they were not committed.
        """
        ...

    def confirm(self, records: Sequence[Record]) -> None:
        """Ask the broker whether this member has owned the partitions of ``records`` without a break since it polled
        them. Raises FencedError if not, BusUnavailableError.
        """
        ...

    def rewind(self) -> None:
        """Forget what was polled and not committed: the next poll starts from the committed offsets."""
        ...

    def put_aside(self, partitions: Collection[tuple[str, int]], seconds: float) -> None:
        """Deliver nothing from these (topic, partition) pairs for this many ``seconds``; the others go on.

        Call it after ``rewind``. Pairs that were put aside earlier keep their own time.
        """
        ...

    def assigned(self) -> frozenset[tuple[str, int]]:
        """The (topic, partition) pairs this member owns at the moment."""
        ...

    def lag(self, timeout_s: float = 1.0) -> Mapping[tuple[str, int], int]:
        """How many records of each partition that this member owns its group has not committed.

        Raises BusUnavailableError.
        """
        ...

    def committed(self, partitions: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The group's committed offset of each of these partitions, owned by this member or not.

        Partitions without one are left out. Raises BusUnavailableError.
        """
        ...

    def silent_s(self) -> float:
        """Seconds since a broker last answered. Any thread may ask."""
        ...

    def close(self) -> None:
        """Leave the group within a few seconds. Uncommitted records go to the other members."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Publisher(Protocol):
    """Appends records from outside a group. Thread-safe."""

    def publish(self, outputs: Sequence[Outgoing], timeout_s: float = 30.0) -> None:
        """Return when all of ``outputs`` are stored; after an error some of them may be.

        Raises BackPressureError, BusUnavailableError, MessageTooLargeError.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Reader(Protocol):
    """Follows topics without a group. Not thread-safe."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """At most ``max_records`` committed records after those already returned; empty after ``timeout_s``."""
        ...

    def at_end(self) -> bool:
        """Whether everything that was committed at the time of this call has been returned."""
        ...

    def positions(self) -> Positions:
        """The offset after the last returned record of each partition: where another reader goes on.

        A partition is left out if it is read from its beginning and has returned nothing yet.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Bus(Protocol):
    """The connection settings, from which roles are made."""

    def create_topics(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> list[str]:
        """Create the missing topics; returns their names. Existing topics stay unchanged."""
        ...

    def existing(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """The existing ones of the topics: their partitions, and how they are set up if this client may see it."""
        ...

    def join(self, group: str, topics: Sequence[str]) -> Membership:
        """Join ``group``. A group without committed offsets starts at the beginning of each topic."""
        ...

    def publisher(self) -> Publisher: ...

    def reader(self, topics: Sequence[str], from_beginning: bool = True, positions: Positions | None = None) -> Reader:
        """A reader that begins at ``positions``; in partitions without one at their beginning or end.

        Where the records at a position are gone, it begins at the oldest that is left.
        """
        ...

    def close(self) -> None: ...
