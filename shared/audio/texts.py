"""Recognises texts in place of audio: web pages, playlists, feeds.

The first bytes tell which, and the error says what helps. The server's content type counts only if the file is a text.
No audio format passes for one, because all begin with bytes that no text contains.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

#: How much of a file is examined, in bytes. A PHP warning in front of a song is shorter.
HEAD_BYTES: Final = 4096

#: Bytes that no text contains (WHATWG MIME Sniffing Standard, section 3).
_BINARY: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
#: The first elements of web pages (the same standard, section 7.1), and two more that occur.
_HTML: Final = frozenset(
    {
        "html", "head", "script", "iframe", "h1", "div", "font", "table", "a", "style", "title", "b", "body", "br", "p",
        "meta", "link",
    }
)  # fmt: skip
_PLAYLIST_ELEMENTS: Final = {
    "playlist": "XSPF",
    "asx": "ASX",
    "smil": "SMIL",
    "mpd": "DASH, in which streams come piece by piece",
}
_FEEDS: Final = frozenset({"rss", "feed", "rdf:rdf"})
_PLAYLIST_SECTIONS: Final = {"[playlist]": "PLS", "[reference]": "ASX"}
_ELEMENT: Final = re.compile(r"<([a-z][a-z0-9:_-]*)", re.IGNORECASE)
_HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
#: Content types of playlists, and of live streams that come as playlists.
_PLAYLIST_TYPES: Final = frozenset(
    {
        "application/vnd.apple.mpegurl", "application/x-mpegurl", "application/mpegurl", "audio/mpegurl",
        "audio/x-mpegurl", "audio/x-scpls", "audio/scpls", "application/pls+xml", "application/xspf+xml",
        "application/dash+xml", "video/x-ms-asf-plugin", "audio/x-ms-wax",
    }
)  # fmt: skip
_TEXT_TYPES: Final = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml|javascript)")


def text_instead_of_audio(head: bytes, media_type: str = "") -> str | None:
    """What the text is, and what helps; None if ``head`` may be audio, or is an unknown text.

    ``head`` are the first ``HEAD_BYTES`` of a file, or the whole file. ``media_type`` is the server's content type.

    >>> text_instead_of_audio(b"[playlist]\\nFile1=http://example.org/")
    'a playlist (PLS); give the address of a recording'
    """
    text = _text(head)
    if text is None:
        return None
    root = _root(text)
    if playlist := _PLAYLIST_ELEMENTS.get(root) or _playlist(text):
        return f"a playlist ({playlist}); give the address of a recording"
    if root in _FEEDS:
        return "a feed, such as podcasts have; give the address of an episode's audio (its enclosure)"
    if root in _HTML or media_type in _HTML_TYPES:
        return "a web page; give the address of the audio file itself"
    if media_type in _PLAYLIST_TYPES:
        return "a playlist; give the address of a recording"
    if _TEXT_TYPES.fullmatch(media_type):
        return f"a text ({media_type[:40]}); give the address of the audio file itself"
    return None


def _text(head: bytes) -> str | None:
    """``head`` as text without leading white space; None if it is no text. Only ASCII characters matter here."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        wide = head.decode("utf-16", "replace").lstrip()
        return wide if wide.startswith(("<", "#", "[", "http")) else None
    if _BINARY.search(head):
        return None
    return head.removeprefix(codecs.BOM_UTF8).decode("latin-1").lstrip() or None


def _root(text: str) -> str:
    """The first element of an XML or HTML text, in lower case; empty for any other text."""
    while text.startswith(("<?", "<!")):
        if text[:14].lower() == "<!doctype html":
            return "html"
        end = "-->" if text.startswith("<!--") else ">"
        inside, closed, text = text.partition(end)
        if not closed:
            return "html" if inside.startswith("<!--") else ""
        text = text.lstrip()
    found = _ELEMENT.match(text)
    return found[1].lower() if found else ""


def _playlist(text: str) -> str | None:
    """The kind of a playlist that is not XML."""
    first = text.split(maxsplit=1)[0].lower()
    if first in _PLAYLIST_SECTIONS:
        return _PLAYLIST_SECTIONS[first]
    if first.startswith("#extm3u"):
        return "HLS, in which streams come piece by piece" if "#EXT-X-" in text else "M3U"
    return "M3U" if first.startswith(("http://", "https://")) else None
