"""A run: every input gets its answer, and every answer goes to the screen and to the outputs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from services.cli import exports
from services.cli.answer import Answer
from services.cli.classify.answers import Answers
from services.cli.classify.arguments import store_path
from services.cli.classify.tally import Tally
from services.cli.embedded import EmbeddedPipeline, PipelineStoppedError
from services.cli.inputs import Input
from services.cli.output import complain
from services.cli.output_file import OutputError
from services.cli.show import Board, terminal_width
from services.cli.status import FAILED, OK
from services.cli.tagging import TagWriting
from services.library import where
from services.library.store import Store, StoreError
from shared.models.answer_key import AnswerKeys
from shared.models.catalogue import Catalogue
from shared.settings import Settings

#: Columns of a summary that goes into a file.
_WIDTH_OF_FILES: Final = 100


class Run:
    """One run of ``classify`` or ``watch`` with its parsed ``options``.

    ``names`` are those of the tracks to come, or None if nobody knows them: such a run ends when the user interrupts
    it. ``rewritten`` is called with each file whose tags were written. Raises UsageError.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        settings: Settings,
        names: Sequence[str] | None,
        rewritten: Callable[[Path], None] | None = None,
    ) -> None:
        self._options = options
        self._settings = settings
        self._endless = names is None
        self._rewritten = rewritten
        self._wishes = exports.wishes(options)
        self._tags = TagWriting.of(options)
        self._store_path = store_path(options)
        self._board = Board(names, rows=self._wishes.table, bar=not options.verbose)
        self._tally = Tally()
        self._began = time.monotonic()

    def take(self, inputs: Iterable[Input | None]) -> int:
        """Answer the inputs; returns the exit status. None among them: the next one is not there yet."""
        try:
            self._take(inputs)
        except (KeyboardInterrupt, PipelineStoppedError, OutputError, StoreError):
            self._close(interrupted=True)
            raise
        self._close()
        return FAILED if self._tally.not_ok or not self._tags.well else OK

    def _take(self, inputs: Iterable[Input | None]) -> None:
        with ExitStack() as stack:
            export = stack.enter_context(exports.Export(self._wishes, ends_by_interruption=self._endless))
            takers = [export.add, *self._pictures()]
            stack.enter_context(self._board)
            store = self._store(stack)
            pipeline = stack.enter_context(EmbeddedPipeline(self._settings))
            stack.callback(self._board.stop)  # before the pipeline shuts down, which may take a moment
            answers = Answers(pipeline, self._tags.expect, self._options.embedding, store, self._options.retry_failed)
            for answer in answers.of(inputs):
                selected = self._wishes.where is None or where.selects(self._wishes.where, answer.row)
                self._tally.add(answer, selected)
                for take in takers if selected else ():
                    take(answer)
                self._board.add(answer.result, selected, answer.known)
                if selected:
                    self._tag(answer, store)
                else:
                    self._tags.leave(answer.result)

    def _tag(self, answer: Answer, store: Store | None) -> None:
        """Write the answer into the file, if that is asked for. The file has other bytes then, and the same answer."""
        if not self._tags.take(answer.result, self._board.note):
            return
        if store is not None and answer.print is not None:
            store.rewritten(answer.print)
        if self._rewritten is not None and answer.file is not None:
            self._rewritten(answer.file)

    def _pictures(self) -> Iterator[exports.Taker]:
        if self._options.plot is not None:
            from services.cli.pictures import Pictures

            yield Pictures(self._options.plot).add

    def _store(self, stack: ExitStack) -> Store | None:
        if self._store_path is None:
            return None
        own = AnswerKeys(self._settings, Catalogue.of(self._settings)).own
        return stack.enter_context(Store(self._store_path, own))

    def _close(self, interrupted: bool = False) -> None:
        """Say what came out."""
        remarks = self._tally.left_out(self._wishes)
        if self._wishes.table:
            seconds = time.monotonic() - self._began
            self._board.close([*remarks, *self._tally.lines(seconds, terminal_width() or _WIDTH_OF_FILES)])
        else:
            for remark in [self._board.summary(), *remarks] if interrupted else remarks:
                complain(remark)
        self._tags.tell()
