"""A certificate authority of the tests' own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the certificate, its key (PKCS#8, without a password), and both in one."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates. ``certificate`` is the file that its clients need to trust it."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA(organization_name=name)
        self.certificate = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def issue(self, name: str, *hosts: str) -> Certificate:
        """A certificate for ``name``, and for ``hosts`` such as ``localhost`` or ``127.0.0.1``."""
        made = self._authority.issue_cert(*(hosts or (f"{name}.example",)), common_name=name)
        certificate, key, both = (self._folder / f"{name}.{kind}" for kind in ("pem", "key", "both.pem"))
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        # Kafka reads PKCS#8 only.
        private = serialization.load_pem_private_key(made.private_key_pem.bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate.write_bytes(chain)
        key.write_bytes(private)
        both.write_bytes(private + chain)
        return Certificate(certificate, key, both)
