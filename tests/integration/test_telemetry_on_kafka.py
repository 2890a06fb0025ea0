"""Workers as processes on real Kafka, seen by a real Prometheus and by a collector of traces."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from kafka import KafkaProducer

from services.topology import SERVICE_NAMES, TOPOLOGY
from shared.contracts.topics import Channel
from shared.runtime import metrics
from tests.support.collector import Collector, Received
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.processes import NotAvailableError, free_port
from tests.support.prometheus_server import PrometheusServer
from tests.support.queries import dashboard_queries
from tests.support.samples import SAMPLES
from tests.support.served import Served

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(420)]

PATIENCE_S = 180.0
#: Panels that may be empty after two tracks: what did not happen, and what takes a day of answers.
MAY_BE_EMPTY = frozenset(
    {
        "overview: Not ready",
        "models: Mean confidence of a day",
    }
)


@dataclass(frozen=True, slots=True)
class Observed:
    pipeline: Pipeline
    collector: Collector
    prometheus: PrometheusServer | None
    #: The request by the command line, and the one by the gateway.
    submitted: str
    uploaded: str

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert not self.pipeline.dead() and time.monotonic() < deadline, f"{what}\n{self.pipeline.logs()[-5000:]}"
            time.sleep(0.2)

    def trace(self, request_id: str) -> list[Received]:
        """The spans of a request that have come."""
        spans = list(self.collector.spans)
        ids = {span.trace_id for span in spans if span.attributes.get("tonestream.request_id") == request_id}
        return [span for span in spans if span.trace_id in ids]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, bootstrap_servers: str, redis_url: str) -> Iterator[Observed]:
    """Two tracks, and a record that is no message, while everybody looks on."""
    folder = tmp_path_factory.mktemp("observed")
    prefix = Names.unique("observed").prefix
    pipeline = Pipeline(
        folder, bootstrap_servers, redis_url, prefix,
        services=(), genre_model="mfcc-lstm", local_files=str(SAMPLES[0].parent),
    )  # fmt: skip
    with Collector() as collector:
        pipeline.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with pipeline, Served(folder, "--kafka", environment=pipeline.environment) as gateway:
            targets = {service: f"127.0.0.1:{free_port()}" for service in SERVICE_NAMES}
            for service, address in targets.items():
                pipeline.start(service, TONESTREAM_HEALTH_PORT=address.partition(":")[2])
            targets["gateway"] = gateway.address.removeprefix("http://")
            try:
                with PrometheusServer(folder, targets) as prometheus:
                    yield _run(pipeline, collector, prometheus, gateway)
            except NotAvailableError:
                yield _run(pipeline, collector, None, gateway)


def _run(pipeline: Pipeline, collector: Collector, prometheus: PrometheusServer | None, gateway: Served) -> Observed:
    if prometheus is not None:  # an increase is seen from a scrape before it on
        deadline = time.monotonic() + PATIENCE_S
        while len(prometheus.query('tonestream_commits_total{outcome="committed"}')) < len(TOPOLOGY):
            assert time.monotonic() < deadline and not pipeline.dead(), pipeline.logs()[-5000:]
            time.sleep(0.5)
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    producer.send(pipeline.topics.name(Channel.TRACKS), value=b"no message").get(timeout=30)
    producer.close()
    submitted = pipeline.command("submit", str(SAMPLES[0]))
    assert submitted.returncode == 0, submitted.stderr
    answer = gateway.client.post("/v1/tracks", content=SAMPLES[1].read_bytes(), headers={"Content-Type": "audio/mpeg"})
    assert answer.status_code == 202, answer.text
    pipeline.results(2, PATIENCE_S)
    return Observed(pipeline, collector, prometheus, submitted.stdout.split("\t")[0], answer.json()["request_id"])


@pytest.mark.parametrize("way", ["submit", "gateway"])
def test_one_trace_follows_a_request_from_where_it_was_submitted_through_all_workers(
    observed: Observed, way: str
) -> None:
    request_id = observed.submitted if way == "submit" else observed.uploaded

    def complete() -> bool:
        spans = observed.trace(request_id)
        known = {span.span_id for span in spans}
        whole = all(span.parent_id in known or not span.parent_id for span in spans)
        return whole and {span.service for span in spans} == {way, *SERVICE_NAMES}

    observed.until(complete, f"no whole trace: {observed.trace(request_id)}")
    spans = observed.trace(request_id)
    (root,) = (span for span in spans if not span.parent_id)
    topics = observed.pipeline.topics
    assert (root.service, root.name) == (way, f"send {topics.name(Channel.REQUESTS)}")
    assert {span.attributes["messaging.system"] for span in spans} == {"kafka"}
    groups = {span.attributes.get("messaging.consumer.group.name") for span in spans} - {None}
    assert groups == {topics.group(service) for service in SERVICE_NAMES}
    consumer = observed.pipeline.consumer(Channel.RESULTS)
    deadline = time.monotonic() + PATIENCE_S
    found: dict[str, bytes] = {}
    while request_id not in found:
        assert time.monotonic() < deadline
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                headers = dict(record.headers)
                found[headers["tonestream.request_id"].decode()] = headers["traceparent"]
    consumer.close()
    assert found[request_id].split(b"-")[1] == spans[0].trace_id.hex().encode()


@pytest.fixture
def prometheus(observed: Observed) -> PrometheusServer:
    if observed.prometheus is None:
        reason = "prometheus is not installed (Debian: apt install prometheus)"
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (and CI is set: these tests must run)", pytrace=False)
        pytest.skip(reason)
    return observed.prometheus


def test_every_query_of_the_dashboards_is_answered_with_data(observed: Observed, prometheus: PrometheusServer) -> None:
    def empty() -> list[str]:
        places = {place for place, query in dashboard_queries("1m") if not prometheus.query(query)}
        return sorted(places - MAY_BE_EMPTY)

    deadline = time.monotonic() + PATIENCE_S
    while empty() and time.monotonic() < deadline:
        time.sleep(1.0)
    assert empty() == []
    assert prometheus.rule_faults() == []


def test_the_lag_is_true_at_rest_it_is_0_and_every_partition_has_an_owner(
    observed: Observed, prometheus: PrometheusServer
) -> None:
    def value(query: str) -> float:
        return float((prometheus.query(query) or [{"value": (0, "nan")}])[0]["value"][1])

    # The features of a track are many records, and each group reads 12 partitions of each of its topics.
    topics = sum(len(node.reads) for node in TOPOLOGY)
    observed.until(lambda: value("sum(tonestream_lag_records)") == 0.0, "there is a lag at rest")
    observed.until(lambda: value("sum(tonestream_assigned_partitions)") == 12 * topics, "partitions without an owner")


def test_prometheus_knows_what_is_declared_and_the_alert_for_dead_letters_fires(
    observed: Observed, prometheus: PrometheusServer
) -> None:
    named = {one["metric"]["__name__"] for one in prometheus.query('count by (__name__) ({__name__=~"tonestream_.+"})')}
    assert named <= {series for one in metrics.DECLARED for series in one.series}
    firing = 'ALERTS{alertname="TonestreamDeadLetters", alertstate="firing"}'
    observed.until(lambda: bool(prometheus.query(firing)), "the alert does not fire")
    assert {one["metric"]["reason"] for one in prometheus.query(firing)} == {"malformed"}
    assert 'stage="aggregator"' not in str(prometheus.query("up == 0"))
