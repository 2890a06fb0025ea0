"""Records that kill their worker: found by the attempts they leave behind, isolated, and sent to the dead letters.

A worker writes down each delivery attempt before it starts and removes it however it ends, as long as the worker lives.
An attempt that stays written down is a crash. A record can be innocent of a crash: another record of its batch was to
blame, or a kill that no record caused. Hence two steps:

* after ``SUSPECT_CRASHES`` crashes the record is handled alone, in a unit of work of its own. Its innocent neighbours
  go through;
* after ``ALONE_CRASHES`` crashes on its own it goes to the dead letters, and its request is answered.

An innocent record goes to the dead letters only if workers are killed by chance three times in its batch and then five
times while they handle this one record, without a success in between. If a worker lives T seconds on average and the
record takes t, the second step alone has the probability (1 - exp(-t/T))^5: 1e-10 for a second of work and a kill every
100 s, one in 100,000 for a kill every 10 s. One success wipes the slate clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.bus.base import Record
from shared.state.in_flight import Crashes, InFlightRegistry

#: Crashes alone after which a record goes to the dead letters.
ALONE_CRASHES: Final = 5
#: Crashes alone after which even its request gets no answer: the attempt to answer it must have been the killer.
SILENT_CRASHES: Final = 8


class CrashLoop(Exception):  # noqa: N818 (the name is what an operator reads)
    """The record killed every worker that tried it. ``answered``: its request is to be answered all the same."""

    def __init__(self, crashes: Crashes) -> None:
        super().__init__(f"{crashes.total} workers died of it, {crashes.alone} of them while they handled nothing else")
        self.attempts = crashes.total
        self.answered = crashes.alone < SILENT_CRASHES


@dataclass(frozen=True, slots=True)
class Unit:
    """Records that are handled and committed together."""

    records: tuple[Record, ...]
    alone: bool = False


class CrashGuard:
    """Decides which records share a unit of work, and which have killed workers often enough."""

    def __init__(self, registry: InFlightRegistry) -> None:
        self.registry = registry

    def units(self, records: Sequence[Record]) -> list[Unit]:
        """The batch as one unit that has begun; or, if it holds suspects, as several that have not.

        The order within a partition is kept, because committing a record commits all before it. Partitions without a
        suspect go first, so that a record that kills every worker keeps no other partition waiting. Raises
        DependencyError, FencedError.
        """
        begun = self.registry.begin(records)
        suspects = {coordinates for coordinates, crashes in begun.items() if crashes.suspect}
        if not suspects:
            return [Unit(tuple(records))]
        self.registry.withdraw()
        held_up: set[tuple[str, int]] = set()
        free: list[Record] = []
        behind: list[Unit] = []
        shared: list[Record] = []
        for record in records:
            partition = (record.topic, record.partition)
            if record.coordinates in suspects:
                held_up.add(partition)
                behind += [Unit(tuple(shared))] if shared else []
                behind.append(Unit((record,), alone=True))
                shared = []
            elif partition in held_up:
                shared.append(record)
            else:
                free.append(record)
        behind += [Unit(tuple(shared))] if shared else []
        return [Unit(tuple(free)), *behind] if free else behind

    def begin(self, unit: Unit) -> CrashLoop | None:
        """Write down that the unit is in hand. Returns why its one record must not be tried again, if so.

        Raises DependencyError, FencedError.
        """
        begun = self.registry.begin(unit.records, unit.alone)
        if not unit.alone:
            return None
        crashes = begun.get(unit.records[0].coordinates, Crashes())
        return CrashLoop(crashes) if crashes.alone >= ALONE_CRASHES else None
