"""The public Python interface of Tonestream. Everything else may change without notice.

    from tonestream import Client

    with Client("http://localhost:8000") as client:
        result = client.classify("song.mp3")
        print(result.genre.label, result.mood.label)

`Client` and `AsyncClient` speak to a gateway over HTTP, or to the topics over Kafka. What they return are the
project's own messages: `TrackResult` and its parts.
"""

from shared.contracts.errors import ErrorCode
from shared.contracts.messages import (
    Content,
    Dynamics,
    ErrorReport,
    Genre,
    GenreAlternative,
    GenreFit,
    Mood,
    MoodSegment,
    MusicalKey,
    SegmentGenre,
    Stage,
    Status,
    Tag,
    Track,
    TrackAudioFeatures,
    TrackResult,
)
from tonestream.client import (
    AsyncClient,
    AsyncResultStream,
    Client,
    Missed,
    NotFound,
    NotOffered,
    Problem,
    Refused,
    ResultStream,
    Row,
    Ticket,
    TimedOut,
    TonestreamClientError,
    TrackState,
    Unavailable,
    UnexpectedAnswer,
)

__all__ = [
    "AsyncClient",
    "AsyncResultStream",
    "Client",
    "Content",
    "Dynamics",
    "ErrorCode",
    "ErrorReport",
    "Genre",
    "GenreAlternative",
    "GenreFit",
    "Missed",
    "Mood",
    "MoodSegment",
    "MusicalKey",
    "NotFound",
    "NotOffered",
    "Problem",
    "Refused",
    "ResultStream",
    "Row",
    "SegmentGenre",
    "Stage",
    "Status",
    "Tag",
    "Ticket",
    "TimedOut",
    "TonestreamClientError",
    "Track",
    "TrackAudioFeatures",
    "TrackResult",
    "TrackState",
    "Unavailable",
    "UnexpectedAnswer",
]
