"""A small web server of scripted answers, well- and ill-behaved ones, on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

Handler = Callable[["Exchange"], None]

#: Bytes of a drip: more than any test waits for.
_DRIPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in: ``path`` with its query, header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """One request, and the means to answer it: in one piece, or badly."""

    def __init__(self, request: Request, write: Callable[[bytes], None], closing: threading.Event) -> None:
        self.request = request
        self._write = write
        self._closing = closing

    def answer(self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole answer. Its Content-Length is that of the body unless ``headers`` says otherwise."""
        fields = {"Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
        self.send("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body)

    def send(self, raw: bytes) -> None:
        """Bytes as they are, headers and all."""
        self._write(raw)

    def wait(self, seconds: float) -> bool:
        """Let time pass. True when the server is closing and the handler has to end."""
        return self._closing.wait(seconds)


class WebServer:
    """Answers on 127.0.0.1 what it was told to, and 404 to the rest. Every answer closes its connection."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._routes: dict[str, Handler] = {}
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler_class())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self._server.server_address[1])

    @property
    def authority(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        """The URL of a path, which begins with a slash."""
        return f"http://{self.authority}{path}"

    def count(self, path: str) -> int:
        """How often the path was asked for."""
        return sum(request.path == path for request in list(self.requests))

    def add(self, path: str, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """A fixed answer. With an ETag or Last-Modified it is 304 to those who hold that version."""
        fields = dict(headers or {})

        def fixed(exchange: Exchange) -> None:
            asked = exchange.request.headers
            held = [(asked.get("if-none-match"), fields.get("ETag"))]
            held.append((asked.get("if-modified-since"), fields.get("Last-Modified")))
            if any(theirs is not None and theirs == ours for theirs, ours in held):
                exchange.answer(304, headers=fields)
            else:
                exchange.answer(status, body, fields)

        self.add_handler(path, fixed)

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        """Send those who ask for ``path`` to ``location``."""
        self.add(path, status=status, headers={"Location": location})

    def drip(self, path: str, head: bytes, pause_s: float = 0.05, byte: bytes = b"x") -> None:
        """``head`` at once, as raw bytes, and then one byte after the other, without end."""

        def drop_by_drop(exchange: Exchange) -> None:
            exchange.send(head)
            for _ in range(_DRIPS):
                if exchange.wait(pause_s):
                    return
                exchange.send(byte)

        self.add_handler(path, drop_by_drop)

    def hang(self, path: str) -> None:
        """Take the request and say nothing."""

        def say_nothing(exchange: Exchange) -> None:
            exchange.wait(60.0)

        self.add_handler(path, say_nothing)

    def add_handler(self, path: str, handler: Handler) -> None:
        """Let ``handler`` answer what is asked for ``path`` (the query is looked at only if ``path`` has one)."""
        self._routes[path] = handler

    def close(self) -> None:
        """End the server and whatever still hangs or drips."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Connection(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                fields = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, fields, body)
                web.requests.append(request)
                routes = web._routes
                handler = routes.get(self.path) or routes.get(self.path.partition("?")[0]) or _not_found
                handler(Exchange(request, self._send, web._closing))

            def do_POST(self) -> None:
                self.do_GET()

            def do_DELETE(self) -> None:
                self.do_GET()

            def _send(self, raw: bytes) -> None:
                self.wfile.write(raw)
                self.wfile.flush()

            def log_message(self, format: str, *args: Any) -> None:
                """Tests read ``requests`` instead."""

        return Connection


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is what many tests are about."""


def _not_found(exchange: Exchange) -> None:
    exchange.answer(404, b"nothing here", {"Content-Type": "text/plain"})
