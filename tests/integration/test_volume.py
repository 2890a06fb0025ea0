"""The answer does not depend on the volume: the whole pipeline in one process, on real music at several levels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from services.cli.embedded import EmbeddedPipeline
from shared.audio.decode import find_ffmpeg
from shared.contracts.messages import Status, TrackRequest, TrackResult
from shared.settings import Settings

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
#: Real recordings. In a 16-bit file at -40 dB the noise of quantisation is 40 dB below the music.
GAINS_DB = {"bay": (0, -10, -30, -40), "golden-valley": (0, -20, -40), "internal-degeneration": (0, -40)}
#: How far a probability may move.
TOLERANCE = {-10: 0.02, -20: 0.02, -30: 0.02, -40: 0.05}


@pytest.mark.parametrize("model", ["musicnn-lstm", "mfcc-lstm"])
def test_the_answer_does_not_depend_on_the_volume(files: dict[tuple[str, int], Path], model: str) -> None:
    results = classified(files, model)
    for track, gains in GAINS_DB.items():
        original, *quiet = (results[track, gain] for gain in gains)
        assert original.genre is not None and original.mood is not None
        for result, gain in zip(quiet, gains[1:], strict=True):
            assert result.status is Status.OK and result.genre is not None and result.mood is not None
            tolerance = TOLERANCE[gain]
            said = f"{track} at {gain} dB: {result.genre.probabilities} {result.mood.probabilities}"
            assert result.genre.label == original.genre.label, said
            assert result.genre.probabilities == pytest.approx(original.genre.probabilities, abs=tolerance), said
            assert result.mood.probabilities == pytest.approx(original.mood.probabilities, abs=tolerance), said
            tags = {tag.label: tag.probability for tag in original.tags}
            for tag in result.tags[:4]:
                assert tag.probability == pytest.approx(tags.get(tag.label, 0.0), abs=tolerance), said
            # What people read still says how loud it is.
            told = result.mood.features["loudness"]
            assert told == pytest.approx(max(original.mood.features["loudness"] + gain, -60.0), abs=0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Each track at each gain, as a 16-bit file."""
    folder = tmp_path_factory.mktemp("volumes")
    files = {(track, gain): folder / f"{track}{gain}.flac" for track, gains in GAINS_DB.items() for gain in gains}
    for (track, gain), file in files.items():
        command = [find_ffmpeg(), "-v", "error", "-i", str(SAMPLES / f"{track}.mp3"), "-af", f"volume={gain}dB"]
        subprocess.run([*command, "-sample_fmt", "s16", str(file)], check=True)
    return files


def classified(files: dict[tuple[str, int], Path], model: str) -> dict[tuple[str, int], TrackResult]:
    with EmbeddedPipeline(Settings(genre_model=model)) as pipeline:
        requests = [
            TrackRequest(request_id=f"{track}{gain}", audio_url=pipeline.upload(file))
            for (track, gain), file in files.items()
        ]
        found = {result.request_id: result for result in pipeline.classify(requests)}
    return {(track, gain): found[f"{track}{gain}"] for track, gain in files}
