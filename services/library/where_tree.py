"""A parsed filter, and how it compares text. ``where_parser.py`` makes it, ``where.py`` selects rows by it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal, TypeAlias

from services.library.row import Column

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Value: TypeAlias = str | float | bool


@dataclass(frozen=True, slots=True)
class Compare:
    """``energy < 0.4``"""

    column: Column
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Among:
    """``genre in (jazz, blues)``"""

    column: Column
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Holds:
    """``tags has guitar``, ``title contains love``; ``text`` is folded."""

    column: Column
    text: str


@dataclass(frozen=True, slots=True)
class Missing:
    """``key is missing``"""

    column: Column


@dataclass(frozen=True, slots=True)
class Not:
    """``not ...``"""

    inner: Node


@dataclass(frozen=True, slots=True)
class And:
    """``... and ...``, two parts or more."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """``... or ...``, two parts or more."""

    parts: tuple[Node, ...]


Node: TypeAlias = Compare | Among | Holds | Missing | Not | And | Or


def folded(text: str) -> str:
    """``text`` as it is compared: without the difference of cases, and composed (a file name of macOS is not)."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text.casefold())
