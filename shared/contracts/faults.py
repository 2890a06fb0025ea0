"""Describes the faults of a message for the person who wrote it.

No text quotes a value, which may be long or private. An unknown field is quoted, truncated, so that its writer finds
the mistake.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from shared.contracts.messages import PATTERNS_IN_WORDS

#: The most faults that are named. The others are counted.
_MOST: Final = 3
_LONGEST_FIELD: Final = 40
#: How similar an unknown field name must be to a known one to suggest it.
_ALIKE: Final = 0.6
#: A shared part of two field names must have this many characters to count as similar.
_TELLING: Final = 3

_SEND_UTF_8: Final = "send UTF-8 without a byte order mark"
_UTF_8_MARK: Final = b"\xef\xbb\xbf"
#: The header of values in the format of schema registries: a zero byte and the ID of the schema.
_REGISTRY_HEAD: Final = 5
_ENDS: Final = re.compile(r"EOF while parsing (an? \w+)( at line \d+ column \d+)")


def faults(error: ValidationError, noun: str = "message", known: Sequence[str] = ()) -> str:
    """The first few faults as ``field: fault``, or as a sentence if no field is at fault.

    ``noun`` names the whole message. ``known`` are its possible fields.
    """
    found = error.errors(include_url=False, include_input=False)
    said = [_fault(fault, noun, known) for fault in found[:_MOST]]
    more = len(found) - len(said)
    return "; ".join(said) + (f" (and {more} more)" if more > 0 else "")


def encoding_fault(value: bytes, noun: str) -> str | None:
    """Why ``value`` is no text in UTF-8; None if it is. For values that are not valid JSON."""
    if not value:
        return "the record has no value"
    if value.startswith(_UTF_8_MARK):
        return f"the {noun} begins with a byte order mark; send UTF-8 without one"
    if value[0] == 0 and len(value) > _REGISTRY_HEAD and not _is_wide_text(value):
        return f"the {noun} is not JSON (it begins like the binary format of a schema registry); send plain JSON"
    encoding = json.detect_encoding(value)
    for family in ("UTF-16", "UTF-32"):
        if encoding.upper().startswith(family):
            return f"the {noun} is not UTF-8 (it begins like {family}); {_SEND_UTF_8}"
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the {noun} is not UTF-8 (byte 0x{value[error.start]:02x} at position {error.start}); {_SEND_UTF_8}"
    return None


def _is_wide_text(value: bytes) -> bool:
    """Whether a value whose first byte is 0 begins with two ASCII characters in UTF-16 or UTF-32, big-endian."""
    return any(
        all(byte == 0 for place, byte in enumerate(value[: 2 * width]) if (place + 1) % width)
        and all(value[width - 1 : 2 * width : width])
        for width in (2, 4)
    )


def _fault(fault: Mapping[str, Any], noun: str, known: Sequence[str]) -> str:
    path, kind = fault["loc"], fault["type"]
    if kind == "json_invalid":
        return f"the {noun} is not valid JSON: {_syntax(str(fault['ctx']['error']))}"
    if kind == "extra_forbidden":
        return _unknown_field(str(path[-1]), known)
    field = ".".join(str(part) for part in path)
    if kind == "missing":
        return f"{field} is missing"
    if not path and kind in {"model_type", "model_attributes_type", "dict_type"}:
        return f"the {noun} is not a JSON object"
    said = _words(kind, fault)
    return f"{field}: {said}" if field else said


def _words(kind: str, fault: Mapping[str, Any]) -> str:
    context = fault.get("ctx", {})
    match kind:
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case "string_type":
            return "must be a string"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case "string_too_long":
            return f"may have at most {context['max_length']} characters"
        case "string_too_short":
            return "must not be empty" if context["min_length"] == 1 else f"needs {context['min_length']} characters"
        case "string_pattern_mismatch":
            return PATTERNS_IN_WORDS.get(context["pattern"], "has a character or a length that is not allowed here")
        case "union_tag_invalid":
            return "no known type"
        case "union_tag_not_found":
            return "type is missing"
        case _:
            # Messages of our own validators, and the numbers and collections in messages and settings.
            return str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "must")


def _syntax(said: str) -> str:
    """The JSON parser's message in plain words."""
    said = _ENDS.sub(r"it ends in the middle of \1,\2", said)
    for theirs, ours in (
        ("expected value", "a value is expected"),
        ("expected ident", "neither true, false, null, a number nor a string,"),
        ("recursion limit exceeded", "it is nested too deeply,"),
        ("trailing characters", "something follows the end of the JSON value,"),
        ("lone leading surrogate in hex escape", "a \\u escape names half a character,"),
        ("unexpected end of hex escape", "a \\u escape names half a character or is cut short,"),
        ("invalid escape", "a backslash begins no escape that JSON has,"),
        ("key must be a string", "a field's name must be a string in double quotes,"),
        (
            "control character (\\u0000-\\u001F) found while parsing a string",
            "a control character in a string must be escaped,",
        ),
    ):
        said = said.replace(theirs, ours)
    return said


def _unknown_field(name: str, known: Sequence[str]) -> str:
    shown = name if len(name) <= _LONGEST_FIELD else f"{name[: _LONGEST_FIELD - 1]}…"
    likely = meant(name, known)
    return f"unknown field {shown!r}" + (f" (did you mean {likely}?)" if likely else "")


def meant(name: str, known: Sequence[str]) -> str | None:
    """The one of the ``known`` names that ``name`` most likely stands for."""
    plain = {_plain(field): field for field in known}
    given = _plain(name[:_LONGEST_FIELD])
    if len(given) >= _TELLING:
        holding = [field for one, field in plain.items() if given in one or one in given]
        if len(holding) == 1:
            return holding[0]
    found = difflib.get_close_matches(given, plain, n=1, cutoff=_ALIKE)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
