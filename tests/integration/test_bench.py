"""``make bench`` in its small form: everything is measured, and every figure is a number. Speeds are not judged."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.samples import ROOT

SECTIONS = {"long", "eight", "minutes", "halves", "start", "kafka"}
TARGETS = 14


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("kafka_broker", "redis_server")
def test_the_small_bench_measures_everything(tmp_path: Path) -> None:
    # It starts servers of its own: it has to know their processes.
    ours = {"KAFKA_BOOTSTRAP_SERVERS", "TONESTREAM_TEST_REDIS_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", "--small", "--out", str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr

    found = json.loads(done.stdout.splitlines()[-1])
    sections = found["sections"]
    assert set(sections) == SECTIONS
    assert {name: section["not_measured"] for name, section in sections.items() if section["not_measured"]} == {}
    targets = {name: target for section in sections.values() for name, target in section["targets"].items()}
    assert len(targets) == TARGETS, targets
    figures = [figure for section in sections.values() for row in section["rows"].values() for figure in row.values()]
    figures += [target[figure] for target in targets.values() for figure in ("value", "share")]
    figures += [note for section in sections.values() for note in section["notes"].values()]
    assert all(map(math.isfinite, figures)), found

    assert json.loads((tmp_path / "bench.json").read_text()) == found
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "targets" in (tmp_path / "bench.txt").read_text()
