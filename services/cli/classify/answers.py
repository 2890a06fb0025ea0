"""From inputs to answers: through the pipeline, or from the store of what was classified before."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator

from services.cli.answer import Answer
from services.cli.embedded import EmbeddedPipeline
from services.cli.inputs import Input
from services.cli.requests import remote_request, shown_source
from services.cli.scan import reason
from services.cli.status import UsageError
from services.library.store import Print, Store
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.messages import ErrorReport, Stage, Status, Track, TrackRequest, TrackResult


class Answers:
    """Takes inputs through ``pipeline``.

    With a ``store``, a file whose content was classified before gets that answer, and new answers are kept there. A
    failure that the same bytes would meet again counts as an answer, unless ``retry_failed``. ``embedding`` asks for
    the tracks' embeddings. ``begins`` is called with each request ID and its input before the input is read.
    """

    def __init__(
        self,
        pipeline: EmbeddedPipeline,
        begins: Callable[[str, Input], None],
        embedding: bool = False,
        store: Store | None = None,
        retry_failed: bool = False,
    ) -> None:
        self._begins = begins
        self._pipeline = pipeline
        self._embedding = embedding
        self._store = store
        self._retry_failed = retry_failed
        #: By request ID, until the answer is there.
        self._given: dict[str, Input] = {}
        self._prints: dict[str, Print] = {}
        self._known: dict[str, float] = {}

    def of(self, inputs: Iterable[Input | None]) -> Iterator[Answer]:
        """One answer for each input, as they come. None among the inputs: the next one is not there yet.

        Raises PipelineStoppedError, StoreError.
        """
        for result in self._pipeline.classify(self._requests(inputs)):
            yield self._answer(result)

    def _requests(self, inputs: Iterable[Input | None]) -> Iterator[TrackRequest | TrackResult | None]:
        for given in inputs:
            if given is None:
                yield None
                continue
            request_id = uuid.uuid4().hex
            self._given[request_id] = given
            self._begins(request_id, given)
            try:
                yield self._known_result(given, request_id) or self._request(given, request_id)
            except UsageError as error:
                yield _refused(given, request_id, TonestreamError(ErrorCode.INVALID_REQUEST, str(error)))
            except TonestreamError as error:
                yield _refused(given, request_id, error)

    def _known_result(self, given: Input, request_id: str) -> TrackResult | None:
        """The answer in the store; None if there is none. Notes the file's content."""
        if self._store is None or given.kind != "file" or given.fault is not None:
            return None
        try:
            if not given.path.is_file():
                return None
            found = self._store.read(given.path)
        except OSError:
            return None  # the request says why
        self._prints[request_id] = found
        known = self._store.known(found, self._embedding)
        if known is None or (self._retry_failed and known.is_failure):
            return None
        self._known[request_id] = known.finished_at
        track = known.result.track.model_copy(update={"source": shown_source(given)})
        return known.result.model_copy(update={"request_id": request_id, "track": track, "cached": True})

    def _request(self, given: Input, request_id: str) -> TrackRequest:
        """Raises UsageError, TonestreamError."""
        if given.fault is not None:
            raise TonestreamError(ErrorCode.FETCH_FAILED, given.fault)
        if given.kind != "file":
            return remote_request(given, request_id, embedding=self._embedding)
        try:
            if not given.path.is_file() and given.path.exists():
                raise UsageError("it is not a regular file")
            reference = self._pipeline.upload(given.path)
        except OSError as error:
            why = f"the file cannot be read: {reason(given.path, error)}"
            raise TonestreamError(ErrorCode.FETCH_FAILED, why) from error
        return TrackRequest(
            request_id=request_id, audio_url=reference, source=shown_source(given), embedding=self._embedding
        )

    def _answer(self, result: TrackResult) -> Answer:
        given = self._given.pop(result.request_id)
        known_since = self._known.pop(result.request_id, None)
        read = self._prints.pop(result.request_id, None)
        finished_at = time.time() if known_since is None else known_since
        if self._store is not None and read is not None and known_since is None:
            self._store.keep(read, result, finished_at)
        file = given.path if given.kind == "file" else None
        place = shown_source(given) if file is None else str(file)  # a URL without its password
        return Answer.of(result, finished_at, place, file, read, known=known_since is not None)


def _refused(given: Input, request_id: str, error: TonestreamError) -> TrackResult:
    return TrackResult(
        request_id=request_id,
        status=Status.FAILED,
        track=Track(key=f"input:{request_id}", source=shown_source(given)),
        errors=(ErrorReport.of(error, Stage.INGESTION),),
    )
