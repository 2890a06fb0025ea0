"""``tonestream completion``: a script that completes commands, options and files in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.cli.status import OK
from shared.settings import Settings

SHELLS: Final = ("bash", "zsh", "tcsh")

_DESCRIPTION: Final = """\
Print a completion script. To use it in bash, put this into ~/.bashrc:
  eval "$(tonestream completion bash)"
in zsh, where your completions are:
  tonestream completion zsh > ~/.zfunc/_tonestream"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``completion``."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    import shtab

    from services.cli.commands.table import whole_parser

    parser = whole_parser()
    for action in _actions(parser):
        if action.dest == "inputs":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.type is Path:
            action.complete = shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of all commands, however deep."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
