"""``tonestream worker SERVICE``: one service on Kafka, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import ExitStack
from typing import Final

from services.cli.arrival import AwayError, StoppedEarlyError, wait_for
from services.cli.registry import build_service
from services.cli.status import OK
from shared.bus.connect import kafka_bus
from shared.cache.connection import Keys, connect, require_trust
from shared.cache.deaths import RedisHandling
from shared.cache.fences import FenceKeeper, Fences
from shared.cache.probe import RedisProbe
from shared.contracts.messages import Stage
from shared.contracts.topics import Topics
from shared.runtime.dead_letters import DeadLetterLimitError
from shared.runtime.health import Contact, HealthServer, Pulse
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from shared.runtime.redaction import Redactor
from shared.runtime.watchdog import Attendance, Watchdog
from shared.settings import Settings

log = logging.getLogger(__name__)

#: Kafka is away when it gave no answer for so long: a member that waits for a rebalance asks every 10 s.
_KAFKA_SILENT_S: Final = 12.0
#: Redis is asked every 2 s, and given 3 s to answer.
_REDIS_SILENT_S: Final = 8.0
_PROBE_TIMEOUT_S: Final = 3.0


def run_worker(stage: Stage, settings: Settings) -> int:
    """Run until SIGTERM or SIGINT: the batch in hand is finished and committed, then the group is left.

    Kafka and Redis are waited for where they are away. Settings with which they will never answer raise
    BusSecurityError and DependencyError. Returns the exit status: 0, or that of DeadLetterLimitError. In the latter
    case the worker has left its group, tells on its health endpoint why, and ends only after a pause: started anew at
    once it would do the same again.
    """
    stopping = threading.Event()
    pulse = Pulse()
    loop: ServiceLoop | None = None

    def stop(signal_number: int, frame: object) -> None:
        log.info("stopping", extra={"signal": signal.Signals(signal_number).name})
        stopping.set()
        pulse.stop_asked()
        if loop is not None:
            loop.stop()

    # Before anything that takes time: a worker told to stop while it loads its model stops, too.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with ExitStack() as held:
        if settings.health_port:
            health = HealthServer(
                pulse, settings.health_host, settings.health_port, settings.health_stale_s, settings.stall_timeout_s
            )
            held.callback(health.close)
        topics = Topics(settings.topic_prefix)
        redis_url = settings.redis_url.get_secret_value()
        client, keys = connect(redis_url), Keys(settings.redis_prefix)
        bus = kafka_bus(settings, client_id=f"tonestream-{stage.value}")
        held.callback(bus.close)
        service = build_service(stage, settings)
        policy = LoopPolicy(
            batch_records=settings.batch_records or service.batch_records,
            retry_attempts=settings.retry_attempts,
            retry_budget_s=settings.retry_budget_s,
            dead_letter_limit=settings.dead_letter_limit,
        )

        def redis_answers() -> None:
            if (fault := require_trust(client)) is not None:
                raise AwayError(fault)

        inputs = [topics.name(channel) for channel in service.inputs]
        try:
            wait_for("Redis", redis_answers, pulse, stopping)
            service.start()
            membership = wait_for("Kafka", lambda: bus.join(topics.group(stage.value), inputs), pulse, stopping)
        except StoppedEarlyError:
            service.close()
            log.info("stopped before it started", extra={"service": stage.value})
            return OK
        probe = RedisProbe(connect(redis_url, _PROBE_TIMEOUT_S))
        held.callback(probe.close)
        pulse.watch(
            Contact("Kafka", membership.silent_s, _KAFKA_SILENT_S),
            Contact("Redis", probe.silent_s, _REDIS_SILENT_S),
        )
        held.callback(Attendance(pulse).close)
        handling = RedisHandling(client, keys, stage.value, settings.state_ttl_s)
        epochs = FenceKeeper(client, Fences(keys, stage.value), settings.state_ttl_s)
        loop = ServiceLoop(service, membership, topics, policy, pulse, handling, Redactor(settings.secrets()), epochs)
        if stopping.is_set():
            loop.stop()
        held.callback(Watchdog(pulse, settings.stall_timeout_s).close)
        log.info("started", extra={"service": stage.value})
        status = OK
        try:
            loop.run()
        except DeadLetterLimitError as error:
            log.critical("%s", error, extra={"service": stage.value, "ends_in_s": settings.dead_letter_pause_s})
            status = DeadLetterLimitError.EXIT_STATUS
            stopping.wait(settings.dead_letter_pause_s)
    log.info("stopped", extra={"service": stage.value})
    return status
