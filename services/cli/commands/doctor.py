"""``tonestream doctor``: is everything there that Tonestream needs, and what to do where it is not."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from typing import Final

from services.cli import redacted_logs
from services.cli.output import encodable, printable
from services.cli.status import FAILED, OK
from shared.runtime.redaction import Redactor
from shared.settings import Settings

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "red"}
_SUBJECT_WIDTH: Final = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``doctor``."""
    parser.add_argument(
        "--cluster", action="store_true", help="check Kafka and Redis, too, also if no setting names them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with every check")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli.doctor.examination import checks, examine

    redacted_logs.configure(settings, "text", "CRITICAL", client_noise=False)
    redact = Redactor(settings.secrets())
    levels = []
    found = []
    for finding in examine(checks(settings, options.cluster), settings):
        finding = replace(finding, message=redact(finding.message), advice=redact(finding.advice))
        levels.append(finding.level)
        if options.json:
            found.append(asdict(finding))
            continue
        _print(finding.level, f"{finding.subject:{_SUBJECT_WIDTH}}  {finding.message}")
        if finding.advice:
            print(encodable(printable(f"      {'':{_SUBJECT_WIDTH}}  {finding.advice}")), flush=True)
    if options.json:
        print(json.dumps({"ok": "fail" not in levels, "checks": found}, indent=2))
    else:
        print(f"{levels.count('ok')} ok, {levels.count('warn')} to mind, {levels.count('fail')} to mend")
    return FAILED if "fail" in levels else OK


def _print(level: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    shown = encodable(printable(text))
    if console.is_terminal:
        console.print(Text(f"{level:4}", _STYLES[level]).append(f"  {shown}", "default"))
    else:
        print(f"{level:4}  {shown}", flush=True)
