"""A real Kafka broker that asks who is there: SASL over TLS on one port, mutual TLS on another."""

from __future__ import annotations

from pathlib import Path

from tests.support.certificates import Authority
from tests.support.kafka_broker import JavaBroker

_LOGIN = "org.apache.kafka.common.security"


class SecureBroker(JavaBroker):
    """``addresses["SASL_SSL"]`` takes USER with PASSWORD (SCRAM-SHA-512, PLAIN), ``addresses["SSL"]`` certificates of
    ``authority``, ``addresses["SASL_PLAINTEXT"]`` the password without TLS. ``bootstrap_servers`` takes anybody."""

    USER = "tonestream-user"
    PASSWORD = "kafka-Pa55-hush"

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "kafka-authority")
        broker = self.authority.issue("broker", "localhost")
        more = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(broker.both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.ssl.ssl.client.auth": "required",
        }
        scram = f"{_LOGIN}.scram.ScramLoginModule required;"
        plain = f'{_LOGIN}.plain.PlainLoginModule required user_{self.USER}="{self.PASSWORD}";'
        for listener in ("sasl_ssl", "sasl_plaintext"):
            prefix = f"listener.name.{listener}"
            more[f"{prefix}.sasl.enabled.mechanisms"] = "SCRAM-SHA-512,PLAIN"
            more[f"{prefix}.scram-sha-512.sasl.jaas.config"] = scram
            more[f"{prefix}.plain.sasl.jaas.config"] = plain
        users = ["--add-scram", f"SCRAM-SHA-512=[name={self.USER},password={self.PASSWORD}]"]
        super().__init__(listeners=("SASL_SSL", "SSL", "SASL_PLAINTEXT"), more=more, users=users)
