"""The command line. Exit status: 0 all is well, 1 something failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

from pydantic import ValidationError

from services.cli import dead_letters, evaluate, redacted_logs, train
from services.cli.inputs import Input, expand, refuse_too_large
from services.cli.registry import SERVICE_NAMES
from services.cli.status import FAILED, INTERRUPTED, OK, WRONG_USAGE, UsageError
from shared.bus.base import BusError, Reader, TopicSpec
from shared.catalogue import Catalogue
from shared.contracts.codec import MalformedMessageError, decode, outgoing, salvaged_request_id
from shared.contracts.errors import DependencyError, ErrorCode, TonestreamError
from shared.contracts.faults import faults
from shared.contracts.messages import LONGEST_SOURCE, ErrorReport, Stage, Status, Track, TrackRequest, TrackResult
from shared.contracts.topics import Channel, Topics
from shared.contracts.tracks import without_credentials
from shared.models import ModelError, load_manifest
from shared.runtime.redaction import Redactor
from shared.settings import Settings, SettingsError

if TYPE_CHECKING:
    from services.cli.embedded import EmbeddedPipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"tonestream: settings: {faults(error)}", file=sys.stderr)
        return WRONG_USAGE
    except SettingsError as error:
        print(f"tonestream: {error}", file=sys.stderr)
        return WRONG_USAGE
    redact = Redactor(settings.secrets())
    try:
        status: int = options.run(options, settings)
        return status
    except (UsageError, SettingsError) as error:
        print(f"tonestream: {redact(str(error))}", file=sys.stderr)
        return WRONG_USAGE
    except (BusError, DependencyError, ModelError, RuntimeError, ImportError) as error:
        # RuntimeError: a missing program (ffmpeg), a service that ended. All say what to do.
        print(f"tonestream: {redact(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("tonestream: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tonestream", description="Genre and mood of music, by message queue.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    classify = commands.add_parser("classify", help="classify files, folders, URLs and Spotify tracks on this machine")
    classify.add_argument("inputs", nargs="+", metavar="PATH|DIR|URL|SPOTIFY_ID")
    classify.add_argument(
        "--model", metavar="NAME", help="genre model by folder name or model ID (default: the setting)"
    )
    classify.add_argument("--json", action="store_true", help="one TrackResult a line on standard output")
    classify.add_argument("--verbose", action="store_true", help="the services' log on standard error")
    classify.set_defaults(run=_classify)

    submit = commands.add_parser("submit", help="publish requests to Kafka; prints their request IDs")
    submit.add_argument("inputs", nargs="+", metavar="URL|SPOTIFY_ID|PATH", help="`-` reads them from standard input")
    submit.add_argument("--force", action="store_true", help="compute anew what is cached")
    submit.add_argument(
        "--model", metavar="NAME", help="genre model by folder name or model ID (default: the workers')"
    )
    submit.set_defaults(run=_submit)

    results = commands.add_parser("results", help="read results from Kafka")
    results.add_argument("--follow", action="store_true", help="wait for more, until interrupted (or all are there)")
    results.add_argument("--request-id", action="append", metavar="ID", help="only this request; may be repeated")
    results.add_argument("--timeout", type=float, metavar="SECONDS", help="longest wait of --follow")
    results.add_argument("--json", action="store_true", help="one TrackResult a line (default where piped)")
    results.set_defaults(run=_results)

    worker = commands.add_parser("worker", help="run one service on Kafka until told to stop")
    worker.add_argument("service", choices=SERVICE_NAMES, metavar="SERVICE", help=", ".join(SERVICE_NAMES))
    worker.set_defaults(run=_worker)

    topics = commands.add_parser("topics", help="manage the topics")
    topics_commands = topics.add_subparsers(required=True, metavar="COMMAND")
    create = topics_commands.add_parser("create", help="create the topics that are missing")
    create.set_defaults(run=_create_topics)

    dead_letters.add_parsers(commands)
    train.add_parsers(commands)
    evaluate.add_parsers(commands)

    health = commands.add_parser("health", help="ask the worker on this machine whether it is alive, or ready")
    health.add_argument("--ready", action="store_true", help="whether it takes work, not only whether it is alive")
    health.add_argument("--port", type=int, help="default TONESTREAM_HEALTH_PORT")
    health.set_defaults(run=_health)

    settings = commands.add_parser("settings", help="print every setting with its default, as Markdown")
    settings.set_defaults(run=_settings)

    version = commands.add_parser("version", help="print the version and the models")
    version.set_defaults(run=_version)
    return parser


# Classify


def _classify(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli import show
    from services.cli.embedded import EmbeddedPipeline

    redacted_logs.configure(settings, "text", None if options.verbose else "ERROR")
    inputs = list(expand(options.inputs))
    if not inputs:
        raise UsageError(f"no audio files in {', '.join(options.inputs)}")
    if options.model is not None:
        settings = settings.model_copy(update={"genre_model": _genre_folder(options.model, settings)})
    finished: list[TrackResult] = []
    order: dict[str, int] = {}
    with show.progress(len(inputs)) as advance, EmbeddedPipeline(settings) as pipeline:
        for result in _in_pipeline(pipeline, inputs, order):
            finished.append(result)
            advance(result.track.source)
            if options.json:
                print(result.model_dump_json(), flush=True)
    if not options.json:
        show.table(sorted(finished, key=lambda result: order[result.request_id]))
    return OK if all(result.status is Status.OK for result in finished) else FAILED


def _genre_folder(name: str, settings: Settings) -> str:
    """The folder of an installed genre model. Raises UsageError."""
    catalogue = Catalogue.of(settings)
    model = catalogue.find("genre", name)
    if model is None:
        raise UsageError(f"there is no genre model {name!r}; there are {catalogue.named('genre')}")
    return str(model.folder)


def _in_pipeline(pipeline: EmbeddedPipeline, inputs: Sequence[Input], order: dict[str, int]) -> Iterator[TrackResult]:
    """The results as they come; ``order`` learns which input each request ID stands for."""
    broken: list[TrackResult] = []

    def requests() -> Iterator[TrackRequest]:
        for position, given in enumerate(inputs):
            request_id = uuid.uuid4().hex
            order[request_id] = position
            try:
                yield _request(given, request_id, pipeline)
            except UsageError as error:
                broken.append(_refused(given, request_id, ErrorCode.INVALID_REQUEST, str(error)))
            except TonestreamError as error:
                broken.append(_refused(given, request_id, error.code, error.message))
            except OSError as error:
                reason = f"the file cannot be read: {error.strerror or error}"
                broken.append(_refused(given, request_id, ErrorCode.FETCH_FAILED, reason))

    for result in pipeline.classify(requests()):
        while broken:
            yield broken.pop(0)
        yield result
    yield from broken


def _request(given: Input, request_id: str, pipeline: EmbeddedPipeline) -> TrackRequest:
    if given.kind != "file":
        return _remote_request(given, request_id)
    if not given.exists:
        raise UsageError("there is no such file, and it is neither a URL nor a Spotify track")
    if not given.path.is_file():
        raise UsageError("it is not a regular file")
    reference = pipeline.upload(given.path)
    return TrackRequest(request_id=request_id, audio_url=reference, source=_source(given))


def _remote_request(given: Input, request_id: str, force: bool = False, model: str | None = None) -> TrackRequest:
    try:
        if given.kind == "spotify":
            return TrackRequest(request_id=request_id, track_id=given.given, force=force, model=model)
        return TrackRequest(request_id=request_id, audio_url=given.given, force=force, model=model)
    except ValidationError as error:
        raise UsageError(faults(error)) from error


def _source(given: Input) -> str:
    """The path or URL as given, without credentials; bytes of it that are no text are shown as such."""
    shown = os.fsencode(given.given).decode("utf-8", "backslashreplace")[:LONGEST_SOURCE]
    return without_credentials(shown) if given.kind == "url" else shown


def _refused(given: Input, request_id: str, code: ErrorCode, reason: str) -> TrackResult:
    return TrackResult(
        request_id=request_id,
        status=Status.FAILED,
        track=Track(key=f"input:{request_id}", source=_source(given)),
        errors=(ErrorReport(code=code, stage=Stage.INGESTION, message=reason[:1000]),),
    )


# Kafka


def _submit(options: argparse.Namespace, settings: Settings) -> int:
    from shared.blobs.store import UPLOADS, BlobStore
    from shared.bus.connect import kafka_bus

    redacted_logs.configure(settings, "text")
    given = [text for argument in options.inputs for text in (_lines() if argument == "-" else [argument])]
    inputs = list(expand(given))
    files = [one for one in inputs if one.kind == "file"]
    if files and "blob_url" not in settings.model_fields_set:
        raise UsageError(
            f"{files[0].given!r} is no URL and no Spotify track. A local file can be submitted where this machine and"
            " the workers share a blob store (TONESTREAM_BLOB_URL); `tonestream classify` needs none"
        )
    requests = []
    blobs = BlobStore(settings.blob_url) if files else None
    for one in inputs:
        request_id = uuid.uuid4().hex
        if blobs is not None and one.kind == "file":
            if not (one.exists and one.path.is_file()):
                raise UsageError(f"there is no file {one.given!r}")
            try:
                refuse_too_large(one.path, settings.fetch_max_bytes)
            except TonestreamError as error:
                raise UsageError(f"{one.given!r}: {error.message}") from error
            reference = blobs.put(one.path, f"{UPLOADS}/{request_id}")
            upload = _remote_request(Input("url", reference), request_id, options.force, options.model)
            requests.append(upload.model_copy(update={"source": _source(one)}))
        else:
            requests.append(_remote_request(one, request_id, options.force, options.model))
    topics = Topics(settings.topic_prefix)
    bus = kafka_bus(settings, client_id="tonestream-submit")
    try:
        with bus.publisher() as publisher:
            publisher.publish([outgoing(topics, request) for request in requests])
    finally:
        bus.close()
    for request in requests:
        print(f"{request.request_id}\t{request.shown_source}")
    return OK


def _lines() -> list[str]:
    return [line for line in (line.strip() for line in sys.stdin) if line]


def _results(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli import show
    from shared.bus.connect import kafka_bus

    redacted_logs.configure(settings, "text")
    as_json = options.json or not sys.stdout.isatty()
    wanted = set(options.request_id) if options.request_id else None
    topics = Topics(settings.topic_prefix)
    bus = kafka_bus(settings, client_id="tonestream-results")
    failed = False
    try:
        with bus.reader([topics.name(Channel.RESULTS)]) as reader:
            for result in _read(reader, wanted, options.follow, options.timeout):
                failed = failed or result.status is not Status.OK
                print(result.model_dump_json() if as_json else show.line(result), flush=True)
    finally:
        bus.close()
    if wanted:
        print(f"tonestream: no result (yet) for {', '.join(sorted(wanted))}", file=sys.stderr)
    return FAILED if wanted or (options.request_id and failed) else OK


def _read(reader: Reader, wanted: set[str] | None, follow: bool, timeout_s: float | None) -> Iterator[TrackResult]:
    """Results in order, those in ``wanted`` (which shrinks by them) or all; to the end, or on and on."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while wanted is None or wanted:
        for record in reader.poll(max_records=500, timeout_s=0.5):
            try:
                result = decode(Channel.RESULTS, record.value)
            except MalformedMessageError as error:
                whose = salvaged_request_id(record) or record.coordinates
                print(f"tonestream: the result of {whose} cannot be read: {error.reason}", file=sys.stderr)
                continue
            assert isinstance(result, TrackResult)
            if wanted is None or result.request_id in wanted:
                if wanted is not None:
                    wanted.discard(result.request_id)
                yield result
        if not follow and reader.at_end():
            return
        if deadline is not None and time.monotonic() > deadline:
            return


def _worker(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli.worker import end_process, run_worker

    redacted_logs.configure(settings, settings.log_format)
    end_process(run_worker(Stage(options.service), settings))


def _create_topics(options: argparse.Namespace, settings: Settings) -> int:
    from shared.bus.connect import kafka_bus

    redacted_logs.configure(settings, "text")
    wanted = Topics(settings.topic_prefix).specs()
    bus = kafka_bus(settings, client_id="tonestream-topics")
    try:
        created = bus.create_topics(wanted)
        existing = bus.existing([spec.name for spec in wanted if spec.name not in created])
    finally:
        bus.close()
    for name in created:
        print(f"created {name}")
    shortcomings = [
        text for spec in wanted if spec.name in existing for text in _shortcomings(spec, existing[spec.name])
    ]
    for text in shortcomings:
        print(f"tonestream: {text}", file=sys.stderr)
    if not created:
        print("all topics exist" + (", some with less than is wanted" if shortcomings else ""))
    # All that is wanted works, if not at any size: what waits for this command may start.
    return OK


def _shortcomings(wanted: TopicSpec, found: TopicSpec) -> Iterator[str]:
    """What an existing topic lacks, what follows from it, and the command that mends it."""
    if found.partitions < wanted.partitions:
        has = "1 partition" if found.partitions == 1 else f"{found.partitions} partitions"
        workers = "only 1 worker" if found.partitions == 1 else f"at most {found.partitions} workers"
        yield (
            f"{wanted.name} has {has}, not {wanted.partitions}: {workers} of a service can share it. To grow it:"
            f" kafka-topics.sh --bootstrap-server SERVER --alter --topic {wanted.name}"
            f" --partitions {wanted.partitions}"
        )
    most, needed = found.max_message_bytes, wanted.max_message_bytes
    if most is not None and needed is not None and most < needed:
        yield (
            f"{wanted.name} takes messages of {most} bytes, not {needed}: larger ones become dead letters, or are cut"
            f" where this is the topic of the dead letters. To raise it: kafka-configs.sh --bootstrap-server SERVER"
            f" --alter --topic {wanted.name} --add-config max.message.bytes={needed}"
        )


# About this installation


def _health(options: argparse.Namespace, settings: Settings) -> int:
    port = options.port or settings.health_port
    if not port:
        raise UsageError("which port? Give --port or set TONESTREAM_HEALTH_PORT")
    probe = "readyz" if options.ready else "livez"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{probe}", timeout=5) as answer:
            print(answer.read().decode())
            return OK
    except urllib.error.HTTPError as error:
        print(error.read().decode())
    except OSError as error:
        print(f"no worker answers on port {port}: {error}", file=sys.stderr)
    return FAILED


def _settings(options: argparse.Namespace, settings: Settings) -> int:
    from shared.settings import as_markdown

    print(as_markdown())
    return OK


def _version(options: argparse.Namespace, settings: Settings) -> int:

    models = {
        kind: load_manifest(settings.models_dir / name).model_id
        for kind, name in (("genre", settings.genre_model), ("mood", settings.mood_model))
    }
    print(json.dumps({"tonestream": package_version("tonestream"), "models": models}))
    return OK


if __name__ == "__main__":
    sys.exit(main())
