"""docs/messages.md: the AsyncAPI document for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from services.docs.tables import table

#: A node of the document: plain JSON.
Node = dict[str, Any]

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
    used = dict.fromkeys(_parts_of(document, of_channels))
    parts.append("## Parts of messages")
    for name in used:
        schema = document["components"]["schemas"][name]
        parts += [f"### {name}", _summary(schema), _values(schema) or _fields(schema)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _topics(document: Node) -> str:
    rows = []
    for channel in document["channels"].values():
        kafka = channel["bindings"]["kafka"]
        configuration = kafka["topicConfiguration"]
        rows.append(
            (
                f"`{channel['address']}`",
                ", ".join(_link(name) for name in channel["messages"]),
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
    yield _plain(message["summary"])
    facts = [("content type", f"`{message['contentType']}`"), ("largest", f"{message['x-max-bytes'] // 1024} KiB")]
    if key := message.get("bindings", {}).get("kafka", {}).get("key"):
        facts.append(("key", key["description"]))
    facts += [
        (f"header `{header}`", schema["description"]) for header, schema in _properties(message.get("headers", {}))
    ]
    yield table(("of the record", ""), facts)
    payload = message["payload"]
    if "$ref" not in payload:
        yield _plain(payload["description"])
    elif (schema := _name(payload["$ref"])) == name:
        description = schemas[schema].get("description", "")
        yield _plain(description.split("\n\n", 1)[1]) if "\n\n" in description else ""
        yield _fields(schemas[schema])
    else:
        yield f"The value is a {_link(schema)}."
    for example in message.get("examples", ()):
        yield f"Example `{example['name']}`:"
        yield f"```json\n{json.dumps(example['payload'], indent=1)}\n```"


def _fields(schema: Node) -> str:
    rows = [
        (
            f"`{field}`",
            _type(described),
            "yes" if field in schema.get("required", ()) else "",
            _plain(described.get("description", "")),
        )
        for field, described in _properties(schema)
    ]
    return table(("field", "type", "required", "meaning"), rows) if rows else ""


def _values(schema: Node) -> str:
    return f"One of {', '.join(f'`{value}`' for value in schema['enum'])}." if "enum" in schema else ""


def _type(schema: Node) -> str:
    """The type of a field in a few words."""
    if "$ref" in schema:
        return _link(_name(schema["$ref"]))
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_type(inner)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"{_type(inner)} by name" if isinstance(inner, dict) else "object"
    low, high = schema.get("minimum"), schema.get("maximum")
    limits = f", {low:g} to {high:g}" if low is not None and high is not None else ""
    return f"{schema.get('type', 'anything')}{limits}"


def _parts_of(document: Node, of_channels: list[str]) -> Iterator[str]:
    """The schemas that the messages are made of, in the order of their first use, without the messages themselves."""
    seen = set(of_channels)
    waiting = [_name(ref) for name in of_channels for ref in _references(document["components"]["messages"][name])]
    while waiting:
        name = waiting.pop(0)
        waiting += [
            inner for ref in _references(document["components"]["schemas"][name]) if (inner := _name(ref)) not in seen
        ]
        if name not in seen:
            yield name
        seen.add(name)


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _properties(schema: Node) -> list[tuple[str, Node]]:
    return list(schema.get("properties", {}).items())


def _name(reference: str) -> str:
    return reference.rsplit("/", 1)[1]


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _summary(schema: Node) -> str:
    return _plain(schema.get("description", ""))


def _plain(docstring: str) -> str:
    """A docstring as Markdown: one backtick where reStructuredText has two, and paragraphs without line breaks."""
    paragraphs = docstring.replace("``", "`").replace("->", "→").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
