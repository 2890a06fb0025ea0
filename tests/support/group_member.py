"""A member of a consumer group in a process of its own, to be killed, stopped and woken: ``python -m`` this.

It copies records from its topics to ``--target``, each with the offset it came from, in transactions, as a worker does:
the batch is worked on for a while, and the membership is kept meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import threading
import time

from shared.bus.base import BusUnavailableError, FencedError, Outgoing
from shared.bus.kafka.bus import KafkaBus, KafkaConfig

log = logging.getLogger(__name__)


def main() -> None:
    """Until SIGTERM."""
    parser = argparse.ArgumentParser()
    for name in ("--servers", "--group", "--topics", "--target"):
        parser.add_argument(name, required=True)
    parser.add_argument("--session-s", type=float, default=3.0)
    parser.add_argument("--work-s", type=float, default=0.3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    config = KafkaConfig(
        options.servers, session_timeout_s=options.session_s, transaction_timeout_s=3.0, commit_timeout_s=10.0
    )
    bus = KafkaBus(config)
    with bus.join(options.group, options.topics.split(",")) as member:
        while not stopping.is_set():
            try:
                records = member.poll(100, 0.2)
                if not records:
                    continue
                until = time.monotonic() + random.uniform(0.0, 2 * options.work_s)
                while time.monotonic() < until:
                    time.sleep(0.05)
                    member.keep_alive()
                member.commit([Outgoing(options.target, r.key, r.coordinates.encode()) for r in records], records)
            except (FencedError, BusUnavailableError) as error:
                log.warning("dropped: %s", error)
                try:
                    member.rewind()
                except (FencedError, BusUnavailableError) as again:
                    log.warning("rewind put off: %s", again)
    bus.close()


if __name__ == "__main__":
    main()
