"""Named places at which a test may have the process die, as if its machine had failed just there.

Armed by the environment variable ``TONESTREAM_FAULT_POINTS``, ``name=chance`` separated by commas, e.g.
``committed=0.01,kafka.sent=0.005``; unarmed a fault point does nothing. No setting of the product: nobody wants it but
the chaos suite.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Final

VARIABLE: Final = "TONESTREAM_FAULT_POINTS"
#: A batch is handled, nothing is published.
HANDLED: Final = "handled"
#: The transaction is committed, nothing is cleaned up.
COMMITTED: Final = "committed"
#: The outputs are with the broker, the offsets are not.
KAFKA_SENT: Final = "kafka.sent"
#: Outputs and offsets are with the broker, the transaction is not committed.
KAFKA_OFFSETS_SENT: Final = "kafka.offsets-sent"
#: Audio is in the blob store, nobody knows of it.
AUDIO_STORED: Final = "audio.stored"
#: The parts of requests are written down, none is answered.
PARTS_NOTED: Final = "parts.noted"
#: A request's answer is claimed, the answer is not published.
ANSWER_CLAIMED: Final = "answer.claimed"

FAULT_POINTS: Final = (
    HANDLED, COMMITTED, KAFKA_SENT, KAFKA_OFFSETS_SENT, AUDIO_STORED, PARTS_NOTED, ANSWER_CLAIMED,
)  # fmt: skip


def _armed(text: str) -> dict[str, float]:
    pairs = (pair.split("=") for pair in text.split(",") if pair)
    return {name: float(chance) for name, chance in pairs}


_ARMED: Final = _armed(os.environ.get(VARIABLE, ""))


def fault_point(name: str) -> None:
    """Die here (SIGKILL: no clean-up, no good-bye) with the chance that ``name`` is armed with."""
    if _ARMED and random.random() < _ARMED.get(name, 0.0):
        print(f'{{"fault_point": "{name}"}}', file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
