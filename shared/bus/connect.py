"""From the settings to a bus on Kafka."""

from __future__ import annotations

from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.settings import Settings
from shared.system.tls_files import check_tls_files


def kafka_bus(settings: Settings, client_id: str, connect_timeout_s: float = 10.0) -> KafkaBus:
    """The bus of this installation. Connects when a role is made, within ``connect_timeout_s`` seconds.

    Raises SettingsError for a certificate or key file that cannot be used.
    """
    key_password = settings.kafka_ssl_key_password
    check_tls_files(
        "kafka_ssl",
        settings.kafka_ssl_cafile,
        settings.kafka_ssl_certfile,
        settings.kafka_ssl_keyfile,
        "" if key_password is None else key_password.get_secret_value(),
    )
    return KafkaBus(
        KafkaConfig(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            client_id=client_id,
            security=settings.kafka_security(),
            session_timeout_s=settings.kafka_session_timeout_s,
            max_poll_interval_s=settings.kafka_max_poll_interval_s,
            transaction_timeout_s=settings.kafka_transaction_timeout_s,
            commit_timeout_s=settings.kafka_commit_timeout_s,
            connect_timeout_s=connect_timeout_s,
            replication_factor=settings.kafka_replication_factor,
        )
    )
