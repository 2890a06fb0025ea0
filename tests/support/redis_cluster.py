"""A real Redis Cluster for tests: three nodes of this computer's ``redis-server``, without replicas."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from tests.support.processes import NotAvailableError, Server, end, free_port, run, wait_for_port
from tests.support.redis_server import START_TIMEOUT_S, redis_binary

_NODES = 3
_SLOTS = 16384


class RedisCluster(Server):
    """Three nodes on loopback; ``url`` names the first."""

    way = "redis-server, 3 nodes"

    def __init__(self) -> None:
        self._binary = redis_binary()
        self._folder = Path(tempfile.mkdtemp(prefix="tonestream-redis-cluster-"))
        self._ports = [free_port() for _ in range(_NODES)]
        # The bus port is the port and 10,000 by default, which may be more than there is.
        self._bus_ports = [free_port() for _ in range(_NODES)]
        self._processes: list[subprocess.Popen[bytes]] = []
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
        for port, bus_port in zip(self._ports, self._bus_ports, strict=True):
            folder = self._folder / str(port)
            folder.mkdir(exist_ok=True)
            command = [self._binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
            command += ["--cluster-enabled", "yes", "--cluster-port", str(bus_port), "--save", ""]
            with (self._folder / f"{port}.log").open("ab") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            self._processes.append(process)
            wait_for_port(port, process, self._folder / f"{port}.log", START_TIMEOUT_S)

    def stop(self) -> None:
        for process in self._processes:
            end(process)
        self._processes.clear()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unite(self) -> None:
        cli = shutil.which("redis-cli")
        if cli is None:
            raise NotAvailableError("redis-cli is not on the PATH")
        nodes = [f"127.0.0.1:{port}" for port in self._ports]
        run([cli, "--cluster", "create", *nodes, "--cluster-replicas", "0", "--cluster-yes"], timeout_s=60)
        deadline = time.monotonic() + START_TIMEOUT_S
        for port in self._ports:
            while "cluster_state:ok" not in run([cli, "-p", str(port), "cluster", "info"], timeout_s=10):
                if time.monotonic() > deadline:
                    raise NotAvailableError("the nodes do not form a cluster")
                time.sleep(0.2)
