"""What is declared of metrics holds for all of them."""

from __future__ import annotations

import re

import pytest
from prometheus_client import REGISTRY

from services.topology import TOPOLOGY
from shared.runtime import metrics
from shared.runtime.metrics import DECLARED, Declaration

#: Units that stand at the end of a name. Others count things, whose name says what they are.
IN_THE_NAME = {"seconds": "seconds", "bytes": "bytes", "ratio": "ratio", "info": "info"}


@pytest.mark.parametrize("one", DECLARED, ids=lambda one: one.name)
def test_a_metric_is_named_after_the_conventions_and_its_labels_take_few_values(one: Declaration) -> None:
    assert re.fullmatch(r"tonestream(_[a-z]+)+", one.name) and one.meaning.endswith(".")
    assert one.name.endswith("_total") == (one.kind == "counter")
    if one.unit in IN_THE_NAME:
        assert one.name.removesuffix("_total").endswith(f"_{IN_THE_NAME[one.unit]}")
    for label in one.labels:
        assert bool(label.values) != bool(label.bound), "either its values are listed, or something bounds them"
        assert len(label.values) <= 70
        assert not re.search("url|track|request|path|key|blob", label.name)


def test_every_metric_is_declared_once_and_nothing_else_is_ours() -> None:
    names = [one.name for one in DECLARED]
    assert len(set(names)) == len(names)
    ours = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("tonestream_")}
    assert ours == {name.removesuffix("_total") for name in names}


def test_every_service_has_its_value_of_the_label() -> None:
    assert {*(node.name for node in TOPOLOGY), metrics.GATEWAY} == metrics.SERVICES


def test_a_service_begins_with_counters_at_0_so_that_their_first_event_is_an_increase() -> None:
    metrics.begin("aggregator", "1.0")
    for name, labels in (
        ("tonestream_dead_letters_total", {"service": "aggregator", "reason": "crash_loop"}),
        ("tonestream_result_errors_total", {"code": "too_long"}),
    ):
        assert REGISTRY.get_sample_value(name, labels) is not None


def test_a_method_that_a_client_made_up_is_no_new_series() -> None:
    assert (metrics.http_method("GET"), metrics.http_method("BREW")) == ("GET", "other")
