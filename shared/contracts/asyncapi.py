"""The AsyncAPI document, made from the messages themselves, so that it cannot say anything else than they do."""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from shared.contracts.codec import BINARY_CONTENT_TYPE, CHANNEL_OF, JSON_CONTENT_TYPE
from shared.contracts.topics import MAX_MESSAGE_BYTES, PARTITIONS, Channel, Topics

_REFERENCE: Final = "#/components/schemas/{model}"
_DIRECTIONS: Final = {
    Channel.REQUESTS: "users publish; ingestion reads",
    Channel.TRACKS: "ingestion publishes; feature-extraction, mood-worker and aggregator read",
    Channel.FEATURES: "feature-extraction publishes; genre-worker reads",
    Channel.PREDICTIONS: "genre-worker, feature-extraction and aggregator publish; aggregator reads",
    Channel.MOODS: "mood-worker publishes; aggregator reads",
    Channel.RESULTS: "aggregator publishes; users read",
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
                "description": _DIRECTIONS[channel],
                "bindings": {"kafka": {"partitions": PARTITIONS}},
                "messages": {
                    model.__name__: {"$ref": f"#/components/messages/{model.__name__}"}
                    for model in models
                    if CHANNEL_OF[model] is channel
                },
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
                for model, channel in CHANNEL_OF.items()
            },
            "schemas": definitions["$defs"],
        },
    }
