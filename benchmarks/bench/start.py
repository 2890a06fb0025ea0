"""Starts: the command's help, one short clip with a cold command, and workers until they are ready."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.bench.environment import TONESTREAM, child_environment
from benchmarks.bench.findings import Row, Section
from benchmarks.bench.material import SAMPLES
from benchmarks.bench.measurement import MemoryWatch, NotMeasuredError, Usage, cpu_s_of, last_line, run_cold
from benchmarks.bench.rounds import Rounds, alternate
from shared.runtime.health_probe import READY, ask
from tests.support.processes import free_port

_CLIP: Final = SAMPLES / "bay.mp3"
_READY_TIMEOUT_S: Final = 60.0
_ASKED_EVERY_S: Final = 0.02
#: Starts are short: each is measured so many times a round.
_REPEATS: Final = 3
#: The worker with the heaviest engine: it runs on either.
_ENGINES: Final[Mapping[str, str]] = {"genre-worker, ONNX Runtime": "onnx", "genre-worker, TensorFlow": "tensorflow"}


def measure_start(rounds: int, logs: Path) -> Section:
    """The section ``start``, as far as it needs no servers."""
    section = Section("start", "starts, cold")
    run = partial(run_cold, environment=child_environment(), log=logs / "start.log")
    found = alternate(
        {
            "tonestream --help": partial(run, (*TONESTREAM, "--help")),
            "classify one short clip": partial(run, (*TONESTREAM, "classify", "--json", str(_CLIP))),
        },
        rounds if rounds == 1 else rounds * _REPEATS,
        warm_up=() if rounds == 1 else None,
    )
    section.missing |= found.missing
    for name, series in found.series.items():
        took = series.median
        section.rows.append(Row(name, took.cpu_s, took.wall_s, took.peak_mb))
    helped, clip = _median(found, "tonestream --help"), _median(found, "classify one short clip")
    section.add_target("tonestream --help, wall", helped.wall_s if helped else None, "<=", 0.15, "s")
    section.add_target("classify one short clip, CPU", clip.cpu_s if clip else None, "<=", 2.0, "s")
    section.add_target("classify one short clip, memory", clip.peak_mb if clip else None, "<=", 300.0, "MB")
    return section


def measure_workers(section: Section, rounds: int, environment: Mapping[str, str], logs: Path) -> None:
    """Adds workers to the section. ``environment`` leads them to their servers."""
    works = {
        name: partial(_until_ready, "genre-worker", {**environment, "TONESTREAM_ENGINE": engine}, logs / "ready.log")
        for name, engine in _ENGINES.items()
    }
    found = alternate(works, rounds, warm_up=())
    section.missing |= found.missing
    for name, series in found.series.items():
        took = series.median
        section.rows.append(Row(f"{name}, until it is ready", took.cpu_s, took.wall_s, took.peak_mb))
    for name, bound in zip(_ENGINES, (1.5, 6.0), strict=True):
        ready = _median(found, name)
        section.add_target(f"{name}: ready", ready.wall_s if ready else None, "<=", bound, "s")


def _median(found: Rounds, name: str) -> Usage | None:
    return found.series[name].median if name in found.series else None


def _until_ready(service: str, environment: Mapping[str, str], log: Path) -> Usage:
    port = free_port()
    started = time.perf_counter()
    with log.open("wb") as said:
        worker = subprocess.Popen(
            [*TONESTREAM, "worker", service],
            env={**environment, "TONESTREAM_HEALTH_PORT": str(port)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        with MemoryWatch({service: worker.pid}) as memory:
            while not is_ready(port):
                if worker.poll() is not None:
                    raise NotMeasuredError(f"the worker ended with status {worker.returncode}: {last_line(log)}")
                if time.perf_counter() - started > _READY_TIMEOUT_S:
                    raise NotMeasuredError(f"the worker was not ready within {_READY_TIMEOUT_S:.0f} s")
                time.sleep(_ASKED_EVERY_S)
            wall_s = time.perf_counter() - started
            return Usage(cpu_s_of(worker.pid), wall_s, memory.peak_mb(service))
    finally:
        worker.terminate()
        worker.wait()


def is_ready(port: int) -> bool:
    """Whether the worker with that health port takes work."""
    try:
        return ask(port, READY)[0]
    except OSError:
        return False
