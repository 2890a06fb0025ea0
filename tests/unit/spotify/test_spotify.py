"""The Spotify client against a server that speaks Spotify's Web API, well and badly."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.spotify.client import SpotifyClient, SpotifyCredentials, SpotifyTrack
from tests.support.processes import free_port
from tests.support.spotify_api import CLIENT_ID, CLIENT_SECRET, FEATURES, TRACK, TRACK_ID, SpotifyApi
from tests.support.web_server import Exchange

UNKNOWN_ID = "0000000000000000000000"


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def spotify() -> Iterator[SpotifyApi]:
    with SpotifyApi() as api:
        yield api


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(spotify: SpotifyApi, clock: Clock) -> SpotifyClient:
    return client_of(spotify, clock)


def client_of(
    spotify: SpotifyApi,
    clock: Callable[[], float] = time.monotonic,
    secret: str = CLIENT_SECRET,
    timeout_s: float = 5.0,
) -> SpotifyClient:
    return SpotifyClient(
        SpotifyCredentials(CLIENT_ID, secret),
        api_url=spotify.api_url,
        token_url=spotify.token_url,
        timeout_s=timeout_s,
        clock=clock,
    )


def fault(call: Callable[[], object]) -> TonestreamError:
    """The fault of a call, which comes at once: nothing here may sleep."""
    started = time.monotonic()
    with pytest.raises(TonestreamError) as caught:
        call()
    assert time.monotonic() - started < 2.0
    return caught.value


def test_a_track_comes_with_its_names_its_isrc_and_its_preview(client: SpotifyClient) -> None:
    assert client.track(TRACK_ID) == SpotifyTrack(
        title="Cut To The Feeling",
        artist="Carly Rae Jepsen, Someone Else",
        isrc="USUM71703861",
        preview_url="https://p.scdn.co/mp3-preview/x",
        duration_s=207.959,
    )


def test_names_that_no_message_can_carry_are_cut_or_left_out(client: SpotifyClient, spotify: SpotifyApi) -> None:
    """A client chooses the track: what Spotify calls it must not become a defect of ours."""
    odd = {
        **TRACK,
        "name": "half \ud800 " + "n" * 2000,
        "artists": [{"name": f"Performer {number}"} for number in range(500)],
        "external_ids": {"isrc": "X" * 33},
        "preview_url": ["https://p.scdn.co/x"],
    }
    spotify.add_track(TRACK_ID, odd)
    found = client.track(TRACK_ID)
    assert (len(found.title), len(found.artist), found.isrc, found.preview_url) == (1000, 1000, None, None)
    assert found.title.startswith("half ? ")


@pytest.mark.parametrize("missing", [{"external_ids": None, "preview_url": None}, {"external_ids": {}}])
def test_a_track_may_lack_an_isrc_and_a_preview(
    spotify: SpotifyApi, client: SpotifyClient, missing: dict[str, object]
) -> None:
    bare = {key: value for key, value in TRACK.items() if key not in {"external_ids", "preview_url"}}
    spotify.add_track(TRACK_ID, bare | missing)
    found = client.track(TRACK_ID)
    assert (found.isrc, found.preview_url, found.title) == (None, None, "Cut To The Feeling")


def test_audio_features_come_as_the_ten_numbers_of_spotify(client: SpotifyClient) -> None:
    found = client.audio_features(TRACK_ID).as_dict()
    assert found == {name: FEATURES[name] for name in AUDIO_FEATURES}
    assert len(found) == 10


def test_one_token_serves_many_calls(spotify: SpotifyApi, client: SpotifyClient) -> None:
    for _ in range(3):
        client.track(TRACK_ID)
    assert spotify.tokens == 1


def test_a_token_withdrawn_early_is_replaced_by_a_new_one(spotify: SpotifyApi, client: SpotifyClient) -> None:
    client.track(TRACK_ID)
    spotify.withdraw_tokens()
    assert client.track(TRACK_ID).isrc == "USUM71703861"
    assert spotify.tokens == 2


def test_a_token_that_never_holds_is_a_final_fault_after_one_more_try(
    spotify: SpotifyApi, client: SpotifyClient
) -> None:
    spotify.break_track(401, b'{"error": {"status": 401, "message": "Invalid access token"}}')
    error = fault(lambda: client.track(TRACK_ID))
    assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE
    assert not isinstance(error, TransientError)
    assert spotify.asked == 2


@pytest.mark.parametrize(
    "body", [b'{"error": {"status": 403, "message": "Forbidden"}}', b'{"error": "no"}', b"", b"[]"]
)
def test_audio_features_that_are_closed_to_the_app_are_not_asked_for_again(
    spotify: SpotifyApi, client: SpotifyClient, clock: Clock, body: bytes
) -> None:
    spotify.break_features(403, body)
    for _ in range(3):
        error = fault(lambda: client.audio_features(TRACK_ID))
        assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE
        assert not isinstance(error, TransientError)
        assert "closed to apps registered since" in error.message
    assert spotify.asked == 1
    assert client.track(TRACK_ID).title == "Cut To The Feeling"
    clock.now += 3601
    fault(lambda: client.audio_features(TRACK_ID))
    assert spotify.asked == 3


def test_of_many_threads_none_asks_again_for_features_that_are_closed(
    spotify: SpotifyApi, client: SpotifyClient
) -> None:
    spotify.break_features(403)
    with ThreadPoolExecutor(8) as pool:
        faults = list(pool.map(lambda _: fault(lambda: client.audio_features(TRACK_ID)).code, range(40)))
    assert faults == [ErrorCode.SPOTIFY_UNAVAILABLE] * 40
    assert 1 <= spotify.asked <= 8


def test_wrong_credentials_are_named_as_such(spotify: SpotifyApi, client: SpotifyClient) -> None:
    spotify.break_token(400, b'{"error": "invalid_client", "error_description": "Invalid client secret"}')
    error = fault(lambda: client.track(TRACK_ID))
    assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE
    assert not isinstance(error, TransientError)
    assert "invalid_client" in error.message
    assert "TONESTREAM_SPOTIFY_CLIENT_ID" in error.message
    assert spotify.asked == 0


def test_a_token_service_that_fails_is_no_verdict_on_the_credentials(
    spotify: SpotifyApi, client: SpotifyClient
) -> None:
    for body in (b"<html>upstream is gone</html>", b'"text"', b'{"error": "server_error"}'):
        spotify.break_token(503, body)
        assert isinstance(fault(lambda: client.track(TRACK_ID)), TransientError)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"access_token": "x"}', b"null"])
def test_a_token_service_that_talks_nonsense_is_a_transient_fault(
    spotify: SpotifyApi, client: SpotifyClient, body: bytes
) -> None:
    spotify.break_token(200, body)
    error = fault(lambda: client.track(TRACK_ID))
    assert isinstance(error, TransientError)
    assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE


@pytest.mark.parametrize("where", ["track", "features", "token"])
@pytest.mark.parametrize(
    "body", [b'{"error": {"status": 429, "message": "API rate limit exceeded"}}', b'{"error": "x"}']
)
def test_a_wait_that_spotify_asks_for_is_passed_on_and_kept_without_asking_again(
    spotify: SpotifyApi, client: SpotifyClient, clock: Clock, where: str, body: bytes
) -> None:
    breaks = {"track": spotify.break_track, "features": spotify.break_features, "token": spotify.break_token}
    breaks[where](429, body, {"Retry-After": "7200"})
    call = client.audio_features if where == "features" else client.track
    error = fault(lambda: call(TRACK_ID))
    assert isinstance(error, TransientError)
    assert error.retry_after_s == 7200
    requests = len(spotify.server.requests)

    clock.now += 7000
    for waiting in (client.track, client.audio_features):
        error = fault(lambda waiting=waiting: waiting(TRACK_ID))  # type: ignore[misc]
        assert isinstance(error, TransientError)
        assert error.retry_after_s == pytest.approx(200)
    assert len(spotify.server.requests) == requests

    clock.now += 201
    fault(lambda: call(TRACK_ID))
    assert len(spotify.server.requests) > requests


@pytest.mark.parametrize("retry_after", [None, "soon", "nan", "inf", ""])
def test_a_wait_of_unknown_length_is_half_a_minute(
    spotify: SpotifyApi, client: SpotifyClient, retry_after: str | None
) -> None:
    spotify.break_track(429, headers={} if retry_after is None else {"Retry-After": retry_after})
    error = fault(lambda: client.track(TRACK_ID))
    assert isinstance(error, TransientError)
    assert error.retry_after_s == 30


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b'{"error": "text instead of an object"}', b"<html>Bad gateway</html>"])
def test_a_fault_of_spotify_is_transient(spotify: SpotifyApi, client: SpotifyClient, status: int, body: bytes) -> None:
    spotify.break_track(status, body)
    error = fault(lambda: client.track(TRACK_ID))
    assert isinstance(error, TransientError)
    assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE
    assert spotify.asked == 1


def test_a_server_that_says_nothing_is_a_transient_fault(spotify: SpotifyApi) -> None:
    spotify.server.hang(f"/v1/tracks/{TRACK_ID}")
    error = fault(lambda: client_of(spotify, timeout_s=0.2).track(TRACK_ID))
    assert isinstance(error, TransientError)
    assert "in time" in error.message


def test_a_server_that_is_not_there_is_a_transient_fault() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/"
    client = SpotifyClient(SpotifyCredentials(CLIENT_ID, CLIENT_SECRET), api_url=nowhere, token_url=nowhere)
    error = fault(lambda: client.track(TRACK_ID))
    assert isinstance(error, TransientError)
    assert "cannot be reached" in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b"null",
        b"[]",
        b"{}",
        b"7",
        b'{"name": "x", "artists": null, "duration_ms": 1}',
        b'{"name": "x", "artists": [], "duration_ms": NaN}',
        b'{"audio_features": 3}',
        b'{"audio_features": [{}]}',
    ],
)
def test_an_answer_that_makes_no_sense_is_a_transient_fault(
    spotify: SpotifyApi, client: SpotifyClient, body: bytes
) -> None:
    spotify.break_track(200, body)
    spotify.break_features(200, body)
    for call in (client.track, client.audio_features):
        error = fault(lambda call=call: call(TRACK_ID))  # type: ignore[misc]
        assert isinstance(error, TransientError)
        assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE


def test_a_track_that_spotify_does_not_know_is_an_invalid_request(client: SpotifyClient) -> None:
    for unknown in (UNKNOWN_ID, "not an id", "spotify:album:11dFghVXANMlKmJXsNCbNl"):
        error = fault(lambda unknown=unknown: client.track(unknown))  # type: ignore[misc]
        assert error.code is ErrorCode.INVALID_REQUEST
        assert error.message.startswith("track_id:")


def test_a_track_without_audio_features_is_a_final_fault(spotify: SpotifyApi, client: SpotifyClient) -> None:
    error = fault(lambda: client.audio_features(UNKNOWN_ID))
    assert error.code is ErrorCode.SPOTIFY_UNAVAILABLE
    assert not isinstance(error, TransientError)
    assert client.audio_features(TRACK_ID).tempo == 115.009


def test_the_secret_and_the_tokens_are_never_shown(
    spotify: SpotifyApi, client: SpotifyClient, caplog: pytest.LogCaptureFixture
) -> None:
    basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    caplog.set_level(logging.DEBUG)
    for name in ("spotipy", "spotipy.client", "spotipy.oauth2", "urllib3", "requests"):
        caplog.set_level(logging.DEBUG, logger=name)
    shown = [repr(client), repr(SpotifyCredentials(CLIENT_ID, CLIENT_SECRET))]

    def show(call: Callable[[], object]) -> None:
        error = fault(call)
        shown.extend([repr(error), "".join(traceback.format_exception(error))])

    client.track(TRACK_ID)
    client.audio_features(TRACK_ID)
    show(lambda: client.track(UNKNOWN_ID))
    spotify.break_track(500)
    show(lambda: client.track(TRACK_ID))
    # A token service that repeats what it was sent.
    spotify.break_token(400, f"cannot read Basic {basic}".encode())
    show(lambda: client_of(spotify).track(TRACK_ID))
    show(lambda: client_of(spotify, secret=CLIENT_SECRET + "é").track(TRACK_ID))

    assert caplog.records, "urllib3 logs at least"
    text = "\n".join(shown + [record.getMessage() for record in caplog.records] + [caplog.text])
    for secret in (CLIENT_SECRET, basic, "token-1"):
        assert secret not in text


def test_several_threads_share_a_client(spotify: SpotifyApi, client: SpotifyClient) -> None:
    def both(_: int) -> tuple[str, float]:
        return client.track(TRACK_ID).title, client.audio_features(TRACK_ID).tempo

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(both, range(24)))
    assert found == {("Cut To The Feeling", 115.009)}
    assert spotify.tokens == 1


# Side by side


def slowly(spotify: SpotifyApi, path: str, seconds: float, status: int, answer: object) -> None:
    """Answer what is asked for ``path`` after that many seconds."""

    def wait_and_answer(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.answer(status, json.dumps(answer).encode(), {"Retry-After": "7200"} if status == 429 else {})

    spotify.server.add_handler(path, wait_and_answer)


def in_threads(call: Callable[[], object], count: int = 8) -> tuple[list[object], float]:
    """What each of that many calls at once gives or raises, and the seconds all of them took."""
    together = threading.Barrier(count)

    def one(_: int) -> object:
        together.wait()
        try:
            return call()
        except TonestreamError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        started = time.monotonic()
        found = list(pool.map(one, range(count)))
    return found, time.monotonic() - started


def test_slow_answers_to_many_threads_come_side_by_side(spotify: SpotifyApi) -> None:
    client = client_of(spotify)
    client.track(TRACK_ID)
    slowly(spotify, f"/v1/tracks/{TRACK_ID}", 0.5, 200, TRACK)
    found, elapsed = in_threads(lambda: client.track(TRACK_ID).title)
    assert found == ["Cut To The Feeling"] * 8
    assert 0.5 <= elapsed < 3.0, "one after another they take 4 s"
    assert spotify.tokens == 1


def test_calls_that_hang_end_together(spotify: SpotifyApi) -> None:
    client = client_of(spotify, timeout_s=0.4)
    client.track(TRACK_ID)
    spotify.server.hang(f"/v1/tracks/{TRACK_ID}")
    found, elapsed = in_threads(lambda: client.track(TRACK_ID))
    assert all(isinstance(error, TransientError) and "in time" in error.message for error in found)
    assert elapsed < 2.4, "one after another they take longer"


def test_many_threads_without_a_token_wait_for_the_one_that_asks(spotify: SpotifyApi) -> None:
    slowly(spotify, "/api/token", 0.4, 200, {"access_token": "token-0", "token_type": "Bearer", "expires_in": 3600})
    client = client_of(spotify)
    found, elapsed = in_threads(lambda: client.track(TRACK_ID).title)
    assert found == ["Cut To The Feeling"] * 8
    assert spotify.server.count("/api/token") == 1
    assert elapsed < 2.0


def test_a_token_service_that_hangs_holds_many_threads_up_once(spotify: SpotifyApi) -> None:
    spotify.server.hang("/api/token")
    client = client_of(spotify, timeout_s=0.4)
    found, elapsed = in_threads(lambda: client.track(TRACK_ID))
    assert all(isinstance(error, TransientError) and "in time" in error.message for error in found)
    assert elapsed < 2.4, "one after another they take longer"
    spotify.server.add_handler("/api/token", spotify._give_token)
    time.sleep(0.4)  # the question that nobody waits for any more ends by itself
    assert client.track(TRACK_ID).title == "Cut To The Feeling"


def test_a_token_withdrawn_from_many_threads_at_once_is_replaced_once(spotify: SpotifyApi) -> None:
    client = client_of(spotify)
    client.track(TRACK_ID)
    spotify.withdraw_tokens()
    found, _ = in_threads(lambda: client.track(TRACK_ID).title)
    assert found == ["Cut To The Feeling"] * 8
    assert spotify.tokens == 2


def test_a_wait_that_one_thread_is_told_holds_all_of_them_back(spotify: SpotifyApi, clock: Clock) -> None:
    client = client_of(spotify, clock)
    client.track(TRACK_ID)
    slowly(spotify, f"/v1/tracks/{TRACK_ID}", 0.3, 429, {"error": {"status": 429}})
    found, elapsed = in_threads(lambda: client.track(TRACK_ID))
    assert all(isinstance(error, TransientError) and error.retry_after_s == 7200 for error in found)
    assert elapsed < 2.4, "one after another they take longer"
    asked = len(spotify.server.requests)
    found, _ = in_threads(lambda: client.audio_features(TRACK_ID))
    assert all(isinstance(error, TransientError) and error.retry_after_s == 7200 for error in found)
    assert len(spotify.server.requests) == asked


def test_of_several_waits_the_longest_holds(spotify: SpotifyApi, clock: Clock) -> None:
    """A short wait that comes in late must not end a long one."""
    client = client_of(spotify, clock)
    client._put_off({"Retry-After": "7200"})
    client._put_off({"Retry-After": "5"})
    error = fault(lambda: client.track(TRACK_ID))
    assert isinstance(error, TransientError) and error.retry_after_s == 7200
