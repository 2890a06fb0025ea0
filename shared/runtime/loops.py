"""The loops of a process, side by side, each in a thread of its own."""

from __future__ import annotations

import threading

from shared.runtime.loop import ServiceLoop
from shared.runtime.service import AnyService
from shared.runtime.streaming import StreamingLoop


def loop_class(service: AnyService) -> type[ServiceLoop]:
    """The loop for a service: batch by batch, or record by record."""
    return StreamingLoop if service.streams else ServiceLoop


class LoopThread(threading.Thread):
    """Runs a loop; sets ``ended`` when it has. ``error`` is what ended it, if that was not ``stop``."""

    def __init__(self, loop: ServiceLoop, name: str, ended: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.error: BaseException | None = None
        self._loop = loop
        self._ended = ended

    def run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()
