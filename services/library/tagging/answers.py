"""From an answer to what is worth writing into a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

from services.library.tagging.rules import MOOD_WORDS, Field, Rules
from shared.contracts.messages import Genre, Mood, MusicalKey, Status, TrackResult

#: A key that is less likely right than wrong is not written.
KEY_FLOOR: Final = 0.5
#: What separates texts within one evidence field.
BETWEEN: Final = "; "
#: The models know no slower or faster music; other values are slips of a source.
_BPM: Final = range(20, 400)


@dataclass(frozen=True, slots=True)
class Heard:
    """Values to write for a field, and how sure they are (``92%``), if that is known."""

    values: tuple[str, ...]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What was heard, by field; the reasons for what is not written; and the evidence by name, without its prefix."""

    heard: Mapping[Field, Heard] = field(default_factory=dict)
    withheld: Mapping[Field, str] = field(default_factory=dict)
    evidence: Mapping[str, str] = field(default_factory=dict)


def answers(result: TrackResult, rules: Rules) -> Answers:
    """What ``result`` has to say about its track under the ``rules``: nothing that is only a guess."""
    if (reason := _nothing(result)) is not None:
        return Answers(withheld={one: reason for one in Field if one in rules.fields})
    heard: dict[Field, Heard] = {}
    withheld: dict[Field, str] = {}
    found: tuple[tuple[Field, Heard | str], ...] = (
        (Field.GENRE, _genre(result.genre, rules)),
        (Field.MOOD, _mood(result.mood, rules)),
        (Field.BPM, _bpm(result)),
        (Field.KEY, _key(result.key, rules)),
        (Field.ENERGY, _energy(result)),
    )
    for one, answer in found:
        if isinstance(answer, str):
            withheld[one] = answer
        else:
            heard[one] = answer
    evidence = dict(_evidence(result, heard)) if Field.EVIDENCE in rules.fields and heard else {}
    return Answers(
        {one: heard[one] for one in heard if one in rules.fields},
        {one: withheld[one] for one in withheld if one in rules.fields},
        evidence,
    )


def energy_level(energy: float) -> int:
    """The energy of a track, 0 to 1, as a level from 1 to 10, each a tenth of the range.

    >>> [energy_level(energy) for energy in (0.0, 0.09, 0.1, 0.55, 1.0)]
    [1, 1, 2, 6, 10]
    """
    return min(10, max(1, math.floor(round(energy * 10, 6)) + 1))


def id3_key(key: MusicalKey) -> str:
    """The key as ID3 writes it in TKEY, three characters at most: ``Am``, ``F#m``, ``C``."""
    return key.tonic + ("m" if key.mode == "minor" else "")


def _nothing(result: TrackResult) -> str | None:
    """Why nothing at all is written; None if something may be."""
    if result.status is Status.FAILED:
        return "the track could not be heard"
    content = result.content
    if content is not None and content.label != "music":
        what = "speech" if content.label == "speech" else "other sounds"
        return f"no music, but {what} ({content.confidence:.0%})"
    return None


def _genre(genre: Genre | None, rules: Rules) -> Heard | str:
    if genre is None:
        return "no answer"
    said = f"{rules.words[genre.label][0]} {genre.confidence:.0%}" if genre.label in rules.words else genre.label
    if genre.fit is not None and genre.fit.outside:
        return f"probably none of the ten genres ({said} at best)"
    if (reason := _too_unsure(said, genre.confidence, genre.uncertain, rules)) is not None:
        return reason
    if genre.label not in rules.words:
        return f"there is no name for the genre {genre.label}"
    return Heard(rules.words[genre.label], genre.confidence)


def _mood(mood: Mood | None, rules: Rules) -> Heard | str:
    if mood is None:
        return "no answer"
    word = MOOD_WORDS.get(mood.label, mood.label)
    reason = _too_unsure(f"{word} {mood.confidence:.0%}", mood.confidence, mood.uncertain, rules)
    return Heard((word,), mood.confidence) if reason is None else reason


def _bpm(result: TrackResult) -> Heard | str:
    if result.audio_features is None:
        return "no answer"
    rounded = round(result.audio_features.tempo)
    return Heard((str(rounded),)) if rounded in _BPM else "no steady beat"


def _key(key: MusicalKey | None, rules: Rules) -> Heard | str:
    if key is None:
        return "no answer"
    said = f"{id3_key(key)} {key.confidence:.0%}"
    reason = _too_unsure(said, key.confidence, key.confidence < KEY_FLOOR, rules)
    return Heard((id3_key(key),), key.confidence) if reason is None else reason


def _energy(result: TrackResult) -> Heard | str:
    if result.audio_features is None:
        return "no answer"
    return Heard((str(energy_level(result.audio_features.energy)),))


def _too_unsure(said: str, confidence: float, uncertain: bool, rules: Rules) -> str | None:
    if rules.floor is None:
        return f"{said} is a guess" if uncertain else None
    return f"{said} is below the floor of {rules.floor:.0%}" if confidence < rules.floor else None


def _evidence(result: TrackResult, heard: Mapping[Field, Heard]) -> Iterator[tuple[str, str]]:
    """Names and texts of the evidence for what was sure enough. Numbers have a point, whatever the locale."""
    genre, mood, features = result.genre, result.mood, result.audio_features
    models = []
    if genre is not None and Field.GENRE in heard:
        yield "GENRE", genre.label
        yield "GENRE_CONFIDENCE", f"{genre.confidence:.2f}"
        yield "GENRE_AGREEMENT", f"{genre.agreement:.2f}"
        models.append(genre.model)
    if mood is not None and Field.MOOD in heard:
        yield "MOOD", mood.label
        yield "MOOD_CONFIDENCE", f"{mood.confidence:.2f}"
        models.append(mood.model)
    if result.key is not None and Field.KEY in heard:
        yield "KEY_CONFIDENCE", f"{result.key.confidence:.2f}"
    if features is not None:
        yield "TEMPO", f"{features.tempo:.1f}"
        yield "ENERGY", f"{features.energy:.2f}"
        yield "VALENCE", f"{features.valence:.2f}"
    if result.tags:
        yield "TAGS", BETWEEN.join(f"{_one_line(tag.label)} {tag.probability:.2f}" for tag in result.tags)
    if models:
        yield "MODEL", BETWEEN.join(_one_line(model) for model in models)
    yield "VERSION", version("tonestream")


def _one_line(text: str) -> str:
    """Labels and model names come from manifests of anybody."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
