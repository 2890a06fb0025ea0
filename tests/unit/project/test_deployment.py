"""What the containers may do, read from the files that say so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.topology import SERVICE_NAMES
from shared.contracts.topics import FRAMING_BYTES, MAX_MESSAGE_BYTES, PARTITIONS
from shared.runtime import health_probe
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
OURS = [*SERVICE_NAMES, "gateway", "topics", "cli"]
#: Settings that the files decide themselves, and why.
FIXED = {
    "models_dir": "in the image",
    "ffmpeg": "in the image",
    "health_host": "in the image",
    "health_port": "in the image, which probes it",
    "local_files": "the folder MUSIC",
    "gateway_host": "in the container, whose port only this machine reaches",
    "gateway_port": "in the container, as the image probes it",
    "gateway_open": "the port is bound to loopback",
    "library_db": "the volume",
    "engine": "what the image has",
}
#: Where such a setting stands in the file.
FIXED_IN = {
    "local_files": {"ingestion", "cli"},
    "gateway_host": {"gateway"},
    "gateway_port": {"gateway"},
    "gateway_open": {"gateway"},
    "library_db": {"gateway"},
    "engine": {"genre-worker", "mood-worker"},
}
#: Who is concerned by a setting, by the beginning of its name; all by any other.
CONCERNED: dict[str, set[str]] = {
    "fetch_max_bytes": {"ingestion", "gateway"},
    "fetch_": {"ingestion"},
    "max_unfinished": {"ingestion"},
    "max_track_s": {"ingestion", "gateway"},
    "decode_": {"ingestion"},
    "retry_window": {"ingestion"},
    "spotify_": {"ingestion", "mood-worker"},
    "keep_audio_s": {"ingestion", "aggregator", "gateway"},
    "keep_audio_bytes": {"ingestion", "aggregator"},
    "library_keep_": {"gateway"},
    "gateway_": {"gateway"},
}
#: Who has a way out: one fetches audio, one asks Spotify, one sends webhooks.
WITH_A_WAY_OUT = {"ingestion", "mood-worker", "gateway"}


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][name]
    return found


#: What looks on, by the profile that brings it.
ONLOOKERS = {"prometheus": "observe", "grafana": "observe", "jaeger": "observe", "kafka-ui": "ui"}
#: Where their settings are: folders of this project, which they only read.
OF_THE_PROJECT = re.compile(r"\./deploy/(prometheus|grafana/(provisioning|dashboards)):/etc/[a-z/]+:ro")


def test_every_service_has_a_container() -> None:
    assert set(COMPOSE["services"]) == {*OURS, *ONLOOKERS, "kafka", "redis"}


def test_who_looks_on_starts_only_when_asked_for() -> None:
    assert {name: service(name)["profiles"] for name in ONLOOKERS} == {name: [p] for name, p in ONLOOKERS.items()}
    for name in ONLOOKERS:
        assert re.fullmatch(r"[a-z./-]+:v?[0-9]+\.[0-9]+\.[0-9]+", service(name)["image"]), "a tag that does not move"
        assert "depends_on" not in service(name), "or it would start what it looks at"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_reaches_the_services_it_concerns_and_no_others(name: str) -> None:
    variable = f"TONESTREAM_{name.upper()}"
    reached = {one for one in OURS if variable in service(one)["environment"]}
    if name in FIXED:
        assert reached <= FIXED_IN.get(name, set())
        return
    assert reached == next((set(who) for start, who in CONCERNED.items() if name.startswith(start)), set(OURS))
    # Handed on where it is set and left out where it is not, so that a file of secrets counts.
    if name == "keep_audio_s":  # the page can play what was heard
        assert {service(one)["environment"][variable] for one in reached} == {f"${{{variable}:-86400}}"}
    elif name not in {"kafka_bootstrap_servers", "redis_url", "blob_url"}:
        assert {service(one)["environment"][variable] for one in reached} <= {None}


def test_every_image_that_touches_audio_can_keep_it_in_s3() -> None:
    assert "\nFROM core-s3 AS with-ffmpeg\n" in DOCKERFILE
    with_s3 = set(re.findall(r"^FROM (?:core-s3|with-ffmpeg) AS needs-(\S+)$", DOCKERFILE, re.MULTILINE))
    assert with_s3 == {*SERVICE_NAMES, "gateway", "cli"} - {"genre-worker"}
    locked = (ROOT / "deploy" / "requirements" / "s3.txt").read_text(encoding="utf-8")
    assert "\ns3fs==" in locked and "COPY deploy/requirements/s3.txt" in DOCKERFILE
    assert {f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION")} <= set(
        service("ingestion")["environment"]
    )


def test_no_variable_is_handed_on_that_is_no_setting() -> None:
    known = {f"TONESTREAM_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        assert {one for one in service(name)["environment"] if one.startswith("TONESTREAM_")} <= known


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_log_fills_the_disk(name: str) -> None:
    logging = service(name)["logging"]
    assert logging["driver"] == "json-file"
    assert set(logging["options"]) == {"max-size", "max-file"}


def test_nothing_is_left_behind_in_volumes_without_a_name() -> None:
    assert "VOLUME" not in DOCKERFILE
    named = set(COMPOSE["volumes"])
    for name in COMPOSE["services"]:
        volumes = [str(volume) for volume in service(name).get("volumes", [])]
        sources = [volume.rsplit(":/")[0] for volume in volumes if not OF_THE_PROJECT.fullmatch(volume)]
        assert all(source in named or source.startswith("${") for source in sources), (name, sources)
        for mount in service(name).get("tmpfs", []):
            assert "mode=1777" in mount, "only root could write there"


def test_what_may_hold_passwords_is_neither_committed_nor_sent_to_a_build() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[0] == "*"


def test_only_the_genre_workers_image_holds_tensorflow_and_none_holds_librosa() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    with_tensorflow = [name for name, needs in extras.items() if any(one.startswith("tensorflow") for one in needs)]
    assert with_tensorflow == ["genre-worker"]
    for name in (*SERVICE_NAMES, "onnx", "gateway", "cli", "laptop"):
        locked = ROOT / "deploy" / "requirements" / f"{name}.txt"
        names = locked.read_text(encoding="utf-8") if locked.exists() else ""
        assert ("tensorflow" in names) == (name == "genre-worker")
    for name in [*SERVICE_NAMES, "gateway", "cli"]:
        assert f" AS needs-{name}\n" in DOCKERFILE
        assert not any("librosa" in one for one in extras[name])


@pytest.mark.parametrize(("name", "engine"), [("genre-worker", "tensorflow"), ("mood-worker", "onnx")])
def test_an_engine_runs_a_network_without_the_packages_that_its_image_leaves_out(name: str, engine: str) -> None:
    lock = (ROOT / "deploy" / "setup" / "lock.sh").read_text(encoding="utf-8")
    (left_out,) = re.findall(rf'{name}\) unused="(.+)"', lock)
    names = {one for one, owners in packages_distributions().items() if {*owners} & {*left_out.split()}}
    assert names
    locked = (ROOT / "deploy" / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert not any(f"\n{package}==" in locked for package in left_out.split())
    script = (
        "import sys; from pathlib import Path; sys.modules.update(dict.fromkeys(sys.argv[2:]));"
        "from shared.models.networks import TagModel;"
        "TagModel.load(Path('models/mfcc-lstm'), engine=sys.argv[1]).warm_up()"
    )
    subprocess.run([sys.executable, "-c", script, engine, *names], cwd=ROOT, check=True)


def test_each_worker_with_networks_runs_the_engine_that_its_image_has() -> None:
    genre, mood = service("genre-worker"), service("mood-worker")
    chosen = "${GENRE_ENGINE:-tensorflow}"
    assert genre["build"]["args"] == {"SERVICE": "genre-worker", "ENGINE": chosen}
    assert genre["environment"]["TONESTREAM_ENGINE"] == chosen
    assert mood["environment"]["TONESTREAM_ENGINE"] == "onnx"
    # A stage of the Dockerfile for each engine, and TensorFlow where nobody chooses.
    stages = {name: base for base, name in re.findall(r"^FROM (\S+) AS (needs-genre\S*)$", DOCKERFILE, re.MULTILINE)}
    assert set(stages) == {f"needs-genre-worker{end}" for end in ("", "-tensorflow", "-onnx")}
    assert stages["needs-genre-worker"] == "needs-genre-worker-tensorflow"
    assert "\nFROM needs-${SERVICE}${ENGINE:+-$ENGINE}\n" in DOCKERFILE
    with_onnx = (ROOT / "deploy" / "requirements" / "onnx.txt").read_text(encoding="utf-8")
    assert "\nonnxruntime==" in with_onnx and "scipy" not in with_onnx


def test_code_that_changes_makes_no_dependency_of_an_image_install_again() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n((?:(?!FROM ).*\n)*)", DOCKERFILE, re.MULTILINE))
    assert {name for name, steps in stages.items() if re.search("COPY (shared|services|models)", steps)} == {"code"}
    # Built by what was locked: a rebuild of the code asks no server.
    assert "install-locked build.txt" in stages["code"] and "--no-build-isolation" in stages["code"]
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "COPY --from=code /code /\n" in last and "RUN" not in last
    (needed,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    locked = (ROOT / "deploy" / "requirements" / "build.txt").read_text(encoding="utf-8")
    assert re.search(rf"^{re.split('[^a-z]', needed)[0]}==[0-9.]+ ", locked, re.MULTILINE)


def test_redis_refuses_writes_before_it_is_killed_for_its_memory() -> None:
    found = service("redis")
    options = dict(zip(found["command"][1::2], found["command"][2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"] == "${REDIS_MAXMEMORY:-1500mb}" and found["mem_limit"] == "${REDIS_MEMORY_LIMIT:-3g}"


def test_kafka_keeps_the_features_under_way_at_the_worst() -> None:
    environment = service("kafka")["environment"]
    segment = environment["KAFKA_LOG_SEGMENT_BYTES"]
    (kept,) = map(int, re.findall("(?<=KAFKA_LOG_RETENTION_BYTES:-)[0-9]+", environment["KAFKA_LOG_RETENTION_BYTES"]))
    assert max(MAX_MESSAGE_BYTES.values()) + FRAMING_BYTES < segment < kept / 8
    a_mix, unfinished = 4 * 3600 / 3 * 18e3, Settings.model_fields["max_unfinished"].default
    assert kept * PARTITIONS > 2.5 * a_mix * unfinished, "the partitions may be filled unevenly"


def test_files_of_this_machine_are_only_read() -> None:
    with_music = [name for name in OURS if any(":/music" in volume for volume in service(name)["volumes"])]
    assert set(with_music) == {"ingestion", "cli"}
    for name in with_music:
        assert [volume for volume in service(name)["volumes"] if volume.endswith(":/music:ro")]
        assert service(name)["environment"]["TONESTREAM_LOCAL_FILES"] == "/music"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_container_has_or_gains_rights(name: str) -> None:
    found = service(name)
    assert found["cap_drop"] == ["ALL"]
    assert "cap_add" not in found
    assert found["security_opt"] == ["no-new-privileges:true"]
    for open_door in ("privileged", "devices", "ipc", "pid", "network_mode", "userns_mode", "volumes_from"):
        assert open_door not in found
    volumes = [str(volume) for volume in found.get("volumes", []) if not OF_THE_PROJECT.fullmatch(str(volume))]
    assert not any(volume.startswith(("/", ".", "~")) for volume in volumes), "of the host"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_has_limits_of_memory_and_of_processes(name: str) -> None:
    found = service(name)
    assert 0 < found["pids_limit"] <= 1024
    assert re.fullmatch(r"(\$\{[A-Z_]+:-)?[0-9]+[mg]\}?", found["mem_limit"])


@pytest.mark.parametrize("name", [*OURS, *ONLOOKERS, "redis"])
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
            if re.search("SECRET|PASSWORD|TOKEN|HEADERS", name):
                assert value is None, name


def test_every_image_reads_every_codec_of_kafka() -> None:
    core = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[^a-z0-9-]", one)[0] for one in core}
    assert names >= {"kafka-python", "lz4", "python-snappy", "zstandard"}
    assert "requirements/core.txt" in DOCKERFILE.split("AS needs-")[0], "all images are built on these"


def test_a_container_whose_worker_only_waits_is_healthy() -> None:
    # Some supervisors end what is not healthy, and that would help nobody while Kafka is away.
    (probe,) = re.findall(r"HEALTHCHECK .* CMD (.*)", DOCKERFILE)
    assert probe == '["python", "-I", "-S", "/app/health_probe.py"]'
    assert "shared/runtime/health_probe.py /code/app/health_probe.py" in DOCKERFILE and "WORKDIR /app" in DOCKERFILE
    assert health_probe.LIVE == "livez"
    assert all("healthcheck" not in service(name) for name in (*SERVICE_NAMES, "gateway"))


def test_the_gateway_is_probed_where_it_listens_and_reached_from_this_machine_only() -> None:
    found = service("gateway")
    assert found["environment"]["TONESTREAM_GATEWAY_PORT"] == "8080"
    assert "TONESTREAM_HEALTH_PORT=8080" in DOCKERFILE
    assert found["ports"] == ["127.0.0.1:${GATEWAY_PORT:-8080}:8080"]
    assert found["command"][:3] == ["tonestream", "serve", "--kafka"]
    assert "library:/library" in found["volumes"] and "/library" in DOCKERFILE
