"""Structured logs: one JSON object a line, with the request and the track it is about."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal

_context: ContextVar[dict[str, str]] = ContextVar("tonestream_log_context", default={})  # noqa: B039 (never mutated)

#: Where kafka-python logs every attempt to connect, several a second while a broker is away. Whoever waits for a broker
#: says so once, and an error that ends a command names the reason. Its selector tells of each slow look-up of a
#: name, as many are then.
_CONNECTIONS: Final = (
    "kafka.cluster",
    "kafka.net.connection",
    "kafka.net.manager",
    "kafka.net.selector",
    "kafka.net.transport",
)

_TALKATIVE: Final = ("kafka.", "opentelemetry.")
_MINUTE_S: Final = 60.0
#: Lines that are remembered at once.
_MOST_LINES: Final = 1000

_REPEATING: Final = "repeating"
#: ``extra`` of a line that is said again and again while something is away.
REPEATING: Final = MappingProxyType({_REPEATING: True})

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _REPEATING}


@contextlib.contextmanager
def about(**fields: str) -> Iterator[None]:
    """Within the block every line carries ``fields`` (``request_id``, ``track_key``, ...)."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {**_context.get(), **extra}


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", ...fields, "exception"}``"""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        line = f"{record.levelname.lower():7} {record.name}: {record.getMessage()}" + (
            f"  [{fields}]" if fields else ""
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class NotAgain(logging.Filter):
    """Lets a repeated line through once a minute, with the number of times it was left out.

    That is all of kafka-python, which says the same of every partition every second while a broker is away, of
    OpenTelemetry, which says it of every export while a collector is away, and our own lines with ``REPEATING``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        #: By logger and text: until when it is left out, and how often it was.
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_TALKATIVE) and not getattr(record, _REPEATING, False):
            return True
        now = self._clock()
        line = (record.name, str(record.msg))
        until, left_out = self._said.get(line, (0.0, 0))
        if now < until:
            self._said[line] = (until, left_out + 1)
            return False
        self._said[line] = (now + _MINUTE_S, 0)
        if len(self._said) > _MOST_LINES:  # texts with numbers in them are ever new
            self._said.pop(next(iter(self._said)), None)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times before)", None
        return True


def configure(level: str, style: Literal["json", "text"]) -> None:
    """Send all logs to standard error in that style; libraries below WARNING stay silent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    if level != "DEBUG":
        handler.addFilter(NotAgain())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("shared", "services", "training"):
        logging.getLogger(ours).setLevel(level)
    for talkative in _CONNECTIONS:
        logging.getLogger(talkative).setLevel(logging.WARNING if level == "DEBUG" else logging.CRITICAL)
