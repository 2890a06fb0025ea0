"""``tonestream worker SERVICE``: one service on Kafka, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import Final, NoReturn

from services.cli.loops import LoopThread, loop_class
from services.cli.registry import build_services
from services.cli.status import OK
from shared.bus.connect import kafka_bus
from shared.cache.connection import Keys, connect, require_trust
from shared.cache.deaths import RedisHandling
from shared.contracts.messages import Stage
from shared.contracts.topics import Topics
from shared.runtime.dead_letters import DeadLetterLimitError
from shared.runtime.health import HealthServer, Pulses
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from shared.runtime.redaction import Redactor
from shared.runtime.watchdog import Watchdog
from shared.settings import Settings

log = logging.getLogger(__name__)


#: A stop takes no longer than this, whatever the worker is doing, seconds: then the process ends as it stands.
_STOP_LIMIT_S: Final = 9.0


def run_worker(stage: Stage, settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. What can be finished within a few seconds is finished and committed, the rest is
    left to other workers, and the groups are left.

    Returns the exit status: 0, or that of DeadLetterLimitError. In the latter case the worker has left its groups,
    tells on its health endpoint why, and ends only after a pause: started anew at once it would do the same again.
    Threads may still be busy with what was given up: the process is to be ended by ``end_process``.
    """
    stopping = threading.Event()
    woken = threading.Event()  # by a signal, or by a loop that has ended
    loops: list[ServiceLoop] = []

    def stop(signal_number: int, frame: object) -> None:
        log.info("stopping", extra={"signal": signal.Signals(signal_number).name})
        if not stopping.is_set():
            _end_in_time()
        stopping.set()
        woken.set()
        for loop in loops:
            loop.stop()

    # Before anything that takes time: a worker told to stop while it loads its model stops, too.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    topics = Topics(settings.topic_prefix)
    client, keys = connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix)
    pulses = Pulses()
    health = (
        HealthServer(pulses, settings.health_host, settings.health_port, settings.health_stale_s)
        if settings.health_port
        else None
    )
    require_trust(client)
    services = build_services(stage, settings)
    for service in services:
        service.start()
    bus = kafka_bus(settings, client_id=f"tonestream-{stage.value}")
    for service in services:
        policy = LoopPolicy(
            batch_records=service.window(settings),
            retry_attempts=settings.retry_attempts,
            retry_budget_s=settings.retry_budget_s,
            dead_letter_limit=settings.dead_letter_limit,
        )
        handling = RedisHandling(client, keys, service.name, settings.state_ttl_s)
        membership = bus.join(topics.group(service.name), [topics.name(channel) for channel in service.inputs])
        redact = Redactor(settings.secrets())
        loops.append(loop_class(service)(service, membership, topics, policy, pulses.one(), handling, redact))
    watchdog = Watchdog(pulses, settings.stall_timeout_s)
    threads = [LoopThread(loop, service.name, woken) for loop, service in zip(loops, services, strict=True)]
    for thread in threads:
        thread.start()
    log.info("started", extra={"service": stage.value})
    status = OK
    try:
        woken.wait()
        # A worker is there as a whole or not at all: where one of its loops has ended, the others end too.
        for loop in loops:
            loop.stop()
        for thread in threads:
            thread.join(_STOP_LIMIT_S)
        errors = [thread.error for thread in threads if thread.error is not None]
        limits = [error for error in errors if isinstance(error, DeadLetterLimitError)]
        if limits:
            log.critical("%s", limits[0], extra={"service": stage.value, "ends_in_s": settings.dead_letter_pause_s})
            status = DeadLetterLimitError.EXIT_STATUS
            stopping.wait(settings.dead_letter_pause_s)
        elif errors:
            raise errors[0]
    finally:
        watchdog.close()
        bus.close()
        if health is not None:
            health.close()
    log.info("stopped", extra={"service": stage.value})
    return status


def end_process(status: int) -> NoReturn:
    """End the process now. An orderly exit would wait for the threads of every pool, and one of them may be in the
    middle of a long measurement whose outcome nobody wants any more."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_in_time() -> None:
    """The last resort of a stop, should something not give way: a broker that does not answer, a library."""

    def end() -> None:
        log.warning("not everything gave way in time; the process ends as it stands")
        end_process(OK)

    timer = threading.Timer(_STOP_LIMIT_S, end)
    timer.daemon = True
    timer.start()
