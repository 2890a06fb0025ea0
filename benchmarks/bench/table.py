"""The findings as a table of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.bench.findings import Section

_NAME: Final = 46


def lines(sections: Sequence[Section]) -> Iterator[str]:
    """The table, line by line: figures a track, then the targets."""
    for section in sections:
        yield from section_lines(section)
    yield ""
    yield f"{'targets':{_NAME + 2}} {'':>6} {'measured':>11} {'target':>12} {'of it':>7}"
    for target in (target for section in sections for target in section.targets):
        bound = f"{target.relation} {target.bound:g} {target.unit}"
        yield (
            f"  {target.name:{_NAME}} {'pass' if target.met else 'FAIL':>6} {f'{target.value:.3g} {target.unit}':>11}"
            f" {bound:>12} {target.share:>7.2f}"
        )


def section_lines(section: Section) -> Iterator[str]:
    """One section, line by line."""
    yield ""
    yield section.title
    if section.rows:
        yield f"  {'':{_NAME}} {'CPU':>8} {'of rounds':>13} {'CPU s':>9} {'wall s':>9} {'peak MB':>9}"
    for row in section.rows:
        times = "" if row.times is None else f"{row.times.median:.2f} x"
        spread = "" if row.times is None else f"{row.times.low:.2f} to {row.times.high:.2f}"
        yield (
            f"  {row.name:{_NAME}} {times:>8} {spread:>13} {_figure(row.cpu_s, 3):>9}"
            f" {_figure(row.wall_s, 3):>9} {_figure(row.peak_mb, 0):>9}"
        )
    for name, value in section.notes.items():
        yield f"  {name:{_NAME}} {value:.4g}"
    for name, why in section.missing.items():
        yield f"  {name:{_NAME}} not measured: {why}"


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
