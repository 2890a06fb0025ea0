"""Real servers for the tests that need them, and a report that leaves no doubt about which tests ran.

``make test`` runs three processes, because tests on servers mostly wait. A folder of tests that share servers goes to
one of them, so that each process starts a server once at most. The longest go first, and the other tests then fill up
all processes, file by file.

A server that cannot be had skips the tests marked with it, one by one and with the reason. Where ``CI`` is set they
fail: nobody reads a skip there.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.kafka_broker import KafkaBroker, KafkaCluster, start_kafka
from tests.support.names import Names
from tests.support.processes import NotAvailableError
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer, start_redis
from tests.support.s3_server import S3Server, start_s3
from tests.support.secure_kafka import SecureBroker
from tests.support.secure_redis import SecureRedis

#: The folders of the tests that share servers.
_ON_SERVERS = ("integration", "chaos", "contract", "recipes")
#: Files in them that share none: they need none, or start some of their own, or only a Redis, which takes no time.
_APART = frozenset(
    f"tests/integration/test_{name}.py"
    for name in (
        "bench", "embedded", "hostile_inputs", "kafka_cluster", "package", "redis_failover", "resume", "s3_blobs",
        "serve", "servers_as_they_are", "telemetry", "volume", "webhooks",
    )
)  # fmt: skip
#: What takes longest, the longest first.
_FIRST = ("integration", "chaos", "tests/integration/test_bench.py", "contract", "recipes")

Server = TypeVar("Server", KafkaBroker, KafkaCluster, RedisServer, RedisCluster, S3Server)

#: Servers by name, as they were started or as they failed to.
_STARTED = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say what stays together in one process. (The marks that xdist offers for this do nothing under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            folder = Path(file).parts[1]
            return folder if folder in _ON_SERVERS and file not in _APART else file

        def _assign_work_unit(self, node: Any) -> None:
            # xdist sorts by the number of tests, but there are few of the longest ones.
            for scope in reversed(_FIRST):
                if scope in self.workqueue:
                    self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    return _Scheduling(config, log)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that runs inside the tests sets up its logging: on a standard error that ends with the test."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    before = {logger: (logger.level, logger.disabled) for logger in _loggers()}
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.handlers[:] = handlers
    for logger in _loggers():
        level, logger.disabled = before.get(logger, (logging.NOTSET, False))
        if logger.level != level:
            logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(one for one in known if isinstance(one, logging.Logger))]


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """A topic prefix and group names for one test."""
    return Names.unique(request.node.originalname)


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A real Apache Kafka. Tests that stop it bring it back before they end."""
    yield from _server(request.config, "kafka", start_kafka)


@pytest.fixture(scope="session")
def bootstrap_servers(kafka_broker: KafkaBroker) -> str:
    """Where the broker listens, ``host:port``."""
    return kafka_broker.bootstrap_servers


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A real Redis server. Tests that stop it bring it back before they end."""
    yield from _server(request.config, "redis", start_redis)


@pytest.fixture(scope="session")
def redis_cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """A real Redis Cluster of three nodes."""
    yield from _server(request.config, "redis cluster", RedisCluster)


@pytest.fixture(scope="module")
def kafka_cluster(request: pytest.FixtureRequest) -> Iterator[KafkaCluster]:
    """Three real brokers, for one module: they take memory. Tests that stop one bring it back before they end."""
    yield from _server(request.config, "kafka cluster", KafkaCluster)


@pytest.fixture(scope="module")
def replicated_redis(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """A real Redis Cluster whose masters have a replica each, for one module."""
    yield from _server(request.config, "redis cluster with replicas", lambda: RedisCluster(replicas=1))


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """A real S3 server."""
    yield from _server(request.config, "s3", start_s3)


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """Where the server listens, ``redis://host:port/0``."""
    return redis_server.url


@pytest.fixture(scope="session")
def secure_broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A real Apache Kafka with TLS and passwords; a SecureBroker."""
    folder = tmp_path_factory.mktemp("secure-kafka")
    yield from _server(request.config, "secure kafka", lambda: SecureBroker(folder))


@pytest.fixture(scope="session")
def secure_redis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis server with TLS and passwords; a SecureRedis."""
    folder = tmp_path_factory.mktemp("secure-redis")
    yield from _server(request.config, "secure redis", lambda: SecureRedis(folder))


def _server(config: pytest.Config, name: str, start: Callable[[], Server]) -> Iterator[Server]:
    server, reason = None, ""
    try:
        server = start()
    except NotAvailableError as error:
        reason = str(error)
    if server is None:
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (and CI is set: these tests must run)", pytrace=False)
        pytest.skip(reason)
    config.stash.setdefault(_STARTED, {})[name] = f"{server.version} via {server.way}"
    try:
        yield server
    finally:
        server.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between the processes as UTF-8, which some texts of the tests are not meant to be."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass the names of the started servers to the process that reports."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["started"] = session.config.stash.get(_STARTED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A test process has ended: note the servers that it started."""
    started = getattr(node, "workeroutput", {}).get("started", {})
    node.config.stash.setdefault(_STARTED, {}).update(started)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name each test that was not run, and say which tiers were."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("NOT RUN", sep="!", red=True, bold=True)
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.line(f"{report.nodeid}: {str(reason).removeprefix('Skipped: ')}")
    started = config.stash.get(_STARTED, {})
    servers = ", ".join(f"{name} {how}" for name, how in sorted(started.items())) or "no servers"
    terminalreporter.line(f"tiers: {_tiers(terminalreporter.stats) or 'none'} ({servers})")


def _tiers(stats: dict[str, list[Any]]) -> str:
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in stats.get(outcome, []):
            # A test reports its parts; its call counts, and what ended it before.
            if getattr(report, "when", None) == "call" or outcome in ("error", "skipped"):
                parts = Path(report.nodeid.split("::")[0]).parts
                tier = parts[1] if len(parts) > 2 else parts[0]
                counts.setdefault(tier, Counter())["not run" if outcome == "skipped" else outcome] += 1
    order = ["unit", "contract", "integration", "chaos", "browser"]
    known = sorted(counts, key=lambda tier: (order.index(tier) if tier in order else len(order), tier))
    return ", ".join(
        f"{tier} " + " ".join(f"{count} {outcome}" for outcome, count in counts[tier].items()) for tier in known
    )
