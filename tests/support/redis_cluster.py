"""A real Redis Cluster for tests: three masters of this computer's ``redis-server``, with or without replicas."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from tests.support.processes import NotAvailableError, Server, end, free_port, run, wait_for_port
from tests.support.redis_server import START_TIMEOUT_S, redis_binary

_MASTERS = 3
#: Of a cluster with replicas: a master that is silent for so long is replaced.
_NODE_TIMEOUT_MS = 3000


class RedisCluster(Server):
    """Masters on loopback, each with so many ``replicas``; ``url`` names the first.

    Those with replicas keep an append-only file.
    """

    way = "redis-server, 3 masters"

    def __init__(self, replicas: int = 0) -> None:
        self._replicas = replicas
        self._binary = redis_binary()
        self._folder = Path(tempfile.mkdtemp(prefix="tonestream-redis-cluster-"))
        self._ports = [free_port() for _ in range(_MASTERS * (1 + replicas))]
        # The bus port is the port and 10,000 by default, which may be more than there is.
        self._bus_ports = [free_port() for _ in self._ports]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.url = f"cluster+redis://127.0.0.1:{self._ports[0]}/0"
        try:
            self.start()
            self._unite()
        except NotAvailableError:
            self.close()
            raise
        with redis.Redis(port=self._ports[0]) as client:
            self.version = str(client.info("server")["redis_version"])

    def start(self) -> None:
        for port in self._ports:
            self.start_node(port)

    def start_node(self, port: int) -> None:
        """Start the node at that port, with what it had."""
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        command = [self._binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command += ["--cluster-enabled", "yes", "--cluster-port", str(self._bus_ports[self._ports.index(port)])]
        if self._replicas:
            command += ["--cluster-node-timeout", str(_NODE_TIMEOUT_MS), "--appendonly", "yes"]
            command += ["--appendfsync", "always"]
        with (self._folder / f"{port}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._processes[port] = process
        wait_for_port(port, process, self._folder / f"{port}.log", START_TIMEOUT_S)

    def master_of(self, key: str) -> int:
        """The port of the master that holds the key at the moment."""
        with redis.RedisCluster("127.0.0.1", next(iter(self._processes))) as client:
            found: Any = client
            return int(found.get_node_from_key(key).port)

    def kill_node(self, port: int) -> None:
        """SIGKILL: what it had acknowledged and not passed on is gone, once a replica has taken its place."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self._processes.values():
            end(process)
        self._processes.clear()

    def kill(self) -> None:
        for port in list(self._processes):
            self.kill_node(port)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unite(self) -> None:
        cli = shutil.which("redis-cli")
        if cli is None:
            raise NotAvailableError("redis-cli is not on the PATH")
        nodes = [f"127.0.0.1:{port}" for port in self._ports]
        run(
            [cli, "--cluster", "create", *nodes, "--cluster-replicas", str(self._replicas), "--cluster-yes"],
            timeout_s=60,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        for port in self._ports:
            while "cluster_state:ok" not in run([cli, "-p", str(port), "cluster", "info"], timeout_s=10):
                if time.monotonic() > deadline:
                    raise NotAvailableError("the nodes do not form a cluster")
                time.sleep(0.2)
