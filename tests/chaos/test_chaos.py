"""Everything fails, again and again, and each request gets exactly one result: that of a quiet day.

``make chaos`` runs the storm at full length; with the other tests it is a short one. ``TONESTREAM_CHAOS_SEED`` repeats
the choices of a storm (not its timing).

Other servers bring other faults: ``TONESTREAM_TEST_KAFKA=java3`` is a cluster of three brokers, of which one dies, then
the one that leads the controllers, and at the end each is restarted in turn; ``TONESTREAM_CHAOS_REDIS=cluster`` is a
Redis Cluster whose masters die; ``TONESTREAM_CHAOS_BLOBS=s3`` a bucket that throttles, refuses and falls silent. With
``TONESTREAM_CHAOS_OLD`` the workers begin with the code in that folder, and are upgraded one by one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaError

from services.topology import SERVICE_NAMES
from shared.contracts.topics import Channel
from shared.settings import Settings
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.system.fault_points import FAULT_POINTS, VARIABLE
from tests.chaos.places import BlobPlace, Bucket, Disk
from tests.support.committed_offsets import commits_that_went_back
from tests.support.fleet import Fleet, Recoveries
from tests.support.kafka_broker import GivenBroker, KafkaBroker, KafkaCluster
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.proxy import SilentProxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import GivenRedis, RedisServer
from tests.support.s3_server import S3Server, TroubledS3
from tests.support.sources import PATIENCE, Source, sources
from tests.support.state import left_over
from tests.support.web_server import WebServer

LONG = os.environ.get("TONESTREAM_CHAOS") == "long"
pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(2400 if LONG else 600)]

#: The code of another version, whose workers are upgraded in the storm.
OLD = Path(os.environ["TONESTREAM_CHAOS_OLD"]) if os.environ.get("TONESTREAM_CHAOS_OLD") else None
SESSION_S = 6.0
PATIENCE_S = 900.0 if LONG else 240.0
#: After the last result: long enough for one too many to show up.
AFTERMATH_S = 5.0
#: How soon after its end a storm must be got over, and how soon a source of it is answered afterwards.
RECOVERED_S = 60.0
AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A storm: how many requests for how many pieces, how often a worker is killed, and for how long."""

    requests: int
    pieces: int
    lasts_s: float
    kill_every_s: tuple[float, float]
    fault_chance: float
    silent_s: float
    disk_full_s: float
    pauses_s: tuple[float, float]


PLAN = (
    Plan(300, 40, 200.0, (1.0, 2.0), 0.005, 20.0, 10.0, (SESSION_S + 3.0, 40.0))
    if LONG
    else Plan(40, 10, 45.0, (2.5, 3.5), 0.005, 6.0, 4.0, (SESSION_S + 3.0, SESSION_S + 6.0))
)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def blob_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own where this machine allows to mount one, else a folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tonestream-chaos", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield disk
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=False)


@pytest.fixture
def blobs(request: pytest.FixtureRequest) -> Iterator[BlobPlace]:
    """Where the workers keep audio: TONESTREAM_CHAOS_BLOBS=s3 puts it in a bucket."""
    if os.environ.get("TONESTREAM_CHAOS_BLOBS") != "s3":
        yield Disk(request.getfixturevalue("blob_disk"))
        return
    server: S3Server = request.getfixturevalue("s3_server")
    with TroubledS3(server.url) as proxy:
        yield Bucket(server, proxy)


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Iterator[RedisServer | RedisCluster]:
    """What holds the state: TONESTREAM_CHAOS_REDIS=cluster is a cluster whose masters have a replica each."""
    if os.environ.get("TONESTREAM_CHAOS_REDIS") != "cluster":
        yield request.getfixturevalue("redis_server")
        return
    cluster = RedisCluster(replicas=1)
    try:
        yield cluster
    finally:
        cluster.close()


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result must be the same on every run."""
    genre, mood = result["genre"], result["mood"]
    return {
        "status": result["status"],
        "errors": sorted((error["code"], error["stage"]) for error in result["errors"]),
        "genre": genre and [genre["label"], genre["model"], len(genre["segments"])],
        "mood": mood and [mood["label"], mood["source"], mood["model"]],
    }


def assert_equal(result: dict[str, Any], quiet: dict[str, Any]) -> None:
    assert told(result) == told(quiet), result["request_id"]
    for half in ("genre", "mood"):
        if quiet[half]:
            assert result[half]["probabilities"] == pytest.approx(quiet[half]["probabilities"], abs=1e-3)


class Reader:
    """Counts the committed results as they come, whatever the broker goes through."""

    def __init__(self, pipeline: Pipeline, recoveries: Recoveries) -> None:
        self.results: list[dict[str, Any]] = []
        self._recoveries = recoveries
        self._closing = threading.Event()
        self._consumer = pipeline.consumer(Channel.RESULTS)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, count: int, patience_s: float) -> float:
        """Until that many requests have a result; how long it took."""
        started = time.monotonic()
        while len({result["request_id"] for result in self.results}) < count:
            if time.monotonic() > started + patience_s:
                break
            time.sleep(0.2)
        return time.monotonic() - started

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._closing.is_set():
            try:
                for records in self._consumer.poll(timeout_ms=500).values():
                    for record in records:
                        self._recoveries.result()
                        self.results.append(json.loads(record.value))
            except KafkaError:
                time.sleep(0.5)


def publish_patiently(pipeline: Pipeline, requests: list[dict[str, Any]]) -> None:
    """The same requests again until the broker took them: a request ID that is known already makes no difference."""
    while True:
        try:
            pipeline.publish(requests)
            return
        except (KafkaError, AssertionError):
            time.sleep(1.0)


def test_each_request_has_exactly_one_result_and_the_right_one_whatever_fails(
    tmp_path: Path,
    blobs: BlobPlace,
    kafka_broker: KafkaBroker,
    state: RedisServer | RedisCluster,
    names: Names,
    web: WebServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get("TONESTREAM_CHAOS_SEED", random.randrange(10**6)))
    chance = random.Random(seed)
    asked = sources(web, PLAN.pieces)
    quiet = quiet_results(tmp_path / "quiet", kafka_broker, state, f"{names.prefix}-quiet", asked)

    port = int(state.url.rsplit(":", 1)[1].split("/")[0])
    with SilentProxy(port) as proxy:
        clustered = isinstance(state, RedisCluster)  # its nodes name each other, past any proxy
        folder = tmp_path / "storm"
        folder.mkdir()
        pipeline = Pipeline(
            folder, kafka_broker.bootstrap_servers, state.url if clustered else f"redis://127.0.0.1:{proxy.port}/0",
            names.prefix, redis_wait_replicas=str(int(clustered)),
            fetch_allow="127.0.0.1", blob_url=blobs.url, batch_records="8", max_unfinished="60",
            kafka_session_timeout_s=f"{SESSION_S:g}", kafka_transaction_timeout_s="5",
            # The old version answers with the models of this one, so that each request has one right result.
            models_dir=str(Settings().models_dir), **PATIENCE,
        )  # fmt: skip
        pipeline.environment.update(blobs.variables)
        pipeline.create_topics()
        pipeline.environment[VARIABLE] = ",".join(f"{point}={PLAN.fault_chance}" for point in FAULT_POINTS)
        requests = [
            # Half of them forced, so that there is work to do; the others come from the cache or follow.
            {"request_id": f"r{n:03d}", **asked[n % len(asked)].request, **({"force": True} if n % 2 else {})}
            for n in range(PLAN.requests)
        ]
        recoveries = Recoveries()
        storm: Counter[str] = Counter()
        with Fleet(folder, pipeline.environment, size=2, tree=OLD) as fleet:
            reader = Reader(pipeline, recoveries)
            publisher = threading.Thread(target=paced, args=(pipeline, requests), daemon=True)
            publisher.start()
            reader.wait_for(1, PATIENCE_S)
            rage(fleet, kafka_broker, state, proxy, blobs, chance, recoveries, storm, names.prefix)
            # Once more, and nothing fails any more: now the promise has to be kept.
            fleet.restart()
            recovered_s = reader.wait_for(PLAN.requests, PATIENCE_S)
            publisher.join(PATIENCE_S)
            settle(pipeline)
            time.sleep(AFTERMATH_S)
            pipeline.publish({"request_id": f"again-{n}", **source.request} for n, source in enumerate(asked))
            again_s = reader.wait_for(PLAN.requests + len(asked), PATIENCE_S)
            settle(pipeline)
            tidied(state, names.prefix, blobs)
            reader.close()
            results = reader.results
            logs = fleet.logs()
        storm.update({f"killed {service}": count for service, count in fleet.kills.items()})
        storm.update({f"died at {point}": count for point, count in fleet.fault_points().items()})
        counted = Counter(result["request_id"] for result in results)
        wanted = {request["request_id"]: asked[n % len(asked)] for n, request in enumerate(requests)}
        wanted |= {f"again-{n}": source for n, source in enumerate(asked)}
        lost = set(wanted) - set(counted)
        slowest, after = recoveries.slowest()
        left = leftovers(state, names.prefix, blobs)
        back = commits_that_went_back(kafka_broker.bootstrap_servers, names.prefix)
        with capsys.disabled():
            print(f"\nchaos: seed {seed}, {sum(fleet.deaths.values())} deaths of workers, faults {dict(storm)}")
            print(
                f"chaos: {len(wanted)} requests, {len(results)} results, {len(results) - len(counted)} doubled,"
                f" {len(lost)} lost, {len(back)} offsets went back; slowest recovery {slowest:.1f} s after {after};"
                f" all answered {recovered_s:.1f} s after the last restart,"
                f" {len(asked)} sources again in {again_s:.1f} s;"
                f" lag {dict(pipeline.lag())}, left over: { {kind: count for kind, count in left.items() if count} }"
            )
        assert not lost, (sorted(lost), pipeline.lag(), logs[-6000:])
        assert set(counted.values()) == {1}, counted.most_common(3)
        for result in results:
            assert_equal(result, quiet[wanted[result["request_id"]].name])
        assert not back
        assert recovered_s < RECOVERED_S
        assert again_s < AGAIN_S
        assert not pipeline.lag()
        assert not any(left.values()), left
        missing = set(SERVICE_NAMES) - {service for service, count in fleet.kills.items() if count}
        assert not missing or not LONG, f"never hit: {missing}"


def quiet_results(
    folder: Path, broker: KafkaBroker, server: RedisServer | RedisCluster, prefix: str, asked: list[Source]
) -> dict[str, dict[str, Any]]:
    """What each source is answered when nothing fails."""
    folder.mkdir()
    settings = {"fetch_allow": "127.0.0.1", **PATIENCE}
    with Pipeline(folder, broker.bootstrap_servers, server.url, prefix, **settings) as pipeline:
        pipeline.publish({"request_id": str(n), **source.request} for n, source in enumerate(asked))
        results = {result["request_id"]: result for result in pipeline.results(len(asked), PATIENCE_S)}
    found = {source.name: results[str(n)] for n, source in enumerate(asked)}
    for source in asked:
        assert (found[source.name]["status"] == "ok") == source.good, found[source.name]
    return found


def paced(pipeline: Pipeline, requests: list[dict[str, Any]]) -> None:
    """The requests, spread over the storm."""
    waves = 20
    size = -(-len(requests) // waves)
    for start in range(0, len(requests), size):
        publish_patiently(pipeline, requests[start : start + size])
        time.sleep(PLAN.lasts_s * 0.8 / waves)


def rage(
    fleet: Fleet,
    broker: KafkaBroker,
    server: RedisServer | RedisCluster,
    proxy: SilentProxy,
    blobs: BlobPlace,
    chance: random.Random,
    recoveries: Recoveries,
    storm: Counter[str],
    prefix: str,
) -> None:
    """Kill workers all the time, and meanwhile have the big faults one after the other."""
    over = threading.Event()

    def note(name: str) -> None:
        storm[name] += 1
        recoveries.fault(name)

    # Beside a cluster on the same machine everything takes longer. A record whose workers are killed eight times counts
    # as their killer (`shared.runtime.crash_guard`), and for one with a slow source that must not come by chance.
    pace = 2.0 if LONG and isinstance(broker, KafkaCluster) else 1.0

    def kill() -> None:
        turn = 0
        while not over.wait(pace * chance.uniform(*PLAN.kill_every_s)):
            # Each service in turn, and one at random in between.
            service = SERVICE_NAMES[turn // 2 % len(SERVICE_NAMES)] if turn % 2 else chance.choice(SERVICE_NAMES)
            fleet.kill(service, chance)
            recoveries.fault(f"kill of {service}")
            turn += 1

    def redis_falls_silent() -> None:
        note("Redis unreachable")
        proxy.silence()
        time.sleep(PLAN.silent_s)
        proxy.speak()

    def disk_fills_up() -> None:
        with blobs.broken() as what:
            note(what)
            time.sleep(PLAN.disk_full_s)

    def zombie() -> None:
        service = chance.choice(["ingestion", "aggregator", "aggregator", "genre-worker"])
        note(f"{service} paused beyond its session")
        fleet.pause(service, chance.uniform(*PLAN.pauses_s), chance)

    def grow() -> None:
        note("groups grown")
        for service in ("feature-extraction", "genre-worker"):
            fleet.grow(service)

    def shrink() -> None:
        note("groups shrunk")
        for service in ("feature-extraction", "genre-worker"):
            fleet.shrink(service)

    def broker_restarts() -> None:
        if isinstance(broker, KafkaCluster):
            broker.wait_until_in_sync(PATIENCE_S)
            note("a broker killed")
            number = chance.choice([*set(broker.nodes) - {broker.controller()}])
            bring_back(broker, number)
        elif not isinstance(broker, GivenBroker):
            note("broker restarted")
            broker.restart()

    def bring_back(cluster: KafkaCluster, number: int) -> None:
        cluster.nodes[number].kill()
        time.sleep(PLAN.silent_s)
        cluster.nodes[number].start()

    def controller_dies() -> None:
        if isinstance(broker, KafkaCluster):
            broker.wait_until_in_sync(PATIENCE_S)
            note("the controller killed")
            bring_back(broker, broker.controller())

    def brokers_restart_in_turn() -> None:
        if isinstance(broker, KafkaCluster):
            for number, node in broker.nodes.items():
                broker.wait_until_in_sync(PATIENCE_S)
                note(f"broker {number} of a rolling restart")
                node.restart()

    def redis_restarts() -> None:
        if isinstance(server, RedisCluster):
            note("the master of Redis killed")
            master = server.master_of(Keys(prefix).waiting())
            server.kill_node(master)
            time.sleep(2 * PLAN.silent_s)
            server.start_node(master)
        elif not isinstance(server, GivenRedis):
            note("Redis restarted")
            server.restart()

    def upgrade() -> None:
        if OLD is not None:
            services = list(SERVICE_NAMES)
            chance.shuffle(services)
            for service in services:
                note(f"{service} upgraded")
                fleet.upgrade(service)

    def zombies() -> None:
        sleepers = [threading.Thread(target=zombie, daemon=True) for _ in range(2)]
        for sleeper in sleepers:
            sleeper.start()
        for sleeper in sleepers:
            sleeper.join()

    big: list[Callable[[], None]] = [
        broker_restarts, grow, zombies, redis_restarts, zombie, redis_falls_silent, disk_fills_up, shrink, zombies,
    ]  # fmt: skip
    if isinstance(broker, KafkaCluster):
        big[2:2] = [controller_dies]
        big.append(brokers_restart_in_turn)
    if OLD is not None:
        big[4:4] = [upgrade]
    if isinstance(server, RedisCluster):
        big[big.index(redis_falls_silent)] = redis_restarts
    started = time.monotonic()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    for number, fault in enumerate(big):
        due = started + PLAN.lasts_s * (number + 0.5) / len(big)
        time.sleep(max(0.0, due - time.monotonic()))
        fault()
    time.sleep(max(0.0, started + PLAN.lasts_s - time.monotonic()))
    over.set()
    killer.join()


def settle(pipeline: Pipeline) -> None:
    """Wait until every group has read all there is for it."""
    deadline = time.monotonic() + PATIENCE_S
    while pipeline.lag() and time.monotonic() < deadline:
        time.sleep(1.0)


def tidied(server: RedisServer | RedisCluster, prefix: str, blobs: BlobPlace) -> None:
    """Wait until nothing is left over; the clean-up of dead workers is made up for every 15 s."""
    deadline = time.monotonic() + 90.0
    while any(leftovers(server, prefix, blobs).values()) and time.monotonic() < deadline:
        time.sleep(1.0)


def leftovers(server: RedisServer | RedisCluster, prefix: str, blobs: BlobPlace) -> dict[str, int]:
    """What the storm left behind."""
    return {**left_over(connect(server.url), Keys(prefix)), "blobs": blobs.left()}
