"""Results as CloudEvents 1.0: the attributes that travel beside a result, and their names in Kafka's binary mode.

The value of the record is the event's data, as it always was. A reader that does not know CloudEvents ignores the
headers. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shared.contracts.messages import SCHEMA_VERSION, TrackResult

SPEC_VERSION: Final = "1.0"
#: The type of the event that a result is. Its version is that of the message.
RESULT_TYPE: Final = f"org.tonestream.result.v{SCHEMA_VERSION}"
#: What Kafka's binary mode puts before the name of an attribute.
HEADER_PREFIX: Final = "ce_"

#: The attributes that every result carries, and what they say.
ATTRIBUTES: Final[dict[str, str]] = {
    "specversion": f"version of CloudEvents: {SPEC_VERSION}",
    "id": "the result, unique within its source: the request ID, and the record that completed the request. The same at"
    " every redelivery; a request that an operator replays gets one further result, with an ID of its own",
    "source": "the installation: urn:tonestream: and the prefix of its topics",
    "type": RESULT_TYPE,
    "subject": "the request ID",
    "time": "when the result was made, RFC 3339 in UTC",
}


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """The attributes of one event. ``time`` is Unix time in seconds.

    >>> CloudEvent("my-1@tonestream.moods/3@17", "urn:tonestream:tonestream", "my-1", 0.0).headers()["ce_time"]
    '1970-01-01T00:00:00.000Z'
    """

    id: str
    source: str
    subject: str
    time: float
    type: str = RESULT_TYPE
    specversion: str = SPEC_VERSION

    @classmethod
    def of(cls, result: TrackResult, prefix: str, completed_by: str | None, now: float) -> CloudEvent:
        """The event of ``result`` in the installation with this topic ``prefix``.

        ``completed_by`` are the coordinates of the record that completed the request, None if no record did. Only one
        record may answer a request, and it recognises itself when it is redelivered (`shared.state.requests`), so the
        ID follows from the two.
        """
        own_id = result.request_id if completed_by is None else f"{result.request_id}@{completed_by}"
        return cls(own_id, f"urn:tonestream:{prefix}", result.request_id, now)

    def headers(self) -> dict[str, str]:
        """The attributes by the names of their record headers."""
        stamp = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        attributes = {
            "specversion": self.specversion,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": stamp,
        }
        return {f"{HEADER_PREFIX}{name}": value for name, value in attributes.items()}
