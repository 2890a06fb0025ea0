"""The network client of the Kafka bus: kafka-python's own, which gives up at once where trying again is in vain.

kafka-python takes a wrong password or certificate for a broker that is not there yet: it tries until its time is up,
and then says no more than that it could not connect. Here the first connection tells why it failed.
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
#: How kafka-python names what the system said: ``111 ECONNREFUSED``.
_ERRNO: Final = re.compile(r"(\d+) E[A-Z0-9]+")
#: Which versions do you speak? (size, API 18, version 0, correlation 4711, no client ID.) Answered before any password;
#: the answer begins with its size and the correlation.
_PLAIN_QUESTION: Final = struct.pack(">ihhih", 10, 18, 0, 4711, -1)


class NetworkClient(KafkaNetClient):  # type: ignore[misc]
    """A client for one role."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net=net, manager=_Manager(net, **configs))

    @property
    def last_failure(self) -> str | None:
        """Why the latest connection to a bootstrap broker failed; None where none did."""
        error: Exception | None = self._manager.last_failure
        if error is None:
            return None
        protocol: str = self._manager.config["security_protocol"]
        closed = isinstance(error, kafka_errors.KafkaConnectionError) and "disconnected" in str(error)
        hint = f"; perhaps it asks for a password, see {_HOW}" if closed and not protocol.startswith("SASL_") else ""
        return f"{_in_words(error)}{hint}"


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Ends the bootstrap with BusSecurityError when every bootstrap broker has refused, or been refused, for good.

    One that is only away leaves hope: the others may be right about the settings and wrong about themselves.
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
        # The last attempt is cut short by the end of the time for all of them: no news.
        if self.last_failure is None or not isinstance(error, kafka_errors.KafkaTimeoutError):
            self.last_failure = error


def _with_last_words(transport: Any) -> Any:
    """Work round kafka-python 3.0.12 throwing away what was received together with the end of the connection.

    That is how a broker refuses a password: it says so and hangs up. Here the data comes first, the end next time.
    """
    receive = transport._sock_recv

    def data_or_end() -> tuple[bytes, Exception | None]:
        data, error = receive()
        return data, None if data else error

    transport._sock_recv = data_or_end
    return transport


def _in_words(error: Exception) -> str:
    """What went wrong with a connection, without the names of kafka-python's classes where the system has words."""
    said = str(error).removeprefix(f"{type(error).__name__}: ")
    if found := _ERRNO.fullmatch(said):
        return os.strerror(int(found.group(1)))
    return said if isinstance(error, kafka_errors.KafkaConnectionError) else f"{type(error).__name__}: {said}"


def refused(error: BaseException, broker: str, security: dict[str, Any]) -> BusSecurityError | None:
    """What is wrong with the settings, where ``error`` of a first connection shows it; None where it does not."""
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
    """What kafka-python wrapped: raised from it, raised while it was handled, or given as the message."""
    return error.__cause__ or error.__context__ or (error.args[0] if error.args else None)


def _wrong_protocol(broker: str, security: dict[str, Any]) -> BusSecurityError | None:
    """Whether it is the encryption that only one side wants: asked at the port itself, as the errors do not tell."""
    protocol = security["security_protocol"]
    if protocol in {"SSL", "SASL_SSL"}:
        if _answer(broker, _PLAIN_QUESTION, 8)[4:] == _PLAIN_QUESTION[8:12]:
            return BusSecurityError(f"{broker} does not speak TLS on this port; check {_HOW} ({protocol})")
    elif _answer(broker, _tls_greeting(), 1) in {b"\x15", b"\x16"}:  # a TLS alert, a TLS handshake
        return BusSecurityError(f"{broker} speaks TLS on this port; check {_HOW} ({protocol})")
    return None


def _tls_greeting() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no connection comes of it
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
