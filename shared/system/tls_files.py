"""Checks certificates and keys before a client uses them. The client's errors name neither the file nor the setting."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shared.settings import SettingsError


def check_tls_files(
    prefix: str,
    cafile: Path | str | None = None,
    certfile: Path | str | None = None,
    keyfile: Path | str | None = None,
    key_password: str = "",
) -> None:
    """Load the files as a TLS client does. Raises SettingsError, which names the setting (``prefix`` and the kind of
    file), the file and its fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cafile is not None:
        _try(f"{prefix}_cafile", cafile, partial(context.load_verify_locations, cafile))
    if certfile is not None:
        _try(f"{prefix}_certfile", certfile, lambda: None)
        if keyfile is not None:
            _try(f"{prefix}_keyfile", keyfile, lambda: None)
        # An empty password, because with None OpenSSL would prompt at the terminal and wait.
        load = partial(context.load_cert_chain, certfile, keyfile, password=key_password)
        _try(f"{prefix}_certfile with its key", certfile, load)


def _try(setting: str, file: Path | str, load: Callable[[], object]) -> None:
    try:
        Path(file).open("rb").close()
        load()
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM that can be read").lower().replace("_", " ")
        raise SettingsError(f"{setting}: {file}: {reason}") from error
    except OSError as error:
        raise SettingsError(f"{setting}: {file}: {error.strerror or error}") from error
