"""Contenders that stay warm: child processes that are given files, and answer with what these took.

Requests and answers are lines of JSON. The child measures its own CPU, with that of the programs that it ran (ffmpeg);
this process watches its memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from benchmarks.bench.measurement import MemoryWatch, NotMeasuredError, Usage, last_line, own_cpu_s, own_peak_mb

_START_TIMEOUT_S: Final = 180.0
_WORK_TIMEOUT_S: Final = 3600.0

#: Classifies files, all at once or one by one. The result does not matter.
Classify = Callable[[Sequence[Path], bool], None]


def serve(prepare: Callable[[], Classify]) -> None:
    """In the child: get ready, and classify what standard input names until it ends."""
    # Libraries print what they like: only this module writes to the real standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(said: Mapping[str, Any]) -> None:
        print(json.dumps(said), file=answers, flush=True)

    classify = prepare()
    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        cpu_s, started = own_cpu_s(), time.perf_counter()
        classify([Path(file) for file in request["files"]], request["at_once"])
        wall_s = time.perf_counter() - started
        answer({"cpu_s": own_cpu_s() - cpu_s, "wall_s": wall_s, "peak_mb": own_peak_mb()})


@dataclass(frozen=True, slots=True)
class Contender:
    """A name, and the command of the child process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


class WarmContender:
    """A context manager: the child process of a contender. Raises NotMeasuredError if it does not get ready."""

    def __init__(self, contender: Contender, logs: Path) -> None:
        self.name = contender.name
        self._log = logs / f"{contender.name}.log"
        with self._log.open("wb") as said:
            self._process = subprocess.Popen(
                contender.command,
                env=dict(contender.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def __enter__(self) -> Self:
        try:
            self._answer(_START_TIMEOUT_S)
        except NotMeasuredError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a request that nobody read is lost
                pipe.close()

    def classify(self, files: Sequence[Path], at_once: bool = True) -> Usage:
        """What these files took. Raises NotMeasuredError if the child fails."""
        request = {"files": [str(file) for file in files], "at_once": at_once}
        with MemoryWatch({"it": self._process.pid}) as memory:
            try:
                print(json.dumps(request), file=self._pipe(self._process.stdin), flush=True)
            except OSError:
                raise NotMeasuredError(f"it ended early: {last_line(self._log)}") from None
            took = self._answer(_WORK_TIMEOUT_S)
        return Usage(took["cpu_s"], took["wall_s"], memory.peak_mb("it") or took["peak_mb"])

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        answers = self._pipe(self._process.stdout)
        if not select.select([answers], [], [], timeout_s)[0]:
            raise NotMeasuredError(f"it gave no answer within {timeout_s:.0f} s")
        line = answers.readline()
        if not line:
            raise NotMeasuredError(f"it ended with status {self._process.wait()}: {last_line(self._log)}")
        said: dict[str, Any] = json.loads(line)
        return said

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
