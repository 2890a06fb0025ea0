"""Every key in Redis: its name, its type, who writes it and how long it lives. The one home of these names.

What belongs to requests under way is written by scripts that touch several keys at once. So all these keys carry one
hash tag: Redis Cluster keeps them in one slot. It is bounded by ``TONESTREAM_MAX_UNFINISHED`` and by how long a request
ID is remembered. What may grow without these bounds, the cached results and sources, carries none and spreads over all
nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key, as docs/architecture.md lists it. ``together``: it carries the installation's hash tag."""

    name: str
    type: str
    holds: str
    writers: str
    readers: str
    life: str
    together: bool = True


REQUEST: Final = Kind(
    "request:<request ID>",
    "hash",
    "the state of a request: `accepted_by`, `answered_by`, `closed`, its parts (`track`, `mood`, `failure`, `overdue`,"
    " `p<index>`, `s<index>`, `heard`, `trace`), `answer`, and what it holds on to (`follower:`, `work:`, `audio:`)",
    "ingestion, aggregator, `dead-letters replay`",
    "ingestion, aggregator",
    "`TONESTREAM_STATE_TTL_S` after the last write; parts until the request is closed",
)
WAITING: Final = Kind(
    "waiting",
    "sorted set",
    "announced requests without an answer, by the time at which they are overdue",
    "aggregator",
    "ingestion (how many there are), aggregator",
    "an entry until its request is closed",
)
WORK: Final = Kind(
    "work:<source or audio>",
    "string",
    "the request that leads this work; others that want the same follow it",
    "ingestion, aggregator",
    "ingestion",
    "until the leader is answered, `TONESTREAM_RESULT_DEADLINE_S` at most",
)
OWNERS: Final = Kind(
    "owners:<audio hash>",
    "set",
    "the requests that still need this decoded audio",
    "ingestion, aggregator",
    "ingestion, aggregator",
    "until the last of them is closed, `TONESTREAM_BLOB_TTL_S` at most",
)
FENCE: Final = Kind(
    "fence:<service>:<topic>:<partition>",
    "string",
    "the ownership epoch of the partition: writes on behalf of another epoch are refused",
    "every worker",
    "every script that writes on behalf of a record",
    "`TONESTREAM_STATE_TTL_S` after it was noted",
)
IN_FLIGHT: Final = Kind(
    "in-flight:<service>",
    "hash",
    "delivery attempts by the coordinates of their record, to find records that kill workers",
    "every worker",
    "every worker of the service",
    "an entry until its record is committed, `TONESTREAM_STATE_TTL_S` at most",
)
LOCK: Final = Kind(
    "lock:<audio hash>",
    "string",
    "who stores or removes this audio at the moment",
    "ingestion, aggregator",
    "ingestion, aggregator",
    "8 s after its last renewal",
)
LAYOUT: Final = Kind(
    "layout",
    "string",
    "the version of this table that the keys follow",
    "the first worker of a version",
    "workers, at their start",
    "for ever",
)
REPLICATED: Final = Kind(
    "replicated",
    "string",
    "a mark that is written before a commit, to wait until replicas have it (`TONESTREAM_REDIS_WAIT_REPLICAS`)",
    "every worker",
    "nobody",
    "an hour",
)
RESULT: Final = Kind(
    "result:<hash>",
    "string",
    "a finished answer, by all that it follows from",
    "aggregator",
    "ingestion",
    "`TONESTREAM_RESULT_TTL_S`",
    together=False,
)
SOURCE: Final = Kind(
    "source:<track key>",
    "string",
    "the validators (ETag, Last-Modified) of a URL, and the hash of its audio or why there is none",
    "ingestion",
    "ingestion",
    "`TONESTREAM_RESULT_TTL_S`",
    together=False,
)
REPLAYED: Final = Kind(
    "replayed:<dead letter>",
    "string",
    "when this dead letter was replayed",
    "`dead-letters replay`",
    "`dead-letters`",
    "30 days",
    together=False,
)

KINDS: Final = (REQUEST, WAITING, WORK, OWNERS, FENCE, IN_FLIGHT, LOCK, LAYOUT, REPLICATED, RESULT, SOURCE, REPLAYED)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation. With the prefix ``t``, ``request("ab12")`` is ``t:{t}:request:ab12``."""

    prefix: str

    def request(self, request_id: str) -> str:
        return self._together("request", request_id)

    def waiting(self) -> str:
        return self._together("waiting")

    def work(self, name: str) -> str:
        return self._together("work", name)

    def owners(self, sha256: str) -> str:
        return self._together("owners", sha256)

    def fence(self, service: str, topic: str, partition: int) -> str:
        return self._together("fence", service, topic, str(partition))

    def in_flight(self, service: str) -> str:
        return self._together("in-flight", service)

    def lock(self, name: str) -> str:
        return self._together("lock", name)

    def layout(self) -> str:
        return self._together("layout")

    def replicated(self) -> str:
        return self._together("replicated")

    def result(self, key: str) -> str:
        return f"{self.prefix}:result:{key}"

    def source(self, track_key: str) -> str:
        return f"{self.prefix}:source:{track_key}"

    def replayed(self, letter: str) -> str:
        return f"{self.prefix}:replayed:{letter}"

    def _together(self, *parts: str) -> str:
        return ":".join((self.prefix, f"{{{self.prefix}}}", *parts))
