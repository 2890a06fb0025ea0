"""``tonestream classify``: everything in one process, on this machine."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from services.cli import redacted_logs
from services.cli.inputs import Input, expand
from services.cli.output import complain, json_line
from services.cli.requests import remote_request, shown_source
from services.cli.scan import LeftOut, reason
from services.cli.status import FAILED, OK, UsageError
from services.cli.tagging import TagWriting
from services.cli.tagging import add_arguments as add_tag_arguments
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.messages import ErrorReport, Stage, Status, Track, TrackRequest, TrackResult
from shared.models.catalogue import Catalogue
from shared.settings import Settings

if TYPE_CHECKING:
    from services.cli.embedded import EmbeddedPipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``classify``."""
    parser.add_argument("inputs", nargs="+", metavar="PATH|DIR|URL|SPOTIFY_ID")
    parser.add_argument("--model", metavar="NAME", help="genre model by folder name or model ID (default: the setting)")
    parser.add_argument("--json", action="store_true", help="one TrackResult a line on standard output")
    parser.add_argument(
        "--embedding", action="store_true", help="with --json: 200 numbers a track, to compare tracks by"
    )
    parser.add_argument("--verbose", action="store_true", help="the services' log on standard error")
    add_tag_arguments(parser)
    parser.set_defaults(run=_classify)


def _classify(options: argparse.Namespace, settings: Settings) -> int:
    from services.cli.embedded import EmbeddedPipeline, PipelineStoppedError
    from services.cli.show import Board

    redacted_logs.configure(settings, "text", None if options.verbose else "ERROR")
    if options.model is not None:
        settings = settings.model_copy(update={"genre_model": _genre_folder(options.model, settings)})
    tags = TagWriting.of(options)
    left_out = LeftOut()
    inputs = list(expand(options.inputs, left_out))
    tell(left_out)
    if not inputs:
        raise UsageError(f"no audio files in {', '.join(left_out.empty)}")
    well = True
    board = Board([shown_source(one) for one in inputs], rows=not options.json, bar=not options.verbose)
    try:
        with ExitStack() as stack:
            stack.enter_context(board)
            pipeline = stack.enter_context(EmbeddedPipeline(settings))
            stack.callback(board.stop)  # before the pipeline shuts down, which may take a moment
            for result in _in_pipeline(pipeline, inputs, options.embedding, tags):
                well = well and result.status is Status.OK
                if options.json:
                    print(json_line(result.model_dump_json()), flush=True)
                board.add(result)
                tags.take(result, board.note)
    except (KeyboardInterrupt, PipelineStoppedError):
        if options.json:
            complain(board.summary())
        board.close()
        tags.tell()
        raise
    board.close()
    tags.tell()
    return OK if well and tags.well else FAILED


def tell(left_out: LeftOut) -> None:
    """Report on standard error what the folders hold besides music."""
    if said := str(left_out):
        complain(said)
    for folder in left_out.empty:
        complain(f"no audio files in {folder}")


def _genre_folder(name: str, settings: Settings) -> str:
    """The folder of an installed genre model. Raises UsageError."""
    catalogue = Catalogue.of(settings)
    model = catalogue.find("genre", name)
    if model is None:
        raise UsageError(f"there is no genre model {name!r}; there are {catalogue.named('genre')}")
    return str(model.folder)


def _in_pipeline(
    pipeline: EmbeddedPipeline, inputs: Sequence[Input], embedding: bool, tags: TagWriting
) -> Iterator[TrackResult]:
    """The results as they come."""

    def requests() -> Iterator[TrackRequest | TrackResult]:
        for given in inputs:
            request_id = uuid.uuid4().hex
            tags.expect(request_id, given)
            try:
                request = _request(given, request_id, pipeline)
                yield request.model_copy(update={"embedding": embedding})
            except UsageError as error:
                yield _refused(given, request_id, ErrorCode.INVALID_REQUEST, str(error))
            except TonestreamError as error:
                yield _refused(given, request_id, error.code, error.message)

    return pipeline.classify(requests())


def _request(given: Input, request_id: str, pipeline: EmbeddedPipeline) -> TrackRequest:
    """Raises UsageError, TonestreamError."""
    if given.fault is not None:
        raise TonestreamError(ErrorCode.FETCH_FAILED, given.fault)
    if given.kind != "file":
        return remote_request(given, request_id)
    try:
        if not given.path.is_file() and given.path.exists():
            raise UsageError("it is not a regular file")
        reference = pipeline.upload(given.path)
    except OSError as error:
        why = f"the file cannot be read: {reason(given.path, error)}"
        raise TonestreamError(ErrorCode.FETCH_FAILED, why) from error
    return TrackRequest(request_id=request_id, audio_url=reference, source=shown_source(given))


def _refused(given: Input, request_id: str, code: ErrorCode, why: str) -> TrackResult:
    return TrackResult(
        request_id=request_id,
        status=Status.FAILED,
        track=Track(key=f"input:{request_id}", source=shown_source(given)),
        errors=(ErrorReport(code=code, stage=Stage.INGESTION, message=why[:1000]),),
    )
