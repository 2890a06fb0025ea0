"""Dashboards and alerts: every query can be read, asks for metrics and labels that exist, and every alert has its
runbook."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from services.topology import SERVICE_NAMES
from shared.runtime import metrics
from tests.support.queries import DASHBOARDS, RULES, dashboard_queries, panels
from tests.support.samples import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
#: What Prometheus adds to what it scrapes, and prometheus_client to what we declare.
ADDED_LABELS = frozenset({"job", "instance", "stage", "le"})
OF_OTHERS = frozenset({"up", "process_cpu_seconds_total", "process_resident_memory_bytes"})


def rules() -> Iterator[dict[str, Any]]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


ALERTS = [rule for rule in rules() if "alert" in rule]
#: The labels of each series by its name, for those that rules record: those of the metric behind it.
SERIES: dict[str, frozenset[str]] = {
    series: frozenset(label.name for label in one.labels) for one in metrics.DECLARED for series in one.series
}
VALUES = {
    (series, label.name): label.values for one in metrics.DECLARED for series in one.series for label in one.labels
}
RECORDED = {
    rule["record"]: frozenset({rule["record"].split(":")[0], "outcome"}) for rule in rules() if "record" in rule
}
QUERIES = {
    **{f"{rule.get('alert') or rule['record']}": rule["expr"] for rule in rules()},
    **{f"{place}: {query}"[:150]: query for place, query in dashboard_queries()},
}


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector within the expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str | int | float):
            yield from selectors(child)
    for child in getattr(node, "args", None) or ():
        yield from selectors(child)


def grouped(node: Any) -> Iterator[str]:
    """Every label by which the expression groups."""
    modifier = getattr(node, "modifier", None)
    for labels in (modifier, getattr(modifier, "matching", None), getattr(modifier, "group_labels", None)):
        yield from getattr(labels, "labels", labels if isinstance(labels, list) else ())
    for name in ("expr", "lhs", "rhs", "param"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str | int | float):
            yield from grouped(child)
    for child in getattr(node, "args", None) or ():
        yield from grouped(child)


@pytest.mark.parametrize("place", QUERIES)
def test_a_query_asks_for_metrics_and_labels_that_are_declared(place: str) -> None:
    parsed = promql_parser.parse(QUERIES[place])
    found = list(selectors(parsed))
    assert found, "no metric in it"
    known = set(ADDED_LABELS)
    for selector in found:
        labels = SERIES.get(selector.name) or RECORDED.get(selector.name)
        if selector.name in OF_OTHERS:
            labels = frozenset()
        assert labels is not None or selector.name in SERIES, f"{selector.name} is not declared"
        known |= labels or frozenset()
        for matcher in selector.matchers.matchers:
            assert matcher.name in known, f"{selector.name} has no label {matcher.name}"
            values = VALUES.get((selector.name, matcher.name))
            if values and matcher.op == promql_parser.MatchOp.Equal:
                assert matcher.value in values, f"{matcher.name} of {selector.name} is never {matcher.value}"
    assert set(grouped(parsed)) <= known, "it groups by a label that none of its metrics has"


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {selector.name for _, query in dashboard_queries() for selector in selectors(promql_parser.parse(query))}
    unseen = [one.name for one in metrics.DECLARED if not shown & {*one.series}]
    assert unseen == []


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\S+)$", page, re.MULTILINE)
    assert [rule["alert"] for rule in ALERTS] == sections, "in the order of the rules"
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_every_alert_is_tried_quiet_and_firing() -> None:
    tried: dict[str, list[bool]] = {}
    for file in (PROMETHEUS / "tests").glob("*.yml"):
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for case in test["alert_rule_test"]:
                tried.setdefault(case["alertname"], []).append(bool(case.get("exp_alerts")))
    assert tried == {rule["alert"]: [False, True] for rule in ALERTS}


def test_prometheus_scrapes_every_service_by_its_name_in_the_compose_file() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    (ours,) = (one for one in config["scrape_configs"] if one["job_name"] == "tonestream")
    (found,) = ours["dns_sd_configs"]
    assert (set(found["names"]), found["port"]) == ({*SERVICE_NAMES, "gateway"}, 8080)


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_one_that_grafana_provisions(file: Any) -> None:
    board = json.loads(file.read_text(encoding="utf-8"))
    assert board["uid"] == f"tonestream-{file.stem}" and board["title"].startswith("Tonestream")
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    known = {source["uid"] for source in sources["datasources"]}
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in panels(board):
        assert panel["datasource"]["uid"] in known and panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        squares = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not taken & squares, f"{panel['title']} lies over another panel"
        taken |= squares
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in known and target["expr"]
    for variable in board["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert asked and asked[2] in SERIES[asked[1]]


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool, where there is one."""
    program = shutil.which("promtool")
    if program is None:
        reason = "promtool is not installed (Debian: apt install prometheus)"
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (and CI is set: these tests must run)", pytrace=False)
        pytest.skip(reason)
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    done = promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_each_alert_fires_when_it_should() -> None:
    done = promtool("test", "rules", *map(str, sorted((PROMETHEUS / "tests").glob("*.yml"))))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_to_say_about_the_metrics() -> None:
    from prometheus_client import REGISTRY, generate_latest

    metrics.begin("aggregator", "1.0")
    done = promtool("check", "metrics", stdin=generate_latest(REGISTRY).decode())
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "tonestream_" in line]
    assert ours == []
