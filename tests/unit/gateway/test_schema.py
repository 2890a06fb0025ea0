"""Whatever is sent, the answers are those that the description of the API names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.gateway_bench import GatewayBench, answer
from tests.support.rows import failed_result

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_EXAMPLES = 6


def test_answers_are_as_described(tmp_path: Path) -> None:
    """A stream of events has no end, so it is left out."""
    with GatewayBench(tmp_path, gateway_max_waiting=100_000) as bench:
        bench.answered(answer("my-1"), failed_result("f1"))
        api = schemathesis.openapi.from_url(f"{bench.url}/openapi.json").exclude(path="/v1/events")
        operations: list[Any] = list(api.get_all_operations())
        tried = [_try(found.ok()) for found in operations]
    assert len(tried) >= 15


def _try(operation: Any) -> str:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=_EXAMPLES, deadline=None, derandomize=True, database=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def answers_as_described(case: Any) -> None:
        case.call_and_validate(checks=_CHECKS)

    answers_as_described()
    return str(operation.label)
