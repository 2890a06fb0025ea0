"""Spotify's Web API through spotipy: names of a track, and its audio features if Spotify provides them to this app.

Client credentials only: nothing here acts for a user. spotipy's own retries are off, because they sleep as long as
Spotify asks, which can be hours.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import spotipy
from spotipy.cache_handler import MemoryCacheHandler
from spotipy.oauth2 import SpotifyClientCredentials

from shared.contracts.audio_features import AUDIO_FEATURES, AudioFeatures
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.contracts.messages import LONGEST_ISRC, LONGEST_TEXT
from shared.contracts.tracks import MAX_URL_LENGTH
from shared.system.limited_calls import CallTimeoutError, LimitedCalls

# spotipy's debug log contains headers with the secret and the tokens. Its errors are raised here anyway.
for _logger in ("spotipy.client", "spotipy.oauth2"):
    logging.getLogger(_logger).addFilter(lambda record: False)

#: How long to skip audio features after Spotify has refused them to this app, seconds.
_CLOSED_FOR_S: Final = 3600.0
#: How long to skip audio features after Spotify was too slow, seconds. They can be measured instead.
_SLOW_FOR_S: Final = 30.0
#: Concurrent calls. An abandoned call goes on in the background until ``requests`` ends it.
_MOST_AT_ONCE: Final = 64
#: The wait, in seconds, if Spotify asks for one without a length.
_DEFAULT_RETRY_AFTER_S: Final = 30.0
#: A token is renewed this many seconds before it expires.
_TOKEN_MARGIN_S: Final = 60.0
#: Errors from an answer of an unexpected shape, in spotipy or here.
_NONSENSE: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError)
#: A standard OAuth error (``invalid_client``). Any other text may be a whole page, or repeat the request.
_ERROR_NAME: Final = re.compile(r"[a-z_]{3,40}")


@dataclass(frozen=True, slots=True)
class SpotifyCredentials:
    """An app's credentials. Their representation hides the secret."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SpotifyTrack:
    """``duration_s`` in seconds; ``preview_url`` is an MP3 of about 30 s, or None."""

    title: str
    artist: str
    isrc: str | None
    preview_url: str | None
    duration_s: float


class SpotifyClient:
    """Safe from many threads, whose calls run side by side.

    Faults are typed: TransientError (with the wait Spotify asks for) if a retry may help, else TonestreamError. During
    a wait, calls fail at once.
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
        self._credentials = credentials
        self._api_url = api_url
        self._token_url = token_url
        self._timeout_s = timeout_s
        self._clock = clock
        # requests' sessions are not thread-safe, so a call takes an idle one or makes another.
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls = LimitedCalls("spotify", _MOST_AT_ONCE)
        self._token = _SharedToken(self._ask_token)
        self._lock = threading.Lock()  # guards the two times below
        self._not_before = 0.0
        self._features_closed_until = 0.0
        self._features_slow_until = 0.0

    def track(
        self, track_id: str, timeout_s: float | None = None, abandoned: threading.Event | None = None
    ) -> SpotifyTrack:
        """Title, artist, ISRC and preview of the track with that ID (22 characters).

        ``timeout_s`` replaces the client's timeout if it is shorter. AbandonedError once ``abandoned`` is set.
        """
        found = self._ask(lambda api: api.track(track_id), timeout_s, abandoned)
        try:
            return SpotifyTrack(
                title=_text(str(found["name"] or "")),
                # A classical recording may have more performers than fit into a message.
                artist=_text(", ".join(str(artist["name"]) for artist in found["artists"] if artist["name"])),
                isrc=_name_or_none((found.get("external_ids") or {}).get("isrc"), LONGEST_ISRC),
                preview_url=_name_or_none(found.get("preview_url"), MAX_URL_LENGTH),
                duration_s=_number(found["duration_ms"]) / 1000.0,
            )
        except _NONSENSE as error:
            raise _no_sense(error) from error

    def audio_features(self, track_id: str) -> AudioFeatures:
        """The ten audio features. Spotify refuses them to apps registered since 27 November 2024."""
        if self._clock() < self._features_closed_until:
            raise _features_closed()
        if self._clock() < self._features_slow_until:
            raise _SlowError("Spotify did not answer in time a moment ago")
        try:
            found = self._ask(lambda api: api.audio_features([track_id]))
        except _SlowError:
            with self._lock:
                self._features_slow_until = self._clock() + _SLOW_FOR_S
            raise
        except _ForbiddenError:
            with self._lock:
                self._features_closed_until = self._clock() + _CLOSED_FOR_S
            raise _features_closed() from None
        try:
            features = found[0]
            if features is not None:
                return AudioFeatures(**{name: _number(features[name]) for name in AUDIO_FEATURES})
        except _NONSENSE as error:
            raise _no_sense(error) from error
        raise TonestreamError(ErrorCode.SPOTIFY_UNAVAILABLE, "Spotify has no audio features for this track")

    def _ask(
        self, ask: Callable[[Any], Any], timeout_s: float | None = None, abandoned: threading.Event | None = None
    ) -> Any:
        """Spotify's answer to a call of its API, or a typed fault. The timeout covers the whole call. The timeouts of
        ``requests`` cover neither name resolution nor a slowly dripping answer."""
        limit_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        try:
            return self._calls.call(lambda: self._ask_with_token(ask), limit_s, abandoned)
        except CallTimeoutError:
            raise _SlowError("Spotify did not answer in time") from None

    def _ask_with_token(self, ask: Callable[[Any], Any]) -> Any:
        token = self._access_token()
        try:
            return self._ask_once(ask, token)
        except _TokenRefusedError:
            # Spotify revoked the token early. Another one may work.
            self._token.forget(token)
            return self._ask_once(ask, self._access_token())

    def _access_token(self) -> str:
        self._hold_back()
        return self._token.get()

    def _hold_back(self) -> None:
        wait_s = self._not_before - self._clock()
        if wait_s > 0:
            raise _rate_limited(wait_s)

    def _ask_once(self, ask: Callable[[Any], Any], token: str) -> Any:
        self._hold_back()  # another thread may have received a Retry-After since
        api = self._api()
        api.set_auth(token)
        try:
            with self._typed_faults(self._refused):
                return ask(api)
        finally:
            self._idle.put(api)

    def _ask_token(self) -> tuple[str, float]:
        """A new token and its expiry by ``time.monotonic``."""
        with self._typed_faults(self._refused_token):
            tokens = SpotifyClientCredentials(
                client_id=self._credentials.client_id,
                client_secret=self._credentials.client_secret,
                requests_session=requests.Session(),
                requests_timeout=self._timeout_s,
                cache_handler=MemoryCacheHandler(),
            )
            if self._token_url is not None:
                tokens.OAUTH_TOKEN_URL = self._token_url
            asked_at = time.monotonic()
            token = str(tokens.get_access_token(as_dict=False))
            lasts_s = _number(tokens.cache_handler.get_cached_token()["expires_in"])
            return token, asked_at + lasts_s - _TOKEN_MARGIN_S

    def _api(self) -> Any:
        """A client of spotipy that no other call uses."""
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        # A plain session. spotipy's own turns a 429 into an error without its Retry-After.
        api = spotipy.Spotify(
            requests_session=requests.Session(), requests_timeout=self._timeout_s, retries=0, status_retries=0
        )
        if self._api_url is not None:
            api.prefix = self._api_url.rstrip("/") + "/"
        return api

    @contextlib.contextmanager
    def _typed_faults(self, refused: Callable[[int, Mapping[str, str], Exception], TonestreamError]) -> Iterator[None]:
        """Errors within the block become typed errors; ``refused`` converts an HTTP error."""
        try:
            yield
        except UnicodeEncodeError:
            # Not chained: the exception holds the secret.
            raise _credentials_refused("they hold characters that no credentials have") from None
        except requests.Timeout as error:
            raise _SlowError("Spotify did not answer in time") from error
        except (spotipy.SpotifyBaseException, requests.RequestException, *_NONSENSE) as error:
            # Not chained: spotipy's text contains the server's, which may repeat the request.
            raise _told(error, refused) from None

    def _refused(self, status: int, headers: Mapping[str, str], error: Exception) -> TonestreamError:
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
        with self._lock:  # the longest wait counts
            self._not_before = max(self._not_before, self._clock() + asked)
        return _rate_limited(asked)


class _SharedToken:
    """The app's access token. One thread requests it while the others wait for the outcome."""

    def __init__(self, ask: Callable[[], tuple[str, float]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking: Future[str] | None = None
        self._token = ""
        self._good_until = 0.0

    def get(self) -> str:
        """The valid token, or a new one. Raises the errors of the request."""
        with self._lock:
            if time.monotonic() < self._good_until:
                return self._token
            asking, first = self._asking, self._asking is None
            if asking is None:
                asking = self._asking = Future()
        if first:
            self._ask_for(asking)
        return asking.result()

    def forget(self, token: str) -> None:
        """Drop that token, unless it has been replaced already."""
        with self._lock:
            if token == self._token:
                self._good_until = 0.0

    def _ask_for(self, asking: Future[str]) -> None:
        try:
            token, good_until = self._ask()
        except BaseException as error:
            with self._lock:
                self._asking = None
            asking.set_exception(error)
            return
        with self._lock:
            self._token, self._good_until, self._asking = token, good_until, None
        asking.set_result(token)


class _SlowError(TransientError):
    """Spotify exceeded the timeout."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.SPOTIFY_UNAVAILABLE, message)


class _ForbiddenError(TonestreamError):
    """Status 403: the app lacks the permission."""


class _TokenRefusedError(TonestreamError):
    """Status 401: the token is invalid or has expired."""


def _told(error: Exception, refused: Callable[[int, Mapping[str, str], Exception], TonestreamError]) -> TonestreamError:
    # spotipy raises while it handles the HTTP error, sometimes by mistake. So an HTTP error in the context counts
    # first.
    response = error.__context__.response if isinstance(error.__context__, requests.HTTPError) else None
    if response is not None:
        return refused(response.status_code, response.headers, error)
    if isinstance(error, spotipy.SpotifyException):
        return refused(error.http_status, error.headers or {}, error)
    if isinstance(error, requests.RequestException) and not isinstance(error, ValueError):
        return TransientError(ErrorCode.SPOTIFY_UNAVAILABLE, f"Spotify cannot be reached ({type(error).__name__})")
    return _no_sense(error)


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


def _text(text: str) -> str:
    """``text`` as a message can carry it: truncated, and without the lone surrogates that JSON can contain."""
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def _name_or_none(value: Any, most: int) -> str | None:
    """An identifier; None if it is missing or too long, because a truncated one is useless."""
    return value if isinstance(value, str) and value.isascii() and len(value) <= most else None


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
