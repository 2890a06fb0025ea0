"""A gateway's view with many made-up results, for the page: every genre and mood, failures, odd titles."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.gateway.view.database import Database
from services.gateway.view.records import Absorber
from shared.bus.base import Record
from shared.contracts.codec import encode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import MusicalKey, TrackResult
from shared.contracts.topics import Channel, Topics
from tests.support.rows import failed_result, ok_result

#: Markup, quotation marks, and a change of the writing direction.
HOSTILE_TITLE = '<img src=x onerror="window.hacked=1">\'\u202e& <script>window.hacked=1</script>'
_FIRST = ("Amber", "Silent", "Northern", "Paper", "Velvet", "Broken", "Golden", "Midnight", "Electric", "Lost", "Río")
_SECOND = ("Harbour", "Signals", "Garden", "Engine", "Letters", "Parade", "Rain", "Machine", "Avenue", "Crows", "雨")
_BANDS = ("The Lanterns", "Ida Kovač", "Low Tide", "Mbira Social Club", "Östra", "Quartet 9", "Nova Heights")
#: Middle of energy and valence, and the tempo in BPM, by genre.
_CENTRES = dict(
    zip(
        GENRES,
        ((0.45, 0.45, 105), (0.2, 0.25, 92), (0.5, 0.6, 112), (0.75, 0.8, 120), (0.65, 0.55, 94), (0.35, 0.5, 126),
         (0.92, 0.3, 146), (0.65, 0.65, 118), (0.55, 0.75, 78), (0.8, 0.45, 132)),
        strict=True,
    )
)  # fmt: skip


def fill(view: Path, results: Iterable[TrackResult], first_at: float = 1_767_000_000.0) -> None:
    """Write ``results`` into the view at that path, one a second from ``first_at`` (seconds since 1970)."""
    topics = Topics("t")
    database = Database(view)
    try:
        records = [
            Record(
                topic=topics.name(Channel.RESULTS),
                partition=0,
                offset=offset,
                key=result.request_id.encode(),
                value=encode_message(result),
                timestamp_ms=int((first_at + offset) * 1000),
            )
            for offset, result in enumerate(results)
        ]
        database.write(lambda connection: Absorber(topics).absorb(connection, records))
    finally:
        database.close()


def made_up(count: int, seed: int = 1) -> Iterator[TrackResult]:
    """``count`` results, the same for the same ``seed``. One in forty has failed; the first has a hostile title."""
    chance = random.Random(seed)
    for number in range(count):
        request_id, source = f"made-up-{number}", f"music/album {number // 12}/{number % 12 + 1:02d}.flac"
        if number % 40 == 39:
            codes = (ErrorCode.CORRUPT_AUDIO, ErrorCode.UNSUPPORTED_MEDIA, ErrorCode.FETCH_TIMEOUT)
            yield failed_result(request_id, source, chance.choice(codes))
            continue
        title = HOSTILE_TITLE if number == 0 else f"{chance.choice(_FIRST)} {chance.choice(_SECOND)}"
        yield _track(request_id, source, title, chance)


def _track(request_id: str, source: str, title: str, chance: random.Random) -> TrackResult:
    genre = chance.choice(GENRES)
    energy, valence, tempo = _CENTRES[genre]
    energy, valence = _near(energy, chance), _near(valence, chance)
    mood = MOODS[(1 if valence < 0.55 else 2) if energy > 0.5 else (0 if valence > 0.35 else 3)]
    confidence = min(0.999, 0.35 + 0.65 * chance.betavariate(4, 2))
    plain = ok_result(request_id, source, title, chance.choice(_BANDS), genre, mood)
    assert plain.genre is not None and plain.mood is not None and plain.audio_features is not None
    heard = plain.audio_features.model_copy(
        update={"energy": energy, "valence": valence, "tempo": tempo * math.exp(chance.gauss(0, 0.08))}
    )
    return plain.model_copy(
        update={
            "track": plain.track.model_copy(
                update={"key": f"url:{request_id}", "duration_s": 120 + 240 * chance.random()}
            ),
            "genre": plain.genre.model_copy(update={"confidence": confidence, "uncertain": confidence < 0.5}),
            "audio_features": heard,
            "key": MusicalKey(
                tonic=chance.choice(("C", "D", "E", "F", "F#", "G", "A", "A#")),
                mode=chance.choice(("major", "minor")),
                confidence=0.7,
            ),
        }
    )


def _near(middle: float, chance: random.Random) -> float:
    return min(1.0, max(0.0, chance.gauss(middle, 0.11)))
