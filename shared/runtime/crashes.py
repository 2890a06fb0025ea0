"""Records that kill their worker: found by what is left behind, kept away from the others, buried in the end.

A worker writes down what it is about to handle, and takes that back when it is done with it, one way or the other. So
what stays written down are deaths. A record can die innocent, with its batch or by a kill that had nothing to do with
it; hence the two steps:

* after ``SUSPECT_DEATHS`` deaths it is handled alone, in a unit of work of its own. Its innocent neighbours go through;
* after ``ALONE_DEATHS`` deaths on its own it goes to the dead letters, and its request is answered.

For an innocent record to be buried, workers must be killed by chance three times in its batch and then five times
within the handling of this one record, without a single success in between. Where a worker lives T seconds on average
and the record takes t, that is (1 - exp(-t/T))^5 for the second step alone: 1e-10 for a second of work and a kill every
100 s, one in 100,000 for a kill every 10 s. One success wipes the slate clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shared.bus.base import Record
from shared.runtime.service import Committed

#: Deaths, in company or alone, after which a record is handled alone.
SUSPECT_DEATHS: Final = 3
#: Deaths alone after which it is buried.
ALONE_DEATHS: Final = 5
#: Deaths alone after which even its request is given up: the attempt to answer it must have been the killer.
SILENT_DEATHS: Final = 8


class CrashLoop(Exception):  # noqa: N818 (the name is what an operator reads)
    """The record killed every worker that tried it."""


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many workers died with a record in hand: with its batch, and with it alone."""

    shared: int = 0
    alone: int = 0

    @property
    def total(self) -> int:
        return self.shared + self.alone

    @property
    def suspect(self) -> bool:
        return self.total >= SUSPECT_DEATHS


class Handling(Protocol):
    """What this worker has in hand, written down where it outlives the worker. One thread at a time."""

    def begin(self, records: Sequence[Record], alone: bool = False) -> Mapping[str, Deaths]:
        """These are about to be handled. Returns earlier deaths by coordinates; records without any are left out.

        Beginning the same again changes nothing. Raises DependencyError; FencedError where others own the partitions.
        """
        ...

    def finished(self, records: Sequence[Record]) -> None:
        """These are committed: they never come again. Written down with the next ``begin`` or ``flush``."""
        ...

    def withdraw(self) -> None:
        """What was begun and is not finished is put back, by a worker that lives. Best effort."""
        ...

    def flush(self) -> None:
        """Write down what is finished. Best effort."""
        ...

    def tidy(self, committed: Committed) -> None:
        """Remove what workers left that died after their commit. Called now and then. Raises DependencyError."""
        ...


class Unrecorded:
    """Where nobody outlives the process there is nothing to write down."""

    def begin(self, records: Sequence[Record], alone: bool = False) -> Mapping[str, Deaths]:
        return {}

    def finished(self, records: Sequence[Record]) -> None:
        pass

    def withdraw(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def tidy(self, committed: Committed) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Unit:
    """Records that are handled and committed together."""

    records: tuple[Record, ...]
    alone: bool = False


def in_units(records: Sequence[Record], handling: Handling) -> list[Unit]:
    """The batch as one unit that has begun; or, with suspects in it, as several that have not.

    The order within a partition is kept, as committing a record commits all before it. What stands behind no suspect
    goes first, so that a record that kills every worker keeps no other partition waiting. Raises DependencyError.
    """
    suspects = {coordinates for coordinates, deaths in handling.begin(records).items() if deaths.suspect}
    if not suspects:
        return [Unit(tuple(records))]
    handling.withdraw()
    held_up: set[tuple[str, int]] = set()
    free: list[Record] = []
    behind: list[Unit] = []
    company: list[Record] = []
    for record in records:
        partition = (record.topic, record.partition)
        if record.coordinates in suspects:
            held_up.add(partition)
            behind += [Unit(tuple(company))] if company else []
            behind.append(Unit((record,), alone=True))
            company = []
        elif partition in held_up:
            company.append(record)
        else:
            free.append(record)
    behind += [Unit(tuple(company))] if company else []
    return [Unit(tuple(free)), *behind] if free else behind
