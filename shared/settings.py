"""Every setting, typed and documented, from environment variables with the prefix ``TONESTREAM_`` or from files.

``docs/settings.md`` is generated from here (``tonestream settings``).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import unquote, urlencode, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

_ROOT = Path(__file__).resolve().parent.parent
#: Where an installed package has its models (setup.py); a checkout has them at its root.
_PACKAGED_MODELS: Final = _ROOT / "tonestream" / "models"

#: A folder with one file per setting, named like its variable in lower case. A variable overrides its file.
SECRETS_DIR_VARIABLE: Final = "TONESTREAM_SECRETS_DIR"
#: The folder that Docker and Kubernetes use.
DEFAULT_SECRETS_DIR: Final = Path("/run/secrets")
#: The default port of a broker.
_KAFKA_PORT: Final = "9092"
_REDIS_TLS: Final = ("rediss:", "cluster+rediss:")
_REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix", "memory", "cluster+redis", "cluster+rediss"})

_SHORTEST_API_KEY: Final = 16

VoteStrategy = Literal["soft", "majority", "parts"]


class SettingsError(ValueError):
    """A setting has an invalid value; the message names it."""


class Settings(BaseSettings):
    """All settings in one typed object, read once at the start."""

    model_config = SettingsConfigDict(
        env_prefix="TONESTREAM_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        # A refused value may be a password.
        hide_input_in_errors=True,
    )

    # Kafka
    kafka_bootstrap_servers: str = Field(
        "localhost:9092", description="Brokers to start from, host:port, separated by commas."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak to the brokers: with or without TLS (SSL) and a password (SASL)."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism. A SASL_* protocol needs it, a user and a password; no other takes them."
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user.")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password. Never logged.")
    kafka_ssl_cafile: Path | None = Field(
        None, description="PEM file with the certificates of the brokers' authorities; default the system's."
    )
    kafka_ssl_certfile: Path | None = Field(
        None, description="PEM file with this client's certificate, where the brokers ask for one (mutual TLS)."
    )
    kafka_ssl_keyfile: Path | None = Field(None, description="PEM file with its key; default the certificate's file.")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="Password of that key. Never logged.")
    kafka_ssl_check_hostname: bool = Field(
        True, description="Whether a broker's certificate must be for the name it is called by."
    )
    kafka_session_timeout_s: float = Field(
        8.0, gt=0, description="A worker silent for this long, in seconds, loses its partitions to the others."
    )
    kafka_max_poll_interval_s: float = Field(
        300.0, gt=0, description="Longest time between two polls, in seconds, before the group gives a worker up."
    )
    kafka_transaction_timeout_s: float = Field(
        10.0, gt=0, description="The broker ends the transaction of a dead worker after this many seconds."
    )
    kafka_commit_timeout_s: float = Field(
        30.0, gt=0, description="Longest time for one commit, in seconds; after it the unit of work is redone."
    )
    kafka_replication_factor: int | None = Field(
        None,
        ge=1,
        description="Replicas of each topic that `topics create` makes; default three, or one a broker where there are"
        " fewer.",
    )
    topic_prefix: str = Field(
        "tonestream", pattern=r"^[A-Za-z0-9._-]{1,80}$", description="First part of every topic and group name."
    )

    # Redis
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="redis://, rediss:// (TLS) or unix:// URL, with `user:password@` before the host where Redis asks"
        " for them, percent-encoded; cluster+redis:// or cluster+rediss:// with any node of a Redis Cluster; memory://"
        " keeps the state inside the process. Its password is never logged.",
    )
    redis_ssl_cafile: Path | None = Field(
        None, description="PEM file with the certificate of Redis's authority; default the system's. With rediss://."
    )
    redis_ssl_certfile: Path | None = Field(
        None, description="PEM file with this client's certificate, if Redis asks for one (mutual TLS)."
    )
    redis_ssl_keyfile: Path | None = Field(None, description="PEM file with its key.")
    redis_ssl_check_hostname: bool = Field(
        True, description="Whether Redis's certificate must be for the host of the URL."
    )
    redis_wait_replicas: int = Field(
        0,
        ge=0,
        description="How many replicas of Redis must have what a worker wrote before it commits. As many as each master"
        " has: then a fail-over loses nothing that was committed. With 0 it may lose the last"
        " writes.",
    )
    redis_prefix: str = Field("tonestream", pattern=r"^[^{}*?\[\]\\]{1,200}$", description="First part of every key.")
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
        " All workers of an installation need the same one. Its credentials come from the store's own environment"
        " (AWS_ACCESS_KEY_ID, ...), never from the URL.",
    )
    blob_endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$",
        description="Address of an S3 server other than Amazon's, e.g. `https://minio.example.org:9000`; default"
        " Amazon's, or what AWS_ENDPOINT_URL_S3 says.",
    )
    blob_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Longest call to a blob store on another machine, with all its tries, in seconds; a transfer gets"
        " one second more for each 512 KiB. After it the work is redone until the store answers.",
    )
    blob_ttl_s: int = Field(
        24 * 3600, gt=0, description="Blobs that no finished request cleaned up are removed after this many seconds."
    )

    keep_audio_s: int = Field(
        0,
        ge=0,
        description="How long decoded audio stays after its last request has ended, in seconds, so that it can be"
        " played; 0 removes it at once. Not longer than `TONESTREAM_BLOB_TTL_S`. `tonestream serve` keeps it for 7 days"
        " unless this is set.",
    )
    keep_audio_bytes: int = Field(
        2 * 1024**3,
        gt=0,
        description="Most bytes of decoded audio that stay so; the oldest goes first. A minute takes 2.6 MB.",
    )

    # Ingestion
    max_unfinished: int = Field(
        200,
        gt=0,
        description="Ingestion pauses while so many requests are under way: a backlog waits in Kafka, where it costs"
        " little, and not as decoded audio in the blob store.",
    )
    fetch_max_bytes: int = Field(200 * 1024 * 1024, gt=0, description="Largest download, in bytes.")
    fetch_first_timeout_s: float = Field(
        3.0,
        gt=0,
        description="Longest first try of fetching a request's audio, in seconds, with its look-ups and redirects. What"
        " takes longer moves to the retry lane, which delays no other request.",
    )
    fetch_total_timeout_s: float = Field(
        120.0,
        gt=0,
        description="Longest fetching of one request in the retry lane, in seconds, all its tries together.",
    )
    fetch_connect_timeout_s: float = Field(
        10.0, gt=0, description="Longest look-up of a host, and longest wait for a connection to it, in seconds each."
    )
    fetch_first_byte_timeout_s: float = Field(20.0, gt=0, description="Longest wait for an answer, in seconds.")
    fetch_max_redirects: int = Field(
        10, ge=0, description="Most redirects that are followed. Addresses of podcasts have up to ten, one a counter."
    )
    fetch_allow: str = Field(
        "",
        description="Private hosts that may be fetched from, separated by commas: host, host:port, network or"
        " network:port, e.g. `10.1.0.0/16,media.local:8080`. Public hosts on ports 80 and 443 need no entry."
        " The installation's own Kafka and Redis stay closed whatever stands here.",
    )
    local_files: Path | None = Field(
        None,
        description="Folder whose files requests may name, e.g. `file:///music/song.mp3`; ingestion reads nothing"
        " outside of it. `tonestream submit` names the files of this folder instead of copying them. Default none.",
    )
    max_track_s: float = Field(4 * 3600.0, gt=0, description="Longest track, in seconds of decoded audio.")
    decode_first_timeout_s: float = Field(
        20.0,
        gt=0,
        description="Longest decoding in the first lane, in seconds; what takes longer moves to the retry lane, too.",
    )
    decode_timeout_s: float = Field(300.0, gt=0, description="Longest time for decoding one track, in seconds.")
    ffmpeg: Path | None = Field(None, description="The ffmpeg to use; default the one on PATH, else the bundled one.")
    spotify_client_id: str | None = Field(None, description="Spotify app. Without it Spotify is never asked.")
    spotify_client_secret: SecretStr | None = Field(None, description="Its secret. Never logged.")
    spotify_api_url: str | None = Field(None, description="Another address for Spotify's Web API (a proxy, a test).")
    spotify_token_url: str | None = Field(None, description="Another address for Spotify's token service.")

    # Models and the vote
    models_dir: Path = Field(
        _PACKAGED_MODELS if _PACKAGED_MODELS.is_dir() else _ROOT / "models",
        description="Folder with the model folders.",
    )
    genre_model: str = Field(
        "musicnn-lstm",
        description="Folder name of the genre model: `musicnn-lstm` is the accurate one, `mfcc-lstm` the cheap one.",
    )
    mood_model: str = Field("mood-ten", description="Folder name of the mood model.")
    engine: Literal["auto", "onnx", "tensorflow"] = Field(
        "auto",
        description="What runs the networks: `onnx` (ONNX Runtime) or `tensorflow`; `auto` is the lighter of those"
        " that are installed. The answers are the same. The mood worker's image has ONNX Runtime, the genre worker's"
        " TensorFlow, or ONNX Runtime if it was built so (`GENRE_ENGINE=onnx make up`).",
    )
    tag_model: str = Field(
        "mfcc-lstm",
        description="Folder name of the model that hears tags, fit and content: a tag model, or a genre model with"
        " tags. The mood model was trained with the shipped one.",
    )
    model_wait_s: float = Field(
        600.0,
        ge=0,
        description="How long, in seconds, a worker holds tracks whose model is not installed in it (another service"
        " was upgraded first) before it fails them. Longer than an upgrade of all services takes, and shorter than"
        " `TONESTREAM_RESULT_DEADLINE_S`.",
    )
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

    # The gateway
    gateway_host: str = Field("127.0.0.1", description="Address at which `tonestream serve` listens.")
    gateway_port: int = Field(8000, ge=0, le=65535, description="Its port; 0 for any free one.")
    gateway_api_keys: SecretStr | None = Field(
        None,
        description="API keys, separated by commas. Without any the gateway is open to everybody who reaches it, and"
        " listens on loopback addresses only. Each has at least 16 characters. Never logged.",
    )
    gateway_open: bool = Field(
        False,
        description="Whether a gateway without keys may listen on other addresses than loopback ones, because something"
        " else lets nobody else reach it, as the port of `docker-compose.yml` does.",
    )
    gateway_hosts: str = Field(
        "",
        description="Names, separated by commas, by which the gateway may be called in the Host header, besides those"
        " of the loopback addresses: `music.example.org`. Another name is refused, so that no web site can reach a"
        " local gateway by letting its own name lead there.",
    )
    gateway_cors_origins: str = Field(
        "",
        description="Web sites whose scripts may use the gateway, separated by commas: `https://app.example.org`."
        " Default none but its own page.",
    )
    gateway_local_sources: bool = Field(
        False,
        description="Whether HTTP clients may name blobs (`blob:`) and files of `TONESTREAM_LOCAL_FILES` (`file:`).",
    )
    gateway_max_waiting: int = Field(
        1000,
        gt=0,
        description="Most uploads that may wait for the pipeline at once; further ones are refused for the moment, with"
        " status 503. They take room in the blob store.",
    )
    gateway_rate_limit: str = Field(
        "",
        pattern=r"^(|[1-9][0-9]{0,8}/(second|minute|hour|day))$",
        description="Most tracks that one API key, or one address where there are no keys, may submit, e.g."
        " `600/minute`; default no limit.",
    )
    gateway_session_s: int = Field(
        7 * 24 * 3600, gt=0, description="How long a browser stays signed in with an API key, in seconds."
    )
    gateway_webhook_private: bool = Field(
        False,
        description="Whether webhooks may lead to private and loopback addresses, on any port. Public ones on ports 80"
        " and 443 need no permission. The installation's own Kafka and Redis stay closed.",
    )
    gateway_webhook_timeout_s: float = Field(
        20.0, gt=0, description="Longest time for one delivery to a webhook, in seconds."
    )
    gateway_webhook_retries_s: str = Field(
        "5,60,300,1800,7200,18000,28800,28800",
        pattern=r"^[0-9]{1,5}(\.[0-9]{1,3})?(,[0-9]{1,5}(\.[0-9]{1,3})?){0,99}$",
        description="Waits between the attempts of a delivery to a webhook, in seconds, separated by commas. Their sum,"
        " by default a day, is how long it is tried for.",
    )
    gateway_webhook_disable_after_s: float = Field(
        5 * 24 * 3600.0,
        gt=0,
        description="A webhook that took nothing for this many seconds, while there was something to deliver, is"
        " disabled.",
    )
    library_db: Path | None = Field(
        None,
        description="SQLite file with the gateway's view of the results. Default `tonestream/library.sqlite` in the"
        " user's folder for data (`~/.local/share` on Linux).",
    )
    library_keep_s: int = Field(
        0,
        ge=0,
        description="How long a finished track stays in that view, in seconds; then it is removed, with the audio that"
        " was kept of it. 0 for ever.",
    )
    library_keep_rows: int = Field(
        0, ge=0, description="Most finished tracks of that view; beyond it the oldest are removed. 0 for any number."
    )

    # The loop
    worker_threads: int = Field(0, ge=0, description="Threads of one worker for its tracks; 0 for one a core.")
    batch_records: int = Field(0, ge=0, description="Most records of one poll; 0 for the service's own number.")
    retry_attempts: int = Field(3, ge=1, description="Tries of a message whose fault may heal.")
    retry_budget_s: float = Field(
        30.0,
        gt=0,
        description="All pauses between tries together, in seconds: those of a request in ingestion, those of a batch"
        " elsewhere.",
    )
    retry_window: int = Field(
        32,
        ge=1,
        description="Most requests that the retry lane of one worker has in hand at once: being fetched, or waiting for"
        " their time.",
    )
    dead_letter_limit: int = Field(
        20,
        ge=0,
        description="A worker that would send more records than this to the dead letters within a minute stops instead:"
        " it leaves its group, says why on its health endpoint, and ends with status 65 after a pause; 0 for no limit.",
    )
    dead_letter_pause_s: float = Field(
        300.0,
        ge=0,
        description="How long, in seconds, a worker that stopped at that limit waits before it ends, so that no"
        " supervisor starts it again and again.",
    )
    stall_timeout_s: float = Field(
        900.0,
        gt=0,
        description="A worker that is stuck in one batch, or in its loop, for this many seconds ends itself to be"
        " restarted; until then it is live.",
    )
    health_host: str = Field("127.0.0.1", description="Address of the health and metrics endpoint.")
    health_port: int = Field(0, ge=0, le=65535, description="Its port; 0 for none.")
    health_stale_s: float = Field(
        30.0, gt=0, description="Ready means: polled within this many seconds, and Kafka and Redis answer."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text for people.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Sources in order: arguments, the environment, the files of the secrets folder."""
        named = os.environ.get(SECRETS_DIR_VARIABLE)
        folder = Path(named) if named else DEFAULT_SECRETS_DIR
        if named and not folder.is_dir():
            raise SettingsError(f"{SECRETS_DIR_VARIABLE}: there is no folder {named!r}")
        if not folder.is_dir():
            return init_settings, env_settings
        _require_readable(folder, str(cls.model_config.get("env_prefix", "")).lower())
        files = SecretsSettingsSource(settings_cls, secrets_dir=folder, env_ignore_empty=True)
        return init_settings, env_settings, files

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _brokers_can_be_read(cls, value: str) -> str:
        brokers(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_can_be_read(cls, value: SecretStr) -> SecretStr:
        """Checked here, because errors of later readers may quote parts of the password."""
        url = value.get_secret_value()
        if url.partition("://")[0] not in _REDIS_SCHEMES or "://" not in url:
            raise ValueError("a URL that begins with redis://, rediss://, unix:// or memory:// is needed")
        if not _has_port_and_host(url):
            raise ValueError("the host or the port cannot be read; in a password, percent-encode / ? # @ : [ ]")
        return value

    @field_validator("gateway_api_keys")
    @classmethod
    def _keys_cannot_be_guessed(cls, value: SecretStr | None) -> SecretStr | None:
        keys = [] if value is None else _listed(value)
        if value is not None and not keys:
            raise ValueError("no key stands there; leave it out for a gateway without keys")
        if any(len(key) < _SHORTEST_API_KEY or not key.isascii() or not key.isprintable() for key in keys):
            raise ValueError(f"a key has at least {_SHORTEST_API_KEY} characters, of ASCII only")
        return value

    @field_validator("blob_url")
    @classmethod
    def _blob_url_holds_no_password(cls, value: str) -> str:
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("it must not hold a user or a password; the store's own environment variables take them")
        return value

    @model_validator(mode="after")
    def _credentials_are_used(self) -> Self:
        """An ignored user, password or certificate would make a connection less safe than it looks."""
        sasl = ("mechanism", "username", "password")
        given = [name for name in sasl if getattr(self, f"kafka_sasl_{name}") is not None]
        if self.kafka_security_protocol.startswith("SASL_"):
            if missing := [name for name in sasl if name not in given]:
                raise ValueError(
                    f"kafka_security_protocol {self.kafka_security_protocol} needs {_named('sasl', missing)}"
                )
        elif given != ["password"] and given:  # a password alone is useless, and obviously so
            raise ValueError(f"{_named('sasl', given)} needs kafka_security_protocol SASL_SSL or SASL_PLAINTEXT")
        tls = [name for name in ("cafile", "certfile", "keyfile") if getattr(self, f"kafka_ssl_{name}") is not None]
        if tls and not self.kafka_uses_tls:
            raise ValueError(f"{_named('ssl', tls)} needs kafka_security_protocol SSL or SASL_SSL")
        if "keyfile" in tls and "certfile" not in tls:
            raise ValueError("kafka_ssl_keyfile needs kafka_ssl_certfile")
        if self._redis_tls() and not self.redis_url.get_secret_value().startswith(
            ("rediss:", "cluster+rediss:", "memory:")
        ):
            raise ValueError("redis_ssl_* needs a redis_url that begins with rediss://")
        return self

    @model_validator(mode="after")
    def _redis_url_is_complete(self) -> Self:
        """The URL holds everything that a client needs to connect, even the certificates."""
        url = self.redis_url.get_secret_value()
        options = {name: value for name, value in self._redis_tls().items() if f"{name}=" not in url}
        if options and url.startswith(_REDIS_TLS):
            complete = f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(options)}"
            object.__setattr__(self, "redis_url", SecretStr(complete))  # frozen from here on
        return self

    @property
    def kafka_uses_tls(self) -> bool:
        """Whether the connections to the brokers are encrypted."""
        return self.kafka_security_protocol in {"SSL", "SASL_SSL"}

    def _redis_tls(self) -> dict[str, str]:
        files = {
            "ssl_ca_certs": self.redis_ssl_cafile,
            "ssl_certfile": self.redis_ssl_certfile,
            "ssl_keyfile": self.redis_ssl_keyfile,
        }
        unchecked = {} if self.redis_ssl_check_hostname else {"ssl_check_hostname": "false"}
        return {name: str(file) for name, file in files.items() if file is not None} | unchecked

    def secrets(self) -> list[str]:
        """Everything that must not be shown: every secret that is set, and the password in the URL of Redis."""
        hidden = [value.get_secret_value() for _, value in self if isinstance(value, SecretStr)]
        if self.gateway_api_keys is not None:
            hidden += _listed(self.gateway_api_keys)
        url = self.redis_url.get_secret_value()
        password = None if url.startswith("memory:") else urlsplit(url).password
        return [*hidden, *((password, unquote(password)) if password else ())]

    def kafka_security(self) -> dict[str, object]:
        """The security part of the Kafka client's configuration, in kafka-python's terms. Secret."""
        security: dict[str, object] = {"security_protocol": self.kafka_security_protocol}
        if self.kafka_uses_tls:
            security["ssl_check_hostname"] = self.kafka_ssl_check_hostname
            for name in ("cafile", "certfile", "keyfile"):
                if (file := getattr(self, f"kafka_ssl_{name}")) is not None:
                    security[f"ssl_{name}"] = str(file)
            if self.kafka_ssl_certfile is not None:
                # Never None, because OpenSSL would prompt at the terminal and wait.
                secret = self.kafka_ssl_key_password
                security["ssl_password"] = "" if secret is None else secret.get_secret_value()
        if self.kafka_sasl_mechanism is not None:
            security["sasl_mechanism"] = self.kafka_sasl_mechanism
            security["sasl_plain_username"] = self.kafka_sasl_username
            if self.kafka_sasl_password is not None:
                security["sasl_plain_password"] = self.kafka_sasl_password.get_secret_value()
        return security


def _listed(secret: SecretStr) -> list[str]:
    return [part for one in secret.get_secret_value().split(",") if (part := one.strip())]


def brokers(servers: str) -> list[tuple[str, int]]:
    """The hosts and ports in ``kafka_bootstrap_servers``, IPv6 addresses without brackets. Raises ValueError."""
    found = []
    for server in (one.strip() for one in servers.split(",")):
        host, colon, port = server.rpartition(":")
        if not colon or "]" in port:  # the port may be left out: [::1]
            host, port = server, _KAFKA_PORT
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{server!r} is no host:port; brokers are separated by commas")
        found.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return found


def _require_readable(folder: Path, prefix: str) -> None:
    """Raises SettingsError for a file with the name of a setting that cannot be read as text."""
    path = folder
    try:
        for path in sorted(folder.iterdir()):
            if not path.name.lower().startswith(prefix):
                continue
            if path.is_dir():
                raise SettingsError(f"{path} is a folder; a file with the value of that setting is needed")
            path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} holds no text: byte {error.start} is no UTF-8") from error
    except PermissionError as error:
        raise SettingsError(f"{path} cannot be read by user {os.geteuid()}: {_belonging(path)}") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error


def _belonging(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        return str(error.strerror or error)
    mode = stat.S_IMODE(found.st_mode)
    return f"it belongs to user {found.st_uid} and group {found.st_gid}, with mode {mode:04o}"


def _named(group: str, names: list[str]) -> str:
    return ", ".join(f"kafka_{group}_{name}" for name in names)


def _has_port_and_host(url: str) -> bool:
    if url.startswith("memory:"):
        return True
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme == "unix" or bool(parts.hostname)


def shown_default(name: str) -> str:
    """The default of the setting as Markdown; empty if there is none."""
    default = Settings.model_fields[name].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, Path):
        default = default.relative_to(_ROOT)
    return "" if default in (None, "") else f"`{default}`"


def as_markdown() -> str:
    """Every setting as a table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `TONESTREAM_{name.upper()}` | {shown_default(name)} | {field.description} |")
    return "\n".join(rows)
