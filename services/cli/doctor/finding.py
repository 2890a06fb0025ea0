"""What a check found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shared.settings import Settings

Level: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject`` is what was looked at; ``advice`` says what to do where not all is well."""

    subject: str
    level: Level
    message: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Looks at one subject. ``limit_s``: if it takes longer, in seconds, that is what it found.

    An exception of ``look`` becomes a failure with its message.
    """

    subject: str
    look: Callable[[Settings], Iterable[Finding]]
    limit_s: float = 15.0


def ok(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", message)


def warn(subject: str, message: str, advice: str) -> Finding:
    """It works, but not as it should."""
    return Finding(subject, "warn", message, advice)


def fail(subject: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(subject, "fail", message, advice)
