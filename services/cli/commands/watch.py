"""``tonestream watch``: classify what is in a folder, and then what is added to it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from services.cli import redacted_logs
from services.cli.classify import arguments
from services.cli.inputs import Input
from services.cli.output import complain
from services.cli.status import UsageError
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``watch``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--new-only", action="store_true", help="leave out what is in the folder already")
    parser.add_argument("--poll", action="store_true", help="look at all files every few seconds: for network drives")
    arguments.add_arguments(parser)
    parser.set_defaults(run=_watch)


def _watch(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli.classify.run import Run
    from services.cli.watching.changes import Changes, settled
    from services.cli.watching.settling import Settling

    redacted_logs.configure(settings, "text", None if options.verbose else "ERROR")
    settings = arguments.with_model(options, settings)
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is no folder")
    settling = Settling()
    run = Run(options, settings, names=None, rewritten=lambda file: settling.skip(str(file)))
    with Changes(options.folder, options.poll) as changes:
        complain(f"watching {options.folder}; Ctrl-C ends it")

        def inputs() -> Iterator[Input | None]:
            for path in settled(changes, settling, options.new_only):
                yield None if path is None else Input("file", path)

        return run.take(inputs())
