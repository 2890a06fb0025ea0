"""One line when something that the process needs goes away, one when it is back, and a rare reminder between them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

log = logging.getLogger(__name__)

KAFKA: Final = "Kafka"
REDIS: Final = "Redis"
#: Kafka is away when it gave no answer for so long: a member that waits for a rebalance asks every 10 s.
KAFKA_SILENT_S: Final = 12.0

#: How long nobody may miss a dependency until it counts as back, seconds. It is longer than the longest pause between
#: two attempts (``LoopPolicy.longest_wait_s``): a fault that comes again with every attempt is one outage.
_CALM_S: Final = 6.0
#: From one reminder to the next, seconds.
_REMIND_S: Final = 300.0


@dataclass(slots=True)
class _Outage:
    since: float
    told: float
    #: Who misses the dependency, and when each last did.
    missed: dict[object, float] = field(default_factory=dict)
    calm_since: float | None = None


class Outages:
    """What a process waits for. Several threads may miss the same dependency; it is back once none of them does.

    The names are those of dependencies, for people: ``Kafka``, ``the blob store``. Safe from many threads.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, calm_s: float = _CALM_S, remind_s: float = _REMIND_S
    ) -> None:
        self._clock = clock
        self._calm_s = calm_s
        self._remind_s = remind_s
        self._outages: dict[str, _Outage] = {}
        self._lock = threading.Lock()

    def missed(self, name: str, who: object, error: object, silent_s: float = 0.0) -> None:
        """``who`` cannot use the dependency, and waits for it. It has been silent for ``silent_s`` seconds by now."""
        with self._lock:
            now = self._clock()
            outage = self._outages.get(name)
            if outage is None:
                outage = self._outages[name] = _Outage(since=now - silent_s, told=now)
                log.warning("waiting for %s: %s", name, error, extra={"since": _time_of_day(silent_s)})
            elif now - outage.told >= self._remind_s:
                outage.told = now
                lasted_s = now - outage.since
                extra = {"since": _time_of_day(lasted_s)}
                log.warning("still waiting for %s, %.0f s by now: %s", name, lasted_s, error, extra=extra)
            outage.missed[who] = now
            outage.calm_since = None

    def reached(self, name: str, who: object, silent_s: float = 0.0) -> None:
        """``who`` had an answer ``silent_s`` seconds ago. That says nothing where ``who`` missed it after that."""
        with self._lock:
            outage = self._outages.get(name)
            now = self._clock()
            if outage is None or outage.missed.get(who, -1.0) > now - silent_s:
                return
            outage.missed.pop(who, None)
            if not outage.missed and outage.calm_since is None:
                outage.calm_since = now
            self._end_where_calm(now)

    def reached_again(self, who: object) -> None:
        """``who`` got on with its work: whatever it missed is there, but for Kafka, which tells by its answers."""
        for name in [name for name in self._outages.copy() if name != KAFKA]:
            self.reached(name, who)

    def lasts(self, name: str) -> bool:
        """Whether the dependency is waited for, or was until a moment ago."""
        return name in self._outages

    def back(self, name: str) -> None:
        """The dependency is there for certain: there is no need to see whether it stays."""
        with self._lock:
            if (outage := self._outages.pop(name, None)) is not None:
                _tell_the_end(name, (outage.calm_since or self._clock()) - outage.since)

    def _end_where_calm(self, now: float) -> None:
        for name, outage in list(self._outages.items()):
            if outage.calm_since is not None and now - outage.calm_since >= self._calm_s:
                del self._outages[name]
                _tell_the_end(name, outage.calm_since - outage.since)


def _tell_the_end(name: str, lasted_s: float) -> None:
    log.info("%s works again after %.0f s", name, lasted_s, extra={"lasted_s": round(lasted_s, 1)})


def _time_of_day(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")
