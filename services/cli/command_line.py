"""A command from the process's start to its exit status. The command itself is imported when it is used."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from services.cli import output
from services.cli.commands.table import parser_for
from services.cli.status import FAILED, EndedError

log = logging.getLogger(__name__)

#: Signals besides that of Ctrl-C that end a command in an orderly way: finished results are shown and nothing is left
#: behind.
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def run(arguments: Sequence[str] | None) -> int:
    """Run one command; returns the exit status."""
    return output.finish(_status(sys.argv[1:] if arguments is None else arguments))


def _status(arguments: Sequence[str]) -> int:
    try:
        options = parser_for(arguments).parse_args(arguments)
    except SystemExit as ended:  # argparse has printed its message
        return ended.code if isinstance(ended.code, int) else FAILED
    from services.cli.execution import execute

    return execute(options)


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
