"""Whom the gateway answers, what browsers may do with it, and how its errors and its description look."""

from __future__ import annotations

import gzip
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from services.gateway import static_page
from services.gateway.app import create_app
from services.gateway.guards import is_loopback
from tests.support.gateway_bench import GatewayBench, answer, problem_of

URL = "https://example.org/song.mp3"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBench]:
    """A gateway that may also be called music.example.org, and used by the scripts of one site."""
    with GatewayBench(
        tmp_path_factory.mktemp("gateway"),
        gateway_hosts="music.example.org, other.example.org",
        gateway_cors_origins="https://app.example.org",
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("gw.localhost", 200), ("10.0.0.7", 200),
        ("music.example.org", 200), ("MUSIC.example.org.:80", 200), ("evil.example.org", 403),
        ("localhost.evil.example.org", 403), ("evil.org@localhost]", 403), ("", 403),
    ],
)  # fmt: skip
def test_only_known_names_are_answered(bench: GatewayBench, host: str, status: int) -> None:
    """A web site that lets its name lead to 127.0.0.1 reaches nothing."""
    found = bench.client.get("/v1/summary", headers={"Host": host})
    assert found.status_code == status
    if status == 403:
        assert problem_of(found) == (403, "forbidden")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "none"}, 202),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example.org"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"}, 202),
        ({"Origin": "http://music.example.org", "Host": "music.example.org"}, 202),
    ],
)
def test_pages_of_other_sites_cannot_send_anything(bench: GatewayBench, headers: dict[str, str], status: int) -> None:
    assert bench.post({"audio_url": URL}, **headers).status_code == status


def test_scripts_of_other_sites_cannot_read_unless_they_are_allowed(bench: GatewayBench) -> None:
    own = bench.client.get("/v1/summary", headers={"Origin": "https://app.example.org"})
    other = bench.client.get("/v1/summary", headers={"Origin": "https://evil.example.org"})
    assert own.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "access-control-allow-origin" not in other.headers


def test_every_answer_carries_the_headers_that_keep_it_where_it_belongs(bench: GatewayBench) -> None:
    for path in ("/", "/v1/results", "/nowhere", "/static/nothing.js", "/v1/tracks/x"):
        headers = bench.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe-inline" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    refused = bench.client.get("/", headers={"Host": "evil.example.org"})
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_errors_are_problem_documents_whatever_they_are(bench: GatewayBench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_of(bench.client.get("/v1/nowhere")) == (404, "not_found")
    assert problem_of(bench.client.get("/static/../../etc/passwd")) == (404, "not_found")
    refused = bench.client.put("/v1/tracks")
    assert problem_of(refused) == (405, "method_not_allowed") and "POST" in refused.headers["allow"]
    assert problem_of(bench.client.get("/v1/tracks/x?wait=61")) == (422, "invalid_request")
    monkeypatch.setattr(bench.gateway.feed, "expecting", lambda request_id: 1 / 0)
    found = bench.client.get("/v1/tracks/x")
    assert problem_of(found) == (500, "internal") and "ZeroDivision" not in found.text


def test_the_page_has_tags_that_spare_its_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html>" + "<p>music</p>" * 500)
    (tmp_path / "page" / "app.js").write_text("'use strict';")
    monkeypatch.setattr(static_page.mount, "__defaults__", (tmp_path / "page",))
    with GatewayBench(tmp_path) as bench:
        _check_page(bench)


def _check_page(bench: GatewayBench) -> None:
    page = bench.client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    request = urllib.request.Request(f"{bench.url}/", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as raw:
        assert gzip.decompress(raw.read()).decode() == page.text
    again = bench.client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert bench.client.get("/static/app.js").headers["cache-control"] == "no-cache"
    for outside in ("/static/%2e%2e/library.sqlite", "/static/..%2flibrary.sqlite"):
        assert bench.client.get(outside).status_code == 404


def test_openapi_names_every_error_and_loads_nothing_from_other_sites(bench: GatewayBench) -> None:
    document = bench.client.get("/openapi.json").json()
    app = create_app(bench.gateway)
    assert isinstance(app, FastAPI) and app.docs_url is None and app.redoc_url is None
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"] and operation["description"], path
            if path.startswith("/v1"):
                problem = operation["responses"]["422"]["content"]["application/problem+json"]["schema"]
                assert problem == {"$ref": "#/components/schemas/ProblemDetail"}, path
    assert _dangling(document, document["components"]["schemas"]) == set()
    body = document["paths"]["/v1/tracks"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data", "application/octet-stream", "audio/*"}
    assert "HTTPValidationError" not in json.dumps(document)


def _dangling(part: object, schemas: dict[str, object]) -> set[str]:
    """References to schemas that are not there."""
    if isinstance(part, dict):
        named = part.get("$ref", "")
        missing = {named} if named and str(named).rpartition("/")[2] not in schemas else set()
        return missing.union(*(_dangling(value, schemas) for value in part.values()))
    if isinstance(part, list):
        return set().union(*(_dangling(value, schemas) for value in part))
    return set()


def test_the_gateway_says_what_it_is(bench: GatewayBench) -> None:
    info = bench.client.get("/v1/info").json()
    assert info["mode"] == "embedded" and info["models"][0] == "musicnn-lstm" and not info["auth_required"]
    assert info["limits"]["upload_bytes"] == 200 * 1024 * 1024
    assert bench.client.get("/livez").json() == bench.client.get("/readyz").json() == {"ok": True}


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("music.example.org", False)],
)  # fmt: skip
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_gateway_for_others_answers_to_any_name_because_its_keys_protect_it(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, gateway_host="0.0.0.0", gateway_api_keys="a-secret-of-24-characters") as open_one:
        assert open_one.client.get("/livez", headers={"Host": "music.example.org"}).status_code == 200
    with GatewayBench(tmp_path, gateway_host="0.0.0.0", gateway_hosts="music.example.org") as named:
        named.answered(answer("r"))
        assert named.client.get("/livez", headers={"Host": "evil.example.org"}).status_code == 403
