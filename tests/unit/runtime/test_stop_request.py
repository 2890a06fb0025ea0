"""The signals that end a worker are noticed whenever they come, and their handler holds no lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from shared.runtime.stopping import StopRequest


@pytest.fixture
def stopping() -> Iterator[StopRequest]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    request = StopRequest(lambda: None)
    request.listen()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_that_another_thread_receives_is_noticed(stopping: StopRequest) -> None:
    # The system gives it to a thread of its choice; the main thread's wait is not interrupted then.
    def receive() -> None:
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        time.sleep(2.0)

    thread = threading.Thread(target=receive)
    thread.start()
    started = time.monotonic()
    stopping.wait(10.0)
    assert time.monotonic() - started < 1.5
    assert stopping.is_set() and stopping.name == "SIGTERM"
    thread.join()


def test_a_signal_before_the_wait_is_noticed_at_once(stopping: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    started = time.monotonic()
    stopping.wait(10.0)
    assert time.monotonic() - started < 1.0
    assert stopping.name == "SIGINT"


def test_the_wait_ends_when_something_else_did_and_in_time(stopping: StopRequest) -> None:
    started = time.monotonic()
    stopping.wait(0.3)
    stopping.wait(10.0, lambda: True)
    assert 0.3 <= time.monotonic() - started < 2.0
    assert not stopping.is_set() and stopping.name == ""


def test_a_storm_of_signals_holds_nothing_up() -> None:
    script = (
        "import os, signal, threading, time\n"
        "from shared.runtime.stopping import StopRequest\n"
        "asked = []\n"
        "stopping = StopRequest(lambda: asked.append(1))\n"
        "stopping.listen()\n"
        "def send():\n"
        "    for _ in range(500):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.001)\n"
        "storm = threading.Thread(target=send)\n"
        "storm.start()\n"
        "while storm.is_alive():\n"
        "    stopping.wait(0.01)\n"
        "print(stopping.name, len(asked) > 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("SIGTERM True\n", "")
