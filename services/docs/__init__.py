"""The documents that follow from the code. ``python -m services.docs`` (``make docs``) writes them to ``docs/``."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.asyncapi import document
from services.docs.api_reference import api_reference
from services.docs.blocks import with_blocks
from services.docs.error_codes import error_codes
from services.docs.messages import messages
from services.docs.metrics import metrics
from services.docs.settings import settings

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"

#: Pages with generated parts.
_PAGES: Final = ("architecture.md", "command-line.md")


def generated() -> dict[str, str]:
    """The documents by file name. Pages with generated parts are those there are, with these parts anew."""
    described = document(version("tonestream"))
    return {
        "asyncapi.json": json.dumps(described, indent=2, sort_keys=True) + "\n",
        "messages.md": messages(described),
        "api-reference.md": api_reference(),
        "metrics.md": metrics(),
        "settings.md": settings(),
        "error-codes.md": error_codes(),
        **{name: with_blocks((DOCS / name).read_text(encoding="utf-8")) for name in _PAGES},
    }


def write() -> None:
    """Write them to ``docs/``."""
    for name, text in generated().items():
        (DOCS / name).write_text(text, encoding="utf-8")
