"""kafka-python's network client, but it gives up at once if a retry cannot help.

kafka-python treats a wrong password or certificate like an absent broker: it retries until its time is up, and reports
only that it could not connect. Here the first connection reports its error.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
from contextlib import suppress
from typing import Any, Final

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from shared.bus.base import BusSecurityError
from shared.bus.kafka.patches.reach import Answers

_HOW: Final = "TONESTREAM_KAFKA_SECURITY_PROTOCOL"
_PROBE_S: Final = 2.0
#: How kafka-python formats a system error: ``111 ECONNREFUSED``.
_ERRNO: Final = re.compile(r"(\d+) E[A-Z0-9]+")
#: An ApiVersions request (size, API 18, version 0, correlation 4711, no client ID). A broker answers it before
#: authentication, beginning with the size and the correlation.
_PLAIN_QUESTION: Final = struct.pack(">ihhih", 10, 18, 0, 4711, -1)


class NetworkClient(KafkaNetClient):  # type: ignore[misc]
    """A network client for one role."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net=net, manager=_Manager(net, **configs))

    @property
    def last_failure(self) -> str | None:
        """Why the latest connection to a bootstrap broker failed; None if none did."""
        error: Exception | None = self._manager.last_failure
        if error is None:
            return None
        protocol: str = self._manager.config["security_protocol"]
        closed = isinstance(error, kafka_errors.KafkaConnectionError) and "disconnected" in str(error)
        hint = f"; perhaps it asks for a password, see {_HOW}" if closed and not protocol.startswith("SASL_") else ""
        return f"{_in_words(error)}{hint}"


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Ends the bootstrap with BusSecurityError when every bootstrap broker has refused, or been refused, for good.

    As long as one is only unreachable, the bootstrap goes on: the settings may fit that one.
    """

    def __init__(self, net: Any, **configs: Any) -> None:
        self.last_failure: Exception | None = None
        self.answers = Answers()
        self._hopeless: dict[Any, BusSecurityError] = {}
        super().__init__(net, **configs)

    def get_connection(self, node_id: Any, *arguments: Any, **options: Any) -> Any:
        bootstrapping = self.cluster.is_bootstrap(node_id)
        if bootstrapping and self._hopeless.keys() >= {one.node_id for one in self.cluster.bootstrap_brokers()}:
            raise self._hopeless[node_id]
        known = self._conns.get(node_id)
        connection = super().get_connection(node_id, *arguments, **options)
        if bootstrapping and connection is not known:
            connection.init_future.add_errback(lambda error: self._failed(node_id, error))
            connection.close_future.add_errback(self._note)
        return connection

    def send(self, *arguments: Any, **options: Any) -> Any:
        return self.answers.expect(super().send(*arguments, **options))

    async def _build_transport(self, *arguments: Any, **options: Any) -> Any:
        return _with_last_words(await super()._build_transport(*arguments, **options))

    def _failed(self, node_id: Any, error: Exception) -> None:
        self._note(error)
        node = self.cluster.broker_metadata(node_id)
        refusal = refused(error, f"{node.host}:{node.port}", self.config) if node is not None else None
        if refusal is None:
            self._hopeless.pop(node_id, None)
        else:
            self._hopeless[node_id] = refusal

    def _note(self, error: Exception) -> None:
        # The time for all attempts cuts the last one short, which says nothing about the broker.
        if self.last_failure is None or not isinstance(error, kafka_errors.KafkaTimeoutError):
            self.last_failure = error


def _with_last_words(transport: Any) -> Any:
    """Works around kafka-python 3.0.12, which discards data that arrives together with the end of the connection.

    A broker refuses a password that way: it sends the error and hangs up. Here the data is delivered first, the end at
    the next call.
    """
    receive = transport._sock_recv

    def data_or_end() -> tuple[bytes, Exception | None]:
        data, error = receive()
        return data, None if data else error

    transport._sock_recv = data_or_end
    return transport


def _in_words(error: Exception) -> str:
    """Why a connection failed, in the system's words if there are any, else with kafka-python's error."""
    said = str(error).removeprefix(f"{type(error).__name__}: ")
    if found := _ERRNO.fullmatch(said):
        return os.strerror(int(found.group(1)))
    return said if isinstance(error, kafka_errors.KafkaConnectionError) else f"{type(error).__name__}: {said}"


def refused(error: BaseException, broker: str, security: dict[str, Any]) -> BusSecurityError | None:
    """What is wrong with the settings, if ``error`` of a first connection shows it; else None."""
    if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
        return BusSecurityError(
            f"{broker} does not accept the user {security['sasl_plain_username']!r} with this password; check"
            f" TONESTREAM_KAFKA_SASL_USERNAME, _PASSWORD and _MECHANISM ({security['sasl_mechanism']})"
        )
    if isinstance(error, kafka_errors.UnsupportedSaslMechanismError):
        return BusSecurityError(
            f"{broker} does not offer the mechanism {security['sasl_mechanism']}; check TONESTREAM_KAFKA_SASL_MECHANISM"
        )
    if isinstance(error, kafka_errors.IllegalSaslStateError):
        return BusSecurityError(f"{broker} asks for no password on this port; check {_HOW}")
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BusSecurityError(
            f"the certificate of {broker} does not hold: {cause.verify_message}; check TONESTREAM_KAFKA_SSL_CAFILE"
            " and the names in the certificate"
        )
    if isinstance(cause, ssl.SSLError) and "alert" in str(cause).lower():
        return BusSecurityError(
            f"{broker} refuses the TLS connection ({cause.reason}); check TONESTREAM_KAFKA_SSL_CERTFILE and _KEYFILE"
        )
    return _wrong_protocol(broker, security)


def _cause(error: BaseException) -> object:
    """The error that kafka-python wrapped: its cause, its context, or its argument."""
    return error.__cause__ or error.__context__ or (error.args[0] if error.args else None)


def _wrong_protocol(broker: str, security: dict[str, Any]) -> BusSecurityError | None:
    """Whether only one side uses TLS. The errors do not show it, so this probes the port."""
    protocol = security["security_protocol"]
    if protocol in {"SSL", "SASL_SSL"}:
        if _answer(broker, _PLAIN_QUESTION, 8)[4:] == _PLAIN_QUESTION[8:12]:
            return BusSecurityError(f"{broker} does not speak TLS on this port; check {_HOW} ({protocol})")
    elif _answer(broker, _tls_greeting(), 1) in {b"\x15", b"\x16"}:  # a TLS alert, a TLS handshake
        return BusSecurityError(f"{broker} speaks TLS on this port; check {_HOW} ({protocol})")
    return None


def _tls_greeting() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # cannot connect
    greeting = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), greeting).do_handshake()
    return greeting.read()


def _answer(broker: str, question: bytes, size: int) -> bytes:
    """The first bytes a broker (``host:port``) answers to ``question``; fewer than ``size`` if it hangs up."""
    host, _, port = broker.rpartition(":")
    answer = b""
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S) as connection:
        connection.sendall(question)
        while len(answer) < size and (more := connection.recv(size - len(answer))):
            answer += more
    return answer
