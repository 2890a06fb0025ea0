"""A worker process: the services of one stage on Kafka, until a signal asks it to stop."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NoReturn

import redis

from shared.bus.base import Bus, Membership
from shared.bus.connect import kafka_bus
from shared.contracts.errors import DependencyError
from shared.contracts.messages import Stage
from shared.contracts.topics import Topics
from shared.runtime.arrival import AwayError, StoppedEarlyError, wait_for
from shared.runtime.dead_letters import DeadLetterLimitError
from shared.runtime.health import Contact, HealthServer, Pulses
from shared.runtime.loop import ServiceLoop
from shared.runtime.loops import LoopThread, loop_class
from shared.runtime.policy import LoopPolicy
from shared.runtime.redaction import Redactor
from shared.runtime.service import AnyService
from shared.runtime.stopping import StopRequest
from shared.runtime.watchdog import Attendance, Watchdog
from shared.settings import Settings
from shared.state.connection import connect, require_trust
from shared.state.fences import FenceKeeper, Fences
from shared.state.in_flight import RedisInFlightRegistry
from shared.state.keys import Keys
from shared.state.layout import NewerStateError, bring_up_to_date
from shared.state.probe import RedisProbe
from shared.state.replicas import ReplicaBarrier

log = logging.getLogger(__name__)

OK: Final = 0
#: Kafka is away when it gave no answer for so long: a member that waits for a rebalance asks every 10 s.
_KAFKA_SILENT_S: Final = 12.0
#: Redis is asked every 2 s, and given 3 s to answer.
_REDIS_SILENT_S: Final = 8.0
_PROBE_TIMEOUT_S: Final = 3.0


def run_worker(stage: Stage, settings: Settings, build: Callable[[], list[AnyService]]) -> int:
    """Run the services that ``build`` makes, each in its own consumer group, until SIGTERM or SIGINT.

    At a stop, work that can finish within a few seconds is finished and committed. The rest is left to other workers,
    and the groups are left.

    The worker waits for a Kafka or Redis that is away. Raises BusSecurityError and DependencyError for settings with
    which they will never answer. Returns the exit status: 0, or that of DeadLetterLimitError. In the latter case the
    worker has left its groups, says why on its health endpoint, and ends only after a pause: restarted at once it would
    do the same again. Threads may still be busy with abandoned work, so end the process with ``end_process``.
    """
    worker = _Worker(stage, settings, build)
    worker.stopping.listen()
    with worker:
        status = worker.run()
    log.info("stopped", extra={"service": stage.value})
    return status


def end_process(status: int) -> NoReturn:
    """End the process now. An orderly exit would wait for the threads of every pool, and one of them may be in the
    middle of a long measurement whose outcome nobody wants any more."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Worker:
    """All that a worker process holds. Nothing takes time before ``run``, so a worker that is asked to stop while
    it loads its model stops too."""

    def __init__(self, stage: Stage, settings: Settings, build: Callable[[], list[AnyService]]) -> None:
        self._stage = stage
        self._build = build
        self._settings = settings
        self._topics = Topics(settings.topic_prefix)
        self._keys = Keys(settings.redis_prefix)
        self._pulses = Pulses()
        self.stopping = StopRequest(self._pulses.stop_asked)
        self._ended = threading.Event()  # a loop has
        self._loops: list[ServiceLoop] = []
        self._held = ExitStack()

    def __enter__(self) -> None:
        settings = self._settings
        self._held.callback(Watchdog(self._pulses, settings.stall_timeout_s).close)
        if settings.health_port:
            health = HealthServer(
                self._pulses,
                settings.health_host,
                settings.health_port,
                settings.health_stale_s,
                settings.stall_timeout_s,
            )
            self._held.callback(health.close)

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def run(self) -> int:
        """Start, work, stop. Returns the exit status."""
        bus = kafka_bus(self._settings, client_id=f"tonestream-{self._stage.value}")
        self._held.callback(bus.close)
        services: list[AnyService] = []
        try:
            client = wait_for("Redis", self._connected, self._pulses.first, self.stopping)
            services += self._build()
            memberships = self._started(services, client, bus)
        except StoppedEarlyError:
            for service in services:
                service.close()
            log.info("stopped before it started", extra={"service": self._stage.value})
            return OK
        self._watch(memberships)
        for number, (service, membership) in enumerate(zip(services, memberships, strict=True)):
            self._loops.append(self._loop(service, membership, client, first=not number))
        threads = [LoopThread(loop, one.name, self._ended) for loop, one in zip(self._loops, services, strict=True)]
        for thread in threads:
            thread.start()
        log.info("started", extra={"service": self._stage.value})
        self.stopping.wait(math.inf, self._ended.is_set)
        if self.stopping.is_set():
            log.info("stopping", extra={"signal": self.stopping.name})
        # A worker runs as a whole or not at all: if one of its loops has ended, the others end too.
        for loop in self._loops:
            loop.stop()
        for thread in threads:
            thread.join()
        return self._status([thread.error for thread in threads if thread.error is not None])

    def _connected(self) -> redis.Redis:
        """A client for Redis. Raises AwayError for a cluster that gives no answer; a single server is asked later."""
        try:
            return connect(self._settings.redis_url.get_secret_value())
        except DependencyError as error:
            raise AwayError(str(error)) from error

    def _started(self, services: list[AnyService], client: redis.Redis, bus: Bus) -> list[Membership]:
        """The place of each service in its group, once Redis and Kafka answer. Raises StoppedEarlyError."""

        def redis_answers() -> None:
            if (fault := require_trust(client)) is not None:
                raise AwayError(fault)

        def moved() -> None:
            try:
                bring_up_to_date(client, self._keys)
            except NewerStateError:
                raise
            except DependencyError as error:
                raise AwayError(str(error)) from error

        def others_answer() -> None:
            for service in services:
                if (fault := service.away()) is not None:
                    raise AwayError(fault)

        def joined() -> list[Membership]:
            with _closed_on_failure() as memberships:
                for service in services:
                    inputs = [self._topics.name(channel) for channel in service.inputs]
                    memberships.append(bus.join(self._topics.group(service.name), inputs))
            return memberships

        wait_for("Redis", redis_answers, self._pulses.first, self.stopping)
        wait_for("Redis", moved, self._pulses.first, self.stopping)
        wait_for("the blob store", others_answer, self._pulses.first, self.stopping)
        for service in services:
            service.start()
        return wait_for("Kafka", joined, self._pulses.first, self.stopping)

    def _watch(self, memberships: list[Membership]) -> None:
        client = connect(self._settings.redis_url.get_secret_value(), _PROBE_TIMEOUT_S)
        probe = RedisProbe(client, self._keys, self._end_before_misreading)
        self._held.callback(probe.close)
        self._pulses.first.watch(
            Contact("Kafka", lambda: max(one.silent_s() for one in memberships), _KAFKA_SILENT_S),
            Contact("Redis", probe.silent_s, _REDIS_SILENT_S),
        )
        self._held.callback(Attendance(self._pulses).close)

    def _end_before_misreading(self, error: NewerStateError) -> None:
        """End at once, as if killed: what is in hand goes to workers that read the state."""
        log.critical("%s", error, extra={"service": self._stage.value})
        end_process(NewerStateError.EXIT_STATUS)

    def _loop(self, service: AnyService, membership: Membership, client: redis.Redis, first: bool) -> ServiceLoop:
        settings = self._settings
        policy = LoopPolicy(
            batch_records=service.window(settings),
            retry_attempts=settings.retry_attempts,
            retry_budget_s=settings.retry_budget_s,
            dead_letter_limit=settings.dead_letter_limit,
            pack=True,
            newer_wait_s=settings.model_wait_s,
        )
        # The lanes of a service read different topics, and its state in Redis knows one set of fences.
        fences = Fences(self._keys, self._stage.value)
        return loop_class(service)(
            service,
            membership,
            self._topics,
            policy,
            self._pulses.first if first else self._pulses.another(),
            RedisInFlightRegistry(client, self._keys, service.name, settings.state_ttl_s, fences),
            Redactor(settings.secrets()),
            FenceKeeper(client, fences, settings.state_ttl_s),
            ReplicaBarrier(client, self._keys, wanted).wait if (wanted := settings.redis_wait_replicas) else None,
        )

    def _status(self, errors: list[BaseException]) -> int:
        """The exit status after the loops have ended, after a pause where they ended at the limit of dead letters.
        Raises what else ended one of them."""
        limit = next((error for error in errors if isinstance(error, DeadLetterLimitError)), None)
        if limit is not None:
            pause_s = self._settings.dead_letter_pause_s
            log.critical("%s", limit, extra={"service": self._stage.value, "ends_in_s": pause_s})
            self._pulses.stopped(str(limit))
            self.stopping.wait(pause_s)
            return DeadLetterLimitError.EXIT_STATUS
        for error in errors:
            raise error
        return OK


@contextmanager
def _closed_on_failure() -> Iterator[list[Membership]]:
    """A list of memberships. If one cannot be had, the others are closed."""
    memberships: list[Membership] = []
    try:
        yield memberships
    except BaseException:
        for membership in memberships:
            membership.close()
        raise
