"""``python -m tests.support.deadly_worker``: the ingestion worker as it runs in production, with a service that dies.

A request whose ID begins with ``killer`` ends the process at once, as a segmentation fault or a lack of memory would;
one whose ID begins with ``defect`` raises. All others are answered.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import ClassVar

from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.messages import ErrorReport, IngestedTrack, Stage, TrackRequest
from shared.contracts.topics import Channel
from shared.runtime import logs
from shared.runtime.process import run_worker
from shared.runtime.service import Delivery, Handled, Origin, Outcome, Service
from shared.settings import Settings


class Deadly(Service[TrackRequest, IngestedTrack]):
    """Announces every request without audio, unless it dies of it."""

    stage = Stage.INGESTION
    inputs: ClassVar[tuple[Channel, ...]] = (Channel.REQUESTS,)
    batch_records = 100

    def handle(self, deliveries: Sequence[Delivery[TrackRequest]]) -> Sequence[Handled[IngestedTrack]]:
        return [self._handled(delivery) for delivery in deliveries]

    def give_up(self, origin: Origin, error: TonestreamError) -> Outcome[IngestedTrack]:
        return self._announced(origin.request_id, error.code, error.message)

    def _handled(self, delivery: Delivery[TrackRequest]) -> Handled[IngestedTrack]:
        name = delivery.message.request_id
        if name.startswith("killer"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("defect"):
            return ValueError("a defect")
        return self._announced(name, ErrorCode.NO_AUDIO, "handled")

    def _announced(self, request_id: str, code: ErrorCode, message: str) -> Outcome[IngestedTrack]:
        error = ErrorReport(code=code, stage=self.stage, message=message)
        return Outcome((IngestedTrack(request_id=request_id, track_key="k", source="s", error=error),))


def main() -> int:
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return run_worker(Stage.INGESTION, settings, lambda: [Deadly()])


if __name__ == "__main__":
    sys.exit(main())
