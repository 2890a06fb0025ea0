"""What is left in Redis of requests that are done."""

from __future__ import annotations

from typing import cast

import redis

from shared.state.keys import Keys
from shared.state.requests import ACCEPTED_BY, ANSWER, ANSWERED_BY, CLOSED


def left_over(client: redis.Redis, keys: Keys) -> dict[str, int]:
    """Kinds of keys, and fields of requests, that are there although no request is under way; with their number."""
    found = {
        "waiting": client.zcard(keys.waiting()),
        "work": len(client.keys(keys.work("*"))),
        "owners": len(client.keys(keys.owners("*"))),
        "in-flight": len(client.keys(keys.in_flight("*"))),
    }
    for request in client.keys(keys.request("*")):
        for field in cast("list[str]", client.hkeys(str(request))):
            if field not in {ACCEPTED_BY, ANSWERED_BY, CLOSED, ANSWER}:
                kind = field.partition(":")[0].rstrip("0123456789")
                found[kind] = found.get(kind, 0) + 1
    return {kind: count for kind, count in found.items() if count}
