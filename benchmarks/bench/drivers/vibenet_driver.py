"""VibeNet in its own virtual environment: one file after another, or all at once on all cores, as its command does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import vibenet

from benchmarks.bench.warm import Classify, serve


def prepare() -> Classify:
    """Loads its network, which comes with the package."""
    model = vibenet.load_model()

    def classify(files: Sequence[Path], at_once: bool) -> None:
        with ThreadPoolExecutor(os.cpu_count() if at_once else 1) as pool:
            list(pool.map(lambda file: model.predict(str(file)), files))

    return classify


if __name__ == "__main__":
    serve(prepare)
