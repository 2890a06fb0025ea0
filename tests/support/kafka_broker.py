"""A real Apache Kafka, one node without ZooKeeper, for tests and for trying things out.

The first of these that works:

1. ``KAFKA_BOOTSTRAP_SERVERS``: a broker that is there already;
2. Docker, with the image ``apache/kafka`` of the version in ``deploy/kafka/pom.xml``;
3. Java 17 or newer and Maven: Kafka's own jars, fetched once into a cache folder (``~/.cache/tonestream``, or where
   ``TONESTREAM_TEST_CACHE`` points).

``TONESTREAM_TEST_KAFKA`` limits the ways, e.g. ``java``; with ``java3`` it is a cluster of three nodes. By hand:
``python -m tests.support.kafka_broker --port 9092`` stays in the foreground until Ctrl-C.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tests.support.processes import (
    NotAvailableError,
    ProcessServer,
    Server,
    container_pid,
    docker_image,
    free_port,
    run,
    wait_for_port,
)

POM = Path(__file__).parents[2] / "deploy" / "kafka" / "pom.xml"
START_TIMEOUT_S = 150.0

#: One node, small and quick: no copies, few internal partitions, no waiting for more members.
_SETTINGS = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    "log.retention.check.interval.ms": "300000",
    # Expired transactions are looked for this often; the default of 10 s makes crash tests slow.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # Preallocated index files of many short-lived topics would fill the disk.
    "log.index.size.max.bytes": "1048576",
}


#: What differs on a cluster of three.
_REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


def _new_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


@dataclass(frozen=True)
class Node:
    """Which node of which cluster: ``controllers`` are the ports of all its controllers by their numbers. ``like`` is
    another one of them, of which nothing runs yet."""

    number: int
    controllers: Mapping[int, int]
    cluster: str = field(default_factory=_new_id)
    like: JavaBroker | None = None


def kafka_version() -> str:
    """The version of Kafka in ``deploy/kafka/pom.xml``, its one home."""
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)</version>", POM.read_text())
    if found is None:
        raise ValueError(f"{POM} names no kafka_2.13")
    return found.group(1)


class KafkaBroker(Server):
    """A broker that runs."""

    bootstrap_servers: str


class GivenBroker(KafkaBroker):
    """Somebody else's broker: it is used, never stopped."""

    way = "KAFKA_BOOTSTRAP_SERVERS"

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.version = ".".join(map(str, _wait_for_answer(bootstrap_servers)))

    def start(self) -> None:
        raise NotAvailableError("this broker was given by KAFKA_BOOTSTRAP_SERVERS; it cannot be restarted from here")

    stop = kill = start

    def close(self) -> None:
        """Not ours to end."""


class DockerBroker(KafkaBroker):
    """``apache/kafka`` in a container."""

    way = "docker"

    def __init__(self, port: int | None = None) -> None:
        self.version = kafka_version()
        image = f"apache/kafka:{self.version}"
        docker_image(image)
        self._port = port or free_port()
        self.bootstrap_servers = f"127.0.0.1:{self._port}"
        settings = _SETTINGS | {
            "listeners": f"PLAINTEXT://:{self._port},CONTROLLER://:29093",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": "1@localhost:29093",
            "log.dirs": "/tmp/kafka-logs",
        }
        command = ["docker", "run", "--detach", "--publish", f"127.0.0.1:{self._port}:{self._port}"]
        command += ["--label", "tonestream-test", "--env", "KAFKA_HEAP_OPTS=-Xmx512m"]
        for name, value in settings.items():
            command += ["--env", f"KAFKA_{name.upper().replace('.', '_')}={value}"]
        self._container = run([*command, image], timeout_s=60).strip()
        try:
            self._wait()
        except NotAvailableError as error:
            said = _logs(self._container)
            self.close()
            raise NotAvailableError(f"{error}; the container said: {said}") from None

    @property
    def pid(self) -> int | None:
        return container_pid(self._container)

    def start(self) -> None:
        run(["docker", "start", self._container], timeout_s=30)
        self._wait()

    def stop(self) -> None:
        run(["docker", "stop", "--time", "20", self._container], timeout_s=40)

    def kill(self) -> None:
        run(["docker", "kill", self._container], timeout_s=20)

    def close(self) -> None:
        run(["docker", "rm", "--force", "--volumes", self._container], timeout_s=30)

    def _wait(self) -> None:
        wait_for_port(self._port, None, None, START_TIMEOUT_S)
        _wait_for_answer(self.bootstrap_servers)


class JavaBroker(ProcessServer, KafkaBroker):
    """Kafka's own jars in a Java virtual machine of this computer.

    ``listeners`` are more addresses by the name of their security protocol (``SASL_SSL``), on free ports: see
    ``addresses``. ``more`` are more settings, ``users`` more options for formatting the storage (``--add-scram``).
    """

    way = "java"
    stop_patience_s = 40.0

    def __init__(
        self,
        port: int | None = None,
        listeners: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
        users: Sequence[str] = (),
        node: Node | None = None,
    ) -> None:
        self.version = kafka_version()
        java = _java()
        jars = _jars(self.version)
        self._port = port or free_port()
        self.bootstrap_servers = f"127.0.0.1:{self._port}"
        self._folder = Path(tempfile.mkdtemp(prefix="tonestream-kafka-"))
        self._log = self._folder / "broker.log"
        # The short start matters more here than the speed of a virtual machine that has warmed up.
        heap = ["-Xmx512m", "-Xms256m"] if node is None else ["-Xmx320m", "-Xms128m"]
        self._java = [java, *heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
        node = node or Node(1, {1: free_port()})
        #: ``host:port`` of each further listener, called by name as certificates have it.
        self.addresses = {name: f"localhost:{free_port()}" for name in listeners}
        advertised = {"PLAINTEXT": self.bootstrap_servers, **self.addresses}
        bound = ",".join(f"{name}://127.0.0.1:{address.split(':')[1]}" for name, address in advertised.items())
        protocols = ",".join(f"{name}:{name}" for name in advertised)
        settings = _SETTINGS | {
            "listeners": f"{bound},CONTROLLER://127.0.0.1:{node.controllers[node.number]}",
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "node.id": str(node.number),
            "controller.quorum.voters": ",".join(f"{id_}@127.0.0.1:{at}" for id_, at in node.controllers.items()),
            "log.dirs": str(self._folder / "data"),
            **(more or {}),
        }
        self._properties = self._folder / "server.properties"
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        try:
            if node.like is None:
                storage = ["kafka.tools.StorageTool", "format", "-t", node.cluster, "-c", str(self._properties)]
                run([*self._java, *storage, *users], timeout_s=START_TIMEOUT_S)
            else:
                self._format_like(node.like, node.number)
            if len(node.controllers) == 1:  # none answers before most of a cluster run
                self.start()
        except NotAvailableError:
            self.close()
            raise

    def _format_like(self, other: JavaBroker, number: int) -> None:
        """Format the storage as Kafka's tool did that of another node: the tool takes seconds."""
        data = self._folder / "data"
        shutil.copytree(other._folder / "data", data)
        meta = data / "meta.properties"
        kept = [line for line in meta.read_text().splitlines() if not line.startswith(("node.id", "directory.id"))]
        meta.write_text("\n".join([*kept, f"node.id={number}", f"directory.id={_new_id()}", ""]))

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it without waiting for it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)],
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own session: a Ctrl-C in the terminal ends the tests first, then the broker.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers. Raises NotAvailableError."""
        wait_for_port(self._port, self._process, self._log, START_TIMEOUT_S)
        _wait_for_answer(self.bootstrap_servers)

    def log_file(self, topic: str, partition: int) -> Path:
        """The first segment of a partition's log. To be written only while the broker is stopped."""
        return self._folder / "data" / f"{topic}-{partition}" / "00000000000000000000.log"

    def close(self) -> None:
        # What it stored is removed anyway: no reason to wait for a controlled shutdown.
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class KafkaCluster(KafkaBroker):
    """Three nodes, each a broker and a controller; every partition on all of them, and two hold what is acknowledged.

    Everything else is as Kafka comes: a killed broker is missed after 9 s.
    """

    way = "java, 3 nodes"

    def __init__(self, port: int | None = None) -> None:
        controllers = {number: free_port() for number in (1, 2, 3)}
        cluster = Node(1, controllers).cluster
        self.nodes: dict[int, JavaBroker] = {}
        try:
            for number in controllers:
                first = port if number == 1 else None
                node = Node(number, controllers, cluster, like=self.nodes.get(1))
                self.nodes[number] = JavaBroker(first, more=_REPLICATED, node=node)
            self.start()
        except NotAvailableError:
            self.close()
            raise
        self.bootstrap_servers = ",".join(node.bootstrap_servers for node in self.nodes.values())
        self.version = f"{kafka_version()} (3 nodes)"

    def start(self) -> None:
        for node in self.nodes.values():
            node.launch()
        for node in self.nodes.values():
            node.wait()

    def stop(self) -> None:
        # The last ones would wait for a majority that is gone.
        self.nodes[1].stop()
        self.kill()

    def kill(self) -> None:
        for node in self.nodes.values():
            node.kill()

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()

    def log_file(self, topic: str, partition: int) -> Path:
        raise NotAvailableError("a partition has three logs here")

    def controller(self) -> int:
        """The number of the node that leads the controllers at the moment."""
        with KafkaAdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            return int(admin.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"])

    def others_behind(self) -> int:
        """How many partitions have a replica that is not in sync."""
        with KafkaAdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            return sum(
                len(partition["isr_nodes"]) < len(partition["replica_nodes"])
                for topic in admin.describe_topics()
                for partition in topic["partitions"]
            )

    def wait_until_in_sync(self, timeout_s: float) -> None:
        """Whoever restarts one node after the other waits for this in between. Raises NotAvailableError."""
        deadline = time.monotonic() + timeout_s
        while self.others_behind():
            if time.monotonic() > deadline:
                raise NotAvailableError(f"replicas are still behind after {timeout_s:.0f} s")
            time.sleep(0.5)


def start_kafka(port: int | None = None) -> KafkaBroker:
    """The first way that works. NotAvailableError says why each one failed."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given and port is None:
        return GivenBroker(given)
    failures = []
    ways: dict[str, Callable[[int | None], KafkaBroker]] = {
        "docker": DockerBroker, "java": JavaBroker, "java3": KafkaCluster,
    }  # fmt: skip
    for way in os.environ.get("TONESTREAM_TEST_KAFKA", "docker,java").split(","):
        if way not in ways:
            failures.append(f"{way!r}: no such way")
            continue
        try:
            return ways[way](port)
        except NotAvailableError as error:
            failures.append(f"{way}: {error}")
    raise NotAvailableError("no Kafka broker: " + "; ".join(failures))


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise NotAvailableError(f"no Java: {error}") from None
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version.group(1)) < 17:
        raise NotAvailableError(f"Kafka needs Java 17 or newer, here is {said.splitlines()[0]}")
    return java


def _jars(version: str) -> Path:
    """The folder with Kafka's jars and all they need; fetched through Maven the first time."""
    cache = Path(os.environ.get("TONESTREAM_TEST_CACHE", Path.home() / ".cache" / "tonestream"))
    folder = cache / "kafka" / version
    if (folder / f"kafka_2.13-{version}.jar").exists():
        return folder
    # Fetched beside and renamed when complete: an interrupted download must not look like a finished one.
    folder.parent.mkdir(parents=True, exist_ok=True)
    fetched = Path(tempfile.mkdtemp(prefix="fetching-", dir=folder.parent))
    try:
        fetch = ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}", "-DincludeScope=runtime"]
        run(["mvn", "--batch-mode", "--quiet", "--file", str(POM), *fetch], timeout_s=600)
        shutil.rmtree(folder, ignore_errors=True)
        fetched.rename(folder)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return folder


def _wait_for_answer(bootstrap_servers: str) -> tuple[int, ...]:
    """The broker's version once it answers requests. It listens before it can, and may name nodes that do not yet."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with KafkaAdminClient(
                bootstrap_servers=bootstrap_servers,
                bootstrap_timeout_ms=int(max(1.0, deadline - time.monotonic()) * 1000),
                client_id="waiting",
            ) as admin:
                admin.list_topics()
                version: tuple[int, ...] = admin._manager.broker_version
                return version
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise NotAvailableError(f"{bootstrap_servers} does not answer: {error}") from None
            time.sleep(0.2)


def _logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", "--tail", "5", container], capture_output=True, text=True, check=False)
    return " / ".join((done.stdout + done.stderr).splitlines())


def main() -> None:
    """A broker in the foreground."""
    parser = argparse.ArgumentParser(description="Run a single-node Apache Kafka until Ctrl-C. Its data is not kept.")
    parser.add_argument("--port", type=int, default=9092)
    port = parser.parse_args().port
    try:
        broker = start_kafka(port)
    except NotAvailableError as error:
        raise SystemExit(str(error)) from None
    print(f"Apache Kafka {broker.version} via {broker.way} answers on {broker.bootstrap_servers}; Ctrl-C ends it.")
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    try:
        done.wait()
    except KeyboardInterrupt:
        print()
    finally:
        broker.close()


if __name__ == "__main__":
    main()
