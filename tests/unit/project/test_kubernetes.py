"""The manifests for Kubernetes: that an API server would take them, and that they say what the code says."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from services.topology import SERVICE_NAMES, TOPOLOGY
from shared.bus.topics import topic_specs
from shared.contracts.topics import PARTITIONS, Channel, Topics
from shared.http.addresses import is_public
from shared.settings import SECRETS_DIR_VARIABLE, Settings
from tests.support.manifests import (
    FOLDER,
    OVERLAYS,
    Manifest,
    Workload,
    may_leave_to,
    may_reach,
    policies_of,
    rendered,
    selects,
    with_components,
    workloads,
)
from tests.support.processes import NotAvailableError
from tests.support.queries import RULES
from tests.support.samples import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
PAGE = ROOT / "docs" / "kubernetes.md"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
#: The oldest and the newest Kubernetes that the schemas know and this is meant for.
KUBERNETES = ("1.31", "1.37")
#: A pod of each: what runs our code.
OURS = (*SERVICE_NAMES, "gateway")
#: They do nothing but handle records. The others have work without records, too.
TO_ZERO = {"feature-extraction", "genre-worker", "mood-worker"}


def _or_skip(manifests: Any) -> list[Manifest]:
    try:
        found: list[Manifest] = manifests()
    except NotAvailableError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    return found


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return _or_skip(lambda: rendered(FOLDER / "overlays" / request.param))


@pytest.fixture(scope="module")
def production() -> list[Manifest]:
    return _or_skip(lambda: rendered(FOLDER / "overlays" / "production"))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """A laptop with the components that neither overlay has."""
    folder = tmp_path_factory.mktemp("overlay")
    return _or_skip(lambda: with_components(folder, "spotify", "gateway-api"))


def ours(manifests: list[Manifest]) -> Iterator[Workload]:
    found = workloads(manifests)
    return (found[name] for name in OURS)


# What an API server would say


def strict(schema: Any) -> Any:
    """An API server drops unknown fields of custom resources with a warning; here they are errors."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not free:
        found["additionalProperties"] = False
    return found


def check(manifest: Manifest) -> None:
    group, _, version = manifest["apiVersion"].rpartition("/")
    custom = FOLDER / "schemas" / f"{manifest['kind'].lower()}-{group}-{version}.json"
    if custom.exists():
        jsonschema.Draft202012Validator(strict(json.loads(custom.read_text(encoding="utf-8")))).validate(manifest)
        return
    for kubernetes in KUBERNETES:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)


def test_every_resource_of_the_overlays_has_the_form_that_its_schema_asks_for(overlay: list[Manifest]) -> None:
    for manifest in overlay:
        check(manifest)


def test_every_resource_of_the_other_components_has_the_form_that_its_schema_asks_for(extended: list[Manifest]) -> None:
    for manifest in extended:
        check(manifest)


@pytest.mark.parametrize(
    "path", [("spec", "spellt"), ("spec", "kafka", "listenrs"), ("spec", "entityOperator", "zooKeeper")]
)
def test_a_field_that_strimzi_does_not_know_is_found(production: list[Manifest], path: tuple[str, ...]) -> None:
    (kafka,) = [one for one in production if one["kind"] == "Kafka"]
    changed = json.loads(json.dumps(kafka))
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = {}
    with pytest.raises(jsonschema.ValidationError, match=path[-1]):
        check(changed)


def test_each_schema_of_a_custom_resource_names_its_source_and_licence() -> None:
    sources = json.loads((FOLDER / "schemas" / "sources.json").read_text(encoding="utf-8"))
    assert set(sources) == {file.name for file in (FOLDER / "schemas").glob("*.json")} - {"sources.json"}
    assert all(set(one) == {"from", "sha256", "licence"} for one in sources.values())


def test_every_component_is_rendered_by_a_test() -> None:
    used: set[str] = {"spotify", "gateway-api"}
    for name in OVERLAYS:
        text = (FOLDER / "overlays" / name / "kustomization.yaml").read_text(encoding="utf-8")
        used |= {Path(one).name for one in yaml.safe_load(text)["components"]}
    assert used == {folder.name for folder in (FOLDER / "components").iterdir()}


def test_no_two_resources_have_one_name(overlay: list[Manifest]) -> None:
    seen = [(one["kind"], one["metadata"]["name"]) for one in overlay]
    assert len(seen) == len(set(seen))
    assert {one["metadata"].get("namespace", "tonestream") for one in overlay} == {"tonestream"}


# What the code says


def test_every_service_has_a_workload(overlay: list[Manifest]) -> None:
    assert set(workloads(overlay)) >= set(OURS)


def test_every_variable_is_a_setting_and_all_together_are_valid(
    overlay: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `docs/kubernetes.md` has operators write, and Strimzi.
    secrets = {
        "tonestream-secrets/": "tonestream_redis_url",
        "gateway-secrets/": "tonestream_gateway_api_keys",
        "spotify-secrets/": "tonestream_spotify_client_secret",
    }
    values = {"tonestream_redis_url": "redis://:password@redis:6379/0"}
    known = {f"TONESTREAM_{name.upper()}" for name in Settings.model_fields}
    for workload in ours(overlay):
        with monkeypatch.context() as patched:
            for name in [one for one in os.environ if one.startswith("TONESTREAM_")]:
                patched.delenv(name)
            folder = tmp_path / workload.name
            folder.mkdir()
            for file in workload.secret_files():
                name = secrets.get(file, file)
                (folder / name).write_text(values.get(name, "sixteen-characters-or-more"), encoding="utf-8")
            patched.setenv(SECRETS_DIR_VARIABLE, str(folder))
            for name, value in workload.environment.items():
                assert not name.startswith("TONESTREAM_") or name in known, name
                patched.setenv(name, value)
            settings = Settings()
        assert settings.redis_url.get_secret_value().partition("@")[2] in {"", "redis:6379/0"}
        assert settings.blob_url != Settings.model_fields["blob_url"].default
        assert settings.kafka_bootstrap_servers != Settings.model_fields["kafka_bootstrap_servers"].default
        assert bool(settings.kafka_sasl_password) == (settings.kafka_security_protocol == "SASL_SSL")
        if settings.kafka_ssl_cafile is not None:
            assert settings.kafka_ssl_cafile.name in workload.secret_files()


def test_the_images_are_those_of_the_dockerfile_and_have_the_version_of_the_project(overlay: list[Manifest]) -> None:
    for workload in ours(overlay):
        for container in workload.containers:
            name, _, tag = container["image"].rpartition(":")
            assert name.endswith(f"tonestream/{workload.name}") and tag == VERSION
        assert f" AS needs-{workload.name}\n" in DOCKERFILE


def without_variable(value: object) -> str:
    """What the compose file sets where the environment says nothing else."""
    return re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", str(value))


def test_the_servers_are_those_of_the_compose_file(overlay: list[Manifest]) -> None:
    found = workloads(overlay)
    for name in {"kafka", "redis"} & set(found):
        assert found[name].container["image"] == COMPOSE["services"][name]["image"]
    *theirs, limit, _ = COMPOSE["services"]["redis"]["command"]
    assert limit == "--maxmemory"  # how much depends on the machine
    redis = found["redis"].container["command"]
    assert [one for one in redis if one in theirs] == theirs
    assert limit in redis
    if "kafka" in found:
        compose = COMPOSE["services"]["kafka"]["environment"]
        ours = found["kafka"].environment
        assert set(ours) == set(compose)
        where = re.compile("LISTENER|VOTERS|LOG_DIRS")
        assert {k: v for k, v in ours.items() if not where.search(k)} == {
            k: without_variable(v) for k, v in compose.items() if not where.search(k)
        }


def test_commands_are_those_of_the_compose_file_and_workers_start_as_their_image_says(overlay: list[Manifest]) -> None:
    for workload in ours(overlay):
        assert workload.container.get("command") == COMPOSE["services"][workload.name].get("command")


def test_the_aggregator_creates_the_topics_before_it_starts_and_whatever_changes_can_be_applied(
    overlay: list[Manifest],
) -> None:
    first = {workload.name: workload.pod.get("initContainers", []) for workload in ours(overlay)}
    (topics,) = first.pop("aggregator")
    assert topics["command"] == [*COMPOSE["services"]["topics"]["command"], "--wait"]
    worker = workloads(overlay)["aggregator"].container
    assert topics["envFrom"] == worker["envFrom"]
    assert all(one in worker["volumeMounts"] for one in topics["volumeMounts"])
    assert not any(first.values())
    assert "Job" not in {one["kind"] for one in overlay}, "its pod cannot be changed, and its settings have a new name"


def test_probes_ask_where_the_image_answers(overlay: list[Manifest]) -> None:
    (port,) = re.findall(r"TONESTREAM_HEALTH_PORT=(\d+)", DOCKERFILE)
    for workload in ours(overlay):
        (offered,) = workload.container["ports"]
        assert str(offered["containerPort"]) == port == workload.environment.get("TONESTREAM_GATEWAY_PORT", port)
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            asked = workload.container[probe]["httpGet"]
            assert (asked["path"], asked["port"]) == (path, offered["name"])
            # By the address of the pod, which the gateway answers to by any of its settings.
            assert "httpHeaders" not in asked and "host" not in asked


def test_a_pod_has_as_long_to_end_as_a_container_of_the_compose_file(overlay: list[Manifest]) -> None:
    for workload in ours(overlay):
        assert (
            f"{workload.pod['terminationGracePeriodSeconds']}s"
            == COMPOSE["services"][workload.name]["stop_grace_period"]
        )


def test_workers_are_scaled_by_the_lag_of_every_topic_that_their_groups_read(production: list[Manifest]) -> None:
    topics = Topics(workloads(production)["ingestion"].environment.get("TONESTREAM_TOPIC_PREFIX", "tonestream"))
    wanted: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for node in TOPOLOGY:
        wanted[node.stage.value] |= {(topics.group(node.name), topics.name(channel)) for channel in node.reads}
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in production:
        if one["kind"] != "ScaledObject":
            continue
        name = one["spec"]["scaleTargetRef"]["name"]
        for trigger in one["spec"]["triggers"]:
            if trigger["type"] != "kafka":
                assert (trigger["type"], trigger["metricType"]) == ("cpu", "Utilization")
                continue
            asked = trigger["metadata"]
            found[name].add((asked["consumerGroup"], asked["topic"]))
            assert workloads(production)[name].environment[asked["bootstrapServersFromEnv"]]
            assert asked["offsetResetPolicy"] == "earliest" and "excludePersistentLag" not in asked
            by_segment = asked["topic"] in {topics.name(Channel.FEATURES), topics.name(Channel.PREDICTIONS)}
            assert asked["lagThreshold"] == ("400" if by_segment else "20")
    assert found == wanted


def test_there_are_no_more_workers_than_partitions_and_none_only_where_nothing_is_done_without_records(
    production: list[Manifest],
) -> None:
    most = 0
    for one in production:
        if one["kind"] == "ScaledObject":
            spec = one["spec"]
            assert spec["maxReplicaCount"] <= PARTITIONS
            # KEDA warns of them where there is always a worker: then only the autoscaler asks.
            assert {"pollingInterval", "cooldownPeriod"} <= set(spec) or spec["minReplicaCount"] > 0
            assert not {"pollingInterval", "cooldownPeriod"} & set(spec) or spec["minReplicaCount"] == 0
            assert (spec["minReplicaCount"] == 0) == (spec["scaleTargetRef"]["name"] in TO_ZERO)
            most = max(most, spec["maxReplicaCount"])
    # Otherwise the limit of ingestion would hide the backlog.
    assert int(workloads(production)["ingestion"].environment["TONESTREAM_MAX_UNFINISHED"]) == 20 * most
    assert all("replicas" not in one["spec"] for one in production if one["kind"] == "Deployment"), "KEDA decides"


def test_kafka_of_three_keeps_what_it_acknowledged(production: list[Manifest]) -> None:
    (kafka,) = [one["spec"]["kafka"] for one in production if one["kind"] == "Kafka"]
    (pool,) = [one["spec"] for one in production if one["kind"] == "KafkaNodePool"]
    config = kafka["config"]
    assert pool["replicas"] == 3 and set(pool["roles"]) == {"controller", "broker"}
    for name in ("default", "offsets.topic", "transaction.state.log"):
        assert config[f"{name}.replication.factor"] == 3
    assert config["min.insync.replicas"] == config["transaction.state.log.min.isr"] == 2
    assert config["auto.create.topics.enable"] is config["unclean.leader.election.enable"] is False
    assert workloads(production)["aggregator"].environment["TONESTREAM_KAFKA_REPLICATION_FACTOR"] == "3"
    cleanup = "transaction.abort.timed.out.transaction.cleanup.interval.ms"
    compose = COMPOSE["services"]["kafka"]["environment"]
    assert config[cleanup] == compose[f"KAFKA_{cleanup.replace('.', '_').upper()}"]
    assert all(one["apiVersion"] == "kafka.strimzi.io/v1" for one in production if "strimzi" in one["apiVersion"])


def test_users_of_kafka_may_do_what_their_program_does(production: list[Manifest]) -> None:
    users = {one["metadata"]["name"]: one["spec"] for one in production if one["kind"] == "KafkaUser"}
    environment = workloads(production)["ingestion"].environment
    assert environment["TONESTREAM_KAFKA_SASL_USERNAME"] in users
    names = [spec.name for spec in topic_specs(Topics())]
    for user in users.values():
        for rule in user["authorization"]["acls"]:
            assert rule["resource"]["patternType"] == "prefix"
            assert all(name.startswith(rule["resource"]["name"]) for name in names)
    assert {op for rule in users["keda"]["authorization"]["acls"] for op in rule["operations"]} == {"Describe"}
    (authentication,) = [one["spec"] for one in production if one["kind"] == "TriggerAuthentication"]
    (user,) = authentication["configMapTargetRef"]
    (data,) = [one["data"] for one in production if one["metadata"]["name"] == user["name"]]
    assert data[user["key"]] in users
    assert "keda" in {one["name"] for one in authentication["secretTargetRef"]}


# What a pod may do


def test_no_pod_has_or_gains_rights(overlay: list[Manifest]) -> None:
    for workload in workloads(overlay).values():
        pod = workload.pod
        assert pod["automountServiceAccountToken"] is False
        # Of a Service named tonestream-gateway, TONESTREAM_GATEWAY_PORT would hold the address.
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for own in (container["securityContext"] for container in workload.containers):
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
            assert own.get("readOnlyRootFilesystem") is (None if workload.name == "kafka" else True)
        for open_door in ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"):
            assert open_door not in pod
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
        if workload.name in OURS:
            assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE


def test_every_container_says_what_it_needs_and_has_a_limit_of_memory(overlay: list[Manifest]) -> None:
    for workload in workloads(overlay).values():
        for resources in (container["resources"] for container in workload.containers):
            assert {"cpu", "memory"} <= set(resources["requests"])
            assert set(resources["limits"]) == {"memory"}, "a limit of CPU would slow down a worker whose node is idle"
        if workload.name in SERVICE_NAMES:
            assert workload.environment["TONESTREAM_WORKER_THREADS"] == "1", "or one for each core of the node"


def test_what_a_container_may_write_to_has_a_size(overlay: list[Manifest]) -> None:
    for workload in ours(overlay):
        mounts = {one["mountPath"]: one for one in workload.container["volumeMounts"]}
        volumes = {one["name"]: one for one in workload.pod["volumes"]}
        assert {"/tmp", "/scratch"} <= set(mounts)
        for path, mount in mounts.items():
            volume = volumes.get(mount["name"], {})
            if "emptyDir" in volume:
                assert re.fullmatch(r"[0-9]+[MG]i", volume["emptyDir"]["sizeLimit"])
            elif path not in {"/library", "/blobs"}:
                assert mount["readOnly"] is True
        if path := mounts.get("/blobs"):
            assert bool(path.get("readOnly")) == (workload.labels["tonestream/blobs"] == "reader")
            readers = {name for name in SERVICE_NAMES if "blobs:/blobs:ro" in COMPOSE["services"][name]["volumes"]}
            assert (workload.name in readers) == bool(path.get("readOnly"))


def test_there_is_one_gateway_and_its_view_is_on_a_volume(overlay: list[Manifest]) -> None:
    gateway = workloads(overlay)["gateway"]
    assert gateway.manifest["kind"] == "StatefulSet" and gateway.manifest["spec"]["replicas"] == 1
    (claim,) = gateway.manifest["spec"]["volumeClaimTemplates"]
    (mount,) = [one for one in gateway.container["volumeMounts"] if one["name"] == claim["metadata"]["name"]]
    assert gateway.environment["TONESTREAM_LIBRARY_DB"].startswith(f"{mount['mountPath']}/")
    (service,) = [one for one in overlay if one["kind"] == "Service" and one["metadata"]["name"] == "gateway"]
    assert service["spec"]["selector"].items() <= gateway.labels.items()


def test_prometheus_finds_every_service_and_names_it_as_dashboards_and_alerts_do(production: list[Manifest]) -> None:
    monitors = [one["spec"] for one in production if one["kind"] == "PodMonitor"]
    stage = "__meta_kubernetes_pod_label_app_kubernetes_io_name"
    labels = [{"targetLabel": "job", "replacement": "tonestream"}, {"sourceLabels": [stage], "targetLabel": "stage"}]
    (rule,) = [
        one["spec"]
        for one in production
        if one["kind"] == "NetworkPolicy" and "monitoring" in json.dumps(one["spec"].get("ingress"))
    ]
    for workload in ours(production):
        (endpoint,) = [
            one
            for monitor in monitors
            if selects(monitor["selector"], workload.labels)
            for one in monitor["podMetricsEndpoints"]
        ]
        (offered,) = workload.container["ports"]
        assert (endpoint["path"], endpoint["port"]) == ("/metrics", offered["name"])
        assert endpoint["relabelings"] == labels
        # With API keys the gateway gives its metrics to whoever has one.
        assert ("authorization" in endpoint) == (workload.name == "gateway")
        assert selects(rule["podSelector"], workload.labels)
        assert rule["ingress"][0]["ports"] == [{"protocol": "TCP", "port": offered["containerPort"]}]


def test_the_alerts_of_the_cluster_are_those_of_the_compose_file(production: list[Manifest]) -> None:
    (found,) = [one["spec"]["groups"] for one in production if one["kind"] == "PrometheusRule"]
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    assert found == groups, "deploy/setup/rules.py writes them anew"


def test_no_secret_stands_in_the_manifests_and_the_page_says_how_to_make_each(overlay: list[Manifest]) -> None:
    assert not [one for one in overlay if one["kind"] == "Secret"]
    page = PAGE.read_text(encoding="utf-8")
    for name in re.findall(
        r'"secret(?:N|_n)ame": "([^"]+)"|"secret": \{[^}]*"name": "([^"]+)"|"credentials": \{[^}]*"name": "([^"]+)"',
        json.dumps(overlay),
    ):
        assert f"`{''.join(name)}`" in page, name


def test_the_page_lists_what_an_operator_has_to_change() -> None:
    text = (FOLDER / "overlays" / "production" / "kustomization.yaml").read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    marked = set(re.findall(r"# yours: ([a-z ]+)", text))
    assert marked >= {"bucket", "registry"}
    for one in marked:
        assert f"| {one} |" in page, one


def test_a_drain_of_nodes_takes_one_worker_of_a_service_at_a_time(production: list[Manifest]) -> None:
    budgets = {
        one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]: one["spec"]["maxUnavailable"]
        for one in production
        if one["kind"] == "PodDisruptionBudget"
    }
    assert budgets == dict.fromkeys(SERVICE_NAMES, 1)


# Who may speak to whom


def test_nothing_is_open_that_no_rule_opens(overlay: list[Manifest]) -> None:
    for workload in workloads(overlay).values():
        for direction in ("Ingress", "Egress"):
            rules = policies_of(overlay, workload.labels, direction)
            assert any(direction.lower() not in spec for spec in rules), (workload.name, direction)


def with_a_way_out(manifests: list[Manifest]) -> set[str]:
    found = workloads(manifests).values()
    return {workload.name for workload in found if may_leave_to(manifests, workload.labels, "8.8.8.8", 443)}


def test_only_who_needs_it_has_a_way_out(overlay: list[Manifest], extended: list[Manifest]) -> None:
    assert with_a_way_out(overlay) == {"ingestion", "gateway"}
    assert with_a_way_out(extended) == {"ingestion", "gateway", "mood-worker"}
    assert {file for file in workloads(extended)["mood-worker"].secret_files() if "spotify" in file}


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700:4700::1111", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1",
     "0.0.0.1", "100.64.0.1", "169.254.169.254", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::1", "fe80::1",
     "fd00:ec2::254", "2001:db8::1", "2002:a00:1::", "ff02::1", "64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1",
     "64:ff9b::169.254.169.254", "64:ff9b::192.168.0.1", "64:ff9b::172.20.0.1", "64:ff9b::127.0.0.1",
     "::ffff:10.0.0.1"],
)  # fmt: skip
def test_the_way_out_leads_where_ingestion_would_go_and_nowhere_else(overlay: list[Manifest], address: str) -> None:
    labels = workloads(overlay)["ingestion"].labels
    allowed = is_public(ipaddress.ip_address(address))
    assert may_leave_to(overlay, labels, address, 443) == may_leave_to(overlay, labels, address, 80) == allowed
    assert not may_leave_to(overlay, labels, address, 22)


def test_services_reach_their_servers_and_nothing_else(overlay: list[Manifest]) -> None:
    found = workloads(overlay)
    for workload in ours(overlay):
        if "kafka" in found:
            assert may_reach(overlay, workload.labels, found["kafka"].labels, 19092)
        assert may_reach(overlay, workload.labels, found["redis"].labels, 6379)
        for other in ours(overlay):
            assert not may_reach(overlay, workload.labels, other.labels, 8080)


def test_whoever_reads_or_writes_blobs_reaches_the_store(production: list[Manifest]) -> None:
    (rule,) = [one["spec"]["egress"][0] for one in production if one["metadata"]["name"] == "to-blobs"]
    address = str(ipaddress.ip_network(rule["to"][0]["ipBlock"]["cidr"])[1])
    for workload in ours(production):
        mounts = [one for one in workload.container["volumeMounts"] if one["name"] == "s3"]
        assert may_leave_to(production, workload.labels, address, 443) == bool(mounts)
        assert bool(mounts) == (workload.name in {*SERVICE_NAMES, "gateway"} - {"genre-worker"})
        if mounts:
            assert workload.environment["AWS_SHARED_CREDENTIALS_FILE"].startswith(mounts[0]["mountPath"])
