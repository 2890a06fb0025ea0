"""``tonestream worker``: one service on Kafka, in a process of its own."""

from __future__ import annotations

import argparse
import logging
from functools import partial

from services.cli import redacted_logs
from services.topology import SERVICE_NAMES, build_services
from shared.contracts.messages import Stage
from shared.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``worker``."""
    parser.add_argument("service", choices=SERVICE_NAMES, metavar="SERVICE", help=", ".join(SERVICE_NAMES))
    parser.set_defaults(run=run, defect_level=logging.CRITICAL)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Run the worker; it ends the process itself."""
    from shared.runtime import traces
    from shared.runtime.process import end_process, run_worker

    redacted_logs.configure(settings, settings.log_format)
    stage = Stage(options.service)
    status = run_worker(stage, settings, partial(build_services, stage, settings))
    traces.stop()
    end_process(status)
