"""JSON schemas as Markdown."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from services.docs.tables import table

#: An object of a JSON document.
Node = dict[str, Any]


def fields(schema: Node) -> str:
    """The fields of an object as a table; empty if it has none."""
    rows = [
        (
            f"`{field}`",
            type_of(described),
            "yes" if field in schema.get("required", ()) else "",
            plain(described.get("description", "")),
        )
        for field, described in properties(schema)
    ]
    return table(("field", "type", "required", "meaning"), rows) if rows else ""


def values(schema: Node) -> str:
    """The values of an enumeration; empty if it is none."""
    return f"One of {', '.join(f'`{value}`' for value in schema['enum'])}." if "enum" in schema else ""


def type_of(schema: Node) -> str:
    """The type of a field in a few words."""
    if "$ref" in schema:
        return link(name_of(schema["$ref"]))
    if "anyOf" in schema:
        return " or ".join(type_of(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {type_of(inner)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"{type_of(inner)} by name" if isinstance(inner, dict) else "object"
    low, high = schema.get("minimum"), schema.get("maximum")
    limits = f", {low:g} to {high:g}" if low is not None and high is not None else ""
    return f"{schema.get('type', 'anything')}{limits}"


def sections(roots: Sequence[Node], schemas: Node, without: Collection[str] = ()) -> Iterator[str]:
    """A section for each schema that ``roots`` refer to, directly or through others, by first use."""
    seen = set(without)
    waiting = [name_of(reference) for root in roots for reference in references(root)]
    expanded: set[str] = set()
    while waiting:
        name = waiting.pop(0)
        schema = schemas[name]
        if name not in expanded:
            expanded.add(name)
            waiting += [name_of(reference) for reference in references(schema)]
        if name not in seen:
            seen.add(name)
            yield from filter(
                None, (f"### {name}", plain(schema.get("description", "")), values(schema) or fields(schema))
            )


def references(node: object) -> Iterator[str]:
    """Every ``$ref`` in a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def properties(schema: Node) -> list[tuple[str, Node]]:
    """The fields of an object, by name."""
    return list(schema.get("properties", {}).items())


def name_of(reference: str) -> str:
    """The last part of a ``$ref``."""
    return reference.rsplit("/", 1)[1]


def link(name: str) -> str:
    """A link to the section of a schema on the same page."""
    return f"[{name}](#{name.lower()})"


def plain(docstring: str) -> str:
    """A docstring as Markdown: one backtick where reStructuredText has two, and paragraphs without line breaks."""
    paragraphs = docstring.replace("``", "`").replace("->", "→").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
