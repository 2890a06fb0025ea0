"""``python -m benchmarks.capacity``: measure the costs of a track, check the simulation, write docs/capacity.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.bench.measurement import NotMeasuredError
from benchmarks.capacity.costs import MEASURED, Measured
from benchmarks.capacity.report import DOCUMENT, TABLES, check, document, outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tables = commands.add_parser("tables", help="print the tables as Markdown")
    tables.add_argument("names", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    tables.set_defaults(run=_tables)
    write = commands.add_parser("write", help="write the tables and the figure of docs/capacity.md")
    write.set_defaults(run=_write)
    checked = commands.add_parser("check", help="compare the simulation with the measured runs")
    checked.set_defaults(run=_check)
    measure = commands.add_parser("measure", help="measure on a real Kafka and Redis, then check and write")
    measure.add_argument("music", type=Path, help="a folder with music, a file for each clip")
    measure.add_argument("--clips", type=int, default=100, help="clips of 30 s (default %(default)s)")
    measure.add_argument("--tracks", type=int, default=40, help="tracks of 4 minutes (default %(default)s)")
    measure.add_argument(
        "--genre-engine",
        choices=("onnx", "tensorflow"),
        default="onnx",
        help="the genre worker's (default %(default)s)",
    )
    measure.add_argument("--out", type=Path, default=MEASURED, help="where the costs go; elsewhere nothing is written")
    measure.set_defaults(run=_measure)
    options = parser.parse_args()
    try:
        options.run(options)
    except (OSError, ValueError, NotMeasuredError) as error:
        parser.error(str(error))


def _tables(options: argparse.Namespace) -> None:
    measured = Measured.read()
    for name in options.names or TABLES:
        print(f"<!-- {name} -->\n\n{TABLES[name](measured)}\n")


def _check(_: argparse.Namespace) -> None:
    print(check(Measured.read()))


def _write(_: argparse.Namespace) -> None:
    from benchmarks.capacity.plot import draw

    measured = Measured.read()
    DOCUMENT.write_text(document(measured, DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    draw(outcomes(measured))


def _measure(options: argparse.Namespace) -> None:
    from benchmarks.capacity.measure import measure

    # The page shows the command without the name of this machine's folder.
    command = (
        f"python -m benchmarks.capacity measure MUSIC --clips {options.clips} --tracks {options.tracks}"
        f" --genre-engine {options.genre_engine}"
    )
    measured = measure(options.music, options.clips, options.tracks, options.genre_engine, command)
    measured.write(options.out)
    print(check(measured))
    if options.out == MEASURED:
        _write(options)
    else:
        print(f"the document is as it was; the costs are in {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
