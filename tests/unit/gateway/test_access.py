"""Who may use the gateway, and how much."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.gateway.access import COOKIE, Keys
from services.gateway.rate import Limiter, Rate
from shared.runtime.redaction import Redactor
from shared.settings import Settings
from tests.support.gateway_bench import GatewayBench, problem_of

ONE, TWO = "first-key-0123456789", "second-key-0123456789"
URL = "https://example.org/song.mp3"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBench]:
    folder = tmp_path_factory.mktemp("gateway")
    with GatewayBench(folder, gateway_api_keys=f"{ONE}, {TWO}", gateway_rate_limit="5/hour") as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Keys


def test_without_a_key_only_the_page_and_what_says_whether_the_gateway_lives_are_open(bench: GatewayBench) -> None:
    for path in ("/livez", "/readyz", "/v1/info", "/", "/static/nothing.js"):
        assert bench.client.get(path).status_code in (200, 404), path
    closed = ["/v1/results", "/v1/summary", "/v1/events", "/v1/webhooks", "/v1/tracks/x", "/openapi.json", "/nowhere"]
    for path in [*closed, "/metrics", "/static/../v1/results", "//v1/results", "/v1/info/", "/v1/session/x"]:
        found = bench.client.get(path)
        assert problem_of(found) == (401, "unauthorized"), path
        assert found.headers["www-authenticate"].startswith("Bearer")
    assert bench.post({"audio_url": URL}).status_code == 401


@pytest.mark.parametrize("key", [ONE, TWO])
def test_every_key_opens_as_bearer_and_as_x_api_key(bench: GatewayBench, key: str) -> None:
    for headers in (bearer(key), {"X-API-Key": key}, {"Authorization": f"bearer  {key}"}):
        assert bench.client.get("/v1/summary", headers=headers).status_code == 200
        assert "tonestream_view_results" in bench.client.get("/metrics", headers=headers).text


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ONE}"},
        {"Authorization": ONE},
        {"X-API-Key": f"{ONE}, {TWO}"},
        {"X-API-Key": ONE[:-1]},
        {"X-API-Key": ONE.upper()},
        {"Cookie": f"{COOKIE}={ONE}"},
    ],
)
def test_what_is_no_key_opens_nothing(bench: GatewayBench, headers: dict[str, str]) -> None:
    assert problem_of(bench.client.get("/v1/summary", headers=headers)) == (401, "unauthorized")


def test_a_key_never_comes_back(bench: GatewayBench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        said = [
            bench.client.get("/v1/tracks/none", headers=bearer(ONE)).text,
            bench.client.get("/v1/summary", headers=bearer(f"{ONE}x")).text,
            bench.client.post("/v1/session", headers=bearer(f"{ONE}x")).text,
            *bench.client.post("/v1/session", headers=bearer(ONE)).headers.values(),
        ]
    assert not any(ONE in text for text in [*said, *(record.getMessage() for record in caplog.records)])


def test_each_key_is_redacted_by_itself() -> None:
    settings = Settings.model_validate({"gateway_api_keys": f"{ONE},{TWO}"})
    assert Redactor(settings.secrets())(f"{TWO} and {ONE}") == "*** and ***"


@pytest.mark.parametrize("keys", ["short", f"{ONE},short", " , ", "ключ-из-многих-букв"])
def test_a_key_that_can_be_guessed_is_refused_at_the_start_and_not_quoted(keys: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"gateway_api_keys": keys})
    assert "short" not in str(caught.value)


def test_keys_may_stand_in_a_file_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tonestream_gateway_api_keys").write_text(f"{ONE}\n", encoding="utf-8")
    monkeypatch.setenv("TONESTREAM_SECRETS_DIR", str(tmp_path))
    assert Keys.of(Settings()).holder(ONE) is not None


def test_an_address_that_tries_many_keys_is_slowed_down_and_a_right_key_still_opens(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, gateway_api_keys=ONE) as other:
        # On a slow machine the limit grows while the guesses are made.
        guesses = (problem_of(other.client.get("/v1/summary", headers=bearer(f"guess-{n}")))[1] for n in range(1000))
        assert next(guesses) == "unauthorized"
        assert "rate_limited" in guesses
        signing_in = (other.client.post("/v1/session", headers=bearer("guess")) for _ in range(1000))
        slowed = next(found for found in signing_in if found.status_code == 429)
        assert int(slowed.headers["retry-after"]) >= 1
        assert other.client.get("/v1/summary", headers=bearer(ONE)).status_code == 200


# Sessions


def test_a_page_signs_in_once_and_out_again(bench: GatewayBench) -> None:
    found = bench.client.post("/v1/session", headers=bearer(ONE))
    cookie = found.headers["set-cookie"]
    assert found.status_code == 204
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Max-Age=604800" in cookie
    held = {"Cookie": cookie.partition(";")[0]}
    bench.client.cookies.clear()
    assert bench.client.get("/v1/summary", headers=held).status_code == 200
    out = bench.client.delete("/v1/session", headers=held)
    assert out.status_code == 204 and "Max-Age=0" in out.headers["set-cookie"]
    bench.client.cookies.clear()
    assert bench.client.get("/v1/summary").status_code == 401


def test_a_session_needs_a_right_key(bench: GatewayBench) -> None:
    for headers in ({}, bearer("wrong")):
        found = bench.client.post("/v1/session", headers=headers)
        assert problem_of(found) == (401, "unauthorized") and "set-cookie" not in found.headers


def test_a_session_ends_with_its_time_and_with_its_key_and_cannot_be_stretched() -> None:
    now = [1000.0]
    keys = Keys((ONE, TWO), 60, clock=lambda: now[0])
    cookie = keys.session(ONE)
    assert ONE not in cookie
    assert keys.session_holder(cookie) == keys.holder(ONE) != keys.holder(TWO)
    assert Keys((TWO,), 60, clock=lambda: now[0]).session_holder(cookie) is None
    end, _, rest = cookie.partition(".")
    for forged in (
        f"{int(end) + 1}.{rest}",
        cookie[:-1],
        f"{cookie}x",
        "",
        ".",
        "..",
        f"-{cookie}",
        f"{end}..ü",
        "9" * 30,
    ):
        assert keys.session_holder(forged) is None
    now[0] += 61
    assert keys.session_holder(cookie) is None


def test_a_gateway_without_keys_lets_everybody_in_and_sets_no_cookie(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as other:
        assert other.client.get("/v1/summary").status_code == 200
        found = other.client.post("/v1/session")
        assert found.status_code == 204 and "set-cookie" not in found.headers


# Limits


def test_each_key_may_submit_so_many_tracks_and_then_has_to_wait(bench: GatewayBench) -> None:
    mine = {"Authorization": f"Bearer {ONE}"}
    found = bench.post({"tracks": [{"audio_url": URL}] * 3}, **mine)
    assert found.status_code == 202
    assert found.headers["ratelimit-policy"] == '"submissions";q=5;w=3600'
    assert found.headers["ratelimit"].startswith('"submissions";r=2;')
    assert [bench.post({"audio_url": URL}, **mine).status_code for _ in range(3)] == [202, 202, 429]
    refused = bench.post({"audio_url": URL}, **mine)
    assert problem_of(refused) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 720
    assert bench.client.get("/v1/summary", headers=mine).status_code == 200, "only submissions are limited"
    assert bench.post({"audio_url": URL}, **bearer(TWO)).status_code == 202, "each key has its own limit"


def test_without_keys_each_address_has_its_limit(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, gateway_rate_limit="1/day") as other:
        assert [other.post({"audio_url": URL}).status_code for _ in range(2)] == [202, 429]


def test_a_bucket_fills_with_time_and_no_further() -> None:
    now = [0.0]
    limiter = Limiter(Rate.parse("60/minute"), clock=lambda: now[0])
    assert not any(limiter.take("a").refused for _ in range(60))
    refused = limiter.take("a")
    assert refused.refused and refused.wait_s == 1
    now[0] += 2.0
    assert [limiter.take("a").refused for _ in range(3)] == [False, False, True]
    now[0] += 1e6
    assert limiter.take("a").remaining == 59


def test_more_than_a_bucket_at_once_is_taken_from_a_full_one_and_paid_for_afterwards() -> None:
    now = [0.0]
    limiter = Limiter(Rate.parse("10/second"), clock=lambda: now[0])
    assert not limiter.take("a", 1000).refused
    assert limiter.take("a").wait_s == 100
    now[0] += 99.0
    assert limiter.take("a").refused
    now[0] += 1.2
    assert not limiter.take("a").refused


def test_only_so_many_clients_are_remembered() -> None:
    limiter = Limiter(Rate.parse("1/day"), most_clients=100)
    for number in range(1000):
        limiter.take(f"client {number}")
    assert len(limiter._buckets) == 100
    assert limiter.take("client 999").refused


def test_clients_at_the_same_time_get_no_more_than_the_limit() -> None:
    limiter = Limiter(Rate.parse("50/day"))
    start = threading.Barrier(8)

    def ask(_: int) -> int:
        start.wait()
        return sum(not limiter.take("a").refused for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 50


def test_the_description_names_the_ways_to_bring_a_key(bench: GatewayBench) -> None:
    document = json.loads(bench.client.get("/openapi.json", headers=bearer(ONE)).text)
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header", "session"}
    assert "401" in document["paths"]["/v1/results"]["get"]["responses"]
