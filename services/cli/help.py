"""The parser of the command line, with formatted help on terminals."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any


class Parser(argparse.ArgumentParser):
    """An argument parser with coloured help on a terminal. Its subcommands have the same."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", _formatter)
        super().__init__(*arguments, **options)


def _formatter(prog: str) -> argparse.HelpFormatter:
    # Importing rich takes a moment, so it is imported only for a terminal.
    seen = sys.stdout is not None and sys.stdout.isatty()
    if seen and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        try:
            from rich_argparse import RichHelpFormatter
        except ImportError:
            pass
        else:
            return RichHelpFormatter(prog)
    return argparse.HelpFormatter(prog)
