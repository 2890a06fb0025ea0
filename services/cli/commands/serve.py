"""``tonestream serve``: the page and the HTTP API, with the pipeline in the same process or on Kafka."""

from __future__ import annotations

import argparse
import logging
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.cli import redacted_logs
from services.cli.output import complain
from services.cli.status import INTERRUPTED, UsageError
from shared.settings import Settings

if TYPE_CHECKING:
    from services.gateway.gateway import Gateway

#: How long what was heard stays in the blob folder unless the setting says otherwise, in seconds.
_KEEP_AUDIO_S: Final = 7 * 24 * 3600
_BACKLOG: Final = 2048
#: How long the services may take to end. What they had in hand is done again by the next run.
_STOP_S: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``serve``."""
    parser.add_argument("--host", help="address to listen at (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, help="port (default: 8000; 0 for any free one)")
    parser.add_argument("--kafka", action="store_true", help="serve the workers on Kafka, instead of its own pipeline")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--verbose", action="store_true", help="the services' log on standard error")
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    settings = settings.model_copy(
        update={
            "gateway_host": options.host or settings.gateway_host,
            "gateway_port": settings.gateway_port if options.port is None else options.port,
        }
    )
    redacted_logs.configure(settings, "text", None if options.verbose else "WARNING", client_noise=options.verbose)
    if not options.verbose:
        # At its end a loop says that it drops what it had in hand. The next run does it.
        logging.getLogger("shared.runtime").setLevel(logging.ERROR)
    _require_keys(settings)
    with ExitStack() as stack:
        listening = stack.enter_context(_listening(settings.gateway_host, settings.gateway_port))
        address = _address(settings.gateway_host, listening.getsockname()[1])
        if not options.kafka:
            complain("loading the models")
        gateway = _on_kafka(settings, stack) if options.kafka else _embedded(settings, stack)
        _run(gateway, listening, address, options.open)
    return INTERRUPTED  # it ends by a signal only, also where this process was started with that signal ignored


def _require_keys(settings: Settings) -> None:
    """Raises UsageError where everybody in the network could use a gateway without keys."""
    from services.gateway.guards import is_loopback

    protected = settings.gateway_api_keys is not None or settings.gateway_open
    if not is_loopback(settings.gateway_host) and not protected:
        raise UsageError(
            f"others could reach {settings.gateway_host} without a key: set TONESTREAM_GATEWAY_API_KEYS, or listen at"
            " 127.0.0.1"
        )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError if the port is taken or the address is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host.strip("[]"), port))
        opened.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        opened.close()
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"cannot listen at {host}, port {port}: {said}; --port names another") from error
    return opened


def _address(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def _embedded(settings: Settings, stack: ExitStack) -> Gateway:
    from services.cli.embedded import EmbeddedPipeline
    from services.gateway.gateway import Gateway
    from services.gateway.view.database import default_path

    if "keep_audio_s" not in settings.model_fields_set:
        settings = settings.model_copy(update={"keep_audio_s": _KEEP_AUDIO_S})
    settings = settings.model_copy(update={"blob_ttl_s": max(settings.blob_ttl_s, settings.keep_audio_s)})
    view = default_path(settings)
    pipeline = EmbeddedPipeline(settings, blobs=_audio_folder(view), stop_s=_STOP_S)
    stack.enter_context(pipeline)
    return Gateway(
        pipeline.settings, pipeline.bus, pipeline.blobs, view, "embedded", pipeline_fault=pipeline.ended_because
    )


def _audio_folder(view: Path) -> Path:
    return view.with_name(f"{view.stem}-audio")


def _on_kafka(settings: Settings, stack: ExitStack) -> Gateway:
    from services.gateway.gateway import Gateway
    from services.gateway.view.database import default_path
    from shared.blobs.store import BlobStore
    from shared.bus.connect import kafka_bus

    bus = kafka_bus(settings, client_id="tonestream-gateway")
    stack.callback(bus.close)
    return Gateway(settings, bus, BlobStore.of(settings), default_path(settings), "kafka")


def _run(gateway: Gateway, listening: socket.socket, address: str, show: bool) -> None:
    """Serve until a signal ends it, which is then raised as in every command."""
    from services.gateway.server import GatewayServer

    def started() -> None:
        print(f"Tonestream is at {address}", flush=True)
        complain("Ctrl-C ends it")
        if show:
            import webbrowser

            webbrowser.open(address)

    GatewayServer(gateway, started).run(sockets=[listening])
