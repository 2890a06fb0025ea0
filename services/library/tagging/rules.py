"""What a user asks for: which tags are written, over what, and in whose words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.contracts.labels import GENRES, MOODS

#: The longest name of a genre in a map, characters.
LONGEST_NAME: Final = 100
#: The most names for one genre.
MOST_NAMES: Final = 16
#: The genres as ID3 spells them, where its list has them; Winamp's list for the others.
DEFAULT_WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {label: ("Hip-Hop" if label == "hiphop" else label.capitalize(),) for label in GENRES}
)
MOOD_WORDS: Final[Mapping[str, str]] = MappingProxyType({label: label.capitalize() for label in MOODS})


class Field(StrEnum):
    """What can be written, in the order in which it is shown."""

    GENRE = "genre"
    MOOD = "mood"
    BPM = "bpm"
    KEY = "key"
    ENERGY = "energy"
    EVIDENCE = "evidence"


class Existing(StrEnum):
    """What happens to a value that a file has already.

    ``MERGE`` adds genres and moods to those that are there. Of tempo, key and energy there is only one, so it stays.
    Evidence is our own and is always replaced.
    """

    KEEP = "keep"
    MERGE = "merge"
    OVERWRITE = "overwrite"


@dataclass(frozen=True, slots=True)
class Rules:
    """``floor`` is the least confidence, 0 to 1, of what is written; None leaves it to the models' own limits.

    ``words`` are the names to write for each genre label.
    """

    existing: Existing = Existing.KEEP
    floor: float | None = None
    fields: frozenset[Field] = frozenset(Field)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: DEFAULT_WORDS)


class GenreMapError(ValueError):
    """A genre map that cannot be used. The message names the line."""


def genre_words(text: str) -> Mapping[str, tuple[str, ...]]:
    """The names to write for each genre, from the text of a genre map.

    A line names a genre and, after ``=``, one name or several with ``;`` between them. Empty lines and what follows
    ``#`` at the beginning of a line are left out. Genres without a line keep their usual name. Raises GenreMapError.

    >>> genre_words("rock = Rock; Alternative")["rock"]
    ('Rock', 'Alternative')
    >>> genre_words("rock = Rock")["hiphop"]
    ('Hip-Hop',)
    """
    words = dict(DEFAULT_WORDS)
    seen: dict[str, int] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        label, equals, names = line.partition("=")
        label = label.strip().lower()
        if not equals:
            raise GenreMapError(f"line {number}: write `genre = Name`, or `genre = Name; Other Name`")
        if label not in DEFAULT_WORDS:
            known = ", ".join(GENRES)
            raise GenreMapError(f"line {number}: there is no genre {_shown(label)}; there are {known}")
        if label in seen:
            raise GenreMapError(f"line {number}: {label} has a line already, line {seen[label]}")
        seen[label] = number
        words[label] = _names(names, number, label)
    return MappingProxyType(words)


def _names(text: str, number: int, label: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for part in text.split(";") if (name := part.strip())))
    if not names:
        raise GenreMapError(f"line {number}: {label} has no name")
    if len(names) > MOST_NAMES:
        raise GenreMapError(f"line {number}: {label} has {len(names)} names, and {MOST_NAMES} at most are written")
    for name in names:
        if not name.isprintable():
            raise GenreMapError(f"line {number}: {_shown(name)} has characters that cannot be shown")
        if len(name) > LONGEST_NAME:
            raise GenreMapError(f"line {number}: a name has {len(name)} characters, and {LONGEST_NAME} at most")
    return names


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}...")
