"""Every operation of the API is called with what its description allows, and with what it does not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import CHECKS, load_all_checks

from tests.support.gateway_bench import GatewayBench, answer
from tests.support.rows import failed_result

LONG: Final = os.environ.get("TONESTREAM_FUZZ") == "long"
#: Calls of each operation, with what is allowed and with what is not.
EXAMPLES: Final = 300 if LONG else 8
#: It streams for as long as its reader stays; test_events.py has it.
ENDLESS: Final = "/v1/events"
CHECKED: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
#: Of several tracks each is refused by itself, so what is not valid is answered with 202 as well.
TAKES_SOME: Final = "POST /v1/tracks"
OPERATIONS: Final = (
    "GET /livez",
    "GET /readyz",
    "GET /v1/dead-letters",
    "GET /v1/dead-letters/{partition}:{offset}",
    "POST /v1/dead-letters/{partition}:{offset}/replay",
    "GET /v1/info",
    "GET /v1/map",
    "GET /v1/results",
    "GET /v1/results.csv",
    "GET /v1/results.jsonl",
    "GET /v1/results.m3u8",
    "POST /v1/samples",
    "DELETE /v1/session",
    "POST /v1/session",
    "GET /v1/similar/{request_id}",
    "GET /v1/summary",
    "POST /v1/tracks",
    "GET /v1/tracks/{request_id}",
    "GET /v1/tracks/{request_id}/audio",
    "POST /v1/tracks/{request_id}/retry",
    "GET /v1/tracks/{request_id}/waveform",
    "GET /v1/webhooks",
    "POST /v1/webhooks",
    "DELETE /v1/webhooks/{webhook_id}",
    "GET /v1/webhooks/{webhook_id}",
    # The last: nothing is there any more.
    "DELETE /v1/results",
    "DELETE /v1/tracks/{request_id}",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBench]:
    """A gateway with a few results, on a bus that keeps its records."""
    bench = GatewayBench(tmp_path_factory.mktemp("gateway"), mode="kafka", gateway_max_waiting=100_000)
    bench.settings = bench.settings.model_copy(update={"redis_url": SecretStr("memory://fuzzed")})
    with bench:
        bench.answered(*(answer(f"r{number}") for number in range(5)), failed_result("f1"))
        yield bench


@pytest.fixture(scope="module")
def description(bench: GatewayBench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench.client.get("/openapi.json").text)
    return found


def test_every_operation_is_called(description: dict[str, Any]) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, operations in description["paths"].items()
        for method in operations
        if path != ENDLESS
    }
    assert described == set(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_an_operation_does_what_its_description_says(
    bench: GatewayBench, description: dict[str, Any], label: str
) -> None:
    method, _, path = label.partition(" ")
    operation = schemathesis.openapi.from_dict(description)[path][method]
    load_all_checks()
    checks: Any = CHECKS.get_by_names(CHECKED if label == TAKES_SOME else (*CHECKED, "negative_data_rejection"))
    modes = schemathesis.GenerationMode
    either = st.one_of(
        operation.as_strategy(generation_mode=modes.POSITIVE), operation.as_strategy(generation_mode=modes.NEGATIVE)
    )

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=either, known=st.sampled_from([None, "r0", "f1"]))
    def called(case: schemathesis.Case[Any], known: str | None) -> None:
        if known is not None and "{request_id}" in path:
            case.path_parameters["request_id"] = known
        case.call_and_validate(base_url=bench.url, checks=checks, timeout=20)

    called()
