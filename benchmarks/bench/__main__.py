"""``python -m benchmarks.bench [--small] [--data FOLDER] [--out FOLDER] [--only NAME ...] [--rounds N]
[--model NAME]``.

A table and one line of JSON on standard output; the same, a picture and the logs in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import table
from benchmarks.bench.chart import write_chart
from benchmarks.bench.cluster import Cluster
from benchmarks.bench.environment import ROOT, choose_genre_model
from benchmarks.bench.findings import Section, as_json
from benchmarks.bench.kafka import measure_kafka
from benchmarks.bench.material import Material, make_material
from benchmarks.bench.measurement import NotMeasuredError
from benchmarks.bench.peers import PEERS, versions
from benchmarks.bench.scale import FULL, SMALL, Scale
from benchmarks.bench.start import measure_start, measure_workers
from benchmarks.bench.tracks import OWN, measure_tracks
from shared.settings import Settings
from shared.system.threads import available_cores

NAMES: Final = (*OWN, *PEERS, "start", "kafka")

_BY_SIGTERM: Final = 128 + signal.SIGTERM


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="What a track costs.")
    parser.add_argument("--small", action="store_true", help="little of everything, without peers: half a minute")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="clips of 20 s and more (default the samples)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=ROOT / ".cache" / "bench")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds after the warm-up (default 3, small 1)")
    parser.add_argument("--model", metavar="NAME", help="folder name of the genre model (default: the setting's)")
    options = parser.parse_args()
    choose_genre_model(options.model)
    # What was started is ended, also when this is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_BY_SIGTERM))
    scale = SMALL if options.small else FULL
    wanted = options.only or [name for name in NAMES if not (options.small and name in PEERS)]
    sections: list[Section] = []
    started = time.perf_counter()
    options.out = options.out.absolute()  # requests name its files by URL
    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        material = make_material(options.out / "audio", options.data, scale)
    except NotMeasuredError as error:
        parser.error(str(error))
    for section in _measured(scale, wanted, options.rounds or scale.rounds, material, options.out, logs):
        sections.append(section)
        print("\n".join(table.section_lines(section)), file=sys.stderr, flush=True)
    found = as_json(sections, _machine(scale, options.data))
    found["genre_model"] = Settings().genre_model
    found["peers"] = versions(options.out / "peers")
    found["took_s"] = round(time.perf_counter() - started, 1)
    text = "\n".join(table.lines(sections))
    (options.out / "bench.txt").write_text(f"{text}\n", encoding="utf-8")
    (options.out / "bench.json").write_text(f"{json.dumps(found)}\n", encoding="utf-8")
    write_chart(options.out / "bench.png", sections, f"{found['machine']}, {scale.name}")
    print(text)
    print(f"\n{options.out / 'bench.png'}\n")
    print(json.dumps(found))
    return 0


def _measured(
    scale: Scale, wanted: list[str], rounds: int, material: Material, out: Path, logs: Path
) -> Iterator[Section]:
    contenders = [name for name in (*OWN, *PEERS) if name in wanted]
    if contenders:
        yield from _guarded("tracks", lambda: measure_tracks(material, scale, rounds, contenders, out / "peers", logs))
    if "start" in wanted or "kafka" in wanted:
        yield from _with_servers(scale, wanted, rounds, material, out, logs)


def _with_servers(
    scale: Scale, wanted: list[str], rounds: int, material: Material, out: Path, logs: Path
) -> Iterator[Section]:
    """The sections ``start`` and ``kafka``. What needs no servers is measured without them."""
    with ExitStack() as stack:
        start = list(_guarded("start", lambda: [measure_start(rounds, logs)])) if "start" in wanted else []
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out, prefix="kafka-")))
            cluster = stack.enter_context(Cluster(folder, local_files=str(material.folder)))
        except NotMeasuredError as error:
            for section in start or [Section("kafka", "Kafka end to end")]:
                section.missing["Kafka"] = str(error)
                yield section
            return
        for section in start:
            measure_workers(section, rounds, cluster.environment, logs)
            yield section
        if "kafka" in wanted:
            yield from _guarded("kafka", lambda: [measure_kafka(cluster, material, scale, rounds, logs)])


def _guarded(name: str, measure: Callable[[], Iterable[Section]]) -> Iterator[Section]:
    """The sections, or one that says what went wrong. The other parts of the bench go on."""
    try:
        yield from measure()
    except NotMeasuredError as error:
        yield Section(name, name, missing={name: str(error)})
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        yield Section(name, name, missing={name: f"{type(error).__name__}: {error}"})


def _machine(scale: Scale, data: Path | None) -> dict[str, Any]:
    return {
        "scale": scale.name,
        "music": "samples" if data is None else data.name,
        "machine": f"{available_cores()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    sys.exit(main())
