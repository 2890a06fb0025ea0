"""``tonestream``, the command line. Exit status: 0 all is well, 1 something failed, 2 wrong usage, 130 interrupted.

Nothing but the guard is here: loading the commands takes a moment, in which a person may press Ctrl-C, too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

#: What shells add to the number of the signal that ended a process.
_BY_SIGNAL: Final = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Without ``arguments`` it is that of the process, which ends with it."""
    if arguments is not None:
        from services.cli.command_line import run

        return run(arguments)
    status = _BY_SIGNAL + signal.SIGINT
    try:
        from services.cli.command_line import own_process, run

        own_process()
        status = run(None)
    except KeyboardInterrupt:  # before the command began, or after it had ended
        pass
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if status > _BY_SIGNAL:
        os._exit(status)  # nobody waits for what threads are still busy with
    return status


if __name__ == "__main__":
    sys.exit(main())
