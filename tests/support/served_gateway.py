"""A real gateway with its pipeline, as ``tonestream serve`` starts it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.processes import tail

_START_S: Final = 120.0
_STOP_S: Final = 20.0


class ServedGateway:
    """A context manager. ``address`` is where it listens; what it keeps is below ``folder``.

    ``settings`` by their names in Settings. The light genre model, unless they say otherwise.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        known = {"library_db": str(folder / "library.sqlite"), "genre_model": "mfcc-lstm"} | settings
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")},
            **{f"TONESTREAM_{name.upper()}": value for name, value in known.items()},
        }
        self.address = ""

    def __enter__(self) -> Self:
        out, log = self._folder / "gateway.out", self._folder / "gateway.log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.cli.main", "serve", "--port", "0"],
                env=self._environment,
                stdout=stdout,
                stderr=stderr,
            )
        deadline = time.monotonic() + _START_S
        while not self.address:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise AssertionError(f"the gateway did not start: {tail(log)}")
            words = out.read_text().split()
            self.address = next((word.rstrip("/") for word in words if word.startswith("http://")), "")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
