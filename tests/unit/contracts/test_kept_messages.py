"""Versions read each other: this one what all before it wrote, and all before it what this one writes.

``tests/support/kept_messages.py`` wrote the files below ``messages``, one folder a version.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from shared.bus.base import Outgoing
from shared.contracts.codec import (
    MalformedMessageError,
    NewerSchemaError,
    channel_of,
    decode_message,
    encode_message,
)
from shared.contracts.messages import SegmentFeatures, TrackRequest
from shared.contracts.topics import Channel
from shared.runtime.dead_letters import DeadLetter
from shared.runtime.envelope import salvaged_request_id
from shared.runtime.retries import RetryNote
from tests.support.kept_messages import Kept, kept, kept_schemas, models, todays, version, versions

KEPT = list(kept())
#: Those of JSON topics.
PLAIN = [one for one in KEPT if one.channel not in (Channel.FEATURES, Channel.DEAD_LETTERS)]
TODAYS = {f"{channel.value}/{name}": (channel, published) for channel, name, published in todays()}


def test_messages_of_this_version_are_kept_and_of_every_channel() -> None:
    assert version() in versions(), "python -m tests.support.kept_messages writes them at a release"
    for one in versions():
        assert {message.channel for message in KEPT if message.version == one} == set(Channel)


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """What of a message is not in another one any more, or is another value there."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [fault for name in before for fault in lost(before[name], after.get(name), f"{path}.{name}")]
    return [] if before == after else [f"{path}: {before!r} became {after!r}"]


@pytest.mark.parametrize("message", PLAIN, ids=lambda one: one.id)
def test_a_kept_message_is_read_as_it_was_meant(message: Kept) -> None:
    read = decode_message(message.channel, message.value)
    assert channel_of(read) in (message.channel, Channel.REQUESTS)
    assert lost(json.loads(message.value), json.loads(encode_message(read))) == []
    assert read.request_id == salvaged_request_id(message.record)


@pytest.mark.parametrize("message", [one for one in KEPT if one.channel is Channel.FEATURES], ids=lambda one: one.id)
def test_kept_features_are_read_as_they_were_meant(message: Kept) -> None:
    read = decode_message(message.channel, message.value)
    assert isinstance(read, SegmentFeatures)
    wanted = np.linspace(-60.0, 20.0, 12, dtype=np.float32).reshape(4, 3)
    assert np.allclose(np.asarray(read.matrix, np.float32), wanted, atol=0.05)
    assert (read.request_id, read.index, read.start_s, read.end_s) == ("r1", 3, 9.0, 12.0)
    assert read.model == "mfcc-lstm-1" and read.feature_spec == "mfcc64-130"


@pytest.mark.parametrize("one", versions())
def test_kept_headers_say_what_they_said(one: str) -> None:
    retried, letter = (
        next(message for message in KEPT if message.version == one and message.channel is channel)
        for channel in (Channel.REQUESTS_RETRY, Channel.DEAD_LETTERS)
    )
    note = RetryNote.of(retried.record)
    assert (note.entered, note.attempt, note.waited_ms, note.first_error) == (
        "tonestream.requests/3@17",
        1,
        5000,
        "busy",
    )
    found = DeadLetter.of(letter.record)
    assert (found.request_id, found.exception, found.stood_at) == ("r1", "ValueError", "tonestream.requests/3@17")
    assert found.attempts == "3"


@pytest.mark.parametrize(
    "name", [name for name in TODAYS if TODAYS[name][0] not in (Channel.FEATURES, Channel.DEAD_LETTERS)]
)
@pytest.mark.parametrize("one", versions())
def test_readers_of_a_kept_version_take_todays_messages(one: str, name: str) -> None:
    """A reader ignores fields that it does not know; so its schema is held against today's message without them."""
    channel, published = TODAYS[name]
    model = type(decode_message(channel, published.value)).__name__
    schemas = kept_schemas(one)
    assert model in schemas, f"{one} takes no {model} from {channel.value}: a rolling upgrade would lose it"
    jsonschema.validate(json.loads(published.value), _open(schemas[model]))


def _open(schema: Any) -> Any:
    """The schema, where unknown fields may be."""
    if isinstance(schema, dict):
        return {
            name: _open(value) for name, value in schema.items() if name != "additionalProperties" or value is not False
        }
    return [_open(value) for value in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("model", models(), ids=lambda one: one.__name__)
@pytest.mark.parametrize("one", versions())
def test_no_field_of_a_kept_version_is_gone_or_newly_required(one: str, model: Any) -> None:
    before, now = kept_schemas(one)[model.__name__], model.model_json_schema(by_alias=True)
    assert set(before["properties"]) <= set(now["properties"])
    assert set(now.get("required", ())) <= set(before.get("required", ()))


def test_what_a_newer_version_writes_is_recognised_as_that() -> None:
    """By its schema version, or by the digit of the binary form."""
    for channel, published in TODAYS.values():
        if channel is not Channel.DEAD_LETTERS:
            with pytest.raises(NewerSchemaError):
                decode_message(channel, _of_a_newer_version(published))
    for other in (b"TSFx", b"XSF9", b""):
        with pytest.raises(MalformedMessageError) as caught:
            decode_message(Channel.FEATURES, other + b"\0" * 40)
        assert not isinstance(caught.value, NewerSchemaError)


def _of_a_newer_version(published: Outgoing) -> bytes:
    if not published.value.startswith(b"{"):
        return b"TSF9" + published.value[4:]
    return json.dumps({**json.loads(published.value), "schema_version": 99}).encode()


def test_a_request_with_a_field_that_is_not_known_is_its_clients_mistake() -> None:
    """Clients are not upgraded by the operator, so theirs is the one message whose fields are all known."""
    request = TrackRequest(request_id="r", audio_url="https://example.org/a.mp3")
    with pytest.raises(MalformedMessageError, match="colour"):
        decode_message(Channel.REQUESTS, json.dumps({**json.loads(encode_message(request)), "colour": "red"}).encode())
