"""Asks the worker on this machine whether it is alive. A container does so every few seconds, so it has to cost little.

Run as a file (``python -I -S health_probe.py``) it loads nothing but sockets, while ``tonestream health`` loads the
settings first. The port comes from TONESTREAM_HEALTH_PORT. Exit status 0: it is alive. With the argument ``readyz`` the
question is whether it takes work.
"""

import os
import socket
import sys
import time

LIVE = "livez"
READY = "readyz"


def ask(port: int, path: str = LIVE, timeout_s: float = 5.0) -> tuple[bool, str]:
    """``(ok, report)`` of the worker on this machine: whether it answers 200 to ``GET /path``, and what it says.

    Raises OSError if no whole answer came within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    head, separator, report = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("it gives no answer that can be read")
    return words[1] == b"200", report.decode("utf-8", "replace")


def is_port(text: str) -> bool:
    """Whether it is the number of a port."""
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def main() -> int:
    """Ask, and say what came of it; returns the exit status."""
    port = os.environ.get("TONESTREAM_HEALTH_PORT", "")
    if not is_port(port):
        print(f"TONESTREAM_HEALTH_PORT is {port!r}, and no port", file=sys.stderr)
        return 2
    path = sys.argv[1] if len(sys.argv) > 1 else LIVE
    try:
        ok, report = ask(int(port), path)
    except OSError as error:
        print(f"no worker answers on port {port}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    print(report)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
