"""Asks the worker on this machine whether it is alive, or ready: ``python -I -S services/health_probe.py [--ready]``.

A container asks every few seconds for as long as it runs. So this file needs nothing but a socket, and is run as a
script: the whole command line takes twenty times as long to load. ``tonestream health`` asks by it as well.

The port is that of TONESTREAM_HEALTH_PORT. Exit status: 0 it is well, 1 it is not or nobody answers, 2 which port?
"""

import os
import socket
import sys
from time import monotonic

#: How long the whole answer may take, seconds.
TIMEOUT_S = 5.0
#: A report is a few hundred bytes. Whoever sends more is no worker.
_MOST_BYTES = 65536


class NoAnswerError(Exception):
    """Nobody answers, or not in time, or not to the end; the message says which."""


def ask(port: int, ready: bool, timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Whether the worker at ``port`` is alive, or ready, and its report. Raises NoAnswerError."""
    probe = "readyz" if ready else "livez"
    question = f"GET /{probe} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            answer = _exchange(connection, question, monotonic() + timeout_s)
    except TimeoutError:
        raise NoAnswerError(f"the worker on port {port} gave no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise NoAnswerError(f"no worker answers on port {port}: {error.strerror or error}") from None
    status, length, report = _parsed(answer, port)
    if len(report) < length:
        raise NoAnswerError(f"the worker on port {port} broke off its answer")
    return status == b"200", report.decode("utf-8", "replace")


def _exchange(connection: socket.socket, question: bytes, deadline: float) -> bytes:
    """The whole answer to ``question``. Raises OSError, TimeoutError among them."""
    connection.sendall(question)
    answer = b""
    while len(answer) <= _MOST_BYTES:
        left_s = deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        more = connection.recv(_MOST_BYTES)
        if not more:
            break
        answer += more
    return answer


def _parsed(answer: bytes, port: int) -> tuple[bytes, int, bytes]:
    """Status, announced length and body. Raises NoAnswerError where that is no answer of a worker."""
    if not answer:
        raise NoAnswerError(f"the worker on port {port} broke off its answer")
    head, blank, report = answer.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1."):
        raise NoAnswerError(f"what answers on port {port} is no worker")
    if not blank:
        raise NoAnswerError(f"the worker on port {port} broke off its answer")
    values = [
        value for name, _, value in (field.partition(b":") for field in fields) if name.lower() == b"content-length"
    ]
    status = first.split(b" ")[1:2]
    if status not in ([b"200"], [b"503"]) or not values or not values[0].strip().isdigit():
        raise NoAnswerError(f"what answers on port {port} is no worker")
    return status[0], int(values[0]), report


def main(arguments: list[str]) -> int:
    """Print the report, or a line that says why there is none; returns the exit status."""
    port = os.environ.get("TONESTREAM_HEALTH_PORT", "")
    if arguments not in ([], ["--ready"]) or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        sys.stderr.write("health_probe: set TONESTREAM_HEALTH_PORT; the only argument is --ready\n")
        return 2
    try:
        well, report = ask(int(port), ready=bool(arguments))
    except NoAnswerError as error:
        sys.stderr.write(f"health_probe: {error}\n")
        return 1
    try:
        print(report, flush=True)
    except OSError:  # nobody reads the report; the exit status is the answer
        os._exit(0 if well else 1)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
