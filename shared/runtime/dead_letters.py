"""Records that no worker can handle, kept with their original bytes and the reason (headers after KIP-1034)."""

from __future__ import annotations

import traceback
from typing import Final

from shared.bus.base import Outgoing, Record
from shared.contracts.messages import Stage
from shared.contracts.topics import Channel, Topics

#: First part of the header names, in the manner of KIP-1034's ``__streams.errors.``.
ERROR_HEADER_PREFIX: Final = "tonestream.errors."
_MAX_TRACE: Final = 8000


def dead_letter(topics: Topics, record: Record, stage: Stage, error: Exception, attempts: int) -> Outgoing:
    """``record`` as it was, on its way to the dead letters, with headers that say why and where it stood."""
    why = {
        "exception": type(error).__name__,
        "message": str(error)[:1000],
        "stacktrace": "".join(traceback.format_exception(error))[-_MAX_TRACE:],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "service": stage.value,
        "attempts": str(attempts),
    }
    headers = tuple((f"{ERROR_HEADER_PREFIX}{name}", text.encode()) for name, text in why.items())
    return Outgoing(topics.name(Channel.DEAD_LETTERS), record.key, record.value, record.headers + headers)
