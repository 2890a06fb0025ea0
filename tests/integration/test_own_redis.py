"""A worker's own Redis, on the machine whose music an operator has opened: real, and never spoken to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import redis

from services.ingestion.addresses import AllowList
from services.ingestion.fetch import Fetcher, FetchLimits
from services.ingestion.own_servers import own_servers
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.settings import Settings
from tests.support.redis_server import RedisServer
from tests.support.web_server import WebServer

pytestmark = [pytest.mark.redis]


def connections(client: redis.Redis) -> int:
    return int(cast("dict[str, Any]", client.info("stats"))["total_connections_received"])


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "redis://localhost:{port}/0"])
def test_a_redis_on_a_machine_that_is_allowed_is_never_connected_to(
    url: str, redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    port = redis_url.rpartition(":")[2].partition("/")[0]
    settings = Settings.model_validate({"redis_url": url.format(port=port)})
    allow = AllowList.parse(f"127.0.0.0/8,localhost,0.0.0.0,::/0,127.0.0.1:{port}")
    fetcher = Fetcher(FetchLimits(total_s=5.0), allow, own=own_servers(settings))
    with redis.Redis.from_url(redis_url) as client, WebServer() as web:
        before = connections(client)
        for host in (
            "127.0.0.1",
            "localhost",
            "LOCALHOST",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
        ):
            target = f"http://{host}:{port}/PING"
            web.redirect("/out", target)
            for address in (target, web.url("/out")):
                with pytest.raises(TonestreamError) as caught:
                    fetcher.fetch(address, tmp_path / "x")
                assert caught.value.code is ErrorCode.FETCH_FORBIDDEN, caught.value.message
                assert caught.value.message.endswith("belongs to this installation itself")
        assert connections(client) == before
