"""A master of a Redis Cluster dies: what a worker waited for is on the replica that takes its place."""

from __future__ import annotations

import time

import pytest
import redis

from shared.contracts.errors import DependencyError
from shared.state.connection import connect, redis_faults
from shared.state.keys import Keys
from shared.state.replicas import ReplicaBarrier
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

PATIENCE_S = 60.0
KEYS = Keys("failover")


def patiently(barrier: ReplicaBarrier) -> float:
    """As the loop does: again, until it is done; how long that took."""
    started = time.monotonic()
    while True:
        try:
            barrier.wait()
            return time.monotonic() - started
        except DependencyError:
            assert time.monotonic() - started < PATIENCE_S
            time.sleep(0.1)


def test_what_was_waited_for_survives_the_death_of_its_master_each_time(
    replicated_redis: RedisCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connect(replicated_redis.url, timeout_s=3.0)
    barrier = ReplicaBarrier(client, KEYS, 1)
    patiently(barrier)  # the replicas have just come
    recoveries = []
    for turn in range(2):
        for number in range(200):
            client.hset(KEYS.request(f"{turn}-{number}"), "accepted_by", str(number))
        barrier.wait()
        master = replicated_redis.master_of(KEYS.replicated())
        replicated_redis.kill_node(master)
        recoveries.append(patiently_written(client, turn))
        assert replicated_redis.master_of(KEYS.replicated()) != master
        kept = [client.hget(KEYS.request(f"{turn}-{number}"), "accepted_by") for number in range(200)]
        assert kept == [str(number) for number in range(200)]
        replicated_redis.start_node(master)
        patiently(barrier)  # it is a replica now, and has everything
    with capsys.disabled():
        print(f"\nRedis: {len(recoveries)} masters killed, written again after at most {max(recoveries):.1f} s")


def patiently_written(client: redis.Redis, turn: int) -> float:
    started = time.monotonic()
    while True:
        try:
            with redis_faults():
                client.set(KEYS.work(f"after-{turn}"), "1")
            return time.monotonic() - started
        except DependencyError:
            assert time.monotonic() - started < PATIENCE_S
            time.sleep(0.1)


def test_without_a_replica_nothing_is_taken_for_safe(redis_server: RedisServer) -> None:
    client = connect(redis_server.url)
    ReplicaBarrier(client, KEYS, 0).wait()
    with pytest.raises(DependencyError, match="0 of 1 replicas of Redis have what was written"):
        ReplicaBarrier(client, KEYS, 1).wait()


def test_a_server_that_takes_no_writes_for_want_of_replicas_is_waited_for(redis_server: RedisServer) -> None:
    client = connect(redis_server.url)
    client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(DependencyError, match="takes no writes at the moment: NOREPLICAS"), redis_faults():
            client.set(KEYS.work("x"), "1")
    finally:
        client.config_set("min-replicas-to-write", 0)
