"""Who owns each partition, noted where every write to Redis can see it.

A worker may be stopped at any instruction and go on minutes later, when its partitions have long been others'. Kafka
refuses its commit then, but Redis would take whatever it writes before the commit. So each script that writes on behalf
of a record first compares the record's ownership epoch with the one that is noted for its partition, and refuses to
write where they differ.

An epoch is noted first and confirmed by the broker afterwards (``Membership.confirm``). So whoever has it confirmed
owned the partition when it was noted, and any later owner notes its own epoch later. A stale worker may note its epoch
too late and thereby lock out the owner; it is not confirmed, and the owner, refused once, notes its own again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import redis

from shared.bus.base import Record
from shared.state.connection import FENCED, redis_faults
from shared.state.keys import Keys

#: How a script begins that writes on behalf of a record. KEYS[1]: the fence, ARGV[1]: the record's epoch.
GUARD: Final = f"""
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('{FENCED} this worker no longer owns the partition of the record')
end
"""


class Fences:
    """The fences of one service: each of its partitions has one."""

    def __init__(self, keys: Keys, service: str) -> None:
        self._keys = keys
        self._service = service

    def key(self, record: Record) -> str:
        """The fence that ``GUARD`` compares with ``record.epoch``."""
        return self._keys.fence(self._service, record.topic, record.partition)


class FenceKeeper:
    """Notes the epochs of this worker."""

    def __init__(self, client: redis.Redis, fences: Fences, ttl_s: int) -> None:
        self._redis = client
        self._fences = fences
        self._ttl_s = ttl_s
        self._noted: dict[str, str] = {}

    def note(self, records: Sequence[Record]) -> bool:
        """Note the epochs of the records' partitions. Whether any is new: it must be confirmed before anything is
        written on its behalf. Raises DependencyError.
        """
        epochs = {self._fences.key(record): record.epoch for record in records if record.epoch}
        new = {key: epoch for key, epoch in epochs.items() if self._noted.get(key) != epoch}
        if new:
            with redis_faults():
                pipeline = self._redis.pipeline(transaction=False)
                for key, epoch in new.items():
                    pipeline.set(key, epoch, ex=self._ttl_s)
                pipeline.execute()
            self._noted |= new
        return bool(new)

    def forget(self) -> None:
        """A write was refused, or an epoch was not confirmed: note them all again before the next one."""
        self._noted.clear()
