"""Small real music files with tags and a picture, and what ffmpeg reads from them."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from shared.audio.decode import find_ffmpeg
from shared.contracts.labels import CONTENTS, GENRES, MOODS
from shared.contracts.messages import (
    Content,
    ErrorReport,
    Genre,
    GenreFit,
    Mood,
    MusicalKey,
    Stage,
    Status,
    Tag,
    Track,
    TrackAudioFeatures,
    TrackResult,
)

#: By name: suffix, and ffmpeg's options.
FORMATS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "mp3-v23": (".mp3", ("-c:a", "libmp3lame", "-id3v2_version", "3", "-write_id3v1", "1")),
    "mp3-v24": (".mp3", ("-c:a", "libmp3lame", "-id3v2_version", "4")),
    "mp3-bare": (".mp3", ("-c:a", "libmp3lame", "-id3v2_version", "0", "-map_metadata", "-1")),
    "flac": (".flac", ("-c:a", "flac")),
    "ogg": (".ogg", ("-c:a", "libvorbis")),
    "opus": (".opus", ("-c:a", "libopus", "-ar", "48000")),
    "m4a": (".m4a", ("-c:a", "aac")),
    "m4a-front": (".m4a", ("-c:a", "alac", "-movflags", "+faststart")),
    "wav": (".wav", ("-c:a", "pcm_s16le")),
    "aiff": (".aiff", ("-c:a", "pcm_s16be", "-write_id3v2", "1", "-id3v2_version", "3")),
    "wavpack": (".wv", ("-c:a", "wavpack")),
}
#: Those that ffmpeg writes an attached picture into; the others get none.
_PICTURES: Final = ("mp3-v23", "mp3-v24", "flac", "m4a", "m4a-front")
_TITLE: Final = "Größe – 大きさ"


def ffmpeg(*arguments: str | Path) -> bytes:
    """Standard output of a run that has to succeed."""
    command = [find_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


@cache
def _made(name: str, seconds: float) -> bytes:
    import tempfile

    suffix, options = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        file, picture = Path(folder) / f"made{suffix}", Path(folder) / "cover.png"
        sound = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}:sample_rate=44100")
        picture.write_bytes(_png())
        cover = ("-i", picture, "-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic")
        tags = ("-metadata", f"title={_TITLE}", "-metadata", "artist=Somebody", "-metadata", "comment=mine")
        ffmpeg(*sound, *(cover if name in _PICTURES else ()), *tags, *options, file)
        return file.read_bytes()


def make(folder: Path, name: str, seconds: float = 0.6, called: str = "song") -> Path:
    """A file of one of the ``FORMATS``."""
    file = folder / f"{called}{FORMATS[name][0]}"
    file.write_bytes(_made(name, seconds))
    return file


def _png() -> bytes:
    """A picture of 8 by 8 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress((b"\0" + b"\x80\x40\x20" * 8) * 8)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def sound_hash(file: Path) -> bytes:
    """A hash of the packets of the audio stream as they stand in the file, and of the decoded samples."""
    packets = ffmpeg("-i", file, "-map", "0:a", "-c", "copy", "-f", "hash", "-")
    return packets + ffmpeg("-i", file, "-map", "0:a", "-f", "hash", "-")


def ffmpeg_tags(file: Path) -> dict[str, str]:
    """The metadata that ffmpeg reads, names in upper case. In Ogg it belongs to the stream."""
    found: dict[str, str] = {}
    ogg = ("-map_metadata", "0:s:a:0") if file.suffix in (".ogg", ".opus") else ()
    text = ffmpeg("-i", file, *ogg, "-f", "ffmetadata", "-").decode("utf-8").replace("\\\n", "\n")
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            for escaped in "=;#\\":
                value = value.replace(f"\\{escaped}", escaped)
            found.setdefault(name.upper(), value)
    return found


@dataclass(frozen=True)
class Heard:
    """An answer in few words."""

    genre: str | None = "rock"
    confidence: float = 0.92
    uncertain: bool = False
    outside: bool = False
    mood: str | None = "happy"
    mood_confidence: float = 0.7
    mood_uncertain: bool = False
    tempo: float = 127.6
    energy: float = 0.66
    key: tuple[str, str, float] | None = ("F#", "minor", 0.8)
    content: str = "music"
    tags: tuple[str, ...] = ("rock", "indie")

    def result(self, request_id: str = "r", source: str = "song.mp3") -> TrackResult:
        """The whole answer."""
        halves = (self.genre is not None) + (self.mood is not None)
        return TrackResult(
            request_id=request_id,
            status=(Status.FAILED, Status.PARTIAL, Status.OK)[halves],
            track=Track(key="blob:k", source=source),
            genre=None if self.genre is None else self._genre(self.genre),
            mood=None if self.mood is None else self._mood(self.mood),
            audio_features=None if self.mood is None else self._features(),
            key=None
            if self.key is None
            else MusicalKey.model_validate(dict(zip(("tonic", "mode", "confidence"), self.key, strict=True))),
            tags=tuple(Tag(label=tag, probability=0.5) for tag in self.tags),
            content=Content(
                label=self.content,
                confidence=0.9,
                probabilities={name: 0.9 if name == self.content else 0.05 for name in CONTENTS},
            ),
            errors=()
            if halves == 2
            else (ErrorReport.model_validate({"code": "internal", "stage": Stage.INGESTION, "message": "why"}),),
        )

    def _genre(self, label: str) -> Genre:
        return Genre(
            label=label,
            confidence=self.confidence,
            uncertain=self.uncertain,
            fit=GenreFit(probability=0.1 if self.outside else 0.9, outside=self.outside),
            agreement=0.9,
            probabilities=_distribution(GENRES, label, self.confidence),
            segments=(),
            model="genre-model-1",
        )

    def _mood(self, label: str) -> Mood:
        return Mood(
            label=label,
            confidence=self.mood_confidence,
            uncertain=self.mood_uncertain,
            probabilities=_distribution(MOODS, label, self.mood_confidence),
            features={},
            source="audio",
            model="mood-model-1",
        )

    def _features(self) -> TrackAudioFeatures:
        return TrackAudioFeatures(
            source="audio",
            duration_ms=600.0,
            tempo=self.tempo,
            loudness=-9.0,
            energy=self.energy,
            danceability=0.5,
            acousticness=0.1,
            instrumentalness=0.1,
            liveness=0.1,
            speechiness=0.05,
            valence=0.61,
        )


def _distribution(labels: tuple[str, ...], best: str, probability: float) -> dict[str, float]:
    rest = (1.0 - probability) / (len(labels) - 1)
    return {label: probability if label == best else rest for label in labels}
