"""What a genre worker takes for its own model, and for guests: ``python -m benchmarks.genre_worker``.

CPU milliseconds a segment, from features to encoded predictions, in batches as the loop brings them, and the memory of
the process (anonymous pages, Linux) after each step. Runs in any version of the project, for a comparison.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

import numpy as np

from services.genre_worker.service import GenreWorker
from shared.bus.base import Record
from shared.contracts.codec import encode_message
from shared.contracts.messages import SegmentFeatures
from shared.models.manifest import ModelManifest, load_manifest
from shared.runtime.service import Delivery, Outcome
from shared.settings import Settings

_BATCH: Final = 256
_REPEATS: Final = 5


def own_memory_mb() -> int:
    """Anonymous pages in memory, MB."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) // 1024
    raise OSError("smaps_rollup names no anonymous pages")


def batch_for(manifests: list[ModelManifest]) -> list[Delivery[SegmentFeatures]]:
    """Segments for these models in turn."""
    deliveries = []
    random = np.random.default_rng(0)
    for index in range(_BATCH):
        manifest = manifests[index % len(manifests)]
        spec = manifest.require_feature_spec()
        named = {"model": manifest.model_id} if "model" in SegmentFeatures.model_fields else {}
        features = SegmentFeatures.model_validate(
            {
                "request_id": f"r{index // 20}",
                "track_key": "k",
                "index": index,
                "start_s": 3.0 * index,
                "end_s": 3.0 * index + 3,
                "feature_spec": spec.id,
                "matrix": random.random((spec.frames, spec.coefficients)).astype(np.float32),
                **named,
            }
        )
        deliveries.append(Delivery(Record("features", 0, index, b"k", b""), features))
    return deliveries


def cpu_ms_a_segment(worker: GenreWorker, deliveries: list[Delivery[SegmentFeatures]]) -> float:
    """Median over some batches; every segment must be predicted."""
    taken = []
    for _ in range(_REPEATS):
        started = time.process_time()
        for verdict in worker.handle(deliveries):
            assert isinstance(verdict, Outcome), verdict
            for message in verdict.messages:
                encode_message(message)
        taken.append((time.process_time() - started) * 1000 / len(deliveries))
    return statistics.median(taken)


def main() -> None:
    settings = Settings()
    worker = GenreWorker.build(settings)
    worker.start()
    own = load_manifest(settings.models_dir / settings.genre_model)
    print(f"started with {own.model_id}: {own_memory_mb()} MB")
    print(f"its own model: {cpu_ms_a_segment(worker, batch_for([own])):.2f} ms a segment, {own_memory_mb()} MB")
    if "model" not in SegmentFeatures.model_fields:
        return
    for name in ("musicnn-lstm", "mfcc-lstm"):
        guest = load_manifest(settings.models_dir / name)
        if guest.model_id != own.model_id:
            both = cpu_ms_a_segment(worker, batch_for([own, guest]))
            print(f"in turn with {guest.model_id}: {both:.2f} ms a segment, {own_memory_mb()} MB")


if __name__ == "__main__":
    main()
