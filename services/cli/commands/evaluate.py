"""``tonestream evaluate``: how good a model is, on labelled data it was not trained on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.commands import mood as mood_commands
from services.cli.commands.train import add_genre_options, warn_of_skipped
from services.cli.status import OK, UsageError
from services.cli.training_tools import (
    existing_folder,
    faults_of_data,
    manifest_of_kind,
    model_folder,
    workspace,
)
from shared.settings import Settings

if TYPE_CHECKING:
    from training.reports.figures import ClipLeak, GenreFigures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The kinds of model that ``evaluate`` measures."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    genre = kinds.add_parser("genre", help="measure a genre model on a folder laid out as genre/track.ext")
    genre.add_argument(
        "--model",
        metavar="DIR|NAME",
        help="model folder (default: the one that serves); with --cross-validate also the name of one to train",
    )
    genre.add_argument(
        "--cross-validate", action="store_true", help="train afresh on parts of the data, judge on the rest"
    )
    genre.add_argument("--json", action="store_true", help="every figure as one JSON object")
    genre.add_argument("--report", type=Path, metavar="DIR", help="write REPORT.md, figures.json and the plots there")
    add_genre_options(genre)
    genre.set_defaults(run=_evaluate_genre)
    mood_commands.add_evaluate(kinds)


def _evaluate_genre(options: argparse.Namespace, settings: Settings) -> int:
    data = workspace(options, settings)
    from training.genre.evaluation import evaluate_model
    from training.genre.protocol import protocol_named
    from training.genre.training import Plan, cross_validate_protocol

    existing_folder(options.data)
    with faults_of_data():
        if options.cross_validate:
            model = _recipe_name(options.model, settings)
            plan = Plan(options.split, options.folds, options.seed, not options.no_leaky)
            figures = cross_validate_protocol(options.data, protocol_named(model), plan, data)
        else:
            folder = _model_folder(options.model, settings)
            model = manifest_of_kind(folder, "genre").model_id
            figures = evaluate_model(options.data, folder, options.split, data)
    title = f"# {model}{', trained afresh' if options.cross_validate else ''}"
    report = _report(title, figures)
    warn_of_skipped(figures)
    about = {"model": model, "cross_validated": options.cross_validate, "folder": str(options.data)}
    found = {**about, **figures.as_json()}
    if options.report is not None:
        _write(options.report, report, found, model, figures)
    print(json.dumps(found) if options.json else report)
    return OK


def _recipe_name(given: str | None, settings: Settings) -> str:
    """The protocol to train: by its own name, or by that of a model folder."""
    from training.genre.protocol import PROTOCOLS

    if given in PROTOCOLS:
        return given
    manifest = manifest_of_kind(_model_folder(given, settings), "genre")
    name: str = manifest.figures.get("recipe", manifest.name)
    return name


def _model_folder(given: str | None, settings: Settings) -> Path:
    """A model folder by its path or name; by default the one that serves. Raises UsageError."""
    if given is None:
        return settings.models_dir / settings.genre_model
    if found := model_folder(given, settings):
        return found
    raise UsageError(f"there is no model folder {given}; a model that has yet to be trained takes --cross-validate")


def _report(title: str, figures: GenreFigures) -> str:
    """The figures as Markdown, with a warning first if they are flattered."""
    from training.reports.card import genre_report

    warning = None if figures.leak is None else leak_warning(figures.leak)
    body = genre_report(figures, figures.temperature or 1.0, figures.track_temperature or 1.0)
    return "\n\n".join(part for part in (title, warning and f"**WARNING: {warning}**", body) if part)


def leak_warning(leak: ClipLeak) -> str | None:
    """A warning if the model may have been trained on some of the clips; else None."""
    clips, of = leak.clips, leak.of
    if clips is None:
        return (
            "the manifest does not say what the model was trained on. If these clips were among it, the figures are "
            "flattered and say nothing about other music."
        )
    if clips:
        return (
            f"LEAK. The model was trained on {clips} of these {of} clips: it knows them by heart, the figures are "
            "flattered and say nothing about other music. Take other clips, or --cross-validate."
        )
    return None


def _write(folder: Path, report: str, found: Mapping[str, Any], title: str, figures: GenreFigures) -> None:
    from training.reports.plots import write_plots

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "REPORT.md").write_text(report, encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    write_plots(folder, title, figures)
