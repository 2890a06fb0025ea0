"""Spotify's Web API, as much of it as is asked: a token, a track, its audio features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import parse_qs

from tests.support.web_server import Exchange, WebServer

CLIENT_ID: Final = "client-id"
CLIENT_SECRET: Final = "s3cr3t-of-the-app"
TRACK_ID: Final = "11dFghVXANMlKmJXsNCbNl"

TRACK: Final[dict[str, Any]] = {
    "id": TRACK_ID,
    "name": "Cut To The Feeling",
    "artists": [{"name": "Carly Rae Jepsen"}, {"name": "Someone Else"}],
    "external_ids": {"isrc": "USUM71703861"},
    "preview_url": "https://p.scdn.co/mp3-preview/x",
    "duration_ms": 207959,
    "type": "track",
}
FEATURES: Final[dict[str, Any]] = {
    "id": TRACK_ID,
    "duration_ms": 207960,
    "tempo": 115.009,
    "loudness": -5.894,
    "energy": 0.896,
    "danceability": 0.695,
    "acousticness": 0.0151,
    "instrumentalness": 0.0000246,
    "liveness": 0.0594,
    "speechiness": 0.0555,
    "valence": 0.658,
    "key": 8,
    "mode": 1,
    "type": "audio_features",
}

_TOKEN: Final = "/api/token"
_FEATURES: Final = "/v1/audio-features"


class SpotifyApi:
    """Answers like Spotify for the tracks and features it is given; what it is told to break is broken."""

    def __init__(self) -> None:
        self.server = WebServer()
        self.tracks: dict[str, Any] = {TRACK_ID: TRACK}
        self.features: dict[str, Any] = {TRACK_ID: FEATURES}
        self.tokens = 0
        self.withdrawn: set[str] = set()
        self.server.add_handler(_TOKEN, self._give_token)
        self.server.add_handler(_FEATURES + "/", self._give_features)
        self.server.add_handler(_FEATURES, self._give_features)
        self.add_track(TRACK_ID, TRACK)

    @property
    def api_url(self) -> str:
        """For the client's ``api_url``."""
        return self.server.url("/v1/")

    @property
    def token_url(self) -> str:
        """For the client's ``token_url``."""
        return self.server.url(_TOKEN)

    @property
    def asked(self) -> int:
        """How many requests came in for anything but a token."""
        return sum(request.path != _TOKEN for request in list(self.server.requests))

    def add_track(self, track_id: str, track: Mapping[str, Any]) -> None:
        """Know a track."""
        self.tracks[track_id] = track
        self.server.add_handler(f"/v1/tracks/{track_id}", lambda exchange: self._give_track(exchange, track_id))

    def break_track(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Another answer to those who ask for the track."""
        self.server.add(f"/v1/tracks/{TRACK_ID}", body, status, headers)

    def break_features(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Another answer to those who ask for audio features."""
        for path in (_FEATURES, _FEATURES + "/"):
            self.server.add(path, body, status, headers)

    def break_token(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Another answer to those who ask for a token."""
        self.server.add(_TOKEN, body, status, headers)

    def withdraw_tokens(self) -> None:
        """Let no token hold that was given until now."""
        self.withdrawn |= {f"Bearer token-{number}" for number in range(1, self.tokens + 1)}

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.close()

    def _give_token(self, exchange: Exchange) -> None:
        self.tokens += 1
        answer = {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": 3600}
        _answer_json(exchange, 200, answer)

    def _give_track(self, exchange: Exchange, track_id: str) -> None:
        if self._lets_in(exchange):
            _answer_json(exchange, 200, self.tracks[track_id])

    def _give_features(self, exchange: Exchange) -> None:
        if self._lets_in(exchange):
            ids = parse_qs(exchange.request.path.partition("?")[2])["ids"][0].split(",")
            _answer_json(exchange, 200, {"audio_features": [self.features.get(track_id) for track_id in ids]})

    def _lets_in(self, exchange: Exchange) -> bool:
        shown = exchange.request.headers.get("authorization", "")
        if shown.startswith("Bearer token-") and shown not in self.withdrawn:
            return True
        _answer_json(exchange, 401, {"error": {"status": 401, "message": "The access token expired"}})
        return False


def _answer_json(exchange: Exchange, status: int, answer: Any) -> None:
    exchange.answer(status, json.dumps(answer).encode(), {"Content-Type": "application/json; charset=utf-8"})
