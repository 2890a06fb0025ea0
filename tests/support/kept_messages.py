"""Messages as the code of each version wrote them, kept to be read by all later ones.

At a release: ``python -m tests.support.kept_messages`` writes a folder for the version in pyproject.toml. A folder that
is there is never written again: what it holds may lie in somebody's topics.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from pydantic import BaseModel

from services.asyncapi_examples import EXAMPLES
from shared.bus.base import Outgoing, Record
from shared.contracts.codec import CHANNEL_OF, Message, encode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import (
    ErrorReport,
    IngestedTrack,
    MoodPrediction,
    SegmentFeatures,
    Stage,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import dead_letter
from shared.runtime.envelope import outgoing
from shared.runtime.retries import Retry, RetryNote

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "tests" / "unit" / "contracts" / "messages"
_TOPICS: Final = Topics("tonestream")
_CAUSE: Final = Record("tonestream.requests", 3, 17, b"url:abc", b"{}", timestamp_ms=1_700_000_000_000)
_HEADERS: Final = ".headers.json"


_ERROR: Final = ErrorReport(code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="404 Not Found")
#: Forms of messages that the documents do not show.
_MORE: Final[dict[str, Message]] = {
    "spotify": TrackRequest(request_id="r2", track_id="4uLU6hMCjMI75M1A2tKUQC", force=True),
    "failed": IngestedTrack(request_id="r3", track_key="url:abc", source="https://example.org/a.mp3", error=_ERROR),
    "following": IngestedTrack(request_id="r4", track_key="url:abc", source="https://example.org/a.mp3", follows="r1"),
    "answered": IngestedTrack(
        request_id="r5",
        track_key="url:abc",
        source="https://example.org/a.mp3",
        cached=cast(TrackResult, EXAMPLES[TrackResult]["ok"]),
        received_at_ms=1_700_000_000_000,
    ),
    "no-mood": MoodPrediction(request_id="r6", track_key="url:abc", error=_ERROR),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of some version: the record as it was published."""

    version: str
    channel: Channel
    name: str
    value: bytes
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return f"{self.version}/{self.channel.value}/{self.name}"

    @property
    def record(self) -> Record:
        """As a worker receives it."""
        headers = tuple((name, value.encode()) for name, value in self.headers.items())
        return Record(_TOPICS.name(self.channel), 0, 0, b"k", self.value, headers)


def version() -> str:
    """The version of this code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def versions() -> list[str]:
    """The versions whose messages are kept."""
    return sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())


def kept() -> Iterator[Kept]:
    """Every kept message of every version."""
    for one in versions():
        for file in sorted((FOLDER / one).rglob("*")):
            if file.is_file() and file.parent.name != "schemas" and not file.name.endswith(_HEADERS):
                headers = file.with_name(f"{file.stem}{_HEADERS}")
                found = json.loads(headers.read_text(encoding="utf-8")) if headers.exists() else {}
                yield Kept(one, Channel(file.parent.name), file.stem, file.read_bytes(), found)


def kept_schemas(of: str) -> dict[str, dict[str, Any]]:
    """What the readers of a version took, as JSON Schema by the name of the message."""
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (FOLDER / of / "schemas").glob("*.json")
    }


def todays() -> Iterator[tuple[Channel, str, Outgoing]]:
    """What today's code publishes: every message in every form that the documents show, on its topic."""
    for model, examples in EXAMPLES.items():
        if model in CHANNEL_OF:
            for name, message in examples.items():
                yield CHANNEL_OF[model], f"{model.__name__}-{name}", outgoing(_TOPICS, message, cause=_CAUSE)
    for name, message in _MORE.items():
        yield CHANNEL_OF[type(message)], f"{type(message).__name__}-{name}", outgoing(_TOPICS, message, cause=_CAUSE)
    yield Channel.FEATURES, "SegmentFeatures", outgoing(_TOPICS, _features(), cause=_CAUSE)
    request = TrackRequest(request_id="r1", audio_url="https://example.org/song.mp3")
    entered = Record(_CAUSE.topic, 3, 17, b"url:abc", encode_message(request), timestamp_ms=_CAUSE.timestamp_ms)
    note = RetryNote(entered.coordinates, entered.timestamp_ms, 1, entered.timestamp_ms + 5000, 5000, 900, "busy")
    yield Channel.REQUESTS_RETRY, "TrackRequest", Retry(request, entered, note).outgoing(_TOPICS)
    letter = dead_letter(_TOPICS, entered, Stage.INGESTION, ValueError("a defect"), 3, lambda text: text)
    yield Channel.DEAD_LETTERS, "letter", letter


def models() -> list[type[BaseModel]]:
    """The messages that are JSON."""
    return [model for model in CHANNEL_OF if model is not SegmentFeatures]


def _features() -> SegmentFeatures:
    return SegmentFeatures(
        request_id="r1",
        track_key="url:abc",
        index=3,
        start_s=9.0,
        end_s=12.0,
        feature_spec="mfcc64-130",
        model="mfcc-lstm-1",
        matrix=np.linspace(-60.0, 20.0, 12, dtype=np.float32).reshape(4, 3),
        timings_ms={"feature-extraction": 1.5},
    )


def write() -> Path:
    """A folder of today's messages for this version. Raises FileExistsError if there is one."""
    folder = FOLDER / version()
    folder.mkdir(parents=True)
    for channel, name, published in todays():
        place = folder / channel.value
        place.mkdir(exist_ok=True)
        suffix = ".bin" if channel in (Channel.FEATURES, Channel.DEAD_LETTERS) else ".json"
        (place / f"{name}{suffix}").write_bytes(published.value)
        headers = {key: value.decode("utf-8", "replace") for key, value in published.headers}
        (place / f"{name}{_HEADERS}").write_text(json.dumps(headers, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "schemas").mkdir()
    for model in models():
        schema = json.dumps(model.model_json_schema(by_alias=True), indent=1, sort_keys=True)
        (folder / "schemas" / f"{model.__name__}.json").write_text(f"{schema}\n", "utf-8")
    return folder


if __name__ == "__main__":
    try:
        print(f"wrote {write()}")
    except FileExistsError as error:
        raise SystemExit(f"{error.filename} is kept as it is; raise the version in pyproject.toml first") from None
