"""Settings: an empty variable is no value, a secret is never shown, and Spotify takes both credentials."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.settings import Settings, SettingsError
from shared.spotify.connect import spotify_client


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    # docker-compose hands through what is not set on the host as an empty string.
    for name in ("SPOTIFY_CLIENT_ID", "SPOTIFY_CLIENT_SECRET", "FETCH_ALLOW", "VOTE", "HEALTH_PORT"):
        monkeypatch.setenv(f"TONESTREAM_{name}", "")
    settings = Settings()
    assert settings.vote == "soft"
    assert spotify_client(settings) is None


@pytest.mark.parametrize(("value", "limit"), [("", None), ("20", 20)])
def test_a_track_is_heard_whole_where_no_other_number_of_segments_is_set(
    monkeypatch: pytest.MonkeyPatch, value: str, limit: int | None
) -> None:
    monkeypatch.setenv("TONESTREAM_MAX_SEGMENTS", value)
    assert Settings().max_segments == limit


@pytest.mark.parametrize("value", ["0", "-1", "all"])
def test_a_number_of_segments_nobody_can_hear_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TONESTREAM_MAX_SEGMENTS", value)
    with pytest.raises(ValidationError, match="max_segments"):
        Settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONESTREAM_KAFKA_SASL_PASSWORD", "hush-1")
    monkeypatch.setenv("TONESTREAM_SPOTIFY_CLIENT_SECRET", "hush-2")
    monkeypatch.setenv("TONESTREAM_REDIS_URL", "redis://:hush-3@localhost:6379/0")
    assert "hush" not in repr(Settings())


def test_the_kafka_client_gets_the_security_that_was_set() -> None:
    settings = Settings.model_validate(
        {
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": "tone",
            "kafka_sasl_password": "hush",
            "kafka_ssl_cafile": "/ca.pem",
        }
    )
    assert settings.kafka_security() == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "tone",
        "sasl_plain_password": "hush",
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": True,
    }


SASL = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "tone", "kafka_sasl_password": "hush"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "needs kafka_sasl_mechanism, kafka_sasl_username, kafka_sasl_pass"),
        ({**SASL, "kafka_security_protocol": "SSL"}, "kafka_sasl_password needs kafka_security_protocol SASL_SSL"),
        ({"kafka_ssl_cafile": "/ca.pem"}, "kafka_ssl_cafile needs kafka_security_protocol SSL or SASL_SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": "/k"}, "kafka_ssl_keyfile needs kafka_ssl_certfile"),
        ({"redis_ssl_cafile": "/ca.pem", "redis_url": "redis://:hush@h"}, "begins with rediss://"),
        ({"redis_url": "http://:hush@h"}, "begins with redis://"),
        ({"redis_url": "hush@h:6379"}, "begins with redis://"),
        ({"redis_url": "redis://:hush/more@h:6379"}, "percent-encode"),
        ({"redis_url": "redis://:hush[more@h:6379"}, "percent-encode"),
        ({"blob_url": "ftp://me:hush@h/blobs"}, "must not hold a user or a password"),
    ],
)
def test_security_that_would_be_ignored_or_cannot_be_read_is_refused_without_quoting_it(
    given: dict[str, str], told: str
) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        Settings.model_validate(given)
    assert "hush" not in f"{caught.value!r} {caught.value}" + "".join(traceback.format_exception(caught.value))


def test_the_url_of_redis_takes_the_certificates_that_are_set() -> None:
    given = {"redis_url": "rediss://:hush@h:6379/0?health_check_interval=5", "redis_ssl_cafile": "/my ca.pem"}
    for settings in (Settings.model_validate(given), Settings.model_validate(Settings.model_validate(given))):
        url = settings.redis_url.get_secret_value()
        assert url == f"{given['redis_url']}&ssl_ca_certs=%2Fmy+ca.pem"


def test_a_setting_may_stand_in_a_file_and_its_variable_goes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tonestream_spotify_client_secret").write_text("from-a-file\n")
    (tmp_path / "tonestream_vote").write_text("majority")
    monkeypatch.setenv("TONESTREAM_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("TONESTREAM_SPOTIFY_CLIENT_SECRET", "")
    monkeypatch.setenv("TONESTREAM_VOTE", "parts")
    settings = Settings()
    assert settings.spotify_client_secret is not None
    assert settings.spotify_client_secret.get_secret_value() == "from-a-file"
    assert settings.vote == "parts"


def test_a_folder_of_secrets_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TONESTREAM_SECRETS_DIR", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="TONESTREAM_SECRETS_DIR: there is no folder"):
        Settings()


def secret(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "tonestream_vote") -> Path:
    monkeypatch.setenv("TONESTREAM_SECRETS_DIR", str(folder))
    return folder / name


def test_a_secret_that_may_not_be_read_is_named_with_its_owner_and_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = secret(tmp_path, monkeypatch)
    file.write_text("majority")
    file.chmod(0o400)

    def refused(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(SettingsError) as caught:
        Settings()
    owner, group = file.stat().st_uid, file.stat().st_gid
    assert str(caught.value) == (
        f"{file} cannot be read by user {os.geteuid()}: it belongs to user {owner} and group {group}, with mode 0400"
    )


def test_a_secret_that_is_no_text_or_no_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = secret(tmp_path, monkeypatch)
    file.write_bytes(b"soft\xff")
    with pytest.raises(SettingsError, match=r"tonestream_vote holds no text: byte 4 is no UTF-8"):
        Settings()
    file.unlink()
    file.mkdir()  # as Docker makes one where the file to be mounted is missing
    with pytest.raises(SettingsError, match=r"tonestream_vote is a folder; a file"):
        Settings()


def test_what_else_lies_in_the_folder_of_secrets_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret(tmp_path, monkeypatch, "other-programs-key").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    secret(tmp_path, monkeypatch).write_text("majority\n")
    assert Settings().vote == "majority"
