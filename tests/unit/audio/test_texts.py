"""Texts that stand where audio should are told apart by their first bytes; what may be audio is never taken for one."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import pytest

from shared.audio import texts
from shared.audio.texts import HEAD_BYTES, text_instead_of_audio
from tests.support.samples import SAMPLE

PAGE = "a web page; give the address of the audio file itself"
FEED = "a feed, such as podcasts have; give the address of an episode's audio (its enclosure)"


def playlist(kind: str) -> str:
    return f"a playlist ({kind}); give the address of a recording"


PIECES = "in which streams come piece by piece"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<html>", PAGE),
        (" \r\n\t<!doctype HTML public ''>", PAGE),
        ("<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML'><html xmlns='x'>", PAGE),
        ("<?xml version='1.0'?><html xmlns='x'>", PAGE),
        ("<!-- saved from x -->\n<HTML>", PAGE),
        ("<!-- a comment without an end", PAGE),
        ("\ufeff<html>ü", PAGE),
        ("<script>location = '/login'</script>", PAGE),
        ("<p>Please log in", PAGE),
        ("[playlist]\nFile1=x", playlist("PLS")),
        ("\ufeff[Playlist]\r\nFile1=x", playlist("PLS")),
        ("[Reference]\nRef1=http://x", playlist("ASX")),
        ("#EXTM3U", playlist("M3U")),
        ("\n#extm3u\nsong.mp3", playlist("M3U")),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8", playlist(f"HLS, {PIECES}")),
        ("https://example.org/a.mp3\nhttps://example.org/b.mp3\n", playlist("M3U")),
        ("<?xml version='1.0'?><playlist version='1'>", playlist("XSPF")),
        ("<ASX version='3.0'>", playlist("ASX")),
        ("<?xml version='1.0'?><!-- x --><MPD profiles='x'>", playlist(f"DASH, {PIECES}")),
        ("<?xml version='1.0'?><?xml-stylesheet href='x'?><rss version='2.0'>", FEED),
        ("<feed xmlns='http://www.w3.org/2005/Atom'>", FEED),
    ],
)
def test_a_text_says_what_it_is(text: str, what: str) -> None:
    assert text_instead_of_audio(text.encode()) == what
    assert text_instead_of_audio(text.removeprefix("\ufeff").encode("utf-16")) == what


@pytest.mark.parametrize(
    ("media_type", "what"),
    [
        ("text/html", PAGE),
        ("audio/x-mpegurl", "a playlist; give the address of a recording"),
        ("application/json", "a text (application/json); give the address of the audio file itself"),
        ("application/problem+json", "a text (application/problem+json); give the address of the audio file itself"),
        ("text/plain", "a text (text/plain); give the address of the audio file itself"),
        ("audio/mpeg", None),
        ("", None),
    ],
)
def test_a_text_that_says_nothing_is_what_its_server_calls_it(media_type: str, what: str | None) -> None:
    assert text_instead_of_audio(b'{"error": "no such song"}', media_type) == what
    assert text_instead_of_audio("Bitte später".encode("latin-1"), media_type) == what


def test_no_music_is_taken_for_a_text_whatever_its_server_calls_it(tmp_path: Path) -> None:
    music = SAMPLE.read_bytes()
    beginnings = [
        music,
        music[5000:],
        bytes(10_000),
        os.urandom(HEAD_BYTES),
        b"<html>" + music,
        b"\xff\xfe" + os.urandom(400),
        b"RIFF\x24\x08\x00\x00WAVEfmt ",
        b"OggS\x00\x02",
        b"fLaC\x00\x00\x00\x22",
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n" + music,
        b"",
        b" \r\n",
    ]
    for beginning in beginnings:
        assert text_instead_of_audio(beginning[:HEAD_BYTES]) is None
        if not beginning.startswith(b"\xff\xfe"):
            assert text_instead_of_audio(beginning[:HEAD_BYTES], "text/html") is None


def test_a_text_made_to_take_long_is_judged_at_once() -> None:
    for piece in (b"<!>", b"<!---->", b"<??>", b"<!-- ", b"<!", b"< ", b"[", b"#", b"\n"):
        text_instead_of_audio((piece * HEAD_BYTES)[:HEAD_BYTES], "text/html")


def test_the_example_in_the_documentation_runs() -> None:
    assert doctest.testmod(texts).failed == 0
