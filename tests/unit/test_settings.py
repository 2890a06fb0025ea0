"""Settings: an empty variable is no value, a secret is never shown, and Spotify takes both credentials."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.settings import Settings
from shared.spotify import spotify_client


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
    }
