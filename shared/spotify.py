"""Spotify's Web API through spotipy: names of a track, and its audio features where Spotify still gives them.

Client credentials only: nothing here acts for a user. spotipy's own retries are off: they sleep as long as Spotify asks,
which can be hours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

import requests
import spotipy
from spotipy.cache_handler import MemoryCacheHandler
from spotipy.oauth2 import SpotifyClientCredentials, SpotifyOauthError

from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.contracts.features import AUDIO_FEATURES
from shared.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Once Spotify has said that this app may not read audio features, it is not asked again for so many seconds.
_CLOSED_FOR_S: Final = 3600.0
#: The wait, in seconds, where Spotify asks for one without saying how long.
_DEFAULT_RETRY_AFTER_S: Final = 30.0


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


@dataclass(frozen=True, slots=True)
class SpotifyAudioFeatures:
    """The ten features in Spotify's units: ms, BPM, dB, the others 0 to 1."""

    duration_ms: float
    tempo: float
    loudness: float
    energy: float
    danceability: float
    acousticness: float
    instrumentalness: float
    liveness: float
    speechiness: float
    valence: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


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
        tokens = SpotifyClientCredentials(
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
        found = self._call(lambda: self._api.track(track_id))
        try:
            return SpotifyTrack(
                title=str(found["name"]),
                artist=", ".join(str(artist["name"]) for artist in found["artists"]),
                isrc=found.get("external_ids", {}).get("isrc"),
                preview_url=found.get("preview_url"),
                duration_s=float(found["duration_ms"]) / 1000.0,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify's answer makes no sense: {error!r}") from error

    def audio_features(self, track_id: str) -> SpotifyAudioFeatures:
        """The ten audio features. Apps registered since 27 November 2024 are refused them."""
        if self._clock() < self._features_closed_until:
            raise _features_closed()
        try:
            found = self._call(lambda: self._api.audio_features([track_id]))
        except _ForbiddenError:
            self._features_closed_until = self._clock() + _CLOSED_FOR_S
            raise _features_closed() from None
        features = found[0] if found else None
        if features is None:
            raise TonestreamError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify has no audio features for this track")
        try:
            return SpotifyAudioFeatures(**{name: float(features[name]) for name in AUDIO_FEATURES})
        except (KeyError, TypeError, ValueError) as error:
            raise TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify's answer makes no sense: {error!r}") from error

    def _call(self, ask: Callable[[], Any]) -> Any:
        with self._lock:
            wait_s = self._not_before - self._clock()
            if wait_s > 0:
                raise _rate_limited(wait_s)
            try:
                return ask()
            except spotipy.SpotifyException as error:
                raise self._told(error) from error
            except SpotifyOauthError as error:
                raise TonestreamError(
                    ErrorCode.SPOTIFY_UNAVAILABLE,
                    f"Spotify does not accept the credentials ({error.error or 'no reason given'});"
                    " check TONESTREAM_SPOTIFY_CLIENT_ID and _SECRET",
                ) from error
            except requests.Timeout as error:
                raise TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify did not answer in time") from error
            except requests.RequestException as error:
                raise TransientError(
                    ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify cannot be reached ({type(error).__name__})"
                ) from error

    def _told(self, error: spotipy.SpotifyException) -> TonestreamError:
        status = error.http_status
        if status == 429:
            asked = _seconds((error.headers or {}).get("Retry-After"))
            self._not_before = self._clock() + asked
            return _rate_limited(asked)
        if status == 401:
            return TonestreamError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify does not accept the access token (401)")
        if status == 403:
            return _ForbiddenError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify refuses this app the track (403)")
        if status in {400, 404}:
            return TonestreamError(ErrorCode.INVALID_REQUEST, f"track_id: Spotify knows no such track ({status})")
        if status >= 500:
            return TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify failed ({status})")
        return TonestreamError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify answered with status {status}")


class _ForbiddenError(TonestreamError):
    """Status 403: this app may not."""


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


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after)) if retry_after is not None else _DEFAULT_RETRY_AFTER_S
    except ValueError:
        return _DEFAULT_RETRY_AFTER_S
