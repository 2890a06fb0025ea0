"""A real Redis server for tests.

The first of these that works: ``TONESTREAM_TEST_REDIS_URL``, a server that is there already; ``redis-server`` on the
PATH; the same after installing it with apt, where this is root's machine and apt is there; Docker's ``redis`` image.
Ours keep an append-only file, so that they come back from a restart with what they knew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import redis

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

IMAGE = "redis:7-bookworm"
START_TIMEOUT_S = 20.0
_OPTIONS = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]


class RedisServer(Server):
    """A Redis that runs."""

    url: str


class GivenRedis(RedisServer):
    """Somebody else's server: it is used, never stopped."""

    way = "TONESTREAM_TEST_REDIS_URL"

    def __init__(self, url: str) -> None:
        self.url = url
        self.version = _version(url)

    def start(self) -> None:
        raise NotAvailableError("this Redis was given by its URL; it cannot be restarted from here")

    stop = kill = start

    def close(self) -> None:
        """Not ours to end."""


class LocalRedis(ProcessServer, RedisServer):
    """The ``redis-server`` of this computer."""

    way = "redis-server"

    def __init__(self, options: Sequence[str] = ()) -> None:
        """``options`` are more of ``redis-server``'s."""
        self._binary = redis_binary()
        self._port = free_port()
        self._options = [*_OPTIONS, *options]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._folder = Path(tempfile.mkdtemp(prefix="tonestream-redis-"))
        self._log = self._folder / "redis.log"
        try:
            self.start()
        except NotAvailableError:
            self.close()
            raise
        self.version = _version(self.url)

    def start(self) -> None:
        command = [self._binary, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_for_port(self._port, self._process, self._log, START_TIMEOUT_S)
        _version(self.url)

    def cli(self, *command: str) -> None:
        """Send one command, e.g. ``CONFIG SET``, as whoever needs no password."""
        with redis.Redis.from_url(self.url) as client:
            client.execute_command(*command)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class DockerRedis(RedisServer):
    """Redis in a container."""

    way = "docker"

    def __init__(self) -> None:
        docker_image(IMAGE)
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        publish = ["--publish", f"127.0.0.1:{self._port}:6379", "--label", "tonestream-test"]
        command = ["docker", "run", "--detach", *publish, IMAGE, "redis-server", *_OPTIONS]
        self._container = run(command, timeout_s=60).strip()
        try:
            self._wait()
        except NotAvailableError:
            self.close()
            raise
        self.version = _version(self.url)

    @property
    def pid(self) -> int | None:
        return container_pid(self._container)

    def start(self) -> None:
        run(["docker", "start", self._container], timeout_s=30)
        self._wait()

    def stop(self) -> None:
        run(["docker", "stop", self._container], timeout_s=30)

    def kill(self) -> None:
        run(["docker", "kill", self._container], timeout_s=20)

    def close(self) -> None:
        run(["docker", "rm", "--force", "--volumes", self._container], timeout_s=30)

    def _wait(self) -> None:
        wait_for_port(self._port, None, None, START_TIMEOUT_S)
        _version(self.url)


def start_redis() -> RedisServer:
    """The first way that works. NotAvailableError says why each one failed."""
    given = os.environ.get("TONESTREAM_TEST_REDIS_URL")
    if given:
        return GivenRedis(given)
    failures = []
    for way in (LocalRedis, DockerRedis):
        try:
            return way()
        except NotAvailableError as error:
            failures.append(f"{way.way}: {error}")
    raise NotAvailableError("no Redis server: " + "; ".join(failures))


def redis_binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotAvailableError("redis-server is not on the PATH, and this is not root with apt")
        run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "redis-server"], timeout_s=180)
        found = shutil.which("redis-server")
    if found is None:
        raise NotAvailableError("redis-server is not on the PATH, not even after installing it")
    return found


def _version(url: str) -> str:
    """The server's version, once it has loaded its data and answers."""
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), retries=int(START_TIMEOUT_S * 10))
    errors = [redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError]
    try:
        with redis.Redis.from_url(url, retry=retry, retry_on_error=errors, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])
    except redis.exceptions.RedisError as error:
        raise NotAvailableError(f"{url} does not answer: {error}") from None
