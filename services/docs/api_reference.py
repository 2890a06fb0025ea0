"""docs/api-reference.md: the gateway's OpenAPI document for people."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Final, cast

from services.docs.schemas import Node, plain, sections, type_of
from services.docs.tables import table
from services.gateway.app import create_app
from services.gateway.gateway import Gateway
from shared.settings import Settings

_INTRODUCTION: Final = """# HTTP API reference

Every operation of the gateway, made from the code by `make docs`. A running gateway describes itself at
`/openapi.json`, with examples. [HTTP API](http-api.md) shows how to use it."""
_METHODS: Final = ("get", "post", "put", "patch", "delete")


def api_reference() -> str:
    """The page."""
    # To describe the operations, the application needs no gateway that works.
    described = create_app(cast(Gateway, SimpleNamespace(settings=Settings()))).openapi()
    schemas = described["components"]["schemas"]
    operations = [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    ]
    overview = [
        (f"[`{method.upper()} {path}`](#{_anchor(method, path)})", operation.get("summary", ""))
        for method, path, operation in operations
    ]
    parts = [_INTRODUCTION, table(("operation", "what it does"), overview)]
    for method, path, operation in operations:
        parts += _operation(method, path, operation)
    parts.append("## Schemas")
    parts += sections([operation for _, _, operation in operations], schemas)
    return "\n\n".join(filter(None, parts)) + "\n"


def _operation(method: str, path: str, operation: Node) -> list[str]:
    parameters = [
        (
            f"`{parameter['name']}`",
            parameter["in"],
            type_of(parameter["schema"]),
            "yes" if parameter.get("required") else "",
            plain(parameter.get("description", "")),
        )
        for parameter in operation.get("parameters", ())
    ]
    bodies = [
        (f"`{content}`", _payload(described))
        for content, described in operation.get("requestBody", {}).get("content", {}).items()
    ]
    answers = [
        (
            code,
            ", ".join(f"`{content}`" for content in answer.get("content", {})),
            ", ".join(dict.fromkeys(filter(None, map(_payload, answer.get("content", {}).values())))),
            plain(answer.get("description", "")),
        )
        for code, answer in operation["responses"].items()
    ]
    return [
        f"## `{method.upper()} {path}`",
        plain(operation.get("description") or operation.get("summary", "")),
        table(("parameter", "in", "type", "required", "meaning"), parameters) if parameters else "",
        table(("body", "schema"), bodies) if bodies else "",
        table(("status", "content type", "schema", "meaning"), answers),
    ]


def _payload(described: dict[str, Any]) -> str:
    schema = described.get("schema", {})
    return "" if not schema else type_of(schema)


def _anchor(method: str, path: str) -> str:
    """The anchor of a section, as GitHub and Sphinx make it from the heading."""
    return re.sub(r"[^\w -]", "", f"{method} {path}").replace(" ", "-")
