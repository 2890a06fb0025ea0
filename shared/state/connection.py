"""The connection to Redis, and the types of its faults."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import redis
import redis.lock
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from shared.bus.base import FencedError
from shared.contracts.errors import DependencyError
from shared.settings import SettingsError
from shared.system.tls_files import check_tls_files

_Error = TypeVar("_Error", bound=BaseException)

MEMORY_SCHEME = "memory://"
#: Before ``redis://`` and ``rediss://``: the server is one node of a Redis Cluster, which names the others.
CLUSTER_SCHEME: Final = "cluster+"
#: How long a server may take to say why it ends a TLS connection, seconds.
_ALERT_S: Final = 1.0
#: What a server says that may take writes again: it lacks replicas (``min-replicas-to-write``), cannot write to disk,
#: or is about to change its role.
_TAKES_NO_WRITES: Final = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "UNBLOCKED")
#: How a script begins its refusal to write on behalf of a record whose partition has another owner by now.
FENCED: Final = "FENCED"


def connect(url: str, timeout_s: float = 10.0) -> redis.Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; ``memory://NAME`` is a server inside this process.
    ``cluster+redis://`` and ``cluster+rediss://`` name a node of a Redis Cluster.

    ``timeout_s`` is the longest wait for an answer. Values come back as ``str``. Connects at the first command, but to
    a cluster at once: then raises DependencyError if it is away. Raises SettingsError for a URL with parameters that
    redis-py does not know, and for a certificate or key file that cannot be used.
    """
    if url.startswith(MEMORY_SCHEME):
        import fakeredis

        memory: redis.Redis = fakeredis.FakeRedis(server=_memory_server(url), decode_responses=True)
        return memory
    clustered = url.startswith(CLUSTER_SCHEME)
    url = url.removeprefix(CLUSTER_SCHEME)
    options = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    check_tls_files("redis_ssl", options.get("ssl_ca_certs"), options.get("ssl_certfile"), options.get("ssl_keyfile"))
    if clustered:
        return _cluster(url, timeout_s)
    client: redis.Redis = redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(5.0, timeout_s),
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),  # a connection that idled away is opened anew; the loop does the waiting
        # A master that became a replica: a new connection may find the new one under the same name.
        retry_on_error=[redis.exceptions.ReadOnlyError],
    )
    try:
        client.connection_pool.make_connection()  # does not connect yet
    except TypeError as error:
        known = ", ".join(sorted(options))
        raise SettingsError(f"redis_url: one of its parameters is not known to redis-py ({known})") from error
    return client


def _cluster(url: str, timeout_s: float) -> redis.Redis:
    """A client for all nodes of a cluster. Its commands are those of a single server's client.

    It connects at once. So a cluster that is away raises DependencyError here, and not at the first command.
    """
    with redis_faults():
        client: Any = redis.RedisCluster.from_url(
            url, decode_responses=True, socket_timeout=timeout_s, socket_connect_timeout=min(5.0, timeout_s)
        )
    return cast(redis.Redis, client)


def run_all(
    client: redis.Redis, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[str | int | float]]]
) -> None:
    """Run ``script`` once for each (keys, arguments): in one round trip, except on a cluster, whose pipelines take no
    scripts.
    """
    if isinstance(client, redis.RedisCluster):
        for keys, arguments in calls:
            script(keys=keys, args=arguments)
        return
    pipeline = client.pipeline(transaction=False)
    for keys, arguments in calls:
        script(keys=keys, args=arguments, client=pipeline)
    pipeline.execute()


def require_trust(client: redis.Redis) -> str | None:
    """Ask Redis for an answer, and raise DependencyError if only a change of settings would bring one: a wrong user
    or password, a certificate that does not hold. One that gives no answer is no reason, it may come back: then the
    fault is returned, and None if there is none.
    """
    try:
        client.ping()
        return None
    except redis.AuthenticationError as error:
        raise DependencyError(
            f"Redis does not accept the user and password of TONESTREAM_REDIS_URL: {error}"
        ) from error
    except redis.ResponseError as error:
        raise DependencyError(f"Redis does not answer as it should: {error}") from error
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        cause = _tls_fault(error) or _tls_refusal(client)
        if cause is not None:
            raise DependencyError(
                f"the TLS connection to Redis fails: {cause}; check TONESTREAM_REDIS_URL and _REDIS_SSL_CAFILE"
            ) from error
        return f"it gives no answer{_hint(error)}: {error}"


def _hint(error: BaseException) -> str:
    """What may be wrong, where the error does not say it: something listens there, and says nothing of use."""
    plain = _cause(error, OSError)
    return "" if isinstance(plain, socket.gaierror | ConnectionRefusedError) else " (does only one side speak TLS?)"


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    cause = _cause(error, ssl.SSLError)
    return None if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError) else cause


def _cause(error: BaseException, kind: type[_Error]) -> _Error | None:
    """The first error of ``kind`` among ``error`` and what led to it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


def _tls_refusal(client: redis.Redis) -> ssl.SSLError | None:
    """Why the server ends TLS connections, where it does so after the handshake: a client certificate is missing.

    With TLS 1.3 the client may send its first command before that alert arrives. It then finds a closed connection,
    and never reads the alert. Here nothing is sent.
    """
    pool: Any = getattr(client, "connection_pool", None)  # a cluster has one for each node
    if pool is None or not issubclass(pool.connection_class, redis.SSLConnection):
        return None
    connection: Any = pool.make_connection()
    connection.redis_connect_func = _only_listen
    try:
        connection.connect()
    except redis.RedisError as error:
        return _tls_fault(error)
    finally:
        connection.disconnect()
    return None


def _only_listen(connection: Any) -> None:
    connection._parser.on_connect(connection)
    connection.can_read(_ALERT_S)


@lru_cache(maxsize=8)
def _memory_server(url: str) -> Any:
    import fakeredis

    return fakeredis.FakeServer()


@contextlib.contextmanager
def redis_faults() -> Iterator[None]:
    """Within the block, faults of the server (not of the caller's commands) are DependencyError, and the refusal of a
    guarded script (``shared.state.fences``) is FencedError."""
    try:
        yield
    except (
        redis.ConnectionError,
        redis.TimeoutError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.LockError,
        redis.exceptions.NoPermissionError,
        redis.exceptions.ClusterError,
        redis.exceptions.RedisClusterException,  # no RedisError, unlike all others
    ) as error:
        raise DependencyError(f"Redis cannot be used: {error} (see TONESTREAM_REDIS_URL)") from error
    except redis.ResponseError as error:
        if FENCED in str(error):
            raise FencedError(f"Redis refused a write: {error}") from error
        if any(one in str(error) for one in _TAKES_NO_WRITES):
            raise DependencyError(f"Redis takes no writes at the moment: {error}") from error
        raise
