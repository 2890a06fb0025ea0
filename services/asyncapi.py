"""The AsyncAPI document, made from the messages themselves, so that it cannot say anything else than they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.asyncapi_examples import EXAMPLES
from services.topology import TOPOLOGY, Node
from shared.bus.topics import topic_specs
from shared.contracts.cloud_events import ATTRIBUTES, HEADER_PREFIX
from shared.contracts.codec import CHANNEL_OF
from shared.contracts.messages import TrackRequest, TrackResult
from shared.contracts.topics import FROM_OUTSIDE, MAX_MESSAGE_BYTES, Channel, Topics
from shared.runtime.dead_letters import ERROR_HEADER_PREFIX, ERROR_HEADERS
from shared.runtime.envelope import (
    BINARY_CONTENT_TYPE,
    CONTENT_TYPE_HEADER,
    JSON_CONTENT_TYPE,
    REQUEST_ID_HEADER,
)
from shared.runtime.retries import HEADERS
from shared.runtime.traces import CONTEXT_HEADERS

_RETRY_MESSAGE: Final = "RetriedTrackRequest"
_REFERENCE: Final = "#/components/schemas/{model}"
_DEAD_LETTER: Final = "DeadLetter"
_KAFKA_BINDING: Final = "0.5.0"
_SERVERS: Final = {
    "compose": {
        "host": "localhost:9092",
        "protocol": "kafka",
        "description": "Kafka of docker-compose.yml, as this machine sees it. Other installations have TLS and"
        " passwords as their brokers ask for them.",
    }
}
_OWN_HEADERS: Final = {
    REQUEST_ID_HEADER: "the request that the message belongs to",
    CONTENT_TYPE_HEADER: "what the value is",
}
_KEY_BINDING: Final = {
    "kafka": {
        "key": {
            "type": "string",
            "description": "the key of the track, UTF-8: messages of one track keep their order within a topic. The key"
            " of a request is free",
        },
        "bindingVersion": _KAFKA_BINDING,
    }
}
_IN_THE_BODY: Final = {"location": "$message.payload#/request_id"}
_IN_THE_HEADER: Final = {"location": f"$message.header#/{REQUEST_ID_HEADER}"}
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
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON_CONTENT_TYPE,
        "servers": _SERVERS,
        "channels": {channel.value: _channel(channel, named) for channel in Channel},
        "operations": {
            operation["title"].replace(" ", "-"): operation
            for node in TOPOLOGY
            for operation in _operations(node, named)
        },
        "components": {
            "messages": {model.__name__: _message(model, channel) for model, channel in CHANNEL_OF.items()}
            | {_RETRY_MESSAGE: _retry_message(), _DEAD_LETTER: _dead_letter()},
            "schemas": definitions["$defs"],
        },
    }


def _channel(channel: Channel, named: Topics) -> dict[str, Any]:
    spec = next(spec for spec in topic_specs(named) if spec.name == named.name(channel))
    return {
        "address": spec.name,
        "description": _direction(channel),
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": spec.retention_ms,
                    "max.message.bytes": spec.max_message_bytes,
                },
                "bindingVersion": _KAFKA_BINDING,
            }
        },
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(channel)},
    }


def _operations(node: Node, named: Topics) -> Iterator[dict[str, Any]]:
    """What a service does with its topics. ``receive`` and ``send`` are the service's: a user does the opposite."""
    group = {"type": "string", "const": named.group(node.name)}
    for channel in node.reads:
        yield {
            "action": "receive",
            "title": f"{node.name} reads {channel.value}",
            "channel": {"$ref": f"#/channels/{channel.value}"},
            "bindings": {"kafka": {"groupId": group, "bindingVersion": _KAFKA_BINDING}},
        }
    for channel in node.writes:
        yield {
            "action": "send",
            "title": f"{node.name} writes {channel.value}",
            "channel": {"$ref": f"#/channels/{channel.value}"},
        }


def _message(model: type[BaseModel], channel: Channel) -> dict[str, Any]:
    own = {} if channel in FROM_OUTSIDE else _OWN_HEADERS
    headers = own | CONTEXT_HEADERS
    if model is TrackResult:
        headers |= {f"{HEADER_PREFIX}{name}": meaning for name, meaning in ATTRIBUTES.items()}
    found: dict[str, Any] = {
        "summary": (model.__doc__ or "").strip().splitlines()[0],
        "contentType": BINARY_CONTENT_TYPE if channel is Channel.FEATURES else JSON_CONTENT_TYPE,
        "payload": {"$ref": _REFERENCE.format(model=model.__name__)},
        "bindings": _KEY_BINDING,
        "correlationId": _IN_THE_HEADER if channel is Channel.FEATURES else _IN_THE_BODY,
        "x-max-bytes": MAX_MESSAGE_BYTES[channel],
        "headers": _headers(headers, required=own),
    }
    if examples := EXAMPLES.get(model):
        found["examples"] = [
            {"name": name, "payload": message.model_dump(mode="json", by_alias=True, exclude_none=True)}
            for name, message in examples.items()
        ]
    return found


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
    if channel is Channel.DEAD_LETTERS:
        return [_DEAD_LETTER]
    return [model.__name__ for model, home in CHANNEL_OF.items() if home is channel]


def _retry_message() -> dict[str, Any]:
    return {
        "summary": "ingestion -> ingestion: a TrackRequest that is to be tried again.",
        "contentType": JSON_CONTENT_TYPE,
        "headers": _headers({**HEADERS, **CONTEXT_HEADERS}, required=HEADERS),
        "payload": {"$ref": _REFERENCE.format(model=TrackRequest.__name__)},
        "bindings": _KEY_BINDING,
        "correlationId": _IN_THE_BODY,
        "x-max-bytes": MAX_MESSAGE_BYTES[Channel.REQUESTS_RETRY],
    }


def _dead_letter() -> dict[str, Any]:
    return {
        "summary": "any worker -> operator: a record that no worker can handle, as it was, with the reason.",
        "contentType": "application/octet-stream",
        "headers": _headers(
            {f"{ERROR_HEADER_PREFIX}{name}": meaning for name, meaning in ERROR_HEADERS.items()}, required=()
        ),
        "payload": {"description": "The value of the original record. Its key and its headers are kept, too."},
        "x-max-bytes": MAX_MESSAGE_BYTES[Channel.DEAD_LETTERS],
    }


def _headers(meanings: Mapping[str, str], required: Iterable[str]) -> dict[str, Any]:
    """The schema of record headers. Their values are UTF-8."""
    properties = {name: {"type": "string", "description": meaning} for name, meaning in meanings.items()}
    return {"type": "object", "properties": properties, "required": list(required)}
