"""Logs without secrets, even if an error quotes one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from shared.runtime import logs
from shared.runtime.redaction import Redactor
from shared.settings import Settings


class RedactingFormatter(logging.Formatter):
    """Passes each finished line, its traceback included, through ``redact``."""

    def __init__(self, inner: logging.Formatter, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._inner = inner
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(self._inner.format(record))


def configure(
    settings: Settings, style: Literal["json", "text"], level: str | None = None, client_noise: bool = True
) -> None:
    """Send all logs to standard error in this style, without the secrets of ``settings``.

    ``level`` is the lowest level that is logged; by default that of the settings. Without ``client_noise`` the Kafka
    client logs only at DEBUG: it repeats itself, and the error that ends a command says the same once.
    """
    level = level or settings.log_level
    logs.configure(level, style)
    if not client_noise and level != "DEBUG":
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
    redact = Redactor(settings.secrets())
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None:
            handler.setFormatter(RedactingFormatter(handler.formatter, redact))
