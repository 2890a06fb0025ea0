"""Waiting until replicas of Redis have what was written, so that a fail-over loses nothing that is committed."""

from __future__ import annotations

from typing import Any, Final

import redis

from shared.contracts.errors import DependencyError
from shared.state.connection import redis_faults
from shared.state.keys import Keys

#: How long the replicas get, seconds. It is shorter than the client's wait for an answer.
_TIMEOUT_S: Final = 2.0
#: How long the mark lives, seconds: it is of no use once it was waited for.
_MARK_S: Final = 3600


class ReplicaBarrier:
    """``wait`` returns when ``replicas`` replicas have everything that was written before, on any connection.

    Replication keeps the order of writes. So it is enough to write a mark, and to wait for that. What is written on
    behalf of a record lies in one slot of a cluster, hence on one master, and so does the mark.
    """

    def __init__(self, client: redis.Redis, keys: Keys, replicas: int) -> None:
        self._client = client
        self._key = keys.replicated()
        self._replicas = replicas

    def wait(self) -> None:
        """Raises DependencyError if too few replicas have it in time: what rests on it must not be committed."""
        with redis_faults():
            pipeline: Any = self._master().pipeline(transaction=False)
            pipeline.set(self._key, "1", ex=_MARK_S)
            pipeline.execute_command("WAIT", self._replicas, round(_TIMEOUT_S * 1000))
            try:
                _, reached = pipeline.execute()
            except redis.exceptions.MovedError as error:
                self._look_again()
                raise DependencyError(f"Redis is changing its master: {error}") from error
        if reached < self._replicas:
            raise DependencyError(
                f"{reached} of {self._replicas} replicas of Redis have what was written"
                " (TONESTREAM_REDIS_WAIT_REPLICAS); waiting for the others"
            )

    def _master(self) -> redis.Redis:
        """A client of the one server that holds the mark."""
        if isinstance(self._client, redis.RedisCluster):
            cluster: Any = self._client
            master: redis.Redis = cluster.get_redis_connection(cluster.get_node_from_key(self._key))
            return master
        return self._client

    def _look_again(self) -> None:
        if isinstance(self._client, redis.RedisCluster):
            cluster: Any = self._client
            cluster.nodes_manager.initialize()
