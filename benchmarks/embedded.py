"""How long the embedded pipeline takes, warm: one 4-minute MP3, and a folder of them at once against one by one.

    python -m benchmarks.embedded [--copies 8] [AUDIO_FILE]

The MP3s are made of the bundled samples (or of AUDIO_FILE), repeated to four minutes with a different tone mixed into
each, so that no two are the same audio and none comes from the cache. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from services.cli.embedded import EmbeddedPipeline
from shared.audio.decode import find_ffmpeg
from shared.contracts.messages import TrackRequest
from shared.settings import Settings
from shared.system.threads import available_cores

_SAMPLES = Path(__file__).resolve().parent.parent / "samples"
_LENGTH_S = 240


def make_mp3(source: Path, target: Path, number: int) -> None:
    """Four minutes of ``source``, 44.1 kHz stereo, 192 kb/s, with a faint tone that is its own."""
    tone = f"sine=frequency={200 + 10 * number}:sample_rate=44100:duration={_LENGTH_S},volume=0.001"
    subprocess.run(
        [find_ffmpeg(), "-loglevel", "error", "-stream_loop", "-1", "-i", str(source), "-f", "lavfi", "-i", tone,
         "-filter_complex", "amix=inputs=2:duration=shortest:normalize=0", "-t", str(_LENGTH_S), "-ar", "44100",
         "-ac", "2", "-b:a", "192k", str(target)],
        check=True,
    )  # fmt: skip


def classify(pipeline: EmbeddedPipeline, files: list[Path]) -> float:
    """Wall seconds from the first request to the last result."""
    started = time.perf_counter()
    requests = (
        TrackRequest(request_id=uuid.uuid4().hex, audio_url=pipeline.upload(file), source=str(file), force=True)
        for file in files
    )
    results = list(pipeline.classify(requests))
    elapsed = time.perf_counter() - started
    assert len(results) == len(files) and all(result.status == "ok" for result in results), results
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="an audio file; default the bundled samples")
    parser.add_argument("--copies", type=int, default=8)
    options = parser.parse_args()
    sources = [options.source] if options.source else sorted(_SAMPLES.glob("*.mp3"))
    with tempfile.TemporaryDirectory() as folder, EmbeddedPipeline(Settings()) as pipeline:
        files = [Path(folder) / f"{number}.mp3" for number in range(options.copies)]
        for number, file in enumerate(files):
            make_mp3(sources[number % len(sources)], file, number)
        classify(pipeline, files[:1])  # warm
        single = [classify(pipeline, [file]) for file in files]
        together = classify(pipeline, files)
    print(
        json.dumps(
            {
                "cores": available_cores(),
                "minutes_each": _LENGTH_S / 60,
                "one_s": {"median": round(statistics.median(single), 3), "worst": round(max(single), 3)},
                "one_by_one_s": round(sum(single), 3),
                "together_s": round(together, 3),
                "speed_up": round(sum(single) / together, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
