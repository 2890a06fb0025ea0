"""The AsyncAPI document, made from the messages themselves, so that it cannot say anything else than they do."""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from services.topology import TOPOLOGY
from shared.contracts.cloud_events import ATTRIBUTES, HEADER_PREFIX
from shared.contracts.codec import CHANNEL_OF
from shared.contracts.messages import TrackRequest, TrackResult
from shared.contracts.topics import MAX_MESSAGE_BYTES, PARTITIONS, Channel, Topics
from shared.runtime.envelope import BINARY_CONTENT_TYPE, JSON_CONTENT_TYPE
from shared.runtime.retries import HEADERS

_RETRY_MESSAGE: Final = "RetriedTrackRequest"
_REFERENCE: Final = "#/components/schemas/{model}"
#: Who is at the ends of the topics besides the services.
_OUTSIDE: Final = {
    Channel.REQUESTS: "users publish",
    Channel.REQUESTS_RETRY: "requests whose source is slow, or failed for the moment",
    Channel.RESULTS: "users read",
    Channel.DEAD_LETTERS: "any worker publishes records it cannot handle, as they were; operators read",
}


def document(version: str, topics: Topics | None = None) -> dict[str, Any]:
    """AsyncAPI 3.0 for an installation's topics, as plain data."""
    named = topics or Topics()
    models = list(CHANNEL_OF)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tonestream",
            "version": version,
            "description": "Genre and mood of music, by message queue. Keys are track keys; order is kept within a key."
            " Readers must use the isolation level read_committed.",
        },
        "defaultContentType": JSON_CONTENT_TYPE,
        "channels": {
            channel.value: {
                "address": named.name(channel),
                "description": _direction(channel),
                "bindings": {"kafka": {"partitions": PARTITIONS}},
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(channel)},
            }
            for channel in Channel
        },
        "components": {
            "messages": {
                model.__name__: {
                    "summary": (model.__doc__ or "").strip().splitlines()[0],
                    "contentType": BINARY_CONTENT_TYPE if channel is Channel.FEATURES else JSON_CONTENT_TYPE,
                    "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
                    "x-max-bytes": MAX_MESSAGE_BYTES[channel],
                }
                | ({"headers": _event_headers()} if model is TrackResult else {})
                for model, channel in CHANNEL_OF.items()
            }
            | {_RETRY_MESSAGE: _retry_message()},
            "schemas": definitions["$defs"],
        },
    }


def _direction(channel: Channel) -> str:
    """Who publishes and who reads, after the topology."""
    said = []
    for nodes, verb in (
        ([node.name for node in TOPOLOGY if channel in node.writes], "publish"),
        ([node.name for node in TOPOLOGY if channel in node.reads], "read"),
    ):
        if nodes:
            names = " and ".join(filter(None, (", ".join(nodes[:-1]), nodes[-1])))
            said.append(f"{names} {verb}{'' if len(nodes) > 1 else 'es' if verb == 'publish' else 's'}")
    return "; ".join([*said, *filter(None, (_OUTSIDE.get(channel),))])


def _messages(channel: Channel) -> list[str]:
    """The names of the messages of a topic."""
    if channel is Channel.REQUESTS_RETRY:
        return [_RETRY_MESSAGE]
    return [model.__name__ for model, home in CHANNEL_OF.items() if home is channel]


def _event_headers() -> dict[str, Any]:
    """The headers of a result, by which it is a CloudEvent in binary mode."""
    headers = {
        f"{HEADER_PREFIX}{name}": {"type": "string", "description": meaning} for name, meaning in ATTRIBUTES.items()
    }
    return {"type": "object", "properties": headers, "description": "CloudEvents 1.0, Kafka binding, binary mode"}


def _retry_message() -> dict[str, Any]:
    headers = {name: {"type": "string", "description": meaning} for name, meaning in HEADERS.items()}
    return {
        "summary": "ingestion -> ingestion: a TrackRequest that is to be tried again.",
        "contentType": JSON_CONTENT_TYPE,
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": {"$ref": _REFERENCE.format(model=TrackRequest.__name__)},
        "x-max-bytes": MAX_MESSAGE_BYTES[Channel.REQUESTS_RETRY],
    }
