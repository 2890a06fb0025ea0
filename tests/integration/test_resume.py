"""A run over a folder that is killed goes on where it ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from shared.contracts.messages import TrackResult
from tests.support.samples import ROOT


def test_after_a_kill_what_was_done_is_not_heard_again_and_nothing_is_missing(tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for sample in sorted((ROOT / "samples").glob("*.mp3")):
        shutil.copy(sample, music)
    command = [sys.executable, "-m", "services.cli.main", "classify", "--json", "--library", str(tmp_path / "library")]
    command += ["--model", "mfcc-lstm", str(music)]
    # One thread, so that the first track is done while others wait.
    environment = {**os.environ, "TONESTREAM_WORKER_THREADS": "1"}
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert killed.stdout is not None
    first = TrackResult.model_validate_json(killed.stdout.readline())
    killed.kill()
    before = [first, *(TrackResult.model_validate_json(line) for line in killed.stdout if line.endswith("\n"))]
    killed.wait()
    killed.stdout.close()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    after = {result.track.source: result for result in map(TrackResult.model_validate_json, done.stdout.splitlines())}
    assert sorted(Path(source).name for source in after) == sorted(file.name for file in music.iterdir())
    for result in before:
        again = after[result.track.source]
        assert again.cached and again.genre == result.genre and again.mood == result.mood
