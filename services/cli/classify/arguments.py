"""Arguments that ``classify`` and ``watch`` share."""

from __future__ import annotations

import argparse
from pathlib import Path

from services.cli import exports
from services.cli.status import UsageError
from services.cli.tagging import add_arguments as add_tag_arguments
from shared.models.catalogue import Catalogue
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, formats, filter, pictures, the store of what is classified, and tags in files."""
    parser.add_argument("--model", metavar="NAME", help="genre model by folder name or model ID (default: the setting)")
    exports.add_arguments(parser, table="for people, the default")
    parser.add_argument(
        "--embedding", action="store_true", help="with --json: 200 numbers a track, to compare tracks by"
    )
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw a picture (PNG) of each track into FOLDER")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip what an earlier run with --resume has classified: the same files, also moved or copied, by the same"
        " models. Their earlier answers are shown",
    )
    parser.add_argument("--library", type=Path, metavar="FILE", help="like --resume, with the answers in FILE (SQLite)")
    parser.add_argument("--retry-failed", action="store_true", help="with --resume: try again also what fails for good")
    parser.add_argument("--verbose", action="store_true", help="the services' log on standard error")
    add_tag_arguments(parser)


def store_path(options: argparse.Namespace) -> Path | None:
    """The file for what is classified; None if none is asked for. Raises UsageError."""
    from services.library.store import default_path

    if options.library is not None:
        return Path(options.library)
    if options.resume:
        return default_path()
    if options.retry_failed:
        raise UsageError("--retry-failed goes with --resume or --library")
    return None


def with_model(options: argparse.Namespace, settings: Settings) -> Settings:
    """The settings with the genre model of ``--model``. Raises UsageError if there is none."""
    if options.model is None:
        return settings
    catalogue = Catalogue.of(settings)
    model = catalogue.find("genre", options.model)
    if model is None:
        raise UsageError(f"there is no genre model {options.model!r}; there are {catalogue.named('genre')}")
    return settings.model_copy(update={"genre_model": str(model.folder)})
