"""``tonestream completion``: a script that completes commands, options and files in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from services.cli.status import OK
from shared.settings import Settings

SHELLS: Final = ("bash", "zsh", "tcsh")

_DESCRIPTION: Final = """\
Print a completion script. To use it in bash, put this into ~/.bashrc:
  eval "$(tonestream completion bash)"
in zsh, where your completions are:
  tonestream completion zsh > ~/.zfunc/_tonestream"""


def add_parser(commands: argparse._SubParsersAction[Any], whole: argparse.ArgumentParser) -> None:
    """Add ``completion`` of all commands of the parser ``whole``."""
    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands in your shell",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(run=_run, parser=whole)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    import shtab

    for action in _actions(options.parser):
        if action.dest == "inputs":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.type is Path:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(options.parser, options.shell))
    return OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of all commands, however deep."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
