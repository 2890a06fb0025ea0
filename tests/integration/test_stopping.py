"""A worker that is told to end ends within ten seconds, whatever it is doing, and what it leaves is done by others."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.contracts.codec import decode_message
from shared.contracts.messages import IngestedTrack
from shared.contracts.topics import Channel
from tests.support.kafka_broker import KafkaBroker
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.proxy import SilentProxy
from tests.support.redis_server import RedisServer
from tests.support.samples import SAMPLES
from tests.support.web_server import Exchange, WebServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(120)]

PROMISED_S = 10.0
_PIECE = SAMPLES[0].read_bytes()[: 100 * 1024]


class Site:
    """A worker of ingestion alone, behind a proxy to Redis, with one request for music in hand."""

    def __init__(self, pipeline: Pipeline, proxy: SilentProxy, broker: KafkaBroker, web: WebServer) -> None:
        self.pipeline, self.proxy, self.broker, self.web = pipeline, proxy, broker, web
        self.let_go = False

    def ask(self) -> None:
        """Publish a request whose audio comes once ``let_go`` is set; returns when it is being fetched."""

        def wait_and_answer(exchange: Exchange) -> None:
            while not self.let_go and not exchange.wait(0.05):
                pass
            exchange.answer(200, _PIECE)

        self.web.add_handler("/song.mp3", wait_and_answer)
        self.pipeline.publish([{"request_id": "asked", "audio_url": self.web.url("/song.mp3")}])
        self.until(lambda: self.web.count("/song.mp3") > 0)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.pipeline.logs()[-6000:]
            time.sleep(0.1)


@pytest.fixture
def site(
    tmp_path: Path, kafka_broker: KafkaBroker, redis_server: RedisServer, names: Names
) -> Iterator[Callable[..., Site]]:
    port = int(redis_server.url.rsplit(":", 1)[1].split("/")[0])
    with WebServer() as web, SilentProxy(port) as proxy:
        pipeline = Pipeline(
            tmp_path, kafka_broker.bootstrap_servers, f"redis://127.0.0.1:{proxy.port}/0", names.prefix,
            fetch_allow="127.0.0.1",
        )  # fmt: skip

        def made(**settings: str) -> Site:
            pipeline.create_topics()
            pipeline.start("ingestion", **{f"TONESTREAM_{name.upper()}": value for name, value in settings.items()})
            return Site(pipeline, proxy, kafka_broker, web)

        yield made
        pipeline.__exit__(None, None, None)


def while_it_downloads(site: Site) -> None:
    site.ask()


def while_it_downloads_in_the_slow_lane(site: Site) -> None:
    site.ask()
    site.until(lambda: site.web.count("/song.mp3") > 1)


def while_it_decodes(site: Site) -> None:
    site.let_go = True
    site.ask()
    time.sleep(1.0)


def while_redis_says_nothing(site: Site) -> None:
    site.ask()
    site.proxy.silence()
    site.let_go = True
    time.sleep(1.0)


def while_kafka_is_away(site: Site) -> None:
    site.ask()
    site.broker.stop()
    site.let_go = True
    time.sleep(1.0)


@pytest.mark.parametrize(
    "state",
    [
        while_it_downloads,
        while_it_downloads_in_the_slow_lane,
        while_it_decodes,
        while_redis_says_nothing,
        while_kafka_is_away,
    ],
)
def test_a_worker_ends_within_ten_seconds_of_a_sigterm(
    state: Callable[[Site], None], site: Callable[..., Site], tmp_path: Path
) -> None:
    slow_decoder = tmp_path / "ffmpeg"
    slow_decoder.write_text("#!/bin/sh\nexec sleep 300\n")
    slow_decoder.chmod(0o755)
    stand = site(**({"ffmpeg": str(slow_decoder)} if state is while_it_decodes else {}))
    try:
        state(stand)
        ((_, worker),) = stand.pipeline.workers
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
        took_s = time.monotonic() - began
    finally:
        stand.let_go = True
        stand.proxy.speak()
        if state is while_kafka_is_away:
            stand.broker.start()
    print(f"{state.__name__}: SIGTERM took {took_s:.1f} s")
    assert took_s < PROMISED_S, stand.pipeline.logs()[-6000:]

    stand.pipeline.workers.clear()
    stand.pipeline.start("ingestion")
    stand.until(lambda: stand.pipeline.read(Channel.TRACKS) == 1)
    consumer = stand.pipeline.consumer(Channel.TRACKS)
    (records,) = consumer.poll(timeout_ms=5000).values()
    consumer.close()
    (track,) = (decode_message(Channel.TRACKS, record.value) for record in records)
    assert isinstance(track, IngestedTrack) and track.audio is not None, track
