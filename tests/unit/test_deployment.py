"""What the containers may do, read from the files that say so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.registry import SERVICE_NAMES

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
OURS = [*SERVICE_NAMES, "topics"]
#: Who has a way out: one fetches audio, the other asks Spotify.
WITH_A_WAY_OUT = {"ingestion", "mood-worker"}


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][name]
    return found


def test_every_service_has_a_container() -> None:
    assert set(COMPOSE["services"]) == {*OURS, "kafka", "redis"}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_container_has_or_gains_rights(name: str) -> None:
    found = service(name)
    assert found["cap_drop"] == ["ALL"]
    assert "cap_add" not in found
    assert found["security_opt"] == ["no-new-privileges:true"]
    for open_door in ("privileged", "devices", "ipc", "pid", "network_mode", "userns_mode", "volumes_from"):
        assert open_door not in found
    assert not any(str(volume).startswith(("/", ".", "~")) for volume in found.get("volumes", [])), "of the host"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_has_limits_of_memory_and_of_processes(name: str) -> None:
    found = service(name)
    assert 0 < found["pids_limit"] <= 1024
    assert re.fullmatch(r"(\$\{[A-Z_]+:-)?[0-9]+[mg]\}?", found["mem_limit"])


@pytest.mark.parametrize("name", [*OURS, "redis"])
def test_a_container_writes_nowhere_but_where_it_has_to(name: str) -> None:
    found = service(name)
    assert found["read_only"] is True
    assert all("size=" in mount for mount in found.get("tmpfs", []))


@pytest.mark.parametrize("name", ["feature-extraction", "genre-worker", "mood-worker"])
def test_who_only_reads_audio_cannot_change_it(name: str) -> None:
    assert all(volume.endswith(":ro") for volume in service(name)["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_every_service_finds_passwords_that_stand_in_files(name: str) -> None:
    assert [volume for volume in service(name)["volumes"] if volume.endswith(":/run/secrets:ro")]


def test_only_who_needs_it_has_a_way_out() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in OURS:
        networks = set(service(name)["networks"])
        assert networks == ({"inside", "outside"} if name in WITH_A_WAY_OUT else {"inside"}), name
    assert service("redis")["networks"] == ["inside"]


def test_nothing_listens_to_other_machines() -> None:
    for name in COMPOSE["services"]:
        for port in service(name).get("ports", []):
            assert str(port).startswith("127.0.0.1:"), (name, port)


def test_the_image_runs_as_a_user_without_rights_and_fetches_nothing_at_run_time() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["tonestream"]
    assert "--uid 10001" in DOCKERFILE
    after = DOCKERFILE.split("USER tonestream")[1]
    assert "RUN" not in after and "ADD" not in DOCKERFILE
    assert not re.search(r"chmod .*(\+s|[2-7]7{3})|sudo", DOCKERFILE)


def test_no_secret_stands_in_the_files() -> None:
    for found in COMPOSE["services"].values():
        for name, value in (found.get("environment") or {}).items():
            if re.search("SECRET|PASSWORD|TOKEN", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:-\}", str(value)), name


def test_every_image_reads_every_codec_of_kafka() -> None:
    core = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[^a-z0-9-]", one)[0] for one in core}
    assert names >= {"kafka-python", "lz4", "python-snappy", "zstandard"}
    assert 'pip install --no-cache-dir ".[${SERVICE}]"' in DOCKERFILE


def test_a_container_whose_worker_only_waits_is_healthy() -> None:
    # Some supervisors end what is not healthy, and that would help nobody while Kafka is away.
    (probe,) = re.findall(r"HEALTHCHECK .* CMD (.*)", DOCKERFILE)
    assert probe == '["tonestream", "health"]'
    assert all("healthcheck" not in service(name) for name in SERVICE_NAMES)
