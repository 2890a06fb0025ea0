"""Worker processes that crash, and the supervisor that starts them again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import redis

from shared.bus.base import Record
from shared.bus.memory import MemoryBus
from shared.contracts.topics import Channel
from shared.runtime.envelope import outgoing
from shared.state.connection import connect
from shared.state.in_flight import RedisInFlightRegistry
from shared.state.keys import Keys
from tests.support.loop_bench import PATIENT, TOPICS, Bench, Scripted, request

KEYS = Keys("t")


def client() -> redis.Redis:
    return connect(f"memory://{random.random()}")


def process(server: redis.Redis, service: str = "ingestion") -> RedisInFlightRegistry:
    """What one worker process writes down; another one stands for its successor."""
    return RedisInFlightRegistry(server, KEYS, service, 1000)


class Died(BaseException):
    """The process is gone."""


def live(bus: MemoryBus, service: Scripted, server: redis.Redis, until: Callable[[], bool]) -> bool:
    """One life of a worker process. True when it got where it should, False when it died."""
    membership = bus.join("g", [TOPICS.name(Channel.REQUESTS)])
    loop = Bench.loop_type(service, membership, TOPICS, PATIENT, in_flight=process(server))
    died = threading.Event()

    def run() -> None:
        try:
            loop.run()
        except Died:
            died.set()

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() and not until():
        thread.join(0.01)
    loop.stop()
    thread.join(5)
    return not died.is_set()


def supervise(service: Scripted, names: Sequence[str], keys: Sequence[str] = ("one",), lives: int = 200) -> Bench:
    """Restart the worker whenever it dies, until every request is answered."""
    bench = Bench(service)
    bench.loop._membership.close()
    for number, name in enumerate(names):
        bench.bus.publisher().publish([outgoing(TOPICS, request(name), key=keys[number % len(keys)])])
    server = client()
    counted = bench.bus.reader([TOPICS.name(Channel.TRACKS)])
    seen: list[Record] = []

    def all_answered() -> bool:
        seen.extend(counted.poll(1000, 0.0))
        return len(seen) >= len(names)

    for _ in range(lives):
        if live(bench.bus, service, server, all_answered) and all_answered():
            return bench
    raise AssertionError(f"{len(seen)} of {len(names)} answered after {lives} lives")
