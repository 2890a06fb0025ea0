"""Writes tags into a file, or takes them back, in a process of its own that a test may kill:
``python -m tests.support.tag_writer write|undo FILE JOURNAL``."""

from __future__ import annotations

import sys
from pathlib import Path

from services.library.tagging.apply import apply
from services.library.tagging.journal import Journal, read_journals
from services.library.tagging.plan import plan
from services.library.tagging.rules import Existing, Rules
from services.library.tagging.undo import plan_undo, undo
from tests.support.tagged_files import Heard


def main(what: str, file: Path, journal: Path) -> None:
    """Do it once."""
    if what == "write":
        apply(plan(file, Heard().result(), Rules(existing=Existing.OVERWRITE)), Journal(journal))
        return
    for recorded in reversed(read_journals(journal).entries):
        if not recorded.undone:
            undo(plan_undo(recorded))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
