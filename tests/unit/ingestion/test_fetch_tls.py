"""Fetching over TLS: the connection goes to the checked address, the certificate is held against the name."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from services.ingestion.fetch import Fetcher, FetchLimits
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.http import connections
from shared.http.addresses import AllowList
from tests.support.certificates import Authority, Certificate

NAME = "media.example"
LIMITS = FetchLimits(total_s=5.0, connect_s=2.0, first_byte_s=2.0)


class TlsServer:
    """Answers every request with ``answer`` under a certificate for NAME; notes which name it was asked for."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.names: list[str | None] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(2.0)
            with connection, suppress(OSError), self._context.wrap_socket(connection, server_side=True) as opened:
                opened.recv(65536)
                opened.sendall(self.answer)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """A certificate for NAME."""
    return authority.issue("media", NAME)


@pytest.fixture
def server(certificate: Certificate) -> Iterator[TlsServer]:
    started = TlsServer(certificate.certificate, certificate.key)
    yield started
    started.close()


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operator's own authority, named by SSL_CERT_FILE."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    connections.ssl_context.cache_clear()
    yield
    connections.ssl_context.cache_clear()


def fetcher() -> Fetcher:
    return Fetcher(LIMITS, AllowList.parse("127.0.0.0/8:*"), lambda host, port: ["127.0.0.1"])


@pytest.mark.usefixtures("trusted")
def test_the_certificate_is_held_against_the_name_though_the_connection_goes_to_the_address(
    server: TlsServer, tmp_path: Path
) -> None:
    assert fetcher().fetch(f"https://{NAME}:{server.port}/", tmp_path / "source").size == 3
    with pytest.raises(TonestreamError, match="Hostname mismatch") as caught:
        fetcher().fetch(f"https://other.example:{server.port}/", tmp_path / "other")
    assert not isinstance(caught.value, TransientError)
    assert server.names == [NAME, "other.example"]


@pytest.mark.usefixtures("trusted")
def test_the_dot_of_an_absolute_name_is_no_part_of_the_name_in_a_certificate(server: TlsServer, tmp_path: Path) -> None:
    assert fetcher().fetch(f"https://{NAME}.:{server.port}/", tmp_path / "source").size == 3
    assert server.names == [NAME]


@pytest.mark.usefixtures("trusted")
def test_a_redirect_from_https_to_http_is_refused(server: TlsServer, tmp_path: Path) -> None:
    for location in (f"http://{NAME}/", "http://example.org/a.mp3"):
        server.answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        with pytest.raises(TonestreamError, match="from https to http") as caught:
            fetcher().fetch(f"https://{NAME}:{server.port}/", tmp_path / "source")
        assert caught.value.code is ErrorCode.FETCH_FORBIDDEN


def test_a_server_that_never_ends_its_handshake_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(TransientError) as caught:
            Fetcher(
                FetchLimits(total_s=5.0, connect_s=0.4), AllowList.parse("127.0.0.0/8:*"), lambda *_: ["127.0.0.1"]
            ).fetch(f"https://{NAME}:{listener.getsockname()[1]}/", tmp_path / "source")
    assert caught.value.code is ErrorCode.FETCH_TIMEOUT
    assert time.monotonic() - started < 2.0


def test_a_certificate_that_nobody_vouches_for_is_refused(server: TlsServer, tmp_path: Path) -> None:
    with pytest.raises(TonestreamError, match="certificate does not hold: unable to get local issuer") as caught:
        fetcher().fetch(f"https://{NAME}:{server.port}/", tmp_path / "source")
    assert caught.value.code is ErrorCode.FETCH_FAILED
    assert not isinstance(caught.value, TransientError), "another try would find the same certificate"
    assert not (tmp_path / "source").exists()


@pytest.mark.usefixtures("trusted")
def test_a_proxy_named_in_the_environment_is_not_used(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetcher().fetch(f"https://{NAME}:{server.port}/", tmp_path / "source").size == 3
