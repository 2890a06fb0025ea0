"""docs/messages.md: the AsyncAPI document for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from services.docs.schemas import Node, fields, link, name_of, plain, properties, sections
from services.docs.tables import table

_DAY_MS: Final = 24 * 60 * 60 * 1000
_INTRODUCTION: Final = """# Messages

Every topic and every message, made from the code by `make docs`. Programs read [asyncapi.json](asyncapi.json), AsyncAPI
3.0, which says the same and more. Users write `requests` and read `results`; the other topics are between the services.
[Subscribe from another language](subscribe.md) says how to begin."""


def messages(document: Node) -> str:
    """The page."""
    parts = [_INTRODUCTION, "## Topics", _topics(document), "## Operations", _operations(document)]
    of_channels = [name for channel in document["channels"].values() for name in channel["messages"]]
    for name in of_channels:
        parts += _message(name, document["components"]["messages"][name], document["components"]["schemas"])
    parts.append("## Parts of messages")
    roots = [document["components"]["messages"][name] for name in of_channels]
    parts += sections(roots, document["components"]["schemas"], without=of_channels)
    return "\n\n".join(filter(None, parts)) + "\n"


def _topics(document: Node) -> str:
    rows = []
    for channel in document["channels"].values():
        kafka = channel["bindings"]["kafka"]
        configuration = kafka["topicConfiguration"]
        rows.append(
            (
                f"`{channel['address']}`",
                ", ".join(link(name) for name in channel["messages"]),
                str(kafka["partitions"]),
                f"{configuration['retention.ms'] // _DAY_MS} days",
                channel["description"],
            )
        )
    return table(("topic", "messages", "partitions", "kept", "who"), rows)


def _operations(document: Node) -> str:
    rows = []
    for operation in document["operations"].values():
        group = operation.get("bindings", {}).get("kafka", {}).get("groupId", {}).get("const", "")
        rows.append((operation["title"], operation["action"], f"`{group}`" if group else ""))
    return table(("operation", "action of the service", "consumer group"), rows)


def _message(name: str, message: Node, schemas: Node) -> Iterator[str]:
    yield f"## {name}"
    yield plain(message["summary"])
    facts = [("content type", f"`{message['contentType']}`"), ("largest", f"{message['x-max-bytes'] // 1024} KiB")]
    if key := message.get("bindings", {}).get("kafka", {}).get("key"):
        facts.append(("key", key["description"]))
    facts += [
        (f"header `{header}`", schema["description"]) for header, schema in properties(message.get("headers", {}))
    ]
    yield table(("of the record", ""), facts)
    payload = message["payload"]
    if "$ref" not in payload:
        yield plain(payload["description"])
    elif (schema := name_of(payload["$ref"])) == name:
        description = schemas[schema].get("description", "")
        yield plain(description.split("\n\n", 1)[1]) if "\n\n" in description else ""
        yield fields(schemas[schema])
    else:
        yield f"The value is a {link(schema)}."
    for example in message.get("examples", ()):
        yield f"Example `{example['name']}`:"
        yield f"```json\n{json.dumps(example['payload'], indent=1)}\n```"
