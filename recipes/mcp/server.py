"""An MCP server: an assistant classifies tracks with Tonestream and searches the library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from tonestream import AsyncClient, TonestreamClientError, TrackResult

server = MCPServer("tonestream", instructions="Genre, mood, tempo and key of music, with calibrated confidence.")


def client() -> AsyncClient:
    return AsyncClient(
        os.environ.get("TONESTREAM_URL", "http://localhost:8000"), api_key=os.environ.get("TONESTREAM_API_KEY")
    )


def source_of(track: str) -> str | Path:
    """A URL as it is; a file only if it lies below TONESTREAM_MUSIC."""
    if "://" in track:
        return track
    music = os.environ.get("TONESTREAM_MUSIC")
    path = Path(track).expanduser().resolve()
    if music is None or not path.is_relative_to(Path(music).resolve()):
        raise ToolError("this file may not be read: it is not below the folder that TONESTREAM_MUSIC names")
    return path


@contextmanager
def explained() -> Iterator[None]:
    """What the client raises, as a sentence that the assistant reads."""
    try:
        yield
    except TonestreamClientError as error:
        raise ToolError(str(error)) from error


def summary(result: TrackResult) -> dict[str, Any]:
    """What an assistant needs of a result: no segments, no probabilities of every label."""
    whole = result.model_dump(
        mode="json", include={"status", "track", "key", "tags", "content", "audio_features", "errors"}
    )
    for half in ("genre", "mood"):
        found = getattr(result, half)
        whole[half] = found and {"label": found.label, "confidence": found.confidence, "uncertain": found.uncertain}
    return whole


@server.tool()
async def classify_track(track: str) -> dict[str, Any]:
    """Genre, mood, tempo, key and tags of one track: an http(s) URL of an audio file, or a path.

    A confidence of 0.7 means that 70% of such answers are right. `uncertain` marks guesses.
    """
    with explained():
        async with client() as tonestream:
            return summary(await tonestream.classify(source_of(track), timeout_s=300))


@server.tool()
async def search_library(where: str, limit: int = 20) -> list[dict[str, Any]]:
    """Classified tracks that pass a filter, such as: genre == jazz and bpm < 100, or: mood == calm and energy < 0.4."""
    found: list[dict[str, Any]] = []
    with explained():
        async with client() as tonestream:
            async for row in tonestream.results(where=where):
                if len(found) >= min(limit, 200):
                    break
                found.append(row.model_dump(mode="json", exclude_none=True))
    return found


if __name__ == "__main__":
    server.run()
