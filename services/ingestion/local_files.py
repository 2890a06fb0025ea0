"""Files of this machine that requests may name: those of one folder, and no others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shared.contracts.errors import ErrorCode, TonestreamError
from shared.contracts.tracks import path_of_file_url


class LocalFiles:
    """The files below one ``folder``; none if it is None."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def fetch(self, url: str, destination: Path) -> None:
        """Make ``destination`` a link to the file that a ``file:`` URL names.

        Raises TonestreamError: fetch_forbidden for what lies outside the folder, also where a link leads there;
        fetch_failed for what is no regular file or cannot be read. OSError if the link cannot be made.
        """
        if self._folder is None:
            raise TonestreamError(
                ErrorCode.FETCH_FORBIDDEN,
                "this installation reads no files of its own machine; TONESTREAM_LOCAL_FILES names the folder whose"
                " files requests may name",
            )
        # Nothing outside the folder is even looked at: the answer would show what exists there.
        named = Path(os.path.normpath(path_of_file_url(url)))
        if not named.is_relative_to(self._folder.absolute()):
            raise self._outside()
        try:
            found = named.resolve(strict=True)
            if not found.is_relative_to(self._folder.resolve(strict=True)):
                raise self._outside()
            if not stat.S_ISREG(found.stat().st_mode):
                raise TonestreamError(ErrorCode.FETCH_FAILED, "it is not a regular file")
            with found.open("rb"):
                pass
        except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself, before Python 3.13
            reason = error.strerror if isinstance(error, OSError) else "it is a link that leads to itself"
            raise TonestreamError(ErrorCode.FETCH_FAILED, f"the file cannot be read: {reason}") from error
        destination.symlink_to(found)

    def _outside(self) -> TonestreamError:
        return TonestreamError(
            ErrorCode.FETCH_FORBIDDEN, f"it is not in {self._folder}, the folder of TONESTREAM_LOCAL_FILES"
        )
