"""Commands about this installation: its health, its settings, its version."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version as package_version
from typing import Any

from services.cli.output import complain
from services.cli.status import FAILED, OK, UsageError
from shared.models.manifest import load_manifest
from shared.runtime import health_probe
from shared.settings import Settings, as_markdown


def add_parsers(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``health``, ``settings`` and ``version``."""
    health = commands.add_parser("health", help="ask the worker on this machine whether it is alive, or ready")
    health.add_argument("--ready", action="store_true", help="whether it takes work, not only whether it is alive")
    health.add_argument("--port", type=_port, help="default TONESTREAM_HEALTH_PORT")
    health.set_defaults(run=_health)

    settings = commands.add_parser("settings", help="print every setting with its default, as Markdown")
    settings.set_defaults(run=_settings)

    version = commands.add_parser("version", help="print the version and the models")
    version.set_defaults(run=_version)


def _port(text: str) -> int:
    if not health_probe.is_port(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; they go from 1 to 65535")
    return int(text)


def _health(options: argparse.Namespace, settings: Settings) -> int:
    port = options.port or settings.health_port
    if not port:
        raise UsageError("which port? Give --port or set TONESTREAM_HEALTH_PORT")
    try:
        ok, report = health_probe.ask(port, health_probe.READY if options.ready else health_probe.LIVE)
    except OSError as error:
        complain(f"no worker answers on port {port}: {str(error) or type(error).__name__}")
        return FAILED
    print(report)
    return OK if ok else FAILED


def _settings(options: argparse.Namespace, settings: Settings) -> int:
    print(as_markdown())
    return OK


def _version(options: argparse.Namespace, settings: Settings) -> int:
    models = {
        kind: load_manifest(settings.models_dir / name).model_id
        for kind, name in (("genre", settings.genre_model), ("mood", settings.mood_model))
    }
    print(json.dumps({"tonestream": package_version("tonestream"), "models": models}))
    return OK
