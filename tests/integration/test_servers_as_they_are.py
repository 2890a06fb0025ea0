"""One process against servers as they are: odd types, statuses and addresses get the genre, the rest a helpful no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from services.cli.embedded import EmbeddedPipeline
from shared.contracts.messages import TrackRequest, TrackResult
from shared.contracts.tracks import MAX_URL_LENGTH
from shared.settings import Settings
from tests.support.samples import SAMPLE
from tests.support.web_server import Exchange, WebServer

MUSIC: Final = SAMPLE.read_bytes()[: 96 * 1024]


def failing_first(answer: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """Busy the first time."""
    asked: list[str] = []

    def handle(exchange: Exchange) -> None:
        asked.append(exchange.request.path)
        if len(asked) == 1:
            exchange.answer(503)
        else:
            answer(exchange)

    return handle


@pytest.mark.timeout(120)
def test_what_servers_really_send_gets_its_genre_or_a_sentence_that_helps() -> None:
    with WebServer() as web:
        signed = web.url("/signed.mp3?X-Amz-Security-Token=").ljust(MAX_URL_LENGTH, "A")
        whole = {"Content-Range": f"bytes 0-{len(MUSIC) - 1}/{len(MUSIC)}"}
        web.add_handler("/signed.mp3", failing_first(lambda exchange: exchange.answer(200, MUSIC)))
        web.add("/php", MUSIC, headers={"Content-Type": "text/html; charset=UTF-8"})
        web.add("/plain", MUSIC, headers={"Content-Type": "text/plain"})
        web.add("/range", MUSIC, 206, whole)
        web.add("/proxy", MUSIC, 203)
        web.add("/show", MUSIC, headers={"icy-name": "x", "Content-Type": "audio/mpeg"})
        web.add("/stored", MUSIC, headers={"Content-Encoding": "aws-chunked"})
        for hop in range(10):
            web.redirect(f"/hop-{hop}", f"hop-{hop + 1}")
        web.add("/hop-10", MUSIC)
        heard = [signed, *map(web.url, ("/php", "/plain", "/range", "/proxy", "/show", "/stored", "/hop-0"))]

        web.add_handler("/radio", lambda exchange: exchange.send(b"ICY 200 OK\r\n\r\n" + MUSIC))
        web.add("/page", b"<!doctype html><title>Song</title>", headers={"Content-Type": "audio/mpeg"})
        web.add("/list.m3u8", b"#EXTM3U\n#EXT-X-VERSION:3\n", headers={"Content-Type": "text/plain"})
        refused = {"/radio": "radio stream", "/page": "a web page", "/list.m3u8": "a playlist (HLS"}

        requests = [
            TrackRequest(request_id=f"r{number}", audio_url=url)
            for number, url in enumerate([*heard, *map(web.url, refused)])
        ]
        settings = Settings.model_validate({"fetch_allow": "127.0.0.1"})
        with EmbeddedPipeline(settings) as pipeline:
            results: dict[str, TrackResult] = {one.track.source: one for one in pipeline.classify(requests)}

        labels = {genre.label if (genre := results[url].genre) else results[url].errors for url in heard}
        assert len(labels) == 1 and isinstance(next(iter(labels)), str), labels
        assert web.count(signed.removeprefix(f"http://{web.authority}")) == 2
        for path, said in refused.items():
            (error,) = {(error.code.value, error.message) for error in results[web.url(path)].errors}
            assert error[0] == "unsupported_media" and said in error[1]
            assert web.count(path) == 1, path
