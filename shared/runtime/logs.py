"""Structured logs: one JSON object a line, with the request and the track it is about."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

_context: ContextVar[dict[str, str]] = ContextVar("tonestream_log_context", default={})  # noqa: B039 (never mutated)

#: Where kafka-python logs every attempt to connect, several a second while a broker is away. Whoever waits for a broker
#: says so once, and an error that ends a command names the reason.
_CONNECTIONS: Final = ("kafka.cluster", "kafka.net.connection", "kafka.net.manager", "kafka.net.transport")

#: Who says the same again and again while a server is away.
_CLIENTS: Final = ("kafka.", "redis.", "shared.cache.", "shared.bus.kafka_membership")
#: How kafka-python, in its many words, says that it has no broker, or that its group went on without it meanwhile.
#: It is all the same news.
_NO_BROKER: Final = re.compile(
    "KafkaConnectionError|Disconnected|ECONN|DNS|timed? ?out|KafkaTimeoutError|coordinator dead|NotCoordinator"
    "|CoordinatorNotAvailable|CoordinatorLoad|Connection (?:refused|reset)|find a node|Cancelled"
    "|member_id was not|generation id is not",
    re.IGNORECASE,
)
#: What differs between two lines that say the same: numbers, times, addresses of objects, IDs.
_PARTICULARS: Final = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}|[0-9]+(?:\.[0-9]+)?", re.IGNORECASE)
#: A line that was not said for so long is news again, seconds; and one that never ceases is shown so often.
_FORGOTTEN_S: Final = 60.0
_SHOWN_EVERY_S: Final = 300.0

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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


@dataclass(slots=True)
class _Said:
    shown: float
    last: float
    repeated: int = 0


class Repetitions(logging.Filter):
    """Shows what clients of servers say for the first time, and of its repetitions one each few minutes, which says as
    ``repeated`` how many were not shown.

    What they say about a broker that does not answer is one thing, whatever the words, and shown without a traceback.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], _Said] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_CLIENTS):
            return True
        about = record.getMessage() + ("" if record.exc_info is None else f": {record.exc_info[1]}")
        no_broker = record.name.startswith("kafka.") and _NO_BROKER.search(about) is not None
        if no_broker and record.exc_info is not None:
            record.msg, record.args, record.exc_info, record.exc_text = about, (), None, None
        key = ("kafka", "no broker") if no_broker else (record.name, _PARTICULARS.sub("#", about))
        with self._lock:
            return self._is_shown(key, record)

    def _is_shown(self, key: tuple[str, str], record: logging.LogRecord) -> bool:
        now = self._clock()
        self._said = {one: said for one, said in self._said.items() if now - said.last < _FORGOTTEN_S}
        said = self._said.get(key)
        if said is None:
            self._said[key] = _Said(shown=now, last=now)
            return True
        said.last = now
        if now - said.shown < _SHOWN_EVERY_S:
            said.repeated += 1
            return False
        record.repeated = said.repeated
        said.shown, said.repeated = now, 0
        return True


def configure(level: str, style: Literal["json", "text"]) -> None:
    """Send all logs to standard error in that style; libraries below WARNING stay silent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    if level != "DEBUG":
        handler.addFilter(Repetitions())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("shared", "services", "training"):
        logging.getLogger(ours).setLevel(level)
    for talkative in _CONNECTIONS:
        logging.getLogger(talkative).setLevel(logging.WARNING if level == "DEBUG" else logging.CRITICAL)
