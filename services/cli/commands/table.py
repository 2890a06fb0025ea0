"""The commands by name. A command's module is imported when the command is used, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from services.cli.help import Parser


@dataclass(frozen=True, slots=True)
class Command:
    """``module`` adds the command's parser; ``help`` is its line in the list of commands."""

    module: str
    help: str


COMMANDS: Final[Mapping[str, Command]] = {
    "classify": Command("classify", "classify files, folders, URLs and Spotify tracks on this machine"),
    "watch": Command("watch", "classify what is in a folder, and then what is added to it"),
    "undo": Command("undo", "restore the tags that `classify --write-tags` changed"),
    "serve": Command("serve", "serve the page and the HTTP API, with the pipeline in the same process or on Kafka"),
    "submit": Command("submit", "publish requests to Kafka; prints their request IDs"),
    "results": Command("results", "read results from Kafka"),
    "worker": Command("worker", "run one service on Kafka until a signal stops it"),
    "topics": Command("topics", "manage the topics"),
    "dead-letters": Command("dead_letters", "look at the records no worker could handle, and replay them"),
    "train": Command("train", "train a model on labelled data and measure it on held-out artists"),
    "evaluate": Command("evaluate", "measure a model on labelled data"),
    "doctor": Command("doctor", "check this installation: programs, models, servers, disk, limits"),
    "health": Command("health", "ask the worker on this machine whether it is alive, or ready"),
    "settings": Command("settings", "print every setting with its default, as Markdown"),
    "version": Command("version", "print the version and the models"),
    "completion": Command("completion", "print a script that completes commands in your shell"),
}


def parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``arguments``: complete for the command that they name, with only the names of the others."""
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    return _parser([named] if named is not None else [])


def whole_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    return _parser(list(COMMANDS))


def _parser(complete: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(prog="tonestream", description="Genre and mood of music, by message queue.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="tonestream_command")
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.help)
        if name in complete:
            import_module(f"services.cli.commands.{command.module}").add_arguments(added)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: reading it costs more than the rest of a start."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from importlib.metadata import version

        print(f"tonestream {version('tonestream')}")
        parser.exit()
