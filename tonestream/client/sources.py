"""What can be submitted: a URL, a Spotify track, or a local file."""

from __future__ import annotations

import os
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shared.contracts.errors import ErrorCode
from shared.contracts.faults import faults
from shared.contracts.messages import LONGEST_SOURCE, TrackRequest
from shared.contracts.tracks import BLOB_SCHEME, FILE_SCHEME, looks_like_spotify
from tonestream.client.answers import Problem
from tonestream.client.errors import Refused

#: What `submit` takes: a text is a URL, a path or a Spotify track, whichever it is; a path object is a path.
Source = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks for besides its source; see `TrackRequest`."""

    model: str | None = None
    force: bool = False
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """A request before it is sent. ``own_id``: the client made the ID. ``file`` is the audio if that is local."""

    request_id: str
    own_id: bool
    shown: str
    wishes: Wishes
    url: str | None = None
    track_id: str | None = None
    file: Path | None = None

    @classmethod
    def of(cls, source: Source, request_id: str | None, wishes: Wishes, track_id: str | None = None) -> Submission:
        """Raises Refused for what is no source, or a request that the contract does not take."""
        own_id = request_id is None
        made = uuid.uuid4().hex if request_id is None else request_id
        text = os.fspath(source)
        if (isinstance(source, str) and "://" in text) or text.startswith((BLOB_SCHEME, FILE_SCHEME)):
            submission = cls(made, own_id, text, wishes, url=text, track_id=track_id)
        elif isinstance(source, str) and looks_like_spotify(text) and not _exists(text):
            submission = cls(made, own_id, text, wishes, track_id=text)
        else:
            submission = cls(made, own_id, text, wishes, file=_readable(Path(text)))
        submission.request("blob:checked")  # what the contract refuses is refused here, before anything is sent
        return submission

    def request(self, audio: str) -> TrackRequest:
        """The message; a local file is at the URL ``audio``. Raises Refused."""
        try:
            return TrackRequest(
                request_id=self.request_id,
                audio_url=self.url if self.file is None else audio,
                track_id=self.track_id,
                source=None if self.file is None else as_text(self.shown),
                model=self.wishes.model,
                force=self.wishes.force,
                embedding=self.wishes.embedding,
            )
        except ValidationError as error:
            raise invalid(faults(error)) from None


def invalid(detail: str) -> Refused:
    """The refusal of what need not be sent to know that it is not accepted."""
    return Refused(Problem(code=ErrorCode.INVALID_REQUEST, title="The request is not valid", detail=detail))


def _exists(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 (pathlib's raises for a name that no file can have)


def _readable(path: Path) -> Path:
    path = Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib's raises where there is no such user)
    shown = repr(as_text(str(path)))
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep whoever opens it waiting
            raise invalid(f"{shown} is no regular file; of a folder, submit the files")
        with path.open("rb"):
            return path
    except FileNotFoundError:
        raise invalid(f"{shown} is no file, no URL and no Spotify track") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise invalid(f"the file {shown} cannot be read: {why or error}") from None


def as_text(path: str) -> str:
    """A path as text: bytes of it that are none are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")[:LONGEST_SOURCE]
