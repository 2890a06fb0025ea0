"""The in-flight registry: the records that every worker has in hand, in Redis. ``shared.runtime.crash_guard`` reads it.

One hash a service. The field names a record by its coordinates. The value holds one entry for each worker process that
began a delivery attempt and never said how it ended: ``<process>s`` in a shared batch, ``<process>a`` alone. Entries
are better than a counter: a call that is repeated because its answer got lost counts once, and a worker that lost its
partitions while it was alive takes back its own entry and nobody else's.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import redis

from shared.bus.base import Committed, FencedError, Record, parsed_coordinates
from shared.contracts.errors import DependencyError
from shared.state.connection import FENCED, redis_faults
from shared.state.fences import Fences
from shared.state.keys import Keys

log = logging.getLogger(__name__)

#: Crashes, in a shared batch or alone, after which a record is handled alone.
SUSPECT_CRASHES: Final = 3
#: Fields of one command: Lua takes some 8000 arguments at most.
_CHUNK: Final = 1000
_TIDY_EVERY_S: Final = 15.0

#: Shared by both scripts. Few commands with many fields each: one a field would be written to the disk one by one.
_ENTRIES: Final = f"""
local function chunks(first, last, work)
  for start = first, last, {_CHUNK} do
    local fields = {{}}
    for i = start, math.min(start + {_CHUNK} - 1, last) do fields[#fields + 1] = ARGV[i] end
    work(fields)
  end
end
local function without(written, process)
  local others = ''
  for entry in string.gmatch(written or '', '%S+') do
    if string.sub(entry, 1, -2) ~= process then others = others .. entry .. ' ' end
  end
  return others
end
"""

#: KEYS: the hash, then the fences of the partitions. ARGV: process, flag, seconds to live, number of finished fields,
#: these, the epochs of the partitions, then the fields that begin. Returns field and entries of others, by turns, for
#: fields that have some.
_BEGIN: Final = f"""
{_ENTRIES}
local found, finished, fences = {{}}, tonumber(ARGV[4]), #KEYS - 1
for i = 1, fences do
  if ARGV[4 + finished + i] ~= '' and redis.call('GET', KEYS[1 + i]) ~= ARGV[4 + finished + i] then
    return redis.error_reply('{FENCED} this worker no longer owns the partition of a record')
  end
end
chunks(5, 4 + finished, function(fields) redis.call('HDEL', KEYS[1], unpack(fields)) end)
chunks(5 + finished + fences, #ARGV, function(fields)
  local written, pairs = redis.call('HMGET', KEYS[1], unpack(fields)), {{}}
  for i, field in ipairs(fields) do
    local others = without(written[i], ARGV[1])
    if others ~= '' then
      found[#found + 1] = field
      found[#found + 1] = others
    end
    pairs[#pairs + 1] = field
    pairs[#pairs + 1] = others .. ARGV[1] .. ARGV[2]
  end
  redis.call('HSET', KEYS[1], unpack(pairs))
end)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return found
"""

#: KEYS: the hash. ARGV: process, then the fields that are put back.
_WITHDRAW: Final = f"""
{_ENTRIES}
chunks(2, #ARGV, function(fields)
  local written, pairs, gone = redis.call('HMGET', KEYS[1], unpack(fields)), {{}}, {{}}
  for i, field in ipairs(fields) do
    local others = without(written[i], ARGV[1])
    if others ~= '' then
      pairs[#pairs + 1] = field
      pairs[#pairs + 1] = others
    else
      gone[#gone + 1] = field
    end
  end
  if #pairs > 0 then redis.call('HSET', KEYS[1], unpack(pairs)) end
  if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
end)
return 0
"""


@dataclass(frozen=True, slots=True)
class Crashes:
    """How many delivery attempts of a record ended with the death of their worker: in a shared batch, and alone."""

    shared: int = 0
    alone: int = 0

    @property
    def total(self) -> int:
        return self.shared + self.alone

    @property
    def suspect(self) -> bool:
        return self.total >= SUSPECT_CRASHES


class InFlightRegistry(Protocol):
    """Delivery attempts of this worker, written down where they outlive it. One thread at a time."""

    def begin(self, records: Sequence[Record], alone: bool = False) -> Mapping[str, Crashes]:
        """A delivery attempt of these records begins. Returns their earlier crashes by coordinates, without zeros.

        Beginning the same again changes nothing. Raises DependencyError; FencedError if others own the partitions.
        """
        ...

    def finished(self, records: Sequence[Record]) -> None:
        """These are committed: they never come again. Written down with the next ``begin`` or ``flush``."""
        ...

    def withdraw(self) -> None:
        """What was begun and is not finished is put back, by a worker that lives. Best effort."""
        ...

    def flush(self) -> None:
        """Write down what is finished. Best effort."""
        ...

    def tidy(self, committed: Committed) -> None:
        """Remove what workers left that died after their commit. Called now and then. Raises DependencyError."""
        ...


class NoRegistry:
    """A registry that keeps nothing: inside one process, nothing outlives a crash."""

    def begin(self, records: Sequence[Record], alone: bool = False) -> Mapping[str, Crashes]:
        return {}

    def finished(self, records: Sequence[Record]) -> None:
        pass

    def withdraw(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def tidy(self, committed: Committed) -> None:
        pass


class RedisInFlightRegistry:
    """The attempts of one worker process of a service, or of one of its lanes. ``fences`` are those of the service.

    A batch costs one round trip: finished records leave with the next batch. A worker that lost the partitions of a
    batch cannot begin it, because nobody would remove what it writes down.
    """

    def __init__(self, client: redis.Redis, keys: Keys, service: str, ttl_s: int, fences: Fences | None = None) -> None:
        self._fences = fences or Fences(keys, service)
        self._redis = client
        self._key = keys.in_flight(service)
        self._ttl_s = ttl_s
        self._process = uuid.uuid4().hex[:12]
        self._begin: Any = client.register_script(_BEGIN)
        self._withdraw: Any = client.register_script(_WITHDRAW)
        self._next_tidy = time.monotonic() + _TIDY_EVERY_S
        self._open: tuple[str, ...] = ()
        self._alone = False
        self._found: dict[str, Crashes] = {}
        self._finished: tuple[str, ...] = ()

    def begin(self, records: Sequence[Record], alone: bool = False) -> Mapping[str, Crashes]:
        coordinates = tuple(record.coordinates for record in records)
        if coordinates == self._open and alone == self._alone:
            return self._found
        # Before the call: should only its answer get lost, there is something to withdraw.
        self._open, self._alone, self._found = coordinates, alone, {}
        finished = self._finished
        fences = {self._fences.key(record): record.epoch for record in records}
        arguments = [self._process, "a" if alone else "s", self._ttl_s, len(finished), *finished]
        try:
            with redis_faults():
                answer = cast(
                    "list[str]",
                    self._begin(keys=[self._key, *fences], args=[*arguments, *fences.values(), *coordinates]),
                )
        except (DependencyError, FencedError):
            self.withdraw()
            raise
        self._finished = ()
        self._found = dict(zip(answer[::2], map(_crashes, answer[1::2]), strict=True))
        return self._found

    def finished(self, records: Sequence[Record]) -> None:
        committed = {record.coordinates for record in records}
        self._finished += tuple(committed)
        self._open = tuple(coordinates for coordinates in self._open if coordinates not in committed)

    def withdraw(self) -> None:
        given_back, self._open = self._open, ()
        if not given_back:
            return
        try:
            with redis_faults():
                self._withdraw(keys=[self._key], args=[self._process, *given_back])
        except DependencyError as error:
            # They count as one crash too many until they are committed.
            log.warning("records in hand could not be removed from the in-flight registry: %s", error)

    def flush(self) -> None:
        if not self._finished:
            return
        try:
            with redis_faults():
                self._redis.hdel(self._key, *self._finished)
            self._finished = ()
        except DependencyError as error:
            log.warning("finished records could not be removed from the in-flight registry yet: %s", error)

    def tidy(self, committed: Committed) -> None:
        """A record before the committed offset never comes again, so nobody would ever begin or finish it."""
        if time.monotonic() < self._next_tidy:
            return
        self._next_tidy = time.monotonic() + _TIDY_EVERY_S
        with redis_faults():
            written = cast("list[str]", self._redis.hkeys(self._key))
            places = {coordinates: parsed_coordinates(coordinates) for coordinates in written}
            offsets = committed(sorted({place[:2] for place in places.values()}))
            passed = [name for name, place in places.items() if place[2] < offsets.get(place[:2], 0)]
            for start in range(0, len(passed), _CHUNK):
                self._redis.hdel(self._key, *passed[start : start + _CHUNK])


def _crashes(entries: str) -> Crashes:
    flags = [entry[-1] for entry in entries.split()]
    return Crashes(shared=flags.count("s"), alone=flags.count("a"))
