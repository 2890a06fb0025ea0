"""The commands, and how each of them ends: with an exit status, and one line about any error."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from pydantic import ValidationError

from services.cli import output
from services.cli.commands import (
    about,
    classify,
    completion,
    dead_letters,
    evaluate,
    results,
    submit,
    topics,
    train,
    worker,
)
from services.cli.help import Parser
from services.cli.status import FAILED, INTERRUPTED, WRONG_USAGE, UsageError
from shared.bus.base import BusError
from shared.contracts.errors import DependencyError
from shared.contracts.faults import faults
from shared.models.manifest import ModelError
from shared.runtime.redaction import Redactor
from shared.settings import Settings, SettingsError

log = logging.getLogger(__name__)

#: Signals besides that of Ctrl-C that end a command in an orderly way: finished results are shown and nothing is left
#: behind.
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class EndedError(KeyboardInterrupt):
    """The process was asked to end by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(arguments: Sequence[str] | None) -> int:
    """Run one command; returns the exit status."""
    return output.finish(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        settings = Settings()
    except SystemExit as ended:  # argparse has printed its message
        return ended.code if isinstance(ended.code, int) else FAILED
    except ValidationError as error:
        output.complain(f"settings: {faults(error)}")
        return WRONG_USAGE
    except SettingsError as error:
        output.complain(str(error))
        return WRONG_USAGE
    redact = Redactor(settings.secrets())
    try:
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
        log.log(logging.CRITICAL if options.run is worker.run else logging.DEBUG, "defect", exc_info=True)
        output.complain(
            f"a defect of this program: {redact(f'{type(error).__name__}: {error}')} (TONESTREAM_LOG_LEVEL=DEBUG shows"
            " where)"
        )
    return FAILED


def own_process() -> None:
    """Prepare the process for one command. The signals above end it like Ctrl-C, unless it ignores them. Uncaught
    errors of threads go to the log."""
    output.prepare()
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    threading.excepthook = _log_defect


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise EndedError(number)


def _log_defect(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        name = "a thread" if ended.thread is None else ended.thread.name
        log.error("%s ended by a defect: %r", name, ended.exc_value)
        log.debug("where", exc_info=ended.exc_value)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tonestream", description="Genre and mood of music, by message queue.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    classify.add_parser(commands)
    submit.add_parser(commands)
    results.add_parser(commands)
    worker.add_parser(commands)
    topics.add_parsers(commands)
    dead_letters.add_parsers(commands)
    train.add_parsers(commands)
    evaluate.add_parsers(commands)
    about.add_parsers(commands)
    completion.add_parser(commands, parser)
    return parser
