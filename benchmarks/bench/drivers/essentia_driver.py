"""essentia's MusicExtractor in its own virtual environment, with its defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import essentia
import essentia.standard

from benchmarks.bench.warm import Classify, serve


def prepare() -> Classify:
    """Builds the extractor."""
    essentia.log.infoActive = essentia.log.warningActive = False
    extract = essentia.standard.MusicExtractor()

    def classify(files: Sequence[Path], at_once: bool) -> None:
        for file in files:
            extract(str(file))

    return classify


if __name__ == "__main__":
    serve(prepare)
