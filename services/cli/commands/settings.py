"""``tonestream settings``: every setting with its default."""

from __future__ import annotations

import argparse

from services.cli.status import OK
from shared.settings import Settings, as_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``settings`` takes no arguments."""
    parser.set_defaults(run=_settings)


def _settings(options: argparse.Namespace, settings: Settings) -> int:
    print(as_markdown())
    return OK
