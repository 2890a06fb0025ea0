"""What the genre models cost: ``python -m benchmarks.models models/mfcc-lstm models/musicnn-lstm``.

CPU milliseconds a segment, features and network apart, on one thread, in batches as large as the worker's. Medians, for
other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from shared.audio.segment_features.extraction import segment_features
from shared.models.networks import GenreModel

_SEGMENTS: Final = 128
#: Segments of four minutes.
_FOUR_MINUTES: Final = 80


def cpu_ms(work: Callable[[], object], repeats: int) -> float:
    """Median CPU milliseconds of ``work`` over ``repeats`` runs, all threads of the process together."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append((time.process_time() - started) * 1000)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description="What the genre models cost.")
    parser.add_argument("models", type=Path, nargs="+", help="model folders")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print("model: ms CPU a segment for features and network; s CPU for a track of four minutes")
    for folder in arguments.models:
        model = GenreModel.load(folder, threads=1)
        spec = model.manifest.require_feature_spec()
        noise = np.random.default_rng(0).standard_normal((_SEGMENTS, spec.segment_samples)).astype(np.float32) * 0.1
        matrices = segment_features(noise, spec)
        model.predict(matrices)  # traces the graph
        of_features = cpu_ms(partial(segment_features, noise, spec), arguments.repeats) / _SEGMENTS
        of_network = cpu_ms(partial(model.predict, matrices), arguments.repeats) / _SEGMENTS
        segments = min(_FOUR_MINUTES, model.manifest.max_segments or _FOUR_MINUTES)
        track = (of_features + of_network) * segments / 1000
        name = model.manifest.model_id
        print(f"{name}: {of_features:.2f} and {of_network:.2f}; {track:.2f} (of {segments} segments)")


if __name__ == "__main__":
    main()
