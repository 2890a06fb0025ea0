"""Write the documents that follow from the code: ``python -m services.cli.docs`` (``make docs``)."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.asyncapi import document
from shared.settings import DEFAULT_SECRETS_DIR, SECRETS_DIR_VARIABLE, as_markdown

DOCS: Final = Path(__file__).resolve().parent.parent.parent / "docs"


def generated() -> dict[str, str]:
    """The documents by file name."""
    settings = (
        "# Settings\n\nEnvironment variables, made from `shared/settings.py` by `make docs`. Each may stand in a file"
        f" instead, for secrets: in the folder `{DEFAULT_SECRETS_DIR}`, or another that `{SECRETS_DIR_VARIABLE}` names,"
        " under the variable's name in lower case, e.g. `tonestream_kafka_sasl_password`. A variable that is set goes"
        f" before the file.\n\n{as_markdown()}\n"
    )
    asyncapi = json.dumps(document(version("tonestream")), indent=2, sort_keys=True) + "\n"
    return {"settings.md": settings, "asyncapi.json": asyncapi}


def main() -> None:
    """Write them to ``docs/``."""
    for name, text in generated().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
