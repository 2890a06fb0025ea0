"""``tonestream classify``: everything in one process, on this machine."""

from __future__ import annotations

import argparse

from services.cli import redacted_logs
from services.cli.classify import arguments
from services.cli.inputs import expand
from services.cli.output import complain
from services.cli.requests import shown_source
from services.cli.scan import LeftOut
from services.cli.status import UsageError
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``classify``."""
    parser.add_argument("inputs", nargs="+", metavar="PATH|DIR|URL|SPOTIFY_ID")
    arguments.add_arguments(parser)
    parser.set_defaults(run=_classify)


def _classify(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli.classify.run import Run

    redacted_logs.configure(settings, "text", None if options.verbose else "ERROR")
    settings = arguments.with_model(options, settings)
    left_out = LeftOut()
    inputs = list(expand(options.inputs, left_out))
    tell(left_out)
    if not inputs:
        raise UsageError(f"no audio files in {', '.join(left_out.empty)}")
    return Run(options, settings, [shown_source(one) for one in inputs]).take(inputs)


def tell(left_out: LeftOut) -> None:
    """Report on standard error what the folders hold besides music."""
    if said := str(left_out):
        complain(said)
    for folder in left_out.empty:
        complain(f"no audio files in {folder}")
