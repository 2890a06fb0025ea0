"""Shared by the commands that train and evaluate: options, progress bars, and errors in a user's words."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from services.cli.output import complain
from services.cli.status import UsageError
from shared.models.manifest import MANIFEST, ModelManifest, load_manifest
from shared.settings import Settings
from shared.system.threads import worker_threads

if TYPE_CHECKING:
    from training.genre.protocol import Progress, Workspace

Item = TypeVar("Item")

_NEEDED: Final = ("tensorflow", "tf2onnx", "librosa", "scipy", "matplotlib", "rich")


class MissingExtraError(RuntimeError):
    """Training and evaluation need packages that workers do not have."""


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that computes features: seed, cache, threads."""
    parser.add_argument("--seed", type=int, default=1, help="of the folds and the weights (default 1)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(".cache/features"),
        metavar="DIR",
        help="computed features, kept for next time",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default TONESTREAM_WORKER_THREADS, or one a core")


def workspace(options: argparse.Namespace, settings: Settings) -> Workspace:
    """The workspace that the options ask for. Raises MissingExtraError, UsageError."""
    require_training()
    from training.genre.protocol import Workspace

    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads takes 1 or more, not {options.threads}")
    folders = [
        tuple(existing_folder(folder) for folder in getattr(options, kind, ()))
        for kind in ("teach", "speech", "sounds")
    ]
    return Workspace(options.cache, options.threads or worker_threads(settings), progress(), *folders)


def require_training() -> None:
    """Raises MissingExtraError, which says what to install, where a package that training needs is missing."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise MissingExtraError(
            f"training and evaluation need {', '.join(missing)}: install them with pip install 'tonestream[training]'"
        )
    # Imported before any other import of TensorFlow, because it silences TensorFlow's start-up messages.
    import shared.models.tensorflow_engine  # noqa: F401


@contextlib.contextmanager
def faults_of_data() -> Iterator[None]:
    """Errors in the data, or in the name of a model, become usage errors."""
    from training.data.clips import DataError
    from training.data.splits import SplitError
    from training.genre.protocol import UnknownProtocolError

    try:
        yield
    except (DataError, SplitError, UnknownProtocolError) as error:
        raise UsageError(str(error)) from error


def existing_folder(folder: Path) -> Path:
    """``folder``. Raises UsageError if it is none."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    return folder


def model_folder(given: str | Path, settings: Settings) -> Path | None:
    """A model folder by its path, or by its name among the models that are shipped; None if there is none."""
    folders = (Path(given), settings.models_dir / given)
    return next((folder for folder in folders if (folder / MANIFEST).is_file()), None)


def manifest_of_kind(folder: Path, kind: Literal["genre", "mood"]) -> ModelManifest:
    """The manifest of the model in ``folder``. Raises UsageError if it is of another kind, ModelError."""
    manifest = load_manifest(folder)
    if manifest.kind != kind:
        raise UsageError(f"{folder} holds a {manifest.kind} model, not one for {kind}s")
    return manifest


def warn(text: str) -> None:
    """One line on standard error."""
    complain(f"WARNING: {text}")


def progress() -> Progress:
    """Bars on standard error; nothing if that is no terminal."""
    if sys.stderr.isatty():
        return _Bars()
    from training.genre.protocol import NoProgress

    return NoProgress()


class _Bars:
    """One bar for each loop that is under way, the outermost first."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._open = 0

    def track(self, iterable: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(label, total=total)
        try:
            for item in iterable:
                yield item
                self._bars.advance(task)
        finally:
            self._bars.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()
