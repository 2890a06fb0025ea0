"""A real S3 server for tests: moto's, in a process of its own, and a proxy before it that makes trouble.

``TONESTREAM_TEST_S3_URL`` names another server that is there already, with the credentials in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from tests.support.processes import NotAvailableError, ProcessServer, Server, free_port, wait_for_port

START_TIMEOUT_S = 60.0
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class S3Server(Server):
    """``url`` is where it answers; ``credentials`` are the variables that its clients need."""

    url: str
    credentials: ClassVar[dict[str, str]] = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    @cached_property
    def client(self) -> Any:
        """Botocore's own client, to look at what is there."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.credentials["AWS_SECRET_ACCESS_KEY"],
        )

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"tonestream-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name


class GivenS3(S3Server):
    """Somebody else's server: it is used, never stopped."""

    way = "TONESTREAM_TEST_S3_URL"
    version = "S3"

    def __init__(self, url: str) -> None:
        self.url = url
        self.credentials = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")} | {  # type: ignore[misc]
            "AWS_REGION": os.environ.get("AWS_REGION", "us-east-1")
        }

    def start(self) -> None:
        raise NotAvailableError("this S3 server was given by its URL; it cannot be restarted from here")

    stop = kill = start

    def close(self) -> None:
        """Not ours to end."""


class MotoS3(ProcessServer, S3Server):
    """Moto's server. It keeps its objects in memory, so a restart forgets them."""

    way = "moto"

    def __init__(self) -> None:
        try:
            from moto import __version__
        except ImportError as error:
            raise NotAvailableError(f"moto is not installed: {error}") from None
        self.version = f"S3 (moto {__version__})"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = tempfile.TemporaryDirectory(prefix="tonestream-s3-")
        self._log = Path(self._folder.name) / "moto.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for_port(self._port, self._process, self._log, START_TIMEOUT_S)

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()


def start_s3() -> S3Server:
    """The given server, or moto's. Raises NotAvailableError."""
    given = os.environ.get("TONESTREAM_TEST_S3_URL")
    return GivenS3(given) if given else MotoS3()


#: What becomes of a request, by its method and path: None, or a status with the code and the text of an error.
Trouble = Callable[[str, str], "tuple[int, str, str] | None"]


class TroubledS3:
    """Forwards to an S3 server, except what ``trouble`` answers itself. ``asked`` counts the requests by method.

    ``cut_bodies`` is how many of the next bodies of objects break off in their middle. While ``silent`` is set it takes
    requests and answers none.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self.trouble: Trouble = lambda method, path: None
        self.cut_bodies = 0
        self.silent = threading.Event()
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer.serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def calm(self) -> None:
        """No trouble any more, and nothing counted."""
        self.trouble = lambda method, path: None
        self.cut_bodies = self.refused = 0
        self.silent.clear()
        self.asked.clear()

    def __exit__(self, *_: object) -> None:
        self.silent.clear()
        self._server.shutdown()
        self._server.server_close()

    def slow_down(self, times: int, methods: str = "GET PUT POST HEAD DELETE") -> None:
        """Refuse the next so many requests as too many."""
        left = [times]

        def trouble(method: str, path: str) -> tuple[int, str, str] | None:
            with self.lock:
                if left[0] <= 0 or method not in methods.split():
                    return None
                left[0] -= 1
            return 503, "SlowDown", "Please reduce your request rate."

        self.trouble = trouble

    def refuse(self, status: int, code: str, said: str) -> None:
        """Refuse everything."""
        self.trouble = lambda method, path: (status, code, said)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.asked[request.command] += 1
        body = self._body(request)
        while self.silent.is_set():
            time.sleep(0.05)
        refusal = self.trouble(request.command, request.path)
        with contextlib.suppress(OSError):
            if refusal is not None:
                self.refused += 1
                _answer(request, refusal)
            else:
                self._forward(request, body)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        connection = http.client.HTTPConnection(*self._target, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
            if body or request.command in {"PUT", "POST"}:
                headers["Content-Length"] = str(len(body))
            connection.request(request.command, request.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        length = answer.headers.get("Content-Length", str(len(data))) if request.command == "HEAD" else str(len(data))
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP:
                request.send_header(name, value)
        request.send_header("Content-Length", length)
        request.end_headers()
        with self.lock:
            cut = self.cut_bodies > 0 and request.command == "GET" and len(data) > 1000
            self.cut_bodies -= cut
        if cut:
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            request.connection.close()
            request.close_connection = True
        elif request.command != "HEAD":
            request.wfile.write(data)

    @staticmethod
    def _body(request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Expect", "").lower() == "100-continue":
            pass  # http.server has answered it
        length = request.headers.get("Content-Length")
        if length is not None:
            return request.rfile.read(int(length))
        if "chunked" not in request.headers.get("Transfer-Encoding", ""):
            return b""
        chunks = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            chunks.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(chunks)


def _answer(request: BaseHTTPRequestHandler, refusal: tuple[int, str, str]) -> None:
    status, code, said = refusal
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/xml")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
