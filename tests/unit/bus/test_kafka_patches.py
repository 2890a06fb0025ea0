"""What reaches below kafka-python's public surface stands in one place, and goes when kafka-python no longer needs it.

What only a broker shows is in ``tests/contract``: ``test_kafka_rebalance.py`` (the answer to a join) and
``test_kafka_fencing.py`` (expelled members). ``tests/integration/test_held_on_kafka.py`` shows parked records.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kafka
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.transport import KafkaTCPTransport

from shared.bus.base import BusUnavailableError
from shared.bus.kafka.patches import transactions
from shared.bus.kafka.patches.network import _with_last_words
from tests.support.samples import ROOT

KAFKA = ROOT / "shared" / "bus" / "kafka"
PATCHES = KAFKA / "patches"


def private_touches(file: Path) -> list[str]:
    """Each private attribute of another object that the file names."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            found += [] if own else [f"{file.name}:{node.lineno}: {ast.unparse(node)}"]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kafka"):
            found += [f"{file.name}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
    return found


def imports_kafka(file: Path) -> bool:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    modules = [
        name
        for node in nodes
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
    ]  # fmt: skip
    return any(name == "kafka" or name.startswith("kafka.") for name in modules)


def test_private_parts_of_kafka_python_are_touched_in_the_patches_only() -> None:
    elsewhere = [file for file in KAFKA.rglob("*.py") if PATCHES not in file.parents]
    assert [touch for file in elsewhere for touch in private_touches(file)] == []


def test_nothing_else_of_the_product_knows_kafka_python() -> None:
    rooms = [*(ROOT / "shared").rglob("*.py"), *(ROOT / "services").rglob("*.py"), *(ROOT / "training").rglob("*.py")]
    assert [str(file) for file in rooms if KAFKA not in file.parents and imports_kafka(file)] == []


def test_the_patches_are_written_for_this_version() -> None:
    """With another one, read what each of them says and try the contract suite without it."""
    assert kafka.__version__.startswith("3.0.")


@pytest.mark.parametrize(
    "method",
    [KafkaProducer.send_offsets_to_transaction, KafkaProducer.commit_transaction, KafkaProducer.abort_transaction],
)
def test_a_step_of_a_transaction_takes_no_time_limit(method: Any) -> None:
    assert not [name for name in inspect.signature(method).parameters if "timeout" in name]


def test_ours_does() -> None:
    woken = threading.Event()
    never = SimpleNamespace(wait=lambda timeout_ms: False)
    producer = SimpleNamespace(
        _transaction_manager=SimpleNamespace(begin_commit=lambda: never), _sender=SimpleNamespace(wakeup=woken.set)
    )
    with pytest.raises(BusUnavailableError, match="in time"):
        transactions.commit(producer, deadline=0.0)
    assert woken.is_set()


class Stuck(KafkaProducer):  # type: ignore[misc]
    """A producer whose records cannot be sent."""

    def __init__(self) -> None:
        self.forced: list[str] = []
        self._closed = False
        self._sender = SimpleNamespace(
            force_close=lambda: self.forced.append("closed"), is_alive=lambda: True, join=lambda timeout: None
        )
        self._unregister_cleanup = lambda: None

    def __str__(self) -> str:
        return "stuck"

    def __del__(self) -> None:
        pass

    def flush(self, timeout: float | None = None) -> None:
        raise kafka_errors.KafkaTimeoutError("not flushed")


def test_a_producer_that_cannot_flush_leaves_its_thread_alive_when_it_is_closed() -> None:
    unpatched, patched = Stuck(), Stuck()
    with pytest.raises(kafka_errors.KafkaTimeoutError):
        unpatched.close(timeout=0)
    assert unpatched.forced == []
    transactions.close(patched, 0.0)
    assert patched.forced == ["closed"] and patched._closed


def test_what_is_asked_of_a_consumer_has_no_public_method() -> None:
    public = {name for name, _ in inspect.getmembers(KafkaConsumer, inspect.isfunction) if not name.startswith("_")}
    assert not {name for name in public if "heartbeat" in name or "rejoin" in name or "parked" in name}
    committed = inspect.signature(KafkaConsumer.committed).parameters
    assert "partitions" not in committed and "partition" in committed, "one partition a request"
    assert not [name for name in inspect.signature(KafkaConsumer.partitions_for_topic).parameters if "timeout" in name]
    source = inspect.getsource(KafkaConsumer.position)
    assert "_refresh_committed_offsets" in source, "it asks the broker"


def test_data_that_comes_with_the_end_of_a_connection_comes_first() -> None:
    ended = ConnectionError("hung up")
    transport = SimpleNamespace(_sock_recv=lambda: (b"refused", ended))
    assert _with_last_words(transport)._sock_recv() == (b"refused", None)
    transport = SimpleNamespace(_sock_recv=lambda: (b"", ended))
    assert _with_last_words(transport)._sock_recv() == (b"", ended)


def test_kafka_python_drops_data_that_comes_with_the_end_of_a_connection() -> None:
    class AtTheEnd(KafkaTCPTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._read, self._closed, self._sock = True, False, None
            self.received: list[bytes] = []
            self._net = SimpleNamespace(wait_read=self._at_once)
            self._protocol = SimpleNamespace(data_received=self.received.append, _sensors=None)

        def __str__(self) -> str:
            return "at the end"

        async def _at_once(self, sock: object) -> None:
            pass

        def _sock_recv(self) -> tuple[bytes, Exception]:
            return b"refused", ConnectionError("hung up")

        def abort(self, error: Exception) -> None:
            self._closed = True

    transport = AtTheEnd()
    asyncio.run(transport._read_from_sock())
    assert transport._closed and transport.received == []
