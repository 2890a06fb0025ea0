"""``tonestream serve`` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

_START_S = 90.0
_ADDRESS = re.compile(r"Tonestream is at (http://\S+)/")


class Served:
    """A context manager: starts the command on a port that the kernel chooses, waits until it answers, ends it.

    ``settings`` by their names in Settings. ``address`` is where it listens: ``http://127.0.0.1:port``.
    """

    def __init__(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, **settings: str
    ) -> None:
        self._folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")}
        self._environment = {**(own if environment is None else environment)}
        self._environment["TONESTREAM_LIBRARY_DB"] = str(folder / "library.sqlite")
        self._environment |= {f"TONESTREAM_{name.upper()}": value for name, value in settings.items()}
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._output, self._errors = self._folder / "serve.out", self._folder / "serve.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.cli.main", "serve", "--port", "0", *self._arguments],
                env=self._environment, stdout=output, stderr=errors,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while (found := _ADDRESS.search(self._output.read_text())) is None:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        self.address = found[1]
        self.client = httpx.Client(base_url=self.address, timeout=90.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Both of its outputs."""
        return self._output.read_text() + self._errors.read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """Send the signal; the exit status, and how long it took in seconds."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30.0), time.monotonic() - started

    def upload(self, file: Path, **fields: str) -> dict[str, Any]:
        """Send a file; the answer."""
        with file.open("rb") as opened:
            answer = self.client.post("/v1/tracks", files={"file": (file.name, opened)}, data=fields)
        assert answer.status_code == 202, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    def seen(self, request_id: str) -> dict[str, Any]:
        """The finished track of a request that another client made: the gateway may not have read of it yet."""
        deadline = time.monotonic() + _START_S
        while self.client.get(f"/v1/tracks/{request_id}").status_code == 404:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return self.finished({"location": f"/v1/tracks/{request_id}"})

    def finished(self, accepted: Mapping[str, Any]) -> dict[str, Any]:
        """The track once it is finished."""
        answer = self.client.get(f"{accepted['location']}?wait=60")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        assert state["finished_at"] is not None, self.said()
        return state
