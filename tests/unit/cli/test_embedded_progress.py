"""One process that does not get on: a disk that stays full ends the run with the reason, and never in silence."""

from __future__ import annotations

import threading

import pytest

from services.cli.embedded import EmbeddedPipeline, PipelineStoppedError
from shared.runtime.health import Pulse
from shared.runtime.loops import LoopThread
from shared.settings import Settings


class _Broken:
    def run(self) -> None:
        raise ValueError("why")


def test_what_is_waited_for_too_long_ends_the_run_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("services.cli.embedded.time.monotonic", lambda: now[0])
    pipeline, pulse = EmbeddedPipeline(Settings()), Pulse()
    pipeline._pulses = [Pulse(), pulse]
    pipeline._require_progress()
    pulse.waiting("No space left on device")
    pipeline._require_progress()
    now[0] += 10.0
    pipeline._require_progress()
    now[0] += 11.0
    with pytest.raises(PipelineStoppedError, match=r"No space left on device\. The variable TMPDIR"):
        pipeline._require_progress()
    pulse.waiting(None)
    pipeline._require_progress()


def test_a_service_that_ended_is_named_with_the_reason() -> None:
    pipeline = EmbeddedPipeline(Settings())
    thread = LoopThread(_Broken(), "mood-worker", threading.Event())  # type: ignore[arg-type]
    thread.start()
    thread.join()
    pipeline._threads = [thread]
    with pytest.raises(PipelineStoppedError, match=r"mood-worker ended: ValueError\('why'\)"):
        pipeline._require_progress()
