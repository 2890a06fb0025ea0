"""doctor: what is broken is found, named, and comes with what to do; and nothing hangs or ends in a traceback."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.cli.doctor import machine, networks, programs, servers
from services.cli.doctor.examination import BLOBS, KAFKA, LOCAL, REDIS, checks, examine
from services.cli.doctor.finding import Check, Finding, ok
from services.cli.main import main
from shared.bus.base import TopicSpec
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.topics import Topics
from shared.settings import Settings
from tests.support.samples import ROOT


def levels(found: Iterable[Finding]) -> list[str]:
    return [finding.level for finding in found]


def test_this_installation_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, lines
    assert {line.split()[1] for line in lines if line.startswith("ok ")} >= {"ffmpeg", "models", "engine"}
    assert lines[-1].endswith(" 0 to mend")


def test_a_failure_is_exit_status_1_and_json_says_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONESTREAM_FFMPEG", "/nowhere/ffmpeg")
    monkeypatch.setattr("services.cli.doctor.examination.LOCAL", (LOCAL[0], LOCAL[-2]))
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and [one["level"] for one in found["checks"]] == ["fail", "ok"]
    assert "/nowhere/ffmpeg, which cannot be run" in found["checks"][0]["message"]
    assert main(["doctor"]) == 1
    first, advice, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("fail  ffmpeg ") and "install a usual build" in advice


def script(folder: Path, text: str) -> Settings:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return Settings(ffmpeg=program)


@pytest.mark.parametrize(
    ("text", "level", "said"),
    [
        ("exit 3", "fail", "does not run"),
        ("true", "fail", "does not run"),
        ('echo "ffmpeg version 9 Copyright"; echo " A....D flac FLAC"', "warn", "cannot decode MP3, AAC, Vorbis"),
    ],
)
def test_an_ffmpeg_that_does_not_do_is_found(tmp_path: Path, text: str, level: str, said: str) -> None:
    (finding,) = programs.ffmpeg(script(tmp_path, text))
    assert finding.level == level and said in finding.message and finding.advice


def test_a_damaged_model_fails_if_it_is_used_and_is_minded_if_not(tmp_path: Path) -> None:
    for name in ("musicnn-lstm", "mood-ten", "mfcc-lstm", "music-tags"):
        shutil.copytree(ROOT / "models" / name, tmp_path / name)
    settings = Settings(models_dir=tmp_path)
    assert levels(networks.models(settings)) == ["ok", "ok", "ok"]
    with (tmp_path / "mood-ten" / "model.onnx").open("ab") as weights:
        weights.write(b"x")
    (tmp_path / "music-tags" / "model.keras").unlink()
    found = list(networks.models(settings))
    assert levels(found) == ["ok", "fail", "ok", "warn"]
    assert "model.onnx is damaged" in found[1].message and "TONESTREAM_MOOD_MODEL" in found[1].advice
    assert "music-tags holds no whole model" in found[3].message


def test_a_missing_or_broken_engine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.models.engine.find_spec", lambda package: None)
    (finding,) = networks.engine(Settings())
    assert finding.level == "fail" and "pip install onnxruntime" in finding.message

    def broken(*arguments: object, **options: object) -> None:
        raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.32' not found")

    monkeypatch.setattr(networks, "load_engine", broken)
    (finding,) = networks.engine(Settings())
    assert finding.level == "fail" and "GLIBCXX" in finding.message


@pytest.mark.parametrize(("free", "level"), [(100 << 20, "fail"), (1 << 30, "warn"), (50 << 30, "ok")])
def test_little_room_is_minded_and_no_room_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    (finding,) = machine.temporary_folder(Settings())
    assert finding.level == level and str(tmp_path) in finding.message


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (finding,) = machine.blob_folder(Settings(blob_url=f"file://{tmp_path}/not/there"))
    assert finding.level == "fail" and "Read-only file system" in finding.message
    assert "TONESTREAM_BLOB_URL" in finding.advice


@pytest.mark.parametrize(("most", "level"), [(64, "fail"), (512, "warn"), (4096, "ok"), (-1, "ok")])
def test_few_open_files_are_found(monkeypatch: pytest.MonkeyPatch, most: int, level: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (most, most))
    assert levels(machine.open_files(Settings())) == [level]


@pytest.mark.parametrize(("text", "level"), [("8192\n", "warn"), ("524288\n", "ok"), ("odd", "warn")])
def test_few_notifications_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, level: str) -> None:
    limit = tmp_path / "max_user_watches"
    limit.write_text(text)
    monkeypatch.setattr(machine, "_WATCHES", limit)
    monkeypatch.setattr("sys.platform", "linux")
    assert levels(machine.notifications(Settings())) == [level]


def test_servers_are_checked_if_they_are_configured_or_asked_for() -> None:
    assert list(checks(Settings(), cluster=False)) == list(LOCAL)
    assert list(checks(Settings(), cluster=True)) == [*LOCAL, KAFKA, REDIS, BLOBS]
    assert KAFKA in checks(Settings(kafka_bootstrap_servers="kafka:9092"), cluster=False)


class _Bus(MemoryBus):
    """In the place of the bus on Kafka."""


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBus]:
    memory = _Bus()
    monkeypatch.setattr("shared.bus.connect.kafka_bus", lambda settings, client_id: memory)
    yield memory
    memory.close()


def test_topics_that_are_missing_or_lack_something_are_named(bus: MemoryBus) -> None:
    found = list(servers.kafka(Settings()))
    assert levels(found) == ["ok", "fail"] and "tonestream.requests.retry" in found[1].message
    requests, retry, *others = topic_specs(Topics("tonestream"))
    bus.create_topics(
        [
            TopicSpec(requests.name, 3, requests.retention_ms, requests.max_message_bytes),
            TopicSpec(retry.name, retry.partitions, 1000, 2000),
            *others,
        ]
    )
    found = list(servers.kafka(Settings()))
    assert levels(found) == ["ok", "warn", "warn", "warn"]
    assert "tonestream.requests has 3 partitions, not 12" in found[1].message
    assert "messages of 2000 bytes, not" in found[2].message and "keeps records for 1000 ms" in found[3].message


def test_whole_topics_are_well(bus: MemoryBus) -> None:
    bus.create_topics(topic_specs(Topics("tonestream")))
    assert levels(servers.kafka(Settings())) == ["ok", "ok"]


def test_a_broker_that_is_away_fails_with_its_address() -> None:
    (finding,) = servers.kafka(Settings(kafka_bootstrap_servers="127.0.0.1:1"))
    assert finding.level == "fail" and "127.0.0.1:1" in finding.message


def test_a_redis_that_is_away_fails() -> None:
    (finding,) = servers.redis(Settings(redis_url="redis://127.0.0.1:1/0"))
    assert finding.level == "fail" and "refused" in finding.message


def test_a_clock_that_is_off_is_minded() -> None:
    assert servers._clocks(0.2).level == "ok"
    assert "60 s behind this machine's" in servers._clocks(-60.0).message


def test_what_hangs_or_breaks_is_a_finding_and_the_other_checks_go_on() -> None:
    ever = threading.Event()

    def hang(settings: Settings) -> list[Finding]:
        ever.wait(60)
        return []

    def break_down(settings: Settings) -> list[Finding]:
        raise ZeroDivisionError("odd")

    three = (
        Check("slow", hang, limit_s=0.1),
        Check("odd", break_down),
        Check("well", lambda settings: [ok("well", "as ever")]),
    )
    found = list(examine(three, Settings()))
    ever.set()
    assert levels(found) == ["fail", "fail", "ok"]
    assert "no answer within" in found[0].message and "cannot be checked: odd" in found[1].message


def test_no_password_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONESTREAM_REDIS_URL", "redis://me:hunter2hunter2@127.0.0.1:1/0")
    monkeypatch.setattr("services.cli.doctor.examination.LOCAL", ())
    assert main(["doctor"]) == 1
    assert "hunter2" not in "".join(capsys.readouterr())
