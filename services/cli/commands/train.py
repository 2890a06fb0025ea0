"""``tonestream train``: a model folder from labelled data."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.commands import mood as mood_commands
from services.cli.status import OK
from services.cli.training_tools import (
    add_work_options,
    existing_folder,
    faults_of_data,
    require_training,
    warn,
    workspace,
)
from shared.settings import Settings

if TYPE_CHECKING:
    from training.reports.figures import GenreFigures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The kinds of model that ``train`` trains."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    genre = kinds.add_parser("genre", help="train a genre model on a folder laid out as genre/track.ext")
    genre.add_argument("--model", required=True, metavar="NAME", help="mfcc-lstm, musicnn-lstm, mfcc-lstm-seed")
    genre.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to write")
    add_genre_options(genre)
    genre.set_defaults(run=_train_genre)
    mood_commands.add_train(kinds)
    export = kinds.add_parser("export", help="write the networks of finished models for ONNX Runtime")
    export.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="model folders")
    export.set_defaults(run=_export)
    key = kinds.add_parser("key", help="fit the key profiles to clips whose index.csv has a column key")
    key.add_argument("--data", type=Path, required=True, metavar="DIR", help="clips as genre/track.ext with index.csv")
    add_work_options(key)
    key.set_defaults(run=_train_key)


def add_genre_options(parser: argparse.ArgumentParser) -> None:
    """Options of training and evaluation alike: the data and the split."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="clips as genre/track.ext, with or without index.csv"
    )
    parser.add_argument(
        "--split",
        choices=("artist", "fault-filtered"),
        default="artist",
        help="by artist in folds (default), or the fault-filtered split of the full GTZAN",
    )
    parser.add_argument("--folds", type=int, default=5, help="of the split by artist (default 5)")
    parser.add_argument(
        "--teach",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="music of any kind to learn from, without genres; may be given more than once",
    )
    for kind, what in (("speech", "people who speak"), ("sounds", "sounds that are neither music nor speech")):
        parser.add_argument(
            f"--{kind}",
            type=Path,
            action="append",
            default=[],
            metavar="DIR",
            help=f"recordings of {what}, a subfolder a source, to tell music from; may be given more than once",
        )
    parser.add_argument(
        "--no-leaky", action="store_true", help="leave out the random split by segment, which takes one more training"
    )
    add_work_options(parser)


def _train_genre(options: argparse.Namespace, settings: Settings) -> int:
    data = workspace(options, settings)
    from training.genre.protocol import protocol_named
    from training.genre.training import Plan, train_model
    from training.reports.card import genre_report
    from training.reports.figures import GenreFigures as Figures

    plan = Plan(options.split, options.folds, options.seed, not options.no_leaky)
    with faults_of_data():
        protocol = protocol_named(options.model)
        manifest = train_model(existing_folder(options.data), protocol, options.out, plan, _command(options), data)
    figures = Figures.model_validate(manifest.figures)
    warn_of_skipped(figures)
    report = genre_report(figures, manifest.temperature, manifest.track_temperature)
    print(f"# {manifest.model_id}\n\n{report}\nWritten to {options.out}")
    return OK


def _export(options: argparse.Namespace, settings: Settings) -> int:
    require_training()
    from training.export import add_onnx

    for folder in options.folders:
        manifest = add_onnx(existing_folder(folder))
        print(f"{manifest.model_id}: {folder / manifest.onnx.file if manifest.onnx else ''}")
    return OK


def _train_key(options: argparse.Namespace, settings: Settings) -> int:
    data = workspace(options, settings)
    from training.key.profiles import train_keys

    command = shlex.join(["tonestream", "train", "key", "--data", str(options.data), "--seed", str(options.seed)])
    with faults_of_data():
        print(train_keys(existing_folder(options.data), command, options.seed, data))
    return OK


def warn_of_skipped(figures: GenreFigures) -> None:
    """Name the files that were left out on standard error."""
    if skipped := figures.skipped:
        files = "; ".join(f"{one.file} ({one.reason})" for one in skipped)
        warn(f"files left out, because they cannot be used: {len(skipped)}: {files}")


def _command(options: argparse.Namespace) -> str:
    """The command that reproduces the model."""
    words = ["tonestream", "train", "genre", "--data", options.data, "--model", options.model, "--out", options.out]
    words += ["--split", options.split] if options.split != "artist" else ["--folds", options.folds]
    for kind in ("teach", "speech", "sounds"):
        words += [word for folder in getattr(options, kind) for word in (f"--{kind}", folder)]
    words += ["--seed", options.seed, *(["--no-leaky"] if options.no_leaky else [])]
    return shlex.join(str(word) for word in words)
