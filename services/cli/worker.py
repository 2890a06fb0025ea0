"""``tonestream worker SERVICE``: one service on Kafka, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading

from services.cli.registry import build_service
from services.cli.status import OK
from shared.bus.connect import kafka_bus
from shared.cache.connection import Keys, connect, require_trust
from shared.cache.deaths import RedisHandling
from shared.cache.fences import FenceKeeper, Fences
from shared.contracts.messages import Stage
from shared.contracts.topics import Topics
from shared.runtime.dead_letters import DeadLetterLimitError
from shared.runtime.health import HealthServer, Pulse
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from shared.runtime.redaction import Redactor
from shared.runtime.watchdog import Watchdog
from shared.settings import Settings

log = logging.getLogger(__name__)


def run_worker(stage: Stage, settings: Settings) -> int:
    """Run until SIGTERM or SIGINT: the batch in hand is finished and committed, then the group is left.

    Returns the exit status: 0, or that of DeadLetterLimitError. In the latter case the worker has left its group,
    tells on its health endpoint why, and ends only after a pause: started anew at once it would do the same again.
    """
    stopping = threading.Event()
    loop: ServiceLoop | None = None

    def stop(signal_number: int, frame: object) -> None:
        log.info("stopping", extra={"signal": signal.Signals(signal_number).name})
        stopping.set()
        if loop is not None:
            loop.stop()

    # Before anything that takes time: a worker told to stop while it loads its model stops, too.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    pulse = Pulse()
    health = (
        HealthServer(pulse, settings.health_host, settings.health_port, settings.health_stale_s)
        if settings.health_port
        else None
    )
    topics = Topics(settings.topic_prefix)
    client, keys = connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix)
    require_trust(client)
    service = build_service(stage, settings)
    service.start()
    policy = LoopPolicy(
        batch_records=settings.batch_records or service.batch_records,
        retry_attempts=settings.retry_attempts,
        retry_budget_s=settings.retry_budget_s,
        dead_letter_limit=settings.dead_letter_limit,
    )
    handling = RedisHandling(client, keys, stage.value, settings.state_ttl_s)
    bus = kafka_bus(settings, client_id=f"tonestream-{stage.value}")
    membership = bus.join(topics.group(stage.value), [topics.name(channel) for channel in service.inputs])
    epochs = FenceKeeper(client, Fences(keys, stage.value), settings.state_ttl_s)
    loop = ServiceLoop(service, membership, topics, policy, pulse, handling, Redactor(settings.secrets()), epochs)
    if stopping.is_set():
        loop.stop()
    watchdog = Watchdog(pulse, settings.stall_timeout_s)
    log.info("started", extra={"service": stage.value})
    status = OK
    try:
        loop.run()
    except DeadLetterLimitError as error:
        log.critical("%s", error, extra={"service": stage.value, "ends_in_s": settings.dead_letter_pause_s})
        status = DeadLetterLimitError.EXIT_STATUS
        stopping.wait(settings.dead_letter_pause_s)
    finally:
        watchdog.close()
        bus.close()
        if health is not None:
            health.close()
    log.info("stopped", extra={"service": stage.value})
    return status
