"""Kafka with TLS and passwords, through the product's settings alone: what connects, and how refusals are told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from shared.bus.base import Bus, BusSecurityError, BusUnavailableError, Outgoing, Record, TopicSpec
from shared.bus.connect import kafka_bus
from shared.bus.kafka.bus import KafkaBus
from shared.settings import Settings, SettingsError
from tests.support.certificates import Authority
from tests.support.names import Names
from tests.support.processes import free_port
from tests.support.secure_kafka import SecureBroker

pytestmark = pytest.mark.kafka

WRONG = "wrong-Pa55-hush"
#: A refusal is told well before the client's own patience of 10 s is at its end.
QUICKLY_S = 5.0


@pytest.fixture(scope="module")
def broker(secure_broker: SecureBroker) -> SecureBroker:
    return secure_broker


class Connect(Protocol):
    """A bus in an environment; ``patience_s`` is how long it waits for a broker."""

    def __call__(self, environment: dict[str, str], patience_s: float = 10.0) -> Bus: ...


def variables(broker: SecureBroker, mechanism: str = "SCRAM-SHA-512", **changes: str) -> dict[str, str]:
    """The environment of a client that is let in over SASL_SSL, with ``changes``."""
    given = {
        "kafka_bootstrap_servers": broker.addresses["SASL_SSL"],
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": mechanism,
        "kafka_sasl_username": SecureBroker.USER,
        "kafka_sasl_password": SecureBroker.PASSWORD,
        "kafka_ssl_cafile": str(broker.authority.certificate),
        **changes,
    }
    return {f"TONESTREAM_{name.upper()}": value for name, value in given.items() if value}


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    buses: list[Bus] = []

    def made(environment: dict[str, str], patience_s: float = 10.0) -> Bus:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        bus = kafka_bus(Settings(), "tonestream-test")
        buses.append(KafkaBus(replace(bus._config, connect_timeout_s=patience_s)))
        return buses[-1]

    yield made
    for bus in buses:
        bus.close()


def transact(bus: Bus, names: Names) -> list[Record]:
    """Every role once: admin, publisher, membership with a transaction, reader. Returns what was read in the end."""
    source, sink = names.topic("in"), names.topic("out")
    assert set(bus.create_topics([TopicSpec(source, 2), TopicSpec(sink, 1)])) == {source, sink}
    with bus.publisher() as publisher:
        publisher.publish([Outgoing(source, b"k", b"question")])
    with bus.join(names.group("workers"), [source]) as membership:
        records: list[Record] = []
        deadline = time.monotonic() + 30
        while not records and time.monotonic() < deadline:
            records = membership.poll(10, 1.0)
        membership.commit([Outgoing(sink, b"k", b"answer")], records)
    with bus.reader([sink]) as reader:
        return reader.poll(10, 10.0)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_every_role_works_over_tls_with_a_password(
    broker: SecureBroker, connect: Connect, names: Names, mechanism: str
) -> None:
    assert [record.value for record in transact(connect(variables(broker, mechanism)), names)] == [b"answer"]


def test_every_role_works_with_a_client_certificate(broker: SecureBroker, connect: Connect, names: Names) -> None:
    client = broker.authority.issue("client")
    environment = variables(
        broker,
        "",
        kafka_bootstrap_servers=broker.addresses["SSL"],
        kafka_security_protocol="SSL",
        kafka_sasl_username="",
        kafka_sasl_password="",
        kafka_ssl_certfile=str(client.certificate),
        kafka_ssl_keyfile=str(client.key),
    )
    assert [record.value for record in transact(connect(environment), names)] == [b"answer"]


NO_PASSWORD = {"mechanism": "", "kafka_sasl_username": "", "kafka_sasl_password": ""}


@pytest.mark.parametrize("role", ["admin", "publisher", "membership", "reader"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_told_at_once_to_every_role(
    broker: SecureBroker, connect: Connect, mechanism: str, role: str
) -> None:
    bus = connect(variables(broker, mechanism, kafka_sasl_password=WRONG))
    roles: dict[str, Callable[[], object]] = {
        "admin": lambda: bus.create_topics([TopicSpec("any", 1)]),
        "publisher": bus.publisher,
        "membership": lambda: bus.join("any", ["any"]),
        "reader": lambda: bus.reader(["any"]),
    }
    refused(roles[role], "does not accept the user 'tonestream-user'.*TONESTREAM_KAFKA_SASL_USERNAME")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mechanism": "SCRAM-SHA-256"}, "does not offer the mechanism SCRAM-SHA-256"),
        ({"kafka_ssl_cafile": "OTHER"}, "certificate of localhost:.* does not hold.*TONESTREAM_KAFKA_SSL_CAFILE"),
        ({"kafka_ssl_cafile": ""}, "certificate of localhost:.* does not hold.*TONESTREAM_KAFKA_SSL_CAFILE"),
        ({"at": "127.0.0.1"}, "does not hold: IP address mismatch"),
        ({**NO_PASSWORD, "kafka_security_protocol": "PLAINTEXT", "kafka_ssl_cafile": ""}, "speaks TLS on this port"),
        ({"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_ssl_cafile": ""}, "speaks TLS on this port"),
        ({"to": "SASL_PLAINTEXT"}, "does not speak TLS on this port"),
        ({**NO_PASSWORD, "to": "SSL", "kafka_security_protocol": "SSL"}, "refuses the TLS connection.*SSL_CERTFILE"),
    ],
    ids=["mechanism", "other-authority", "no-authority", "host-name", "plaintext", "sasl-plaintext", "tls", "no-cert"],
)
def test_settings_that_cannot_work_are_told_at_once(
    broker: SecureBroker,
    connect: Connect,
    tmp_path: Path,
    changes: dict[str, str],
    told: str,
) -> None:
    changes = dict(changes)
    address = broker.addresses[changes.pop("to", "SASL_SSL")]
    if host := changes.pop("at", ""):
        address = address.replace("localhost", host)
    if changes.get("kafka_ssl_cafile") == "OTHER":
        changes["kafka_ssl_cafile"] = str(Authority(tmp_path, "another").certificate)
    bus = connect(variables(broker, **{"kafka_bootstrap_servers": address, **changes}))
    refused(bus.publisher, told)


def refused(act: Callable[[], object], told: str) -> None:
    """``act`` must fail soon, say ``told``, and quote no password anywhere."""
    started = time.monotonic()
    with pytest.raises(BusSecurityError, match=told) as caught:
        act()
    assert time.monotonic() - started < QUICKLY_S
    said = "".join(traceback.format_exception(caught.value))
    assert "hush" not in said + repr(caught.value)


def test_a_certificate_for_another_name_is_taken_where_names_are_not_checked(
    broker: SecureBroker, connect: Connect
) -> None:
    address = broker.addresses["SASL_SSL"].replace("localhost", "127.0.0.1")
    bus = connect(variables(broker, kafka_bootstrap_servers=address, kafka_ssl_check_hostname="false"))
    bus.publisher().close()


def test_a_broker_that_asks_for_a_password_nobody_gives_is_named_as_a_possible_reason(
    broker: SecureBroker, connect: Connect
) -> None:
    changes = {**NO_PASSWORD, "kafka_security_protocol": "SSL"}
    bus = connect(variables(broker, **changes), patience_s=8.0)
    with pytest.raises(BusUnavailableError, match="perhaps it asks for a password"):
        bus.publisher()


def test_a_broker_that_is_away_beside_one_that_refuses_is_waited_for(broker: SecureBroker, connect: Connect) -> None:
    servers = f"{broker.addresses['SASL_SSL']},localhost:{free_port()}"
    bus = connect(variables(broker, kafka_bootstrap_servers=servers, kafka_sasl_password=WRONG), patience_s=3.0)
    with pytest.raises(BusUnavailableError) as caught:
        bus.publisher()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("kafka_ssl_cafile", None, "kafka_ssl_cafile: .*: No such file"),
        ("kafka_ssl_cafile", "not a certificate", "kafka_ssl_cafile: .*: no certificate"),
        ("kafka_ssl_certfile", None, "kafka_ssl_certfile: .*: No such file"),
    ],
)
def test_a_certificate_file_that_cannot_be_used_is_named(
    broker: SecureBroker,
    connect: Connect,
    tmp_path: Path,
    name: str,
    content: str | None,
    told: str,
) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=told):
        connect(variables(broker, **{name: str(file)}))


def tonestream(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        env=cleared | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_commands_work_over_tls_with_a_password_from_a_file(
    broker: SecureBroker, names: Names, tmp_path: Path
) -> None:
    (tmp_path / "tonestream_kafka_sasl_password").write_text(f"{SecureBroker.PASSWORD}\n")
    environment = variables(
        broker, kafka_sasl_password="", secrets_dir=str(tmp_path), topic_prefix=names.prefix, log_level="DEBUG"
    )
    created = tonestream(environment, "topics", "create")
    assert (created.returncode, created.stderr) == (0, "")
    submitted = tonestream(environment, "submit", "https://example.org/a.mp3")
    assert submitted.returncode == 0, submitted.stderr
    read = tonestream(environment, "results")
    assert (read.returncode, read.stdout, read.stderr) == (0, "", "")


def test_a_command_with_a_wrong_password_fails_with_the_reason_and_without_the_password(broker: SecureBroker) -> None:
    environment = variables(broker, kafka_sasl_password=WRONG, log_level="DEBUG")
    started = time.monotonic()
    done = tonestream(environment, "topics", "create")
    assert time.monotonic() - started < 3 * QUICKLY_S  # most of it is Python's start
    assert done.returncode == 1
    assert "does not accept the user 'tonestream-user'" in done.stderr.splitlines()[-1]
    assert "hush" not in done.stdout + done.stderr
