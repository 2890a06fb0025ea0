"""Every knob, typed and documented. Set by environment variables with the prefix ``TONESTREAM_``.

``docs/settings.md`` is generated from here (``tonestream settings``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_ROOT = Path(__file__).resolve().parent.parent

VoteStrategy = Literal["soft", "majority", "parts"]


class SettingsError(ValueError):
    """A setting whose value makes no sense; the message names it."""


class Settings(BaseSettings):
    """One typed object, read once at the start and handed down."""

    model_config = SettingsConfigDict(env_prefix="TONESTREAM_", env_ignore_empty=True, extra="ignore", frozen=True)

    # Kafka
    kafka_bootstrap_servers: str = Field(
        "localhost:9092", description="Brokers to start from, host:port, separated by commas."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak to the brokers."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism, with a SASL_* protocol."
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user.")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password. Never logged.")
    kafka_ssl_cafile: Path | None = Field(None, description="CA certificates of the brokers; default the system's.")
    kafka_session_timeout_s: float = Field(
        30.0, gt=0, description="A worker silent for this long, in seconds, loses its partitions to the others."
    )
    kafka_max_poll_interval_s: float = Field(
        300.0, gt=0, description="Longest time between two polls, in seconds, before the group gives a worker up."
    )
    kafka_transaction_timeout_s: float = Field(
        30.0, gt=0, description="The broker ends the transaction of a dead worker after this many seconds."
    )
    kafka_commit_timeout_s: float = Field(
        30.0, gt=0, description="Longest time for one commit, in seconds; after it the unit of work is redone."
    )
    kafka_replication_factor: int = Field(1, ge=1, description="Replicas of each topic that `topics create` makes.")
    topic_prefix: str = Field(
        "tonestream", pattern=r"^[A-Za-z0-9._-]{1,80}$", description="First part of every topic and group name."
    )

    # Redis
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="redis://, rediss:// or unix:// URL; memory:// keeps the state inside the process.",
    )
    redis_prefix: str = Field("tonestream", description="First part of every key.")
    result_ttl_s: int = Field(30 * 24 * 3600, gt=0, description="How long a finished result is cached, in seconds.")
    state_ttl_s: int = Field(
        7 * 24 * 3600,
        gt=0,
        description="How long, in seconds, the votes of an unfinished request and the mark of a finished one are kept."
        " A request ID used twice within this time is answered once.",
    )

    # Blobs
    blob_url: str = Field(
        "file:///tmp/tonestream-blobs",
        description="Where decoded audio waits for the workers, an fsspec URL (file://, s3://, ...)."
        " All workers of an installation need the same one.",
    )
    blob_ttl_s: int = Field(
        24 * 3600, gt=0, description="Blobs that no finished request cleaned up are removed after this many seconds."
    )

    # Ingestion
    max_unfinished: int = Field(
        200,
        gt=0,
        description="Ingestion pauses while so many requests are under way: a backlog waits in Kafka, where it costs"
        " little, and not as decoded audio in the blob store.",
    )
    fetch_max_bytes: int = Field(200 * 1024 * 1024, gt=0, description="Largest download, in bytes.")
    fetch_total_timeout_s: float = Field(120.0, gt=0, description="Longest download, in seconds.")
    fetch_connect_timeout_s: float = Field(10.0, gt=0, description="Longest wait for a connection, in seconds.")
    fetch_first_byte_timeout_s: float = Field(20.0, gt=0, description="Longest wait for an answer, in seconds.")
    fetch_max_redirects: int = Field(5, ge=0, description="Most redirects that are followed.")
    fetch_allow: str = Field(
        "",
        description="Private hosts that may be fetched from, separated by commas: host, host:port, network or"
        " network:port, e.g. `10.1.0.0/16,media.local:8080`. Public hosts on ports 80 and 443 need no entry.",
    )
    max_track_s: float = Field(4 * 3600.0, gt=0, description="Longest track, in seconds of decoded audio.")
    decode_timeout_s: float = Field(120.0, gt=0, description="Longest time for decoding one track, in seconds.")
    ffmpeg: Path | None = Field(None, description="The ffmpeg to use; default the one on PATH, else the bundled one.")
    spotify_client_id: str | None = Field(None, description="Spotify app. Without it Spotify is never asked.")
    spotify_client_secret: SecretStr | None = Field(None, description="Its secret. Never logged.")
    spotify_api_url: str | None = Field(None, description="Another address for Spotify's Web API (a proxy, a test).")
    spotify_token_url: str | None = Field(None, description="Another address for Spotify's token service.")

    # Models and the vote
    models_dir: Path = Field(_ROOT / "models", description="Folder with the model folders.")
    genre_model: str = Field(
        "musicnn-lstm",
        description="Folder name of the genre model: `musicnn-lstm` is the accurate one, `mfcc-lstm` the cheap one.",
    )
    mood_model: str = Field("mood-ten", description="Folder name of the mood model.")
    tag_model: str = Field("music-tags", description="Folder name of the tag model, with which moods are measured.")
    vote: VoteStrategy = Field(
        "soft",
        description="How segments become one genre: `soft` averages their probabilities, `majority` counts their"
        " labels, `parts` lets 30-second parts vote and then the parts.",
    )
    max_segments: int | None = Field(
        None,
        ge=1,
        description="A track with more segments is judged by that many, evenly spaced; default as many as the genre"
        " model's manifest advises, or all of them.",
    )
    result_deadline_s: float = Field(
        3600.0,
        gt=0,
        description="A request without news for this many seconds ends with what is there, as partial or failed.",
    )

    # The loop
    worker_threads: int = Field(0, ge=0, description="Threads of one worker for its tracks; 0 for one a core.")
    batch_records: int = Field(0, ge=0, description="Most records of one poll; 0 for the service's own number.")
    retry_attempts: int = Field(3, ge=1, description="Tries of a message whose fault may heal.")
    retry_budget_s: float = Field(30.0, gt=0, description="All tries of a batch together, in seconds of waiting.")
    stall_timeout_s: float = Field(
        900.0, gt=0, description="A worker stuck in one batch for this many seconds ends itself to be restarted."
    )
    health_host: str = Field("127.0.0.1", description="Address of the health and metrics endpoint.")
    health_port: int = Field(0, ge=0, le=65535, description="Its port; 0 for none.")
    health_stale_s: float = Field(30.0, gt=0, description="Healthy means: polled within this many seconds.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text for people.")

    def kafka_security(self) -> dict[str, object]:
        """The security part of the Kafka client's configuration."""
        security: dict[str, object] = {"security_protocol": self.kafka_security_protocol}
        if self.kafka_ssl_cafile is not None:
            security["ssl_cafile"] = str(self.kafka_ssl_cafile)
        if self.kafka_sasl_mechanism is not None:
            security["sasl_mechanism"] = self.kafka_sasl_mechanism
            security["sasl_plain_username"] = self.kafka_sasl_username
            if self.kafka_sasl_password is not None:
                security["sasl_plain_password"] = self.kafka_sasl_password.get_secret_value()
        return security


def as_markdown() -> str:
    """Every setting as a table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        if isinstance(default, Path):
            default = default.relative_to(_ROOT)
        shown = "" if default in (None, "") else f"`{default}`"
        rows.append(f"| `TONESTREAM_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)
