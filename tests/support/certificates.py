"""A certificate authority of the tests' own, made with openssl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import run


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the certificate, its key (PKCS#8, without a password), and both in one."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates. ``certificate`` is what those who shall trust it need. Valid for two days.

    NotAvailableError where there is no openssl.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        _new(self.certificate, self._key, name)

    def issue(self, name: str, *alternatives: str) -> Certificate:
        """A certificate for ``name``, and for ``alternatives`` such as ``DNS:localhost`` or ``IP:127.0.0.1``."""
        made = [self._folder / f"{name}.{kind}" for kind in ("pem", "key", "both.pem")]
        certificate, key, both = made
        more = ["-CA", str(self.certificate), "-CAkey", str(self._key)]
        if alternatives:
            more += ["-addext", f"subjectAltName={','.join(alternatives)}"]
        _new(certificate, key, name, *more, "-addext", "basicConstraints=critical,CA:FALSE")
        both.write_text(key.read_text() + certificate.read_text())
        return Certificate(certificate, key, both)


def _new(certificate: Path, key: Path, name: str, *more: str) -> None:
    out = ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *out, *more], timeout_s=30)
