"""What an existing topic lacks, in a sentence with the command that mends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.bus.base import Durability, TopicSpec
from shared.bus.topics import shortcomings, topic_specs
from shared.contracts.topics import Topics

WANTED = topic_specs(Topics("t"))[0]
SAFE = Durability(brokers=3, replicas=3, min_insync_replicas=2, compacted=False, unclean_elections=False)


def found(durability: Durability | None = SAFE, **different: int) -> TopicSpec:
    return replace(WANTED, durability=durability, **different)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "well",
    [
        found(),
        found(None),
        found(partitions=48),
        found(replace(SAFE, brokers=1, replicas=1, min_insync_replicas=1)),
        found(replace(SAFE, brokers=9)),
        found(replace(SAFE, brokers=2, replicas=2, min_insync_replicas=1)),
    ],
)
def test_what_fits_the_promises_is_not_named(well: TopicSpec) -> None:
    assert list(shortcomings(WANTED, well)) == []


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (found(partitions=3), "has 3 partitions, not 12: at most 3 workers of a service can share it. To grow it:"),
        (found(retention_ms=1000), "keeps records for 1000 ms, not 604800000: a longer outage loses requests"),
        (found(max_message_bytes=2000), "takes messages of 2000 bytes, not"),
        (replace(found(), stamped_by_broker=False), "keeps the time stamps of clients"),
        (found(replace(SAFE, compacted=True)), "is compacted: it forgets all but the newest record of a track"),
        (found(replace(SAFE, unclean_elections=True)), "lets a broker lead that lacks acknowledged records"),
        (found(replace(SAFE, replicas=1, min_insync_replicas=1)), "is on 1 of 3 brokers: without one of them it stops"),
        (found(replace(SAFE, min_insync_replicas=1)), "acknowledges what one broker alone has: its death loses that"),
        (found(replace(SAFE, min_insync_replicas=3)), "takes nothing while one broker is away: all 3 of its replicas"),
    ],
)
def test_what_does_not_fit_is_named_once(topic: TopicSpec, said: str) -> None:
    (text,) = shortcomings(WANTED, topic)
    assert text.startswith("t.requests ") and said in text
