"""How each command ends: with an exit status, and one line about any error."""

from __future__ import annotations

import argparse
import logging

from pydantic import ValidationError

from services.cli import output
from services.cli.status import FAILED, INTERRUPTED, WRONG_USAGE, EndedError, UsageError
from shared.bus.base import BusError
from shared.contracts.errors import DependencyError
from shared.contracts.faults import faults
from shared.models.manifest import ModelError
from shared.runtime import traces
from shared.runtime.redaction import Redactor
from shared.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def execute(options: argparse.Namespace) -> int:
    """Run the command of the parsed ``options``; returns the exit status."""
    try:
        settings = Settings()
    except ValidationError as error:
        output.complain(f"settings: {faults(error)}")
        return WRONG_USAGE
    except SettingsError as error:
        output.complain(str(error))
        return WRONG_USAGE
    redact = Redactor(settings.secrets())
    try:
        _start_traces(options)
        status: int = options.run(options, settings)
        return status
    except (UsageError, SettingsError) as error:
        output.complain(redact(str(error)))
        return WRONG_USAGE
    except ModuleNotFoundError as error:
        output.complain(f"{error}: this installation lacks what the command needs; pip install 'tonestream[all]'")
    except (BusError, DependencyError, ModelError, RuntimeError, ImportError) as error:
        # RuntimeError: a missing program (ffmpeg), a service that ended. All say what to do.
        output.complain(redact(str(error)))
    except KeyboardInterrupt as error:
        output.complain("interrupted")
        return 128 + error.number if isinstance(error, EndedError) else INTERRUPTED
    except OSError as error:
        if output.lost() is None:  # else ``finish`` says so
            output.complain(redact(str(error)))
    except Exception as error:
        # An operator reads logs and needs the traceback. A person at a terminal needs the message.
        log.log(getattr(options, "defect_level", logging.DEBUG), "defect", exc_info=True)
        output.complain(
            f"a defect of this program: {redact(f'{type(error).__name__}: {error}')} (TONESTREAM_LOG_LEVEL=DEBUG shows"
            " where)"
        )
    finally:
        traces.stop()
    return FAILED


def _start_traces(options: argparse.Namespace) -> None:
    """Where the environment asks for them, and under the name of what this process is.

    A worker that cannot do so does not start. A person's command goes on without: the variables may be for others.
    """
    command = options.tonestream_command
    on_kafka = command not in ("classify", "watch", "serve") or getattr(options, "kafka", False)
    names = {"worker": getattr(options, "service", command), "serve": "gateway"}
    try:
        traces.start(names.get(command, command), "kafka" if on_kafka else "memory")
    except SettingsError as error:
        if command == "worker":
            raise
        output.complain(f"no traces: {error}")
