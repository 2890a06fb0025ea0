"""Steps with records that tests of the Kafka bus share."""

from __future__ import annotations

import time

from shared.bus.base import Bus, Membership, Outgoing, Reader, Record

PATIENCE_S = 30.0


def publish_numbered(bus: Bus, topic: str, count: int, keys: int) -> None:
    """Records whose values number them from 0, under so many different keys."""
    with bus.publisher() as publisher:
        publisher.publish([Outgoing(topic, b"key-%d" % (n % keys), b"%d" % n) for n in range(count)])


def take(member: Membership, count: int, *alive: Membership) -> list[Record]:
    """Poll until there are ``count`` records; ``alive`` stay in the group meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    records: list[Record] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        for other in alive:
            other.keep_alive()
        records += member.poll(count - len(records), 0.2)
    return records


def all_of(reader: Reader) -> list[Record]:
    """All that is committed by now."""
    found: list[Record] = []
    while not reader.at_end():
        found += reader.poll(1000, 0.2)
    return found
