"""Whether the brokers answer. An empty poll says nothing about that: kafka-python returns one, too, from a dead broker.

A consumer is never silent for long: with partitions it fetches all the time (the broker answers after 250 ms at most),
as a member of a group it sends heartbeats (every 3 s at most), and without either it asks for the topics
(``metadata_max_age_s``). So the time of the last answer of whatever kind is the measure. A thread of kafka-python's
sends and receives them, also while a batch is worked on.
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
        """Note the time when the future ``answer`` succeeds; returns it. One that says no is an answer as well."""
        answer.add_callback(self._note)
        return answer

    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._last

    def _note(self, _: Any) -> None:
        self._last = time.monotonic()


def silent_s(consumer: KafkaConsumer) -> float:
    """Seconds since a broker last answered ``consumer``, which was made by ``kafka_clients.build``."""
    answers: Answers = consumer._manager.answers
    return answers.silent_s()
