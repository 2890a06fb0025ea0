"""What the requests of the chaos suite ask for: different pieces of real music, and every kind of trouble."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Any

from tests.support.samples import SAMPLES
from tests.support.web_server import Exchange, WebServer

#: Of MP3 at 96 and 112 kb/s: 11 to 14 s.
_PIECE = 160 * 1024
_STEP = 24 * 1024
#: MPEG 1, layer III; at 44.1 kHz a frame of 96 kb/s has 313 bytes, one of 112 kb/s 365, or one more.
_HEADER = b"\xff\xfb"
_FRAME_LENGTHS = (313, 314, 365, 366)


#: Settings under which the slow sources end within seconds: the first try of a download, and all of its time.
FIRST_TRY_S = 1.0
PATIENCE = {"fetch_first_timeout_s": f"{FIRST_TRY_S:g}", "fetch_total_timeout_s": "6"}


@dataclass(frozen=True, slots=True)
class Source:
    """Something to ask for; ``good`` says whether an answer with genre and mood is expected."""

    name: str
    request: dict[str, Any]
    good: bool


def sources(web: WebServer, pieces: int) -> list[Source]:
    """``pieces`` pieces of music (an MP3 can be cut at any frame), nine sources that cannot be classified, and four
    that are slow."""
    found = []
    for number in range(pieces):
        data = SAMPLES[number % len(SAMPLES)].read_bytes()
        start = frame_at(data, (number // len(SAMPLES) * _STEP) % max(1, len(data) - _PIECE))
        name = f"piece-{number}.mp3"
        web.add(f"/{name}", data[start : start + _PIECE])
        found.append(Source(name, {"audio_url": web.url(f"/{name}")}, True))
    bad: dict[str, bytes] = {
        "empty.mp3": b"",
        "page.mp3": b"<!doctype html><title>not music</title>",
        "corrupt.mp3": b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(range(256)) * 40,
        "short.mp3": SAMPLES[0].read_bytes()[: 20 * 1024],
        "silent.wav": _silence(8.0),
    }
    for name, body in bad.items():
        web.add(f"/{name}", body)
        found.append(Source(name, {"audio_url": web.url(f"/{name}")}, False))
    others = {
        "missing": web.url("/missing.mp3"),
        "forbidden": "http://169.254.169.254/latest/meta-data",
        "no scheme": "ftp://example.org/song.mp3",
    }
    found += [Source(name, {"audio_url": url}, False) for name, url in others.items()]
    found.append(Source("album", {"track_id": "spotify:album:1234"}, False))
    return found + _slow_sources(web)


def _slow_sources(web: WebServer) -> list[Source]:
    """What takes the slow lane: a server that takes its time, and some that never come to an end or are always busy."""
    late = SAMPLES[0].read_bytes()[:_PIECE]

    def answer_late(exchange: Exchange) -> None:
        if not exchange.wait(2 * FIRST_TRY_S):
            exchange.answer(200, late)

    web.add_handler("/late.mp3", answer_late)
    web.drip("/drip.mp3", b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n", pause_s=0.5)
    web.hang("/hang.mp3")
    web.add("/busy.mp3", status=503)
    good = {"late.mp3": True, "drip.mp3": False, "hang.mp3": False, "busy.mp3": False}
    return [Source(name, {"audio_url": web.url(f"/{name}")}, fine) for name, fine in good.items()]


def frame_at(data: bytes, start: int) -> int:
    """Where the next frame of a sample begins: a header with another one behind it."""
    if start == 0:
        return 0
    while True:
        start = data.index(_HEADER, start)
        if any(data[start + length : start + length + 2] == _HEADER for length in _FRAME_LENGTHS):
            return start
        start += 1


def _silence(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(22050)
        opened.writeframes(bytes(2 * round(22050 * seconds)))
    return file.getvalue()
