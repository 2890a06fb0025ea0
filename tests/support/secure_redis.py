"""A real Redis that asks who is there: for a password on both of its ports, one of them with TLS."""

from __future__ import annotations

from pathlib import Path

from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.support.redis_server import LocalRedis


class SecureRedis(LocalRedis):
    """``tls_port`` and ``plain_port`` ask for PASSWORD, without a user or as ``app``; ``limited`` with LIMITED may do
    nothing but ping."""

    #: With all the signs that a URL needs percent-encoded.
    PASSWORD = "redis/Pa55:hush?#@[é"
    LIMITED = "limited-Pa55-hush"

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "redis-authority")
        server = self.authority.issue("redis", "localhost")
        self.tls_port = free_port()
        files = ["--tls-cert-file", str(server.certificate), "--tls-key-file", str(server.key)]
        trust = ["--tls-ca-cert-file", str(self.authority.certificate), "--tls-auth-clients", "optional"]
        super().__init__(["--tls-port", str(self.tls_port), *files, *trust])
        self.plain_port = self._port
        self.cli("ACL", "SETUSER", "app", "on", f">{self.PASSWORD}", "~*", "&*", "+@all")
        self.cli("ACL", "SETUSER", "limited", "on", f">{self.LIMITED}", "~*", "+ping", "+client")
        self.cli("CONFIG", "SET", "requirepass", self.PASSWORD)
