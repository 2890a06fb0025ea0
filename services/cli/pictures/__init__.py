"""``--plot``: a picture of each track, as a PNG file in a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from services.cli.answer import Answer
from services.cli.output_file import OutputError
from services.cli.status import UsageError
from shared.contracts.messages import Status

#: Room for a suffix in the 255 bytes that file systems allow.
_LONGEST_NAME: Final = 120
_HASH_DIGITS: Final = 6


class Pictures:
    """Draws answers into ``folder``, which is created. Raises UsageError, RuntimeError without matplotlib."""

    def __init__(self, folder: Path) -> None:
        try:
            from services.cli.pictures import drawing
        except ModuleNotFoundError as error:
            raise RuntimeError(f'{error}: pictures need matplotlib; pip install "tonestream[plot]"') from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be made: {error.strerror or error}") from error
        self._folder = folder
        self._png = drawing.png

    def add(self, answer: Answer) -> None:
        """Draw one track, unless it failed. A picture of it from an earlier run is replaced. Raises OutputError."""
        if answer.result.status is Status.FAILED:
            return
        path = self._folder / file_name(answer)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(self._png(answer))
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def file_name(answer: Answer) -> str:
    """``song-3f2a91.png``: the name of the file, and a hash of its path, because names repeat across albums."""
    place = answer.place if answer.file is None else os.path.abspath(answer.file)  # noqa: PTH100 (links stay links)
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:_HASH_DIGITS]
    stem = Path(answer.row.source).stem or "track"
    kept = "".join(sign if sign.isalnum() or sign in " -_.()'&," else "_" for sign in stem).strip(" .")
    short = kept.encode()[:_LONGEST_NAME].decode(errors="ignore").strip()
    return f"{short or 'track'}-{digest}.png"
