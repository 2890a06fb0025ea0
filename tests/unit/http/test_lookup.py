"""Look-ups of host names that hang."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.contracts.errors import TransientError
from shared.http.lookup import LookUps


def test_look_ups_that_hang_are_bounded_in_number_and_free_their_place_when_they_end() -> None:
    released = threading.Event()
    running = threading.Semaphore(0)

    def hang(host: str, port: int) -> list[str]:
        running.release()
        released.wait(30.0)
        return ["93.184.215.14"]

    look_ups = LookUps(hang, most_at_once=4)
    before = threading.active_count()
    with ThreadPoolExecutor(12) as pool:
        hung = [pool.submit(look_ups.addresses, "slow.example", 80, 0.2) for _ in range(12)]
        codes = {type(future.exception()) for future in hung}
    assert codes == {TransientError}
    assert threading.active_count() <= before + 4
    started = time.monotonic()
    with pytest.raises(TransientError, match="too many"):
        look_ups.addresses("another.example", 80, 0.1)
    assert time.monotonic() - started < 1.0
    released.set()
    assert look_ups.addresses("another.example", 80, 5.0) == ["93.184.215.14"]


def test_a_look_up_that_hangs_keeps_no_process_from_ending() -> None:
    script = (
        "import time\n"
        "from shared.http.lookup import LookUps\n"
        "try: LookUps(lambda host, port: time.sleep(60)).addresses('slow.example', 80, 0.1)\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert "could not be looked up" in done.stdout
