"""The AsyncAPI document: whole, and with examples that are what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.asyncapi import document
from services.asyncapi_examples import EXAMPLES
from services.docs.schemas import references
from shared.contracts.codec import channel_of, decode_message, encode_message
from shared.contracts.errors import EXPLANATIONS, ErrorCode
from shared.contracts.messages import SegmentFeatures
from shared.contracts.topics import Channel, Topics

DOCUMENT: dict[str, Any] = json.loads(json.dumps(document("1.0")))


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        found = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_every_topic_has_messages_limits_and_somebody_who_reads_or_writes_it() -> None:
    used = {operation["channel"]["$ref"].rsplit("/", 1)[1] for operation in DOCUMENT["operations"].values()}
    for channel in Channel:
        described = DOCUMENT["channels"][channel.value]
        assert described["messages"]
        assert described["bindings"]["kafka"]["topicConfiguration"]["retention.ms"] > 0
        assert channel.value in used or channel is Channel.DEAD_LETTERS


def test_the_topics_of_an_installation_have_its_prefix() -> None:
    channels = document("1.0", Topics("mine"))["channels"]
    assert {channel["address"].split(".")[0] for channel in channels.values()} == {"mine"}


@pytest.mark.parametrize("model", list(EXAMPLES), ids=lambda model: model.__name__)
def test_every_example_is_a_message_of_its_topic(model: type) -> None:
    described = DOCUMENT["components"]["messages"][model.__name__]
    for (name, message), shown in zip(EXAMPLES[model].items(), described["examples"], strict=True):
        assert shown["name"] == name
        assert decode_message(channel_of(message), json.dumps(shown["payload"]).encode()) == message
        assert decode_message(channel_of(message), encode_message(message)) == message


def test_every_message_in_json_has_an_example() -> None:
    with_body = {
        name for name in DOCUMENT["components"]["messages"] if name not in ("RetriedTrackRequest", "DeadLetter")
    }
    assert with_body - {model.__name__ for model in EXAMPLES} == {SegmentFeatures.__name__}


def test_every_error_code_is_explained() -> None:
    assert set(EXPLANATIONS) == set(ErrorCode)
