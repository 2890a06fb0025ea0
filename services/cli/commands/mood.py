"""``tonestream train mood`` and ``tonestream evaluate mood``."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.status import OK, UsageError
from services.cli.training_tools import (
    add_work_options,
    existing_folder,
    faults_of_data,
    manifest_of_kind,
    model_folder,
    warn,
    workspace,
)
from shared.models.manifest import load_manifest
from shared.settings import Settings

if TYPE_CHECKING:
    from training.mood.training import MoodPlan
    from training.reports.figures import MoodFigures, TrackLeak


def add_train(kinds: argparse._SubParsersAction[Any]) -> None:
    """Add ``mood`` to the kinds of model that ``tonestream train`` knows."""
    mood = kinds.add_parser("mood", help="train a mood model on a table of Spotify's features")
    mood.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to write")
    mood.add_argument(
        "--listeners",
        type=Path,
        metavar="DIR",
        help="recordings with an index.csv of what listeners felt, to learn the mood of measured features from "
        "(default: that part is taken over from the installed model)",
    )
    mood.add_argument(
        "--genres",
        type=Path,
        metavar="DIR",
        help="clips as genre/track.ext, with or without index.csv, to check the measured features on",
    )
    _add_options(mood)
    mood.set_defaults(run=_train)


def add_evaluate(kinds: argparse._SubParsersAction[Any]) -> None:
    """Add ``mood`` to the kinds of model that ``tonestream evaluate`` knows."""
    mood = kinds.add_parser("mood", help="measure a mood model on a table of Spotify's features")
    mood.add_argument("--model", metavar="DIR|NAME", help="model folder (default: the one that serves)")
    mood.add_argument(
        "--cross-validate", action="store_true", help="train afresh on parts of the table, judge on the rest"
    )
    mood.add_argument("--json", action="store_true", help="every figure as one JSON object")
    mood.add_argument("--report", type=Path, metavar="DIR", help="write REPORT.md, figures.json and the plots there")
    _add_options(mood)
    mood.set_defaults(run=_evaluate)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Options of training and evaluation alike: the table and the folds."""
    parser.add_argument(
        "--csv",
        type=Path,
        required=True,
        metavar="FILE",
        help="table with the ten features, mood, and perhaps artist and source (who gave the mood)",
    )
    parser.add_argument("--folds", type=int, default=10, help="of the cross-validation by artist (default 10)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="how often to cross-validate, with other folds each time (default 5)"
    )
    add_work_options(parser)


def _train(options: argparse.Namespace, settings: Settings) -> int:
    if options.genres is not None and options.listeners is None:
        raise UsageError("--genres checks the features that --listeners is learnt from: give both")
    data = workspace(options, settings)
    from training.mood.card import listener_report, mood_report
    from training.mood.training import AudioData, train_model
    from training.reports.figures import MoodFigures as Figures

    folders = (None if given is None else existing_folder(given) for given in (options.listeners, options.genres))
    with faults_of_data():
        manifest = train_model(options.csv, options.out, AudioData(*folders), _plan(options), _command(options), data)
    figures = Figures.model_validate(manifest.figures)
    assert figures.audio is not None, "every mood model knows measured features"
    if not figures.artists_known:
        warn(_NO_ARTISTS)
    report = mood_report(figures, manifest.temperature) + "\n" + listener_report(figures.audio)
    print(f"# {manifest.model_id}\n\n{report}\nWritten to {options.out}")
    return OK


def _evaluate(options: argparse.Namespace, settings: Settings) -> int:
    if options.cross_validate and options.model is not None:
        raise UsageError("--cross-validate trains models of its own: leave out --model")
    data = workspace(options, settings)
    from training.mood.training import cross_validate_model, evaluate_model

    with faults_of_data():
        if options.cross_validate:
            model, figures = "mood, trained afresh", cross_validate_model(options.csv, _plan(options), data)
        else:
            folder = _model_folder(options.model, settings)
            model, figures = load_manifest(folder).model_id, evaluate_model(options.csv, folder, data)
    if figures.leak is not None and (leaked := leak_warning(figures.leak)):
        warn(leaked)
    if options.cross_validate and not figures.artists_known:
        warn(_NO_ARTISTS)
    report = _report(model, figures)
    about = {"model": model, "cross_validated": options.cross_validate, "csv": str(options.csv)}
    found = {**about, **figures.as_json()}
    if options.report is not None:
        _write(options.report, report, found, model, figures)
    print(json.dumps(found) if options.json else report)
    return OK


_NO_ARTISTS = (
    "the table has no column artist: each track counts as an artist of its own, songs of one artist may be in both"
    " training and test, and the figures come out too high"
)


def _plan(options: argparse.Namespace) -> MoodPlan:
    from training.mood.training import MoodPlan

    if options.repeats < 1:
        raise UsageError(f"--repeats takes 1 or more, not {options.repeats}")
    return MoodPlan(options.folds, options.repeats, options.seed)


def _command(options: argparse.Namespace) -> str:
    """The command that reproduces the model."""
    words = ["tonestream", "train", "mood", "--csv", options.csv, "--out", options.out]
    words += ["--listeners", options.listeners] if options.listeners is not None else []
    words += ["--genres", options.genres] if options.genres is not None else []
    words += ["--folds", options.folds, "--repeats", options.repeats, "--seed", options.seed]
    return shlex.join(str(word) for word in words)


def _model_folder(given: str | None, settings: Settings) -> Path:
    """A mood model's folder by its path or name; by default the one that serves. Raises UsageError."""
    wanted = Path(given) if given is not None else settings.models_dir / settings.mood_model
    folder = model_folder(wanted, settings)
    if folder is None:
        raise UsageError(f"there is no model folder {wanted}")
    manifest_of_kind(folder, "mood")
    return folder


def leak_warning(leak: TrackLeak) -> str | None:
    """A warning if the model may have been trained on some of the tracks; else None."""
    tracks, of = leak.tracks, leak.of
    if tracks is None:
        return (
            "the manifest does not say what the model was trained on. If these tracks were among it, the figures are"
            " flattered and say nothing about other music."
        )
    if tracks:
        return (
            f"LEAK. The model was trained on {tracks} of these {of} tracks: the figures are flattered and say nothing"
            " about other music. Take other tracks, or --cross-validate."
        )
    return None


def _report(model: str, figures: MoodFigures) -> str:
    """The figures as Markdown, with a warning first if they are flattered."""
    from training.mood.card import mood_report

    warning = None if figures.leak is None else leak_warning(figures.leak)
    body = mood_report(figures, figures.temperature or 1.0)
    return "\n\n".join(part for part in (f"# {model}", warning and f"**WARNING: {warning}**", body) if part)


def _write(folder: Path, report: str, found: Mapping[str, Any], title: str, figures: MoodFigures) -> None:
    from training.mood.plots import write_plots

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "REPORT.md").write_text(report, encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    write_plots(folder, title, figures)
