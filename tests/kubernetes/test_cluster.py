"""A cluster takes the manifests, runs the overlay for a laptop, and keeps the promises while pods come and go.

``make kubernetes CONTEXT=kind-kind`` runs them. The cluster has the images, a default storage class or volumes for the
four claims, a network plug-in that enforces NetworkPolicies, and KEDA in the namespace ``keda``; where the operators of
Strimzi and Prometheus and the Gateway API are missing, only the schemas of their resources are added.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from services.topology import SERVICE_NAMES
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.manifests import FOLDER, with_components
from tests.support.samples import ROOT, SAMPLES
from tonestream import Client

pytestmark = pytest.mark.timeout(900)

LAPTOP: Final = FOLDER / "overlays" / "laptop"
SCALED: Final = ROOT / "tests" / "kubernetes" / "scaled"
#: Services that KEDA ends when there is nothing to do.
TO_ZERO: Final = ("feature-extraction", "genre-worker", "mood-worker")
#: The custom resources of the manifests. Schemas are kept by their names in lower case.
KINDS: Final = (
    "HTTPRoute", "Kafka", "KafkaNodePool", "KafkaUser", "PodMonitor", "PrometheusRule", "ScaledObject",
    "TriggerAuthentication",
)  # fmt: skip
#: How long an answer may take: pods start, and a group of consumers notices that a member died.
PATIENCE_S: Final = 240.0
#: Somebody who is no part of Tonestream, with an image that the cluster has.
STRANGER: Final = """
apiVersion: v1
kind: Pod
metadata:
  name: stranger
  namespace: tonestream
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 999, seccompProfile: {type: RuntimeDefault}}
  terminationGracePeriodSeconds: 0
  containers:
    - name: stranger
      image: redis:7-bookworm
      command: [sleep, infinity]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


@pytest.fixture(scope="module")
def empty() -> Iterator[Cluster]:
    """The cluster with the namespace and nothing in it; removed in the end."""
    cluster = Cluster(os.environ["TONESTREAM_TEST_KUBERNETES"])
    there = cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")
    assert there == "", "the namespace is somebody's, and these tests would remove it"
    try:
        cluster.kubectl("apply", "--server-side", "-f", str(FOLDER / "base" / "namespace.yaml"))
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)


@pytest.fixture(scope="module")
def cluster(empty: Cluster) -> Cluster:
    """The overlay for a laptop on the cluster, from nothing."""
    started = time.monotonic()
    assert empty.apply(LAPTOP) == []
    empty.settled()
    print(f"every pod takes work {time.monotonic() - started:.0f} s after nothing was there")
    return empty


def missing_definitions(cluster: Cluster) -> list[dict[str, Any]]:
    """The custom resources that the manifests are made of and the cluster does not know, by the schemas kept here."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(FOLDER.glob("schemas/*-*.json")):
        lower, group, version = file.stem.split("-")
        schema = {"openAPIV3Schema": json.loads(file.read_text(encoding="utf-8"))}
        name = f"{lower}s.{group}"
        if cluster.succeeds("get", "crd", name):
            continue
        kind = next(kind for kind in KINDS if kind.lower() == lower)
        made = found.setdefault(
            name,
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
                "spec": {
                    "group": group, "scope": "Namespaced", "versions": [],
                    "names": {"kind": kind, "plural": f"{lower}s", "singular": lower, "listKind": f"{kind}List"},
                },
            },
        )  # fmt: skip
        made["spec"]["versions"].append(
            {"name": version, "served": True, "storage": not made["spec"]["versions"], "schema": schema}
        )  # fmt: skip
    return list(found.values())


def classify(address: str, count: int) -> list[str]:
    """Submit the samples over and over, each to be computed anew; the status of each answer."""
    with Client(address, retries=10) as client:
        tickets = [client.submit(SAMPLES[number % len(SAMPLES)], force=True) for number in range(count)]
        assert len({ticket.request_id for ticket in tickets}) == count
        return [client.wait(ticket, timeout_s=PATIENCE_S).status.value for ticket in tickets]


def test_the_server_takes_every_manifest(empty: Cluster, tmp_path: Path) -> None:
    definitions = missing_definitions(empty)
    if definitions:
        empty.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(definitions))
        names = [f"crd/{one['metadata']['name']}" for one in definitions]
        empty.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    assert empty.apply(FOLDER / "overlays" / "production", "--dry-run=server") == []
    others = with_components(tmp_path, "keda", "monitoring", "spotify", "gateway-api", "s3")
    empty.kubectl(
        "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(others)
    )


def test_tracks_are_answered(cluster: Cluster) -> None:
    with cluster.gateway() as address:
        assert classify(address, 6) == ["ok"] * 6
    assert not any(name.startswith(service) for name in cluster.restarts() for service in (*SERVICE_NAMES, "gateway"))


def test_nobody_reaches_what_no_rule_opens(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", given=STRANGER)
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=60s", "pod/stranger")
    redis, kafka = ("redis-cli", "-h", "redis", "ping"), ("bash", "-c", "exec 3<>/dev/tcp/kafka/19092")
    assert not cluster.runs("stranger", "timeout", "5", *redis) and not cluster.runs("stranger", "timeout", "5", *kafka)
    labels = ("tonestream/redis=client", "tonestream/kafka=client", "app.kubernetes.io/part-of=tonestream")
    cluster.kubectl("-n", NAMESPACE, "label", "pod/stranger", *labels)
    until(lambda: cluster.runs("stranger", "timeout", "5", *redis), 60.0, "a client of Redis reaches it")
    assert cluster.runs("stranger", "timeout", "5", *kafka)
    knock = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    (worker,) = cluster.pods("genre-worker")
    assert cluster.runs(worker, "python", "-c", knock, "redis", "6379")
    assert not cluster.runs(worker, "python", "-c", knock, "gateway", "80")
    cluster.kubectl("-n", NAMESPACE, "delete", "pod/stranger")


def test_a_changed_setting_rolls_through_while_tracks_are_under_way(cluster: Cluster, tmp_path: Path) -> None:
    changed = {
        "resources": [os.path.relpath(LAPTOP, tmp_path.resolve())],
        "namespace": NAMESPACE,
        "configMapGenerator": [
            {
                "name": "settings",
                "namespace": NAMESPACE,
                "behavior": "merge",
                "literals": ["TONESTREAM_LOG_LEVEL=DEBUG"],
            }
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    before = set(cluster.pods(*SERVICE_NAMES))
    with cluster.gateway() as address, Client(address) as client:
        tickets = [client.submit(song, force=True) for song in SAMPLES * 4]
        cluster.apply(tmp_path.resolve())
    cluster.settled()
    assert not before & set(cluster.pods(*SERVICE_NAMES))
    with cluster.gateway() as address, Client(address) as client:
        assert {client.wait(ticket, timeout_s=PATIENCE_S).status.value for ticket in tickets} == {"ok"}
    cluster.apply(LAPTOP)
    cluster.settled()


def test_pods_that_are_killed_lose_nothing(cluster: Cluster) -> None:
    over = threading.Event()
    killed: list[str] = []

    def kill() -> None:
        while not over.wait(4.0):
            service = SERVICE_NAMES[len(killed) % len(SERVICE_NAMES)]
            for pod in cluster.pods(service)[:1]:
                cluster.succeeds("-n", NAMESPACE, "delete", f"pod/{pod}", "--grace-period=0", "--force")
            killed.append(service)

    with cluster.gateway() as address:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            answers = classify(address, 60)
        finally:
            over.set()
            killer.join()
    print(f"{len(killed)} pods killed, {len(answers)} answers")
    assert answers == ["ok"] * 60 and len(killed) >= len(SERVICE_NAMES)
    cluster.settled()


def test_workers_come_with_the_work_and_go_with_it(cluster: Cluster) -> None:
    assert cluster.succeeds("-n", "keda", "rollout", "status", "deployment/keda-operator", "--timeout=60s"), "no KEDA"
    assert cluster.apply(SCALED) == []
    cluster.settled()
    asleep = until(lambda: not any(map(cluster.replicas, TO_ZERO)), 300.0, "nothing to do: the lag of every group is 0")
    most = dict.fromkeys(TO_ZERO, 0)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(2.0):
            for name in TO_ZERO:
                most[name] = max(most[name], cluster.replicas(name))

    with cluster.gateway() as address:
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert classify(address, 90) == ["ok"] * 90
        finally:
            over.set()
            watcher.join()
    # Features take little time, so one worker may be enough for them.
    assert all(most.values()) and most["genre-worker"] > 1, most
    again = until(lambda: not any(map(cluster.replicas, TO_ZERO)), 300.0, "the work is done")
    print(f"to zero after {asleep:.0f} s, at most {most}, to zero again {again:.0f} s after the last answer")
