"""``tonestream undo``: restore what ``classify --write-tags`` changed in music files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.cli.output import complain, encodable, has, printable
from services.cli.status import FAILED, OK, UsageError
from shared.settings import Settings

if TYPE_CHECKING:
    from services.library.tagging.journal import Recorded
    from services.library.tagging.undo import UndoPlan

_DESCRIPTION: Final = """\
Every change that `classify --write-tags` makes is noted in a journal before the file is replaced. Undo restores the old
values one by one, and leaves every other tag as it is. Values that somebody has changed since stay, unless --force.
"""
_GAP: Final = "  "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``undo``."""
    parser.description = _DESCRIPTION
    parser.add_argument("files", nargs="*", metavar="FILE", help="undo everything written to these files")
    parser.add_argument("--last", action="store_true", help="undo the last run that is not undone yet")
    parser.add_argument("--run", dest="of_run", metavar="ID", help="undo this run")
    parser.add_argument("--list", action="store_true", help="list the runs, newest first, and do nothing")
    parser.add_argument("--dry-run", action="store_true", help="show old and new side by side, restore nothing")
    parser.add_argument("--force", action="store_true", help="also restore what was changed since")
    parser.add_argument("--journal", metavar="FILE", help="this journal instead of those in the data folder")
    parser.set_defaults(run=_undo)


def _undo(options: argparse.Namespace, settings: Settings) -> int:
    chosen = [name for name, given in (("FILE", options.files), ("--last", options.last), ("--run", options.of_run),
                                       ("--list", options.list)) if given]  # fmt: skip
    if len(chosen) != 1:
        raise UsageError(
            f"{' and '.join(chosen)} do not go together" if chosen else "name files, or give --last, --run ID or --list"
        )
    recorded = _recorded(options.journal)
    if options.list:
        return _list(recorded)
    _require_mutagen()
    if options.files:
        return _undo_files(options, recorded)
    open_ones = [one for one in recorded if not one.undone]
    if options.of_run is not None:
        if all(one.entry.run != options.of_run for one in recorded):
            raise UsageError(f"there is no run {options.of_run}; `tonestream undo --list` shows those there are")
        chosen_ones = [one for one in open_ones if one.entry.run == options.of_run]
    else:
        chosen_ones = [one for one in open_ones if one.entry.run == open_ones[-1].entry.run]
    return _undo_all([(one, None) for one in reversed(chosen_ones)], options)


def _recorded(journal: str | None) -> Sequence[Recorded]:
    from services.library.tagging.journal import read_journals

    try:
        journals = read_journals(None if journal is None else Path(journal))
    except OSError as error:
        raise UsageError(f"the journal {error.filename or journal} cannot be read: {error.strerror}") from error
    for file, count in journals.unreadable.items():
        complain(f"{file}: {count} line{'' if count == 1 else 's'} cannot be read, probably cut by a crash")
    return journals.entries


def _require_mutagen() -> None:
    from services.library.tagging.errors import MutagenMissingError
    from services.library.tagging.formats import require_mutagen

    try:
        require_mutagen()
    except MutagenMissingError as error:
        raise UsageError(str(error)) from error


def _list(recorded: Sequence[Recorded]) -> int:
    runs: dict[str, list[Recorded]] = {}
    for one in recorded:
        runs.setdefault(one.entry.run, []).append(one)
    for run, ones in reversed(runs.items()):
        undone = sum(1 for one in ones if one.undone)
        state = "" if not undone else "undone" if undone == len(ones) else f"{undone} undone"
        when = ones[0].entry.time.astimezone().strftime("%Y-%m-%d %H:%M")
        files = f"{len(ones)} file{'' if len(ones) == 1 else 's'}"
        print(f"{run}  {when}  {files:12}  {state}".rstrip())
    if not runs:
        print("no runs: no tags were written")
    return OK


def _undo_files(options: argparse.Namespace, recorded: Sequence[Recorded]) -> int:
    from services.library.tagging.undo import entries_of

    well = True
    work: list[tuple[Recorded, Path | None]] = []
    for name in options.files:
        file = Path(name)
        try:
            found = entries_of(file, recorded)
        except (OSError, RuntimeError) as error:
            complain(f"{name}: {getattr(error, 'strerror', None) or error}")
            well = False
            continue
        if not found:
            complain(f"{name}: no tags were written into this file")
            well = False
        work += [(one, file) for one in reversed(found) if not one.undone]
        if found and all(one.undone for one in found):
            print(encodable(printable(f"{name}: nothing to undo, it is undone already")))
    status = _undo_all(work, options, quiet=True)
    return status if well else FAILED


def _undo_all(work: Sequence[tuple[Recorded, Path | None]], options: argparse.Namespace, quiet: bool = False) -> int:
    """Undo entries in the order given, each in its file, or in the one that it is with now."""
    from services.library.tagging.errors import TagRefusedError
    from services.library.tagging.undo import plan_undo, undo

    if not work and not quiet:
        print("nothing to undo")
    well = True
    restored: set[Path] = set()
    for recorded, file in work:
        shown = str(file or recorded.entry.path)
        try:
            plan = plan_undo(recorded, file, options.force)
            if not options.dry_run:
                undo(plan)
        except TagRefusedError as refused:
            well = False
            complain(f"{shown}: not undone: {refused.message}")
            continue
        except OSError as error:
            well = False
            complain(f"{shown}: undone, but the journal cannot say so: {error.strerror or error}")
            continue
        if plan.restored:
            restored.add(plan.file)
        well = well and not plan.left
        _tell(shown, plan, options.dry_run)
    if len(work) > 1:
        said = f"{len(restored)} file{'' if len(restored) == 1 else 's'}"
        print(f"{said} would be restored, none was" if options.dry_run else f"{said} restored")
    return OK if well else FAILED


def _tell(shown: str, plan: UndoPlan, dry_run: bool) -> None:
    arrow = "→" if has("→") else "->"
    lines = [shown]
    if not plan.restored and not plan.left:
        lines = [f"{shown}: nothing to undo, its tags are as they were"]
    for one in plan.restored:
        if dry_run or one.value.field.value != "evidence":
            lines.append(f"{_GAP}{one.value.key}: {_joined(one.now)} {arrow} {_joined(one.before)}")
    evidence = sum(1 for one in plan.restored if one.value.field.value == "evidence")
    if evidence and not dry_run:
        lines.append(f"{_GAP}evidence: {evidence} fields")
    for one in plan.left:
        lines.append(
            f"{_GAP}{one.value.key}: {_joined(one.now)} was changed since, so it stays (--force restores"
            f" {_joined(one.before)})"
        )
    for line in lines:
        print(encodable(printable(line)), flush=True)


def _joined(values: Sequence[str]) -> str:
    return "; ".join(values) if values else "nothing"
