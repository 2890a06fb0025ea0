"""Names for tests that share a broker."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """Topics and groups that no other test uses."""

    prefix: str

    @classmethod
    def unique(cls, test: str) -> Names:
        """Names that tell which test they belong to."""
        readable = re.sub(r"[^a-z0-9]+", "-", test.lower())[:60].strip("-")
        return cls(f"{readable}-{uuid.uuid4().hex[:8]}")

    def topic(self, name: str) -> str:
        """A topic of this test alone."""
        return f"{self.prefix}.{name}"

    def group(self, name: str) -> str:
        """A consumer group of this test alone."""
        return f"{self.prefix}.{name}"
