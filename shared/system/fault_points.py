"""Named places at which a test may kill or stop the process, as if its machine had failed there.

Armed by the environment variable ``TONESTREAM_FAULT_POINTS``, ``name=chance`` separated by commas, e.g.
``committed=0.01,kafka.sent=0.005``: the process dies there with that chance. ``name=stop`` stops it the first time,
until it gets SIGCONT: then it is a zombie that does not know that others took its place. An unarmed fault point does
nothing. This is no setting of the product; only tests use it.
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
#: The batch is in the in-flight registry, nothing is handled.
BATCH_BEGUN: Final = "batch.begun"
#: A request is claimed, nothing is done for it.
REQUEST_ENTERED: Final = "request.entered"
#: A request leads its source, nothing is fetched.
LEAD_TAKEN: Final = "lead.taken"
#: It is known what the source holds, and nothing is published yet.
SOURCE_REMEMBERED: Final = "source.remembered"
#: Audio is in the blob store, nothing refers to it.
AUDIO_STORED: Final = "audio.stored"
#: The parts of requests are written down, none is answered.
PARTS_NOTED: Final = "parts.noted"
#: A request's answer is claimed, the answer is not published.
ANSWER_CLAIMED: Final = "answer.claimed"
#: An answer is cached, it is not published.
ANSWER_KEPT: Final = "answer.kept"
#: A music file is copied, the copy has no new tags yet.
TAGS_COPIED: Final = "tags.copied"
#: The copy has its tags, the journal does not know.
TAGS_SAVED: Final = "tags.saved"
#: The journal knows, the file is not replaced.
TAGS_NOTED: Final = "tags.noted"
#: The file is replaced, nothing is reported.
TAGS_REPLACED: Final = "tags.replaced"

#: Those of the services, which a storm arms.
FAULT_POINTS: Final = (
    BATCH_BEGUN, REQUEST_ENTERED, LEAD_TAKEN, SOURCE_REMEMBERED, AUDIO_STORED, PARTS_NOTED, ANSWER_CLAIMED, ANSWER_KEPT,
    HANDLED, KAFKA_SENT, KAFKA_OFFSETS_SENT, COMMITTED,
)  # fmt: skip
#: Those of writing tags.
TAG_FAULT_POINTS: Final = (TAGS_COPIED, TAGS_SAVED, TAGS_NOTED, TAGS_REPLACED)

_STOP: Final = "stop"


def _armed(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


_ARMED: Final = _armed(os.environ.get(VARIABLE, ""))


def fault_point(name: str) -> None:
    """Die here (by SIGKILL, without clean-up) with the chance that ``name`` is armed with; or stop, once."""
    if not _ARMED or name not in _ARMED:
        return
    if _ARMED[name] == _STOP:
        del _ARMED[name]
        signal_number = signal.SIGSTOP
    elif random.random() < float(_ARMED[name]):
        signal_number = signal.SIGKILL
    else:
        return
    print(f'{{"fault_point": "{name}"}}', file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal_number)
