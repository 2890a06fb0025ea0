"""``make bench`` in its small form: everything is measured, and every figure is a number. Speeds are not judged."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import end
from tests.support.samples import ROOT

SECTIONS = {"long", "eight", "minutes", "halves", "start", "kafka"}
TARGETS = 14


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("kafka_broker", "redis_server")
def test_the_small_bench_measures_everything(tmp_path: Path) -> None:
    # It starts servers of its own: it has to know their processes.
    ours = {"KAFKA_BOOTSTRAP_SERVERS", "TONESTREAM_TEST_REDIS_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    bench = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bench", "--small", "--out", str(tmp_path)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said, complaints = bench.communicate()
    finally:
        end(bench, patience_s=30)  # politely, so that it ends its servers
    assert bench.returncode == 0, complaints
    assert "Traceback" not in complaints, complaints

    found = json.loads(said.splitlines()[-1])
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
