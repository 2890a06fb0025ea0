"""``tonestream``, the command line. Exit status: 0 all is well, 1 something failed, 2 wrong usage, 130 interrupted.

This module only guards the rest, because Ctrl-C may also come while the commands are imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

#: numpy's matrix products here take microseconds: threads of their own would spend more on waiting for each other.
#: Tracks and batches run side by side instead. Each variable is read when numpy is imported.
THREADS_OF_BLAS: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: Shells report a process that a signal ended as this number plus the signal's.
_BY_SIGNAL: Final = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Without ``arguments`` it takes those of the process, and ends the
    process."""
    if arguments is not None:
        _keep_blas_to_one_thread()
        from services.cli.command_line import run

        return run(arguments)
    status = _BY_SIGNAL + signal.SIGINT
    try:
        _keep_blas_to_one_thread()
        from services.cli.command_line import own_process, run

        own_process()
        status = run(None)
    except KeyboardInterrupt:  # before the command began, or after it had ended
        pass
    except Exception as error:
        # pydantic reports Ctrl-C as a fault of the schema that it builds at that moment.
        if KeyboardInterrupt.__name__ not in str(error):
            raise
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if status > _BY_SIGNAL:
        os._exit(status)  # does not wait for running threads
    return status


def _keep_blas_to_one_thread() -> None:
    for name in THREADS_OF_BLAS:
        os.environ.setdefault(name, "1")


if __name__ == "__main__":
    sys.exit(main())
