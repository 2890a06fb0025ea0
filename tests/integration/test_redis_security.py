"""Redis with TLS and passwords, through the product's settings alone: what connects, and how refusals are told."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest

from shared.contracts.errors import DependencyError
from shared.settings import Settings, SettingsError
from shared.state.connection import connect, redis_faults, require_trust
from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.support.secure_redis import SecureRedis

pytestmark = pytest.mark.redis

WRONG = "wrong-Pa55-hush"


@pytest.fixture(scope="module")
def server(secure_redis: SecureRedis) -> SecureRedis:
    return secure_redis


def variables(
    server: SecureRedis, user: str = "app", password: str = SecureRedis.PASSWORD, **changes: str
) -> dict[str, str]:
    """The environment of a client over TLS, with ``changes``."""
    given = {
        "redis_url": f"rediss://{user}:{quote(password, safe='')}@localhost:{server.tls_port}/0",
        "redis_ssl_cafile": str(server.authority.certificate),
        **changes,
    }
    return {f"TONESTREAM_{name.upper()}": value for name, value in given.items() if value}


def settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize("user", ["app", ""], ids=["acl-user", "requirepass"])
def test_redis_answers_over_tls_with_a_password(
    server: SecureRedis, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    read = settings(monkeypatch, variables(server, user))
    with connect(read.redis_url.get_secret_value()) as client:
        require_trust(client)
        client.set("greeting", "hello")
        assert client.get("greeting") == "hello"
        assert client.connection_pool.connection_kwargs["ssl_ca_certs"] == str(server.authority.certificate)
        assert "hush" not in repr(client) + repr(read) + str(read)


def test_redis_takes_a_client_certificate(server: SecureRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    client = server.authority.issue("client")
    files = {"redis_ssl_certfile": str(client.certificate), "redis_ssl_keyfile": str(client.key)}
    read = settings(monkeypatch, variables(server, **files))
    server_asks(server, "yes")
    try:
        require_trust(connect(read.redis_url.get_secret_value()))
        monkeypatch.delenv("TONESTREAM_REDIS_SSL_CERTFILE")
        monkeypatch.delenv("TONESTREAM_REDIS_SSL_KEYFILE")
        for _ in range(20):  # the refusal races with the first command
            with pytest.raises(DependencyError, match="TLS connection to Redis fails"):
                require_trust(connect(Settings().redis_url.get_secret_value()))
    finally:
        server_asks(server, "optional")


def server_asks(server: SecureRedis, answer: str) -> None:
    url = f"redis://:{quote(SecureRedis.PASSWORD, safe='')}@localhost:{server.plain_port}/0"
    connect(url).config_set("tls-auth-clients", answer)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"password": WRONG}, "does not accept the user and password of TONESTREAM_REDIS_URL"),
        ({"user": "", "password": ""}, "does not accept the user and password of TONESTREAM_REDIS_URL"),
        ({"redis_ssl_cafile": "OTHER"}, "TLS connection to Redis fails.*TONESTREAM_REDIS_URL"),
        ({"redis_ssl_cafile": ""}, "TLS connection to Redis fails.*TONESTREAM_REDIS_URL"),
        ({"host": "127.0.0.1"}, "TLS connection to Redis fails.*TONESTREAM_REDIS_URL"),
    ],
    ids=["password", "no-password", "other-authority", "no-authority", "host-name"],
)
def test_settings_that_cannot_work_are_told_at_the_start_and_later(
    server: SecureRedis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    changes = dict(changes)
    if changes.get("redis_ssl_cafile") == "OTHER":
        changes["redis_ssl_cafile"] = str(Authority(tmp_path, "another").certificate)
    if host := changes.pop("host", ""):
        changes["redis_url"] = f"rediss://app:{quote(SecureRedis.PASSWORD, safe='')}@{host}:{server.tls_port}/0"
    client = connect(settings(monkeypatch, variables(server, **changes)).redis_url.get_secret_value())
    with pytest.raises(DependencyError, match=told) as caught:
        require_trust(client)
    with pytest.raises(DependencyError, match="Redis cannot be used") as again, redis_faults():
        client.get("anything")
    said = "".join(traceback.format_exception(caught.value) + traceback.format_exception(again.value))
    assert "hush" not in said


def test_a_client_without_tls_at_the_port_with_it_is_told_what_may_be_wrong(
    server: SecureRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://app:{quote(SecureRedis.PASSWORD, safe='')}@localhost:{server.tls_port}/0"
    fault = require_trust(connect(url))
    assert fault is not None and "does only one side speak TLS?" in fault
    assert "hush" not in fault
    with pytest.raises(ValueError, match="needs a redis_url that begins with rediss://"):
        settings(monkeypatch, variables(server, redis_url=url))


def test_a_user_without_the_rights_is_a_fault_of_the_installation_and_not_of_a_record(server: SecureRedis) -> None:
    url = f"redis://limited:{SecureRedis.LIMITED}@localhost:{server.plain_port}/0"
    client = connect(url)
    require_trust(client)
    with pytest.raises(DependencyError, match="permissions"), redis_faults():
        client.get("anything")


def test_a_server_that_is_away_is_no_reason_to_refuse_to_start() -> None:
    for host, told in ((f"localhost:{free_port()}", "refused"), ("nowhere.invalid:6379", "nowhere.invalid")):
        fault = require_trust(connect(f"redis://{host}/0"))
        assert fault is not None and fault.startswith("it gives no answer: ") and told in fault


def test_a_certificate_file_that_cannot_be_used_is_named(
    server: SecureRedis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read = settings(monkeypatch, variables(server, redis_ssl_cafile=str(tmp_path / "missing.pem")))
    with pytest.raises(SettingsError, match=r"redis_ssl_cafile: .*missing\.pem: No such file"):
        connect(read.redis_url.get_secret_value())


def test_a_worker_with_a_wrong_password_ends_with_the_reason_and_without_the_password(server: SecureRedis) -> None:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")}
    environment = cleared | variables(server, password=WRONG, log_level="DEBUG", log_format="text")
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "worker", "aggregator"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not accept the user and password of TONESTREAM_REDIS_URL" in done.stderr.splitlines()[-1]
    assert "hush" not in done.stdout + done.stderr
