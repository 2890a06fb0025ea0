"""Webhooks piece by piece: signatures, waits, where they may lead."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Iterator

import pytest

from services.gateway.webhooks.schedule import Schedule, pause_s
from services.gateway.webhooks.sender import Sender
from services.gateway.webhooks.signing import key_of, new_secret, signed
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.http.own_servers import Endpoint
from tests.support.web_server import Exchange, WebServer

DAY = Schedule.parse("5,60,300,1800,7200,18000,28800,28800")
NEVER = threading.Event()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


# Signatures


def test_a_signature_is_that_of_the_standard_webhooks_libraries() -> None:
    # The example of the specification's reference libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    fields = dict(signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
    assert fields == {
        b"webhook-id": b"msg_p5jXN8AQM9LWM0D4loKWxJek",
        b"webhook-timestamp": b"1614265330",
        b"webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_new_secret_is_random_and_long_enough() -> None:
    assert len(key_of(new_secret())) == 32
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ß", "whsec_" + "QUFB" * 30]
)
def test_a_secret_that_the_specification_does_not_allow_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64") as caught:
        key_of(secret)
    assert not secret.removeprefix("whsec_") or secret not in str(caught.value)


# Waits


def test_waits_grow_and_end_after_a_day() -> None:
    age_s, attempts, waits = 0.0, 0, []
    while (wait_s := DAY.next_wait_s(attempts := attempts + 1, age_s, None)) is not None:
        waits.append(wait_s)
        age_s += wait_s
    assert len(waits) == len(DAY.waits_s)
    assert all(wait <= got <= 1.25 * wait for wait, got in zip(DAY.waits_s, waits, strict=True))
    assert 23 * 3600 < age_s < 31 * 3600


def test_a_wait_that_the_receiver_asks_for_is_kept_and_has_an_end() -> None:
    assert DAY.next_wait_s(1, 0.0, 900.0) == 900.0
    assert DAY.next_wait_s(1, 0.0, 1e9) == 86400.0
    assert pause_s(1, 900.0) == 900.0


def test_a_receiver_that_fails_is_asked_at_most_once_a_minute_or_so() -> None:
    assert pause_s(1, None) < 2.0
    assert 60.0 <= pause_s(1000, None) <= 75.0


# Where they may lead


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://10.0.0.1/", "http://[::1]:8080/", "http://169.254.169.254/latest",
        "https://example.org:8443@10.0.0.1/", "ftp://example.org/", "http://user:secret@example.org/", "http://0x7f.1/",
        "http://93.184.215.14:25/",
    ],
)  # fmt: skip
def test_a_url_that_nothing_would_be_sent_to_is_refused_at_once(url: str) -> None:
    with pytest.raises(TonestreamError) as caught:
        Sender(1.0, private=False).check(url)
    assert caught.value.code is ErrorCode.FETCH_FORBIDDEN
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["https://example.org/hook", "http://93.184.215.14/", "https://example.org:8443/"])
def test_a_url_whose_address_is_not_known_to_be_private_is_taken(url: str) -> None:
    Sender(1.0, private=False).check(url)


def test_private_addresses_are_open_where_the_operator_says_so_and_those_of_cloud_metadata_never() -> None:
    sender = Sender(1.0, private=True)
    for url in ("http://127.0.0.1:9/", "http://10.1.2.3:8080/", "http://[fd00::1]:81/"):
        sender.check(url)
    with pytest.raises(TonestreamError):
        sender.check("http://169.254.169.254/latest")


def test_a_name_that_leads_to_a_private_address_is_refused_at_each_attempt(web: WebServer) -> None:
    sender = Sender(2.0, private=False, resolver=lambda host, port: ["127.0.0.1"])
    answer = sender.post(f"http://hook.example:{web.port}/", [], b"{}", NEVER)
    assert answer.status is None
    assert answer.fault is not None and "TONESTREAM_GATEWAY_WEBHOOK_PRIVATE" in answer.fault
    assert web.requests == []


def test_our_own_redis_gets_no_webhook(web: WebServer) -> None:
    sender = Sender(2.0, private=True, own=[Endpoint("127.0.0.1", web.port)])
    answer = sender.post(web.url("/"), [], b"{}", NEVER)
    assert answer.fault is not None and "the services themselves work with" in answer.fault
    assert web.requests == []


# One attempt


def test_the_body_arrives_as_it_was_signed(web: WebServer) -> None:
    web.add("/hook", status=204)
    secret, body = new_secret(), '{"title":"Übermut"}'.encode()
    answer = Sender(5.0, private=True).post(web.url("/hook"), signed(secret, "msg_1", 17, body), body, NEVER)
    assert (answer.status, answer.fault) == (204, None)
    (got,) = web.requests
    assert (got.method, got.body, got.headers["content-type"]) == ("POST", body, "application/json")
    expected = hmac.new(key_of(secret), b"msg_1.17." + got.body, hashlib.sha256).digest()
    assert got.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_a_redirect_is_a_failure_and_is_not_followed(web: WebServer) -> None:
    web.redirect("/hook", "/elsewhere", 307)
    answer = Sender(5.0, private=True).post(web.url("/hook"), [], b"{}", NEVER)
    assert answer.status == 307
    assert answer.fault is not None and "redirects are not followed" in answer.fault
    assert web.count("/elsewhere") == 0


def test_an_answer_without_end_is_not_read(web: WebServer) -> None:
    web.drip("/hook", b"HTTP/1.1 200 OK\r\n\r\n")
    assert Sender(5.0, private=True).post(web.url("/hook"), [], b"{}", NEVER).status == 200


def test_a_head_without_end_is_given_up(web: WebServer) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n")
        while not exchange.wait(0.0):
            exchange.send(b"x-filler: " + b"x" * 4000 + b"\r\n")

    web.add_handler("/hook", flood)
    answer = Sender(10.0, private=True).post(web.url("/hook"), [], b"{}", NEVER)
    assert answer.status is None and answer.fault is not None


def test_a_receiver_that_says_nothing_is_given_up_in_time(web: WebServer) -> None:
    web.hang("/hook")
    answer = Sender(0.3, private=True).post(web.url("/hook"), [], b"{}", NEVER)
    assert answer.fault is not None and "TONESTREAM_GATEWAY_WEBHOOK_TIMEOUT_S" in answer.fault


def test_the_wait_that_a_receiver_asks_for_is_known(web: WebServer) -> None:
    web.add("/hook", status=503, headers={"Retry-After": "120"})
    answer = Sender(5.0, private=True).post(web.url("/hook"), [], b"{}", NEVER)
    assert (answer.status, answer.retry_after_s) == (503, 120.0)
