"""Names of tracks: Spotify IDs, audio URLs, blob references, and the record key that follows from them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote_to_bytes, urlsplit

#: Scheme of a reference into the blob store, e.g. ``blob:uploads/4f2a...``.
BLOB_SCHEME: Final = "blob:"
#: Scheme of a file of the machine that ingestion runs on, e.g. ``file:///music/song.mp3``.
FILE_SCHEME: Final = "file:"
#: Signed addresses of object stores are long: a session token alone may have thousands of characters.
MAX_URL_LENGTH: Final = 8192
#: Object stores take names of 1,024 bytes, the folder of all blobs included.
MAX_BLOB_LENGTH: Final = 300

_SPOTIFY_ID: Final = re.compile(r"[0-9A-Za-z]{22}")
#: An ID in which copying lost or doubled a character.
_NEARLY_SPOTIFY_ID: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Z])(?=.*[a-z])(?:[0-9A-Za-z]{20,21}|[0-9A-Za-z]{23,24})")
_SPOTIFY_SCHEME: Final = "spotify:"
_SPOTIFY_HOSTS: Final = frozenset({"open.spotify.com", "play.spotify.com", "embed.spotify.com"})
_SHORT_LINK_HOSTS: Final = frozenset({"spotify.link", "spotify.app.link", "spoti.fi"})
_ANY_HOST: Final = "|".join(re.escape(host) for host in sorted(_SPOTIFY_HOSTS | _SHORT_LINK_HOSTS))
#: An address of Spotify as people paste it: with its scheme or without.
_SPOTIFY_ADDRESS: Final = re.compile(
    rf"(?:https?:)?(?://)?({_ANY_HOST})\.?(?::[0-9]+)?(?=[/?#]|$)",
    re.IGNORECASE,
)
#: Parts of a path before the kind and the ID: a language, or the player that other sites embed.
_BEFORE_THE_KIND: Final = re.compile(r"intl-[a-z-]+|embed(?:-podcast)?", re.IGNORECASE)
_WORD: Final = re.compile(r"[a-z]+", re.IGNORECASE)
_BLOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def spotify_track_id(text: str) -> str:
    """The 22 base-62 characters of a Spotify track, from an ID, a ``spotify:track:`` URI or an open.spotify.com URL.

    Raises ValueError for anything else, with the reason and what helps: albums, short links, local files, IDs that
    lost a character.
    """
    text = text.strip()
    if _SPOTIFY_ID.fullmatch(text):
        return text
    if text.lower().startswith(_SPOTIFY_SCHEME):
        return _track_of_uri(text)
    if address := _SPOTIFY_ADDRESS.match(text):
        if address[1].lower() in _SHORT_LINK_HOSTS:
            raise ValueError(
                "a short link of Spotify does not name its track; open it in a browser and give the address that it"
                " leads to (https://open.spotify.com/track/...)"
            )
        return _track_of_address(_split(f"https://{address[1]}{text[address.end() :]}"))
    if _NEARLY_SPOTIFY_ID.fullmatch(text):
        raise _wrong_length(text)
    _split(text)
    # The error does not quote the URL, which may hold a password or a signature.
    shown = "a URL of another site" if "://" in text else _short(text)
    raise ValueError(f"not a Spotify track ID, URI or open.spotify.com URL: {shown}")


def _track_of_uri(uri: str) -> str:
    """The ID in a URI such as ``spotify:track:ID``. Its case and a query after the ID (``?si=...``) do not count."""
    named = re.split("[?#]", uri[len(_SPOTIFY_SCHEME) :])[0]
    parts = [part for part in re.split("[:/]", named) if part]
    if parts and parts[0].lower() == "local":
        raise ValueError(
            "it names a local file, which only the computer of whoever added it to Spotify has; give the file itself,"
            " or an audio_url"
        )
    return _track_of(parts, f"the Spotify URI names no track: {_short(uri)}")


def _track_of_address(url: SplitResult) -> str:
    embedded = parse_qs(url.query).get("uri", [""])[0]
    if embedded.lower().startswith(_SPOTIFY_SCHEME):  # as in the address of the old player for other sites
        return _track_of_uri(embedded)
    parts = [part for part in url.path.split("/") if part]
    while parts and _BEFORE_THE_KIND.fullmatch(parts[0]):
        parts.pop(0)
    return _track_of(parts, f"the Spotify URL names no track: {_short(url.path)}")


def _track_of(parts: Sequence[str], nothing: str) -> str:
    """The ID in ``track``, ``ID``. Raises ValueError, with the text ``nothing`` if these are no kind and ID."""
    if len(parts) > 2 and parts[0].lower() == "user":
        parts = parts[2:]
    if not parts or not _WORD.fullmatch(parts[0]):
        raise ValueError(nothing)
    kind = parts[0].lower()
    if kind != "track":
        named = f"it names a Spotify {kind}; only single tracks can be classified"
        raise ValueError(named if len(parts) > 1 else nothing)
    if len(parts) != 2 or not parts[1].isascii() or not parts[1].isalnum():
        raise ValueError(nothing)
    if not _SPOTIFY_ID.fullmatch(parts[1]):
        raise _wrong_length(parts[1])
    return parts[1]


def _wrong_length(identifier: str) -> ValueError:
    return ValueError(f"a Spotify ID has 22 letters and digits; this one has {len(identifier)}")


def looks_like_spotify(text: str) -> bool:
    """Whether this text refers to Spotify. It may still be no valid track."""
    text = text.strip()
    named = _SPOTIFY_ID.fullmatch(text) or _NEARLY_SPOTIFY_ID.fullmatch(text) or _SPOTIFY_ADDRESS.match(text)
    return bool(named) or text.lower().startswith(_SPOTIFY_SCHEME)


def checked_audio_url(text: str) -> str:
    """A URL (http, https, file) or a ``blob:`` reference, as it was given. Raises ValueError with the reason."""
    text = text.strip()
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"may have at most {MAX_URL_LENGTH} characters; this one has {len(text)}")
    if text.startswith(BLOB_SCHEME):
        if not _BLOB_NAME.fullmatch(text.removeprefix(BLOB_SCHEME)):
            raise ValueError(
                "a blob reference is 'blob:' and a name of letters, digits and . _ -, with / between its parts, each of"
                " which begins with a letter or digit"
            )
        if len(text) > MAX_BLOB_LENGTH:
            raise ValueError(f"a blob reference may have at most {MAX_BLOB_LENGTH} characters")
        return text
    if text.lower().startswith(_SPOTIFY_SCHEME) or _SPOTIFY_ADDRESS.match(text):
        spotify_track_id(text)
        raise ValueError("it names a Spotify track and leads to no audio file; give it as track_id")
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("a URL holds no spaces or control characters; percent-encode them")
    if text.lower().startswith(FILE_SCHEME):
        path_of_file_url(text)
        return text
    url = _split(text)
    if url.scheme.lower() not in {"http", "https"}:
        if not url.scheme:
            raise ValueError("a URL begins with http:// or https://")
        raise ValueError(f"only http, https and file URLs can be fetched; this one has the scheme {url.scheme[:40]!r}")
    if not url.hostname:
        raise ValueError("the URL names no host")
    return text


def path_of_file_url(url: str) -> str:
    """The absolute path that a ``file:`` URL names on the machine that reads it. Raises ValueError with the reason."""
    found = _split(url)
    if found.netloc.lower() not in {"", "localhost"} or not found.path.startswith("/"):
        raise ValueError("a file URL names an absolute path and no host: file:///music/song.mp3")
    if found.query or found.fragment:
        raise ValueError("? and # in a file URL are to be percent-encoded: %3F and %23")
    path = os.fsdecode(unquote_to_bytes(found.path))
    if "\0" in path:
        raise ValueError("no path holds a zero byte")
    return path


def without_credentials(text: str) -> str:
    """``text`` with the user and the password of a URL masked; any other text unchanged.

    The query stays, even with a signature, because it is part of the track's name.
    """
    head, separator, rest = text.partition("://")
    if not separator or "@" not in rest:
        return text
    try:
        url = _split(text)
        credentials = url.netloc.rpartition("@")[0] if "@" in url.netloc else ""
    except ValueError:  # a sign in the password ends the host too early, so the host is ambiguous
        credentials = rest.rpartition("@")[0]
    return f"{head}://***{rest[len(credentials) :]}" if credentials else text


def _split(text: str) -> SplitResult:
    """The parts of a URL. Raises ValueError, which unlike the error of ``urlsplit`` quotes none of them."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise ValueError("the URL's host or port cannot be read") from None
    return url


def track_key(spotify_id: str | None, audio_url: str | None) -> str:
    """The key a track travels under: the same request for the same track always gets the same one."""
    if spotify_id is not None:
        return f"spotify:{spotify_id}"
    if audio_url is None:
        raise ValueError("a track has a Spotify ID, an audio URL or both")
    kind = "blob" if audio_url.startswith(BLOB_SCHEME) else "url"  # a file URL is one, too
    return f"{kind}:{hashlib.sha256(audio_url.encode()).hexdigest()[:32]}"


def _short(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
