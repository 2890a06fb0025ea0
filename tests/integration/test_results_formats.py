"""results in the formats for other programs, and through a filter, from a real Kafka."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from services.cli.main import main
from shared.bus.connect import kafka_bus
from shared.bus.topics import topic_specs
from shared.contracts.topics import Topics
from shared.runtime.envelope import outgoing
from shared.settings import Settings
from tests.support.names import Names
from tests.support.rows import failed_result, ok_result


@pytest.mark.kafka
def test_results_are_filtered_and_written_into_a_file(
    bootstrap_servers: str,
    names: Names,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TONESTREAM_KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers)
    monkeypatch.setenv("TONESTREAM_TOPIC_PREFIX", names.prefix)
    topics = Topics(names.prefix)
    bus = kafka_bus(Settings(), client_id="test")
    bus.create_topics(topic_specs(topics))
    with bus.publisher() as publisher:
        rock = ok_result("r3", "https://example.org/rock.mp3", genre="rock")
        publisher.publish([outgoing(topics, result) for result in (ok_result(), failed_result(), rock)])
    bus.close()
    file = tmp_path / "results.csv"
    where = "status == ok and genre in (rock, pop) and finished_at > 2020-01-01"
    assert main(["results", "--where", where, "--output", str(file)]) == 0
    out, err = capsys.readouterr()
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["id"], row["genre"]) for row in rows] == [("r3", "rock")]
    assert out.startswith("r3\tok\t") and out.count("\n") == 1
    assert err == "tonestream: 2 results left out by --where\n"
    assert main(["results", "--format", "m3u8"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "https://example.org/rock.mp3"
