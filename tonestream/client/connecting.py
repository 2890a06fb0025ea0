"""From an address to what a client speaks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from shared.contracts.faults import faults

if TYPE_CHECKING:
    from tonestream.client.over_http import AsyncHttpEnd, HttpEnd
    from tonestream.client.over_kafka import AsyncKafkaEnd, KafkaEnd

KAFKA_SCHEME: Final = "kafka://"
_NEEDS_HTTPX: Final = 'a client over HTTP needs httpx: pip install "tonestream[client]"'


def http_end(address: str, api_key: str | None, timeout_s: float, retries: int) -> HttpEnd:
    """A gateway. Raises ImportError without httpx, ValueError for another address."""
    try:
        from tonestream.client.over_http import HttpEnd
    except ModuleNotFoundError as error:
        raise ImportError(_NEEDS_HTTPX) from error
    return HttpEnd(address, api_key, timeout_s, retries)


def async_http_end(address: str, api_key: str | None, timeout_s: float, retries: int) -> AsyncHttpEnd:
    """A gateway, with asyncio. Raises as `http_end` does."""
    try:
        from tonestream.client.over_http import AsyncHttpEnd
    except ModuleNotFoundError as error:
        raise ImportError(_NEEDS_HTTPX) from error
    return AsyncHttpEnd(address, api_key, timeout_s, retries)


def kafka_end(bootstrap_servers: str, timeout_s: float, **settings: object) -> KafkaEnd:
    """The topics behind these brokers. ``settings`` are fields of `shared.settings.Settings`.

    Raises ValueError for a setting that there is not, or that has an invalid value.
    """
    from shared.bus.connect import kafka_bus
    from shared.contracts.topics import Topics
    from shared.settings import Settings
    from tonestream.client.over_kafka import FilePlace, KafkaEnd

    if unknown := sorted(set(settings) - set(Settings.model_fields)):
        raise ValueError(f"there is no setting {unknown[0]!r}; docs/settings.md lists them, without TONESTREAM_")
    servers = bootstrap_servers.removeprefix(KAFKA_SCHEME).rstrip("/")
    try:
        known = Settings.model_validate({**settings, "kafka_bootstrap_servers": servers})
    except ValidationError as error:
        raise ValueError(faults(error, "setting")) from None
    blob_url = known.blob_url if "blob_url" in known.model_fields_set else None
    bus = kafka_bus(known, client_id="tonestream-client", connect_timeout_s=timeout_s)
    return KafkaEnd(bus, Topics(known.topic_prefix), FilePlace(known.local_files, blob_url), timeout_s)


def async_kafka_end(bootstrap_servers: str, timeout_s: float, **settings: object) -> AsyncKafkaEnd:
    """The topics behind these brokers, for asyncio. Raises as `kafka_end` does."""
    from tonestream.client.over_kafka import AsyncKafkaEnd

    return AsyncKafkaEnd(kafka_end(bootstrap_servers, timeout_s, **settings))
