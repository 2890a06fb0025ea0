"""Whether the brokers answer.

An empty poll does not show that, because kafka-python also returns one if the broker is dead. But a consumer is never
silent for long: with partitions it fetches (the broker answers within 250 ms), as a member of a group it sends
heartbeats (every 3 s), and otherwise it requests metadata (``metadata_max_age_s``). So the measure is the time of the
last answer of any kind. kafka-python's I/O thread sends and receives, even while a batch is processed.
"""

from __future__ import annotations

import time
from typing import Any

from kafka import KafkaConsumer


class Answers:
    """When a broker last answered a request of one client."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def expect(self, answer: Any) -> Any:
        """Record the time at which the future ``answer`` completes; returns the future. A refusal is an answer as
        well."""
        answer.add_callback(self._note)
        return answer

    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._last

    def _note(self, _: Any) -> None:
        self._last = time.monotonic()


def silent_s(consumer: KafkaConsumer) -> float:
    """Seconds since a broker last answered ``consumer``, which was made by ``shared.bus.kafka.clients.build``."""
    answers: Answers = consumer._manager.answers
    return answers.silent_s()
