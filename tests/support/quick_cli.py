"""``tonestream`` with a pipeline that answers at once, in a process of its own: ``python -m tests.support.quick_cli``.

A file whose name holds ``slow`` is never answered.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from services.cli import embedded
from services.cli.main import main
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import ErrorReport, Stage, Status, Track, TrackRequest, TrackResult
from shared.settings import Settings


class QuickPipeline:
    """In the place of EmbeddedPipeline."""

    def __init__(self, settings: Settings) -> None:
        self._files: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was started."""

    def upload(self, file: Path) -> str:
        reference = f"blob:uploads/{len(self._files)}"
        self._files[reference] = file
        return reference

    def classify(self, requests: Iterable[TrackRequest | TrackResult | None]) -> Iterator[TrackResult]:
        for request in requests:
            if request is None:
                time.sleep(0.02)
                continue
            if isinstance(request, TrackResult):
                yield request
                continue
            yield self.answer(request)

    def answer(self, request: TrackRequest) -> TrackResult:
        """The result of a request."""
        while "slow" in request.shown_source:
            time.sleep(0.1)
        error = ErrorReport(code=ErrorCode.SILENT_AUDIO, stage=Stage.INGESTION, message="quick")
        return TrackResult(
            request_id=request.request_id,
            status=Status.FAILED,
            track=Track(key="blob:x", source=request.shown_source, title="Jürgen 🎵"),
            errors=(error,),
        )


if __name__ == "__main__":
    embedded.EmbeddedPipeline = QuickPipeline  # type: ignore[assignment,misc]
    sys.exit(main())
