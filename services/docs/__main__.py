"""``python -m services.docs``."""

from __future__ import annotations

from services.docs import write

if __name__ == "__main__":
    write()
