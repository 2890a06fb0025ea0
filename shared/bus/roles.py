"""What the roles of every bus share."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Left by ``close``, also at the end of a ``with`` block."""

    def close(self) -> None:
        """Release the role's resources."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
