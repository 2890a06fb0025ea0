"""Spotify's Web API through spotipy: names of a track, and its audio features where Spotify still gives them.

Client credentials only: nothing here acts for a user. spotipy's own retries are off: they sleep as long as Spotify
asks, which can be hours.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import spotipy
from spotipy.cache_handler import MemoryCacheHandler
from spotipy.oauth2 import SpotifyClientCredentials

from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.contracts.features import AUDIO_FEATURES, AudioFeatures
from shared.settings import Settings

# spotipy writes headers to its debug log, the secret and the tokens among them. Its errors are raised here anyway.
for _logger in ("spotipy.client", "spotipy.oauth2"):
    logging.getLogger(_logger).addFilter(lambda record: False)

#: Once Spotify has said that this app may not read audio features, it is not asked again for so many seconds.
_CLOSED_FOR_S: Final = 3600.0
#: The wait, in seconds, where Spotify asks for one without saying how long.
_DEFAULT_RETRY_AFTER_S: Final = 30.0
#: What an answer of another shape than Spotify's leads to, in spotipy or here.
_NONSENSE: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError)
#: An OAuth error as the standard has it (``invalid_client``). Anything else may be a whole page, or repeat the request.
_ERROR_NAME: Final = re.compile(r"[a-z_]{3,40}")


@dataclass(frozen=True, slots=True)
class SpotifyCredentials:
    """An app's credentials. The secret is never shown."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SpotifyTrack:
    """``duration_s`` in seconds; ``preview_url`` leads to an MP3 of some 30 s, where there is one."""

    title: str
    artist: str
    isrc: str | None
    preview_url: str | None
    duration_s: float


class SpotifyClient:
    """Safe from many threads.

    Faults are typed: TransientError (with the wait Spotify asks for) where another try may help, TonestreamError where
    it will not. While a wait is on, calls fail at once instead of asking again.
    """

    def __init__(
        self,
        credentials: SpotifyCredentials,
        *,
        api_url: str | None = None,
        token_url: str | None = None,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A plain session: spotipy's own would turn a 429 into an error that has lost its Retry-After.
        session = requests.Session()
        self._tokens = tokens = SpotifyClientCredentials(
            client_id=credentials.client_id,
            client_secret=credentials.client_secret,
            requests_session=session,
            requests_timeout=timeout_s,
            cache_handler=MemoryCacheHandler(),
        )
        if token_url is not None:
            tokens.OAUTH_TOKEN_URL = token_url
        self._api = spotipy.Spotify(
            auth_manager=tokens, requests_session=session, requests_timeout=timeout_s, retries=0, status_retries=0
        )
        if api_url is not None:
            self._api.prefix = api_url.rstrip("/") + "/"
        self._lock = threading.Lock()  # requests' sessions and spotipy's token are not made for many threads
        self._clock = clock
        self._not_before = 0.0
        self._features_closed_until = 0.0

    def track(self, track_id: str) -> SpotifyTrack:
        """Title, artist, ISRC and preview of the track with that ID (22 characters)."""
        with self._lock:
            found = self._ask(lambda: self._api.track(track_id))
        try:
            return SpotifyTrack(
                title=str(found["name"] or ""),
                artist=", ".join(str(artist["name"]) for artist in found["artists"] if artist["name"]),
                isrc=(found.get("external_ids") or {}).get("isrc"),
                preview_url=found.get("preview_url"),
                duration_s=_number(found["duration_ms"]) / 1000.0,
            )
        except _NONSENSE as error:
            raise _no_sense(error) from error

    def audio_features(self, track_id: str) -> AudioFeatures:
        """The ten audio features. Apps registered since 27 November 2024 are refused them."""
        with self._lock:
            if self._clock() < self._features_closed_until:
                raise _features_closed()
            try:
                found = self._ask(lambda: self._api.audio_features([track_id]))
            except _ForbiddenError:
                self._features_closed_until = self._clock() + _CLOSED_FOR_S
                raise _features_closed() from None
        try:
            features = found[0]
            if features is not None:
                return AudioFeatures(**{name: _number(features[name]) for name in AUDIO_FEATURES})
        except _NONSENSE as error:
            raise _no_sense(error) from error
        raise TonestreamError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify has no audio features for this track")

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """With the lock held: Spotify's answer, or a typed fault."""
        wait_s = self._not_before - self._clock()
        if wait_s > 0:
            raise _rate_limited(wait_s)
        try:
            return self._ask_once(ask)
        except _TokenRefusedError:
            # Spotify withdrew the token before its time: with another it may go on.
            self._tokens.cache_handler.save_token_to_cache(None)
            return self._ask_once(ask)

    def _ask_once(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except UnicodeEncodeError:
            # Not chained: the exception holds the secret.
            raise _credentials_refused("they hold characters that no credentials have") from None
        except requests.Timeout as error:
            raise TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify did not answer in time") from error
        except (spotipy.SpotifyBaseException, requests.RequestException, *_NONSENSE) as error:
            # Not chained: spotipy's text holds whatever the server wrote, which may repeat the request.
            raise self._told(error) from None

    def _told(self, error: Exception) -> TonestreamError:
        # spotipy raises while it handles the HTTP error, now and then by mistake. Where there is one, go by that.
        response = error.__context__.response if isinstance(error.__context__, requests.HTTPError) else None
        if response is not None:
            if response.url == self._tokens.OAUTH_TOKEN_URL:
                return self._refused_token(response.status_code, response.headers, error)
            return self._refused(response.status_code, response.headers)
        if isinstance(error, spotipy.SpotifyException):
            return self._refused(error.http_status, error.headers or {})
        if isinstance(error, requests.RequestException) and not isinstance(error, ValueError):
            return TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify cannot be reached ({type(error).__name__})")
        return _no_sense(error)

    def _refused(self, status: int, headers: Mapping[str, str]) -> TonestreamError:
        if status == 429:
            return self._put_off(headers)
        if status == 401:
            return _TokenRefusedError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify does not accept the access token (401)")
        if status == 403:
            return _ForbiddenError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify refuses this app the track (403)")
        if status in {400, 404}:
            return TonestreamError(ErrorCode.INVALID_REQUEST, f"track_id: Spotify knows no such track ({status})")
        if status >= 500:
            return TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify failed ({status})")
        return TonestreamError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify answered with status {status}")

    def _refused_token(self, status: int, headers: Mapping[str, str], error: Exception) -> TonestreamError:
        if status == 429:
            return self._put_off(headers)
        if status >= 500:
            return TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify's token service failed ({status})")
        reason = str(getattr(error, "error", None))
        return _credentials_refused(reason if _ERROR_NAME.fullmatch(reason) else f"status {status}")

    def _put_off(self, headers: Mapping[str, str]) -> TransientError:
        asked = _seconds(headers.get("Retry-After"))
        self._not_before = self._clock() + asked
        return _rate_limited(asked)


class _ForbiddenError(TonestreamError):
    """Status 403: this app may not."""


class _TokenRefusedError(TonestreamError):
    """Status 401: the token does not hold, or no longer."""


def spotify_client(settings: Settings) -> SpotifyClient | None:
    """The client of this installation; None without credentials: then Spotify is never asked."""
    if settings.spotify_client_id is None or settings.spotify_client_secret is None:
        return None
    return SpotifyClient(
        SpotifyCredentials(settings.spotify_client_id, settings.spotify_client_secret.get_secret_value()),
        api_url=settings.spotify_api_url,
        token_url=settings.spotify_token_url,
    )


def _features_closed() -> TonestreamError:
    return TonestreamError(
        ErrorCode.SPOTIFY_UNAVAILABLE,
        "Spotify refuses this app the audio features (403): they are closed to apps registered since 27 November 2024",
    )


def _rate_limited(wait_s: float) -> TransientError:
    return TransientError(
        ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify asks to wait {wait_s:.0f} s (429)", retry_after_s=wait_s
    )


def _credentials_refused(reason: str) -> TonestreamError:
    return TonestreamError(
        ErrorCode.SPOTIFY_UNAVAILABLE,
        f"Spotify does not accept the credentials ({reason}); check TONESTREAM_SPOTIFY_CLIENT_ID and _SECRET",
    )


def _no_sense(error: Exception) -> TransientError:
    return TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify's answer makes no sense ({type(error).__name__})")


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, _number(retry_after))
    except (TypeError, ValueError):
        return _DEFAULT_RETRY_AFTER_S
