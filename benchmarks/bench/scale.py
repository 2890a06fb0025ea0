"""How much is measured: all of it, or little, so that continuous integration can run it in its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """``rounds`` after the warm-up. Each kind of track: how many, and seconds of each.

    Of Kafka: ``brief`` tracks make up backlogs, of the sizes ``backlogs``; ``shared`` tracks are shared by two workers
    (a multiple of the partitions); ``single`` requests find an idle pipeline.
    """

    name: str
    rounds: int
    long_s: int
    long: int
    minutes_s: int
    minutes: int
    halves_s: int
    halves: int
    brief_s: int
    brief: int
    backlog: int
    backlogs: tuple[int, ...]
    shared: int
    single: int


FULL: Final = Scale(
    name="full",
    rounds=3,
    long_s=240,
    long=8,
    minutes_s=60,
    minutes=80,
    halves_s=30,
    halves=20,
    brief_s=5,
    brief=20,
    backlog=40,
    backlogs=(10, 10, 10, 100, 100, 2000),
    shared=480,
    single=40,
)
SMALL: Final = Scale(
    name="small",
    rounds=1,
    long_s=15,
    long=2,
    minutes_s=6,
    minutes=2,
    halves_s=4,
    halves=2,
    brief_s=4,
    brief=2,
    backlog=3,
    backlogs=(2, 4),
    shared=12,
    single=2,
)
