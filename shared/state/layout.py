"""Moves what an older version kept in Redis to the keys of this one, once.

Version 1 kept the state of a request in seven kinds of keys without a hash tag. A worker that found only the new keys
would know nothing of requests under way. So the first worker of this version moves them before it starts. Workers of
the older version must have ended by then: they would go on in the keys of theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, cast

import redis

from shared.contracts.errors import DependencyError
from shared.state.connection import redis_faults
from shared.state.keys import Keys
from shared.state.requests import ACCEPTED_BY, ANSWER, ANSWERED_BY, AUDIO, CLOSED, FOLLOWER, HEARD, WORK

log = logging.getLogger(__name__)

VERSION: Final = "2"

_LOCK_S: Final = 600.0
_CLOSED_PREFIX: Final = "closed "
_SINGLE_PARTS: Final = frozenset({"track", "mood", "failure", "overdue"})


class NewerStateError(DependencyError):
    """Redis holds the state of a newer version of Tonestream, whose keys this one would misread."""

    EXIT_STATUS: Final = 66


def bring_up_to_date(client: redis.Redis, keys: Keys) -> int:
    """Move the keys of version 1, unless that is done. Returns how many there were. Raises DependencyError, and
    NewerStateError if a newer version has moved them on.

    It may be interrupted and repeated: a key is removed after it was moved.
    """
    with redis_faults():
        if _is_up_to_date(client, keys):
            return 0
        with client.lock(keys.lock("layout"), timeout=_LOCK_S, blocking_timeout=_LOCK_S):
            if _is_up_to_date(client, keys):
                return 0
            moved = _move_all(client, keys)
            client.set(keys.layout(), VERSION)
    if moved:
        log.info("moved the state of an older version", extra={"keys": moved})
    return moved


def _move_all(client: redis.Redis, keys: Keys) -> int:
    moved = 0
    for key, request_id in _old(client, keys, "request"):
        moved += _move(client, key, keys.request(request_id), {ACCEPTED_BY: str(client.get(key) or "")})
    for key, request_id in _old(client, keys, "answered"):
        holder = str(client.get(key) or "")
        fields = {ANSWERED_BY: holder.removeprefix(_CLOSED_PREFIX)}
        if holder.startswith(_CLOSED_PREFIX):
            fields[CLOSED] = "1"
        moved += _move(client, key, keys.request(request_id), fields)
    for key, request_id in _old(client, keys, "votes"):
        parts = cast("dict[str, str]", client.hgetall(key))
        heard = len(parts.keys() - _SINGLE_PARTS)
        moved += _move(client, key, keys.request(request_id), {**parts, **({HEARD: str(heard)} if heard else {})})
    for key, request_id in _old(client, keys, "outcome"):
        moved += _move(client, key, keys.request(request_id), {ANSWER: str(client.get(key) or "")})
    for kind, field in (("followers", FOLLOWER), ("audio", AUDIO)):
        for key, request_id in _old(client, keys, kind):
            members = cast("set[str]", client.smembers(key))
            moved += _move(client, key, keys.request(request_id), {f"{field}{member}": "1" for member in members})
    for key, request_id in _old(client, keys, "leads"):
        works = [work.removeprefix(f"{keys.prefix}:work:") for work in cast("set[str]", client.smembers(key))]
        moved += _move(client, key, keys.request(request_id), {f"{WORK}{keys.work(work)}": "1" for work in works})
    for key, work in _old(client, keys, "work"):
        client.set(keys.work(work), str(client.get(key) or ""), px=max(1, client.pttl(key)))
        moved += client.delete(key)
    for key, sha256 in _old(client, keys, "owners"):
        client.sadd(keys.owners(sha256), *cast("set[str]", client.smembers(key)))
        client.pexpire(keys.owners(sha256), max(1, client.pttl(key)))
        moved += client.delete(key)
    waiting = cast("list[tuple[str, float]]", client.zrange(f"{keys.prefix}:waiting", 0, -1, withscores=True))
    if waiting:
        client.zadd(keys.waiting(), dict(waiting))
        moved += client.delete(f"{keys.prefix}:waiting")
    # Delivery attempts and ownership epochs of workers that have ended are of no use.
    for kind in ("handling", "fence", "lock"):
        for key, _ in _old(client, keys, kind):
            moved += client.delete(key)
    return moved


def require_own_layout(client: redis.Redis, keys: Keys) -> None:
    """Raises NewerStateError if Redis holds the state of a newer version, DependencyError if it cannot be asked."""
    with redis_faults():
        _is_up_to_date(client, keys)


def _is_up_to_date(client: redis.Redis, keys: Keys) -> bool:
    found = str(client.get(keys.layout()) or "")
    if found == VERSION:
        return True
    # Whatever else stands there, an older version did not write it: version 1 wrote nothing.
    if found:
        raise NewerStateError(
            f"Redis holds the state of a newer version of Tonestream (layout {found[:20]!r}, and this one reads"
            f" {VERSION}): upgrade this service, or give it another TONESTREAM_REDIS_PREFIX"
        )
    return False


def _old(client: redis.Redis, keys: Keys, kind: str) -> Iterator[tuple[str, str]]:
    """The keys of a kind in version 1, each with what its name ends in."""
    start = f"{keys.prefix}:{kind}:"
    for key in client.scan_iter(f"{start}*", count=1000):
        yield str(key), str(key).removeprefix(start)


def _move(client: redis.Redis, key: str, request: str, fields: dict[str, str]) -> int:
    """Add the fields to the request's hash, which lives as long as the longest-lived of its old keys."""
    life_ms = client.pttl(key)
    if fields and life_ms != -2:
        client.hset(request, items=[text for pair in fields.items() for text in pair])
        client.pexpire(request, max(life_ms, client.pttl(request), 1))
    return client.delete(key)
