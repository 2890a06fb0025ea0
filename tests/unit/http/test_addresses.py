"""Where connections may lead."""

from __future__ import annotations

import ipaddress

import pytest

from shared.http.addresses import AllowList, is_public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "100.64.0.1",
        "100.100.100.200", "168.63.129.16", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "100::1", "2001:db8::1",
        "3fff::1", "5f00::1", "4000::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8",
        "2002:7f00:1::1", "2002:a00:1::1", "2002:808:808::1", "2001:0:7f00:1::1", "2001:0:808:808::f7f7:f7f7",
        "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8",
        "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:10.0.0.1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_on_the_public_internet_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8"])
def test_an_address_on_the_public_internet_is_taken(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "permitted"),
    [
        ("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8081, False),
        ("127.0.0.1:8080", "127.0.0.2", "127.0.0.2", 8080, False),
        ("127.0.0.0/8:*", "anything", "127.9.9.9", 1, True),
        ("127.0.0.0/8", "anything", "127.9.9.9", 65535, True),
        ("127.0.0.0/8", "anything", "128.0.0.1", 8080, False),
        ("localhost", "localhost", "127.0.0.1", 9000, True),
        ("LocalHost.:9000", "localhost", "127.0.0.1", 9000, True),
        ("localhost", "LOCALHOST.", "::1", 9000, True),
        ("localhost", "notlocalhost", "127.0.0.1", 80, False),
        ("media_store.local:81", "media_store.local", "10.0.0.1", 81, True),
        ("[::1]:80", "::1", "::1", 80, True),
        ("[::1]:80", "::1", "::1", 81, False),
        ("::1", "::1", "::1", 81, True),
        ("[fd00::/8]:*", "x", "fd12::1", 81, True),
        ("fd00::/8", "x", "fd12::1", 81, True),
        ("10.0.0.0/8", "x", "::ffff:10.0.0.1", 80, False),
        (" 10.0.0.1 , localhost:81 ,", "localhost", "127.0.0.1", 81, True),
        ("", "example.org", "93.184.215.14", 443, True),
        ("", "example.org", "93.184.215.14", 22, False),
        ("", "example.org", "10.0.0.1", 443, False),
    ],
)
def test_an_allow_list_opens_what_it_names_and_nothing_else(
    entry: str, host: str, address: str, port: int, permitted: bool
) -> None:
    assert AllowList.parse(entry).permits(host, ipaddress.ip_address(address), port) is permitted


@pytest.mark.parametrize(
    "entry",
    [
        "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8_0",
        "127.0.0.0/33", "10.0.0/8", "/8", ":80", "[::1", "[::1]80", "[::1]:", "[::1]:x", "[localhost]:80", "[]:80",
        "300.1.1.1", "10.0.0.1.5:80", "1234567890123", "*", "*.example.org", "two words", "http://example.org",
        "http://example.org:80/", "example.org/path", "a:b:c", "-x.example.org", "a..b",
    ],
)  # fmt: skip
def test_an_entry_of_an_allow_list_that_means_nothing_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="fetch_allow") as caught:
        AllowList.parse(f"localhost, {entry}")
    assert repr(entry) in str(caught.value)
