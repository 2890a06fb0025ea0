"""How a track is named: Spotify IDs, audio URLs, blob references, and the key that follows from them."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

#: Scheme of a reference into the blob store, e.g. ``blob:uploads/4f2a...``.
BLOB_SCHEME: Final = "blob:"
MAX_URL_LENGTH: Final = 2048
#: Object stores take names of 1,024 bytes, the folder of all blobs included.
MAX_BLOB_LENGTH: Final = 300

_SPOTIFY_ID: Final = re.compile(r"[0-9A-Za-z]{22}")
_SPOTIFY_URI: Final = re.compile(r"spotify:([a-z]+):([0-9A-Za-z]+)")
_SPOTIFY_PATH: Final = re.compile(r"/(?:intl-[a-z-]+/)?(?:embed/)?([a-z]+)/([0-9A-Za-z]+)/?", re.IGNORECASE)
_SPOTIFY_HOST: Final = re.compile(r"https?://open\.spotify\.com(?:/|$)", re.IGNORECASE)
_BLOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def spotify_track_id(text: str) -> str:
    """The 22 base-62 characters of a Spotify track, from an ID, a ``spotify:track:`` URI or an open.spotify.com URL.

    Raises ValueError with the reason for anything else, albums and playlists included.
    """
    text = text.strip()
    if _SPOTIFY_ID.fullmatch(text):
        return text
    if uri := _SPOTIFY_URI.fullmatch(text):
        return _track_of(*uri.groups())
    url = _split(text)
    if url.scheme in {"http", "https"} and url.hostname == "open.spotify.com":
        if path := _SPOTIFY_PATH.fullmatch(url.path):
            return _track_of(*path.groups())
        raise ValueError(f"the Spotify URL names no track: {_short(url.path)}")
    # Of a URL nothing is quoted: it may hold a password or a signature.
    shown = "a URL of another site" if "://" in text else _short(text)
    raise ValueError(f"not a Spotify track ID, URI or open.spotify.com URL: {shown}")


def _track_of(kind: str, identifier: str) -> str:
    if kind.lower() != "track":
        raise ValueError(f"it names a Spotify {kind.lower()}; only single tracks can be classified")
    if not _SPOTIFY_ID.fullmatch(identifier):
        raise ValueError(f"a Spotify ID has 22 letters and digits; this one has {len(identifier)}")
    return identifier


def looks_like_spotify(text: str) -> bool:
    """Whether a person who typed this meant something on Spotify (it may still be no valid track)."""
    text = text.strip()
    return bool(_SPOTIFY_ID.fullmatch(text) or text.startswith("spotify:") or _SPOTIFY_HOST.match(text))


def checked_audio_url(text: str) -> str:
    """An ``http``/``https`` URL or a ``blob:`` reference, as it was given. Raises ValueError with the reason."""
    text = text.strip()
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"may have at most {MAX_URL_LENGTH} characters")
    if text.startswith(BLOB_SCHEME):
        if not _BLOB_NAME.fullmatch(text.removeprefix(BLOB_SCHEME)):
            raise ValueError(
                "a blob reference is 'blob:' and a name of letters, digits and . _ -, with / between its parts, each of"
                " which begins with a letter or digit"
            )
        if len(text) > MAX_BLOB_LENGTH:
            raise ValueError(f"a blob reference may have at most {MAX_BLOB_LENGTH} characters")
        return text
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("a URL holds no spaces or control characters; percent-encode them")
    url = _split(text)
    if url.scheme.lower() not in {"http", "https"}:
        if not url.scheme:
            raise ValueError("a URL begins with http:// or https://")
        raise ValueError(f"only http and https URLs can be fetched; this one has the scheme {url.scheme[:40]!r}")
    if not url.hostname:
        raise ValueError("the URL names no host")
    return text


def without_credentials(text: str) -> str:
    """``text`` with the user and the password blacked out where it is a URL with some; anything else as it is.

    A query stays, a signature in it too: it is a part of what names the track.
    """
    head, separator, rest = text.partition("://")
    if not separator or "@" not in rest:
        return text
    try:
        url = _split(text)
        credentials = url.netloc.rpartition("@")[0] if "@" in url.netloc else ""
    except ValueError:  # a sign in the password ends the host too early; where the host begins is anybody's guess
        credentials = rest.rpartition("@")[0]
    return f"{head}://***{rest[len(credentials) :]}" if credentials else text


def _split(text: str) -> SplitResult:
    """The parts of a URL. Raises ValueError, which quotes none of them, unlike that of ``urlsplit``."""
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
    kind = "blob" if audio_url.startswith(BLOB_SCHEME) else "url"
    return f"{kind}:{hashlib.sha256(audio_url.encode()).hexdigest()[:32]}"


def _short(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
