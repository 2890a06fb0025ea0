"""Contenders on the same files: one long track, several at once, folders of clips."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.bench.environment import TONESTREAM, child_environment
from benchmarks.bench.findings import Section
from benchmarks.bench.material import Material
from benchmarks.bench.measurement import NotMeasuredError, run_cold
from benchmarks.bench.peers import peer
from benchmarks.bench.rounds import Work, alternate
from benchmarks.bench.scale import Scale
from benchmarks.bench.warm import Contender, WarmContender
from services.cli.main import THREADS_OF_BLAS

T = TypeVar("T")

#: Those of this project's own environment.
OWN: Final = ("limit", "tutorial", "embedded")
_LIMIT, _TUTORIAL, _EMBEDDED = OWN


def own_contender(name: str) -> Contender:
    """A contender that runs in this virtual environment."""
    # As the command line sets it.
    environment = {**child_environment(), **dict.fromkeys(THREADS_OF_BLAS, "1")}
    return Contender(name, (sys.executable, "-m", f"benchmarks.bench.{name}"), environment)


def measure_tracks(
    material: Material, scale: Scale, rounds: int, names: Sequence[str], peers: Path, logs: Path
) -> Iterator[Section]:
    """The sections ``long``, ``eight``, ``minutes`` and ``halves``, of the contenders in ``names``.

    ``peers`` is the folder of the peers' virtual environments.
    """
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        warm: dict[str, WarmContender] = {}
        for name in names:
            try:
                contender = own_contender(name) if name in OWN else peer(name, peers)
                warm[name] = stack.enter_context(WarmContender(contender, logs))
            except NotMeasuredError as error:
                missing[name] = str(error)
        yield _long(warm, missing, material, scale, rounds, logs)
        if _EMBEDDED in warm:
            yield _eight(warm[_EMBEDDED], material, scale, rounds)
        # The tutorial and essentia take minutes for that many.
        yield _minutes(_but(warm, _TUTORIAL, "essentia"), _but(missing, _TUTORIAL, "essentia"), material, scale, rounds)
        title = f"{scale.halves} clips of {scale.halves_s} s, warm, a clip"
        halves = Section("halves", title, missing=dict(missing))
        halves.add_rounds(alternate(_works(warm, material.halves), rounds), scale.halves, _EMBEDDED)
        yield halves


def _long(
    warm: Mapping[str, WarmContender],
    missing: Mapping[str, str],
    material: Material,
    scale: Scale,
    rounds: int,
    logs: Path,
) -> Section:
    track = material.long[:1]
    works = _works(warm, track)
    if _EMBEDDED in warm:
        command = (*TONESTREAM, "classify", "--json", str(track[0]))
        works["embedded, cold"] = partial(run_cold, command, child_environment(), logs / "classify.log")
    section = Section("long", f"one MP3 of {scale.long_s / 60:.1f} minutes, warm", missing=dict(missing))
    found = alternate(works, rounds, warm_up=warm)
    section.add_rounds(found, 1, _EMBEDDED)
    section.add_target("long track: embedded by the limit, CPU", found.cpu_ratio(_EMBEDDED, _LIMIT), "<=", 1.35)
    section.add_target("long track: tutorial by embedded, CPU", found.cpu_ratio(_TUTORIAL, _EMBEDDED), ">=", 10.0)
    return section


def _eight(embedded: WarmContender, material: Material, scale: Scale, rounds: int) -> Section:
    works: dict[str, Work] = {
        "one by one": partial(embedded.classify, material.long, False),
        "at once": partial(embedded.classify, material.long, True),
    }
    title = f"{scale.long} MP3s of {scale.long_s / 60:.1f} minutes, embedded and warm, a track"
    section = Section("eight", title)
    found = alternate(works, rounds, warm_up=())
    section.add_rounds(found, scale.long, "one by one")
    section.add_target("long tracks: one by one by at once, wall", found.wall_ratio("one by one", "at once"), ">=", 1.8)
    return section


def _minutes(
    warm: Mapping[str, WarmContender], missing: Mapping[str, str], material: Material, scale: Scale, rounds: int
) -> Section:
    title = f"{scale.minutes} clips of {scale.minutes_s} s, warm, a clip"
    section = Section("minutes", title, missing=dict(missing))
    # Everybody is warm from the long track.
    found = alternate(_works(warm, material.minutes), rounds, warm_up=())
    section.add_rounds(found, scale.minutes, _EMBEDDED)
    if "vibenet" in {*warm, *missing}:
        section.add_target("clips: embedded by VibeNet, CPU", found.cpu_ratio(_EMBEDDED, "vibenet"), "<=", 1.0)
    return section


def _works(warm: Mapping[str, WarmContender], files: Sequence[Path]) -> dict[str, Work]:
    return {name: partial(contender.classify, files) for name, contender in warm.items()}


def _but(mapping: Mapping[str, T], *names: str) -> dict[str, T]:
    return {name: value for name, value in mapping.items() if name not in names}
