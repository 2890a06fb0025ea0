"""What a client raises.

    TonestreamClientError
    ├── Refused             what was asked will not be accepted as it is; ``problem`` says why
    │   └── NotFound        there is no such request, or its audio is gone
    ├── Unavailable         no answer, also after the retries; try again later
    ├── TimedOut            the result did not come in the time given; the request goes on, so wait again
    ├── Missed              a stream was away for so long that not all can be sent again
    ├── UnexpectedAnswer    an answer that is not Tonestream's, or a newer one
    └── NotOffered          only a client over HTTP can do this

A track that cannot be classified is no error: its result has the status ``failed``, and ``errors`` says why.
"""
# ruff: noqa: N818 (the names are what a reader of an except clause needs: each says what happened)

from __future__ import annotations

from tonestream.client.answers import Problem


class TonestreamClientError(Exception):
    """Whatever a client raises. The text is one sentence for a person."""


class Refused(TonestreamClientError):
    """What was asked will not be accepted as it is. ``problem.code`` is to branch on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence)
        self.problem = problem


class NotFound(Refused):
    """There is no request with that ID (any more), or its audio is gone."""


class Unavailable(TonestreamClientError):
    """There was no answer, or one that said to come back later, at each of the tries.

    ``retry_after_s`` is the wait that the server asked for, in seconds, or None.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TimedOut(TonestreamClientError):
    """The result did not come in the time given. The request goes on: wait for it again."""


class Missed(TonestreamClientError):
    """A stream was away for so long that the gateway does not send again all that came since.

    `Client.results` has what was missed, and a new stream may begin after ``cursor``.
    """

    def __init__(self, cursor: str | None) -> None:
        super().__init__("more results were missed than are sent again; read them with results()")
        self.cursor = cursor


class UnexpectedAnswer(TonestreamClientError):
    """The answer is not one of Tonestream's: another server listens there, or a newer version."""


class NotOffered(TonestreamClientError):
    """Only a client over HTTP can do this: the topics hold messages, and no library to search."""
