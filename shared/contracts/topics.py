"""Topic names, keys, partition counts and retention: their one home."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Partitions of every work topic, which limits how many workers of one service can share the load.
PARTITIONS: Final = 12

_DAY_MS: Final = 24 * 60 * 60 * 1000


class Channel(StrEnum):
    """The topics by role. The name on the wire is ``<prefix>.<channel>``, e.g. ``tonestream.requests``."""

    REQUESTS = "requests"
    REQUESTS_RETRY = "requests.retry"
    TRACKS = "tracks"
    FEATURES = "features"
    PREDICTIONS = "predictions"
    MOODS = "moods"
    RESULTS = "results"
    DEAD_LETTERS = "dead-letters"


#: Topics that clients write to. Only the body of such a record is trusted, and an invalid record is its sender's
#: mistake.
FROM_OUTSIDE: Final = frozenset({Channel.REQUESTS})

_LARGEST_REQUEST: Final = 128 * 1024
_LARGEST_RESULT: Final = 4 * 1024 * 1024

#: The largest message each topic takes, bytes before compression. Larger ones are refused by both sides.
MAX_MESSAGE_BYTES: Final[dict[Channel, int]] = {
    # The longest URL and the longest source, at six bytes per character of JSON.
    Channel.REQUESTS: _LARGEST_REQUEST,
    Channel.REQUESTS_RETRY: _LARGEST_REQUEST,
    # A track may carry a finished answer.
    Channel.TRACKS: _LARGEST_RESULT + 128 * 1024,
    Channel.FEATURES: 1024 * 1024,
    Channel.PREDICTIONS: 64 * 1024,
    Channel.MOODS: 64 * 1024,
    Channel.RESULTS: _LARGEST_RESULT,
    Channel.DEAD_LETTERS: 5 * 1024 * 1024,
}

#: The broker counts a batch with its headers and framing, so its limit leaves room above the messages'.
FRAMING_BYTES: Final = 64 * 1024

#: The retention of each topic.
RETENTION_MS: Final[dict[Channel, int]] = {
    Channel.REQUESTS: 7 * _DAY_MS,
    Channel.REQUESTS_RETRY: 7 * _DAY_MS,
    Channel.TRACKS: 2 * _DAY_MS,
    Channel.FEATURES: 2 * _DAY_MS,
    Channel.PREDICTIONS: 2 * _DAY_MS,
    Channel.MOODS: 2 * _DAY_MS,
    Channel.RESULTS: 7 * _DAY_MS,
    Channel.DEAD_LETTERS: 30 * _DAY_MS,
}


def comes_from_outside(topic: str) -> bool:
    """Whether clients write to the topic of that name, for any prefix."""
    return any(topic.endswith(f".{channel.value}") for channel in FROM_OUTSIDE)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one installation. Two installations share a broker by different prefixes."""

    prefix: str = "tonestream"

    def name(self, channel: Channel) -> str:
        """The topic's name on the wire."""
        return f"{self.prefix}.{channel.value}"

    def channel(self, name: str) -> Channel:
        """The role of a topic by its name. ValueError if it is not one of this installation's."""
        if not name.startswith(f"{self.prefix}."):
            raise ValueError(f"topic {name!r} does not belong to the installation {self.prefix!r}")
        return Channel(name.removeprefix(f"{self.prefix}."))

    def group(self, service: str) -> str:
        """The consumer group in which the workers of a service share the load."""
        return f"{self.prefix}.{service}"
