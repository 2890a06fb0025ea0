"""``tonestream version``: the version and the models."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version as package_version

from services.cli.status import OK
from shared.models.manifest import load_manifest
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``version`` takes no arguments."""
    parser.set_defaults(run=_version)


def _version(options: argparse.Namespace, settings: Settings) -> int:
    models = {
        kind: load_manifest(settings.models_dir / name).model_id
        for kind, name in (("genre", settings.genre_model), ("mood", settings.mood_model))
    }
    print(json.dumps({"tonestream": package_version("tonestream"), "models": models}))
    return OK
