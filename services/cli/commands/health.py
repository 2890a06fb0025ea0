"""``tonestream health``: whether the worker on this machine is alive, or ready."""

from __future__ import annotations

import argparse

from services.cli.output import complain
from services.cli.status import FAILED, OK, UsageError
from shared.runtime import health_probe
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``health``."""
    parser.add_argument("--ready", action="store_true", help="whether it takes work, not only whether it is alive")
    parser.add_argument("--port", type=_port, help="default TONESTREAM_HEALTH_PORT")
    parser.set_defaults(run=_health)


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
