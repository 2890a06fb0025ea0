"""docs/error-codes.md, from the codes and their explanations in ``shared.contracts.errors``."""

from __future__ import annotations

from services.docs.tables import table
from shared.contracts.errors import EXPLANATIONS, PERMANENT_FOR_AUDIO, ErrorCode


def error_codes() -> str:
    """The page: every code, what it means, and what to do."""
    rows = [(f"`{code.value}`", EXPLANATIONS[code].meaning, EXPLANATIONS[code].remedy) for code in ErrorCode]
    kept = ", ".join(f"`{code.value}`" for code in ErrorCode if code in PERMANENT_FOR_AUDIO)
    return (
        "# Error codes\n\nIf the status of a result is `partial` or `failed`, its `errors` say why. Each has a `code`"
        " to branch on, the `stage` at which it happened, and a `message` for people. `make docs` writes this page from"
        " `shared/contracts/errors.py`.\n\n"
        f"{table(('code', 'meaning', 'what to do'), rows)}\n\n"
        f"{kept} follow from the audio alone. They are cached like other answers: the same audio fails again at once."
        " A code may be added; treat one that you do not know like `internal`.\n"
    )
