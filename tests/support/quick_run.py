"""``tonestream`` in this process, with a pipeline that answers at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli.classify import run
from services.cli.main import main
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import TrackRequest, TrackResult
from tests.support.quick_cli import QuickPipeline
from tests.support.rows import failed_result, ok_result


class QuickRun:
    """Runs commands. A file whose name holds ``bad`` is corrupt, one with ``busy`` fails for the moment; the others are
    jazz, or rock if the name says so. ``heard`` are the names of the files that the pipeline was asked for; at a file
    with ``interrupt`` in its name the user presses Ctrl-C."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        quick = self

        class Pipeline(QuickPipeline):
            def upload(self, file: Path) -> str:
                file.read_bytes()
                return super().upload(file)

            def answer(self, request: TrackRequest) -> TrackResult:
                return quick.answer(request)

        monkeypatch.setattr(run, "EmbeddedPipeline", Pipeline)

    def __call__(self, *arguments: str | Path) -> int:
        """Run ``tonestream`` with these arguments; returns the exit status."""
        return main([str(argument) for argument in arguments])

    def answer(self, request: TrackRequest) -> TrackResult:
        """The result of a request."""
        name = Path(request.shown_source).name
        self.heard.append(name)
        if "interrupt" in name:
            raise KeyboardInterrupt
        if "bad" in name or "busy" in name:
            code = ErrorCode.CORRUPT_AUDIO if "bad" in name else ErrorCode.FETCH_TIMEOUT
            return failed_result(request.request_id, request.shown_source, code)
        return ok_result(
            request.request_id, request.shown_source, title=Path(name).stem, genre="rock" if "rock" in name else "jazz"
        )


def songs(folder: Path, *names: str) -> list[Path]:
    """Files of these names with different bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"ID3" + name.encode())
    return [folder / name for name in names]


def wait_until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Raises AssertionError if it does not become true."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
