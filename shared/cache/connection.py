"""The connection to Redis, and how its faults are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import redis
import redis.lock
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.contracts.errors import DependencyError

MEMORY_SCHEME = "memory://"


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of keys: ``keys("result", "ab12")`` is ``tonestream:result:ab12``."""

    prefix: str

    def __call__(self, *parts: str) -> str:
        return ":".join((self.prefix, *parts))


def connect(url: str) -> redis.Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; ``memory://NAME`` is a server inside this process.

    Connects at the first command. Values come back as ``str``.
    """
    if url.startswith(MEMORY_SCHEME):
        import fakeredis

        memory: redis.Redis = fakeredis.FakeRedis(server=_memory_server(url), decode_responses=True)
        return memory
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=10.0,
        socket_connect_timeout=5.0,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),  # a connection that idled away is opened anew; the loop does the waiting
    )


@lru_cache(maxsize=8)
def _memory_server(url: str) -> Any:
    import fakeredis

    return fakeredis.FakeServer()


@contextlib.contextmanager
def redis_faults() -> Iterator[None]:
    """Within the block, faults of the server (not of the caller's commands) are DependencyError."""
    try:
        yield
    except (
        redis.ConnectionError,
        redis.TimeoutError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.LockError,
    ) as error:
        raise DependencyError(f"Redis cannot be used: {error}") from error
