"""The Spotify client of an installation. Only with credentials are the packages imported that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.settings import Settings

if TYPE_CHECKING:
    from shared.spotify.client import SpotifyClient


def spotify_client(settings: Settings) -> SpotifyClient | None:
    """The client of this installation; None without credentials."""
    if settings.spotify_client_id is None or settings.spotify_client_secret is None:
        return None
    from shared.spotify.client import SpotifyClient, SpotifyCredentials

    return SpotifyClient(
        SpotifyCredentials(settings.spotify_client_id, settings.spotify_client_secret.get_secret_value()),
        api_url=settings.spotify_api_url,
        token_url=settings.spotify_token_url,
    )
