"""The limit: what no implementation of the default answer can save.

The file is decoded once, by one plain run of ffmpeg. Each segment that the default models hear is transformed, frame by
frame, as their features need it. The default genre network runs once over its segments. Nothing else: no resampling, no
mel bands, no tags, no mood, no queue.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bench.warm import Classify, serve
from shared.audio.decode import SAMPLE_RATE, find_ffmpeg
from shared.audio.segment_features.mfcc import power_spectrum
from shared.audio.segments import chosen_segments, segment_count
from shared.audio.wav import float_samples
from shared.models.heard_track import TAG_SEGMENTS
from shared.models.manifest import load_manifest
from shared.models.networks import GenreModel
from shared.settings import Settings


def prepare() -> Classify:
    """Loads the default genre network, on one thread: more take no less CPU."""
    settings = Settings()
    genre = GenreModel.load(settings.models_dir / settings.genre_model, threads=1, engine=settings.engine)
    genre.warm_up()
    spec = genre.manifest.require_feature_spec()
    heard = {settings.genre_model: (spec, settings.max_segments or genre.manifest.max_segments)}
    tags = load_manifest(settings.models_dir / settings.tag_model).require_feature_spec()
    heard.setdefault(settings.tag_model, (tags, TAG_SEGMENTS))
    random = np.random.default_rng(0)

    def classify_one(file: Path) -> None:
        samples = float_samples(_decoded(file))
        for listened, limit in heard.values():
            length, count = listened.segment_samples, segment_count(len(samples), listened)
            for position in chosen_segments(count, limit):
                # As many frames as after the resampling to the rate of the analysis.
                segment = samples[position * length : position * length + listened.analysed_samples]
                power_spectrum(segment, listened.n_fft, listened.hop_length)
        segments = len(chosen_segments(segment_count(len(samples), spec), heard[settings.genre_model][1]))
        # Any numbers of that shape take the network the same time.
        genre.predict(random.random((segments, spec.frames, spec.coefficients), np.float32))

    def classify(files: Sequence[Path], at_once: bool) -> None:
        for file in files:
            classify_one(file)

    return classify


def _decoded(file: Path) -> bytes:
    command = [
        find_ffmpeg(), "-nostdin", "-loglevel", "error", "-threads", "1", "-i", str(file), "-vn",
        "-af", f"aformat=sample_rates={SAMPLE_RATE}:channel_layouts=mono,asetnsamples=n=32768:p=0",
        "-flush_packets", "0", "-f", "s16le", "pipe:1",
    ]  # fmt: skip
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    serve(prepare)
