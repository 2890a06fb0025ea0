"""All that is kept of requests while they are under way, as one service sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import redis

from shared.state.coalescing import Followers
from shared.state.connection import Keys
from shared.state.fences import Fences
from shared.state.parts import VoteState
from shared.state.requests import Requests


@dataclass(frozen=True, slots=True)
class RequestState:
    """The parts of it, over one connection. The records of the service may write, as long as they are its own."""

    fences: Fences
    requests: Requests
    followers: Followers
    votes: VoteState

    @classmethod
    def open(cls, client: redis.Redis, keys: Keys, service: str, ttl_s: int, deadline_s: float) -> Self:
        """``ttl_s``: how long a request is remembered. ``deadline_s``: how long one without news is waited for."""
        fences = Fences(keys, service)
        requests = Requests(client, keys, fences, ttl_s)
        return cls(
            fences,
            requests,
            Followers(client, keys, requests, fences, ttl_s, deadline_s),
            VoteState(client, keys, requests, fences, ttl_s, deadline_s),
        )
