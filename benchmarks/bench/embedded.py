"""The embedded pipeline, warm: all services in one process, nothing from the cache."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench.warm import Classify, serve
from services.cli.embedded import EmbeddedPipeline
from shared.contracts.messages import Status, TrackRequest
from shared.settings import Settings


def prepare() -> Classify:
    """Starts the services, which end with the process."""
    pipeline = EmbeddedPipeline(Settings()).__enter__()

    def classify_all(files: Sequence[Path]) -> None:
        requests = (
            TrackRequest(request_id=uuid.uuid4().hex, audio_url=pipeline.upload(file), source=str(file), force=True)
            for file in files
        )
        results = list(pipeline.classify(requests))
        failed = [result for result in results if result.status is not Status.OK]
        if failed or len(results) != len(files):
            raise SystemExit(f"{len(results)} of {len(files)} results, {len(failed)} not ok: {failed[:1]}")

    def classify(files: Sequence[Path], at_once: bool) -> None:
        for part in [files] if at_once else [[file] for file in files]:
            classify_all(part)

    return classify


if __name__ == "__main__":
    serve(prepare)
