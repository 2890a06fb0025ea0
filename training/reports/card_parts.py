"""Parts of all model cards: tables, figures with their intervals, the last sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.models.manifest import ModelManifest
from training.reports.figures import Interval

INTERVAL_NOTE: Final = "Brackets are 95% intervals by bootstrap over artists."


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table, Markdown, its columns padded to one width."""
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def listed(by_label: Mapping[str, float | None]) -> str:
    """The share of each label in one line; "none" where there is none."""
    return ", ".join(f"{label} {decimals(share)}" for label, share in by_label.items())


def with_interval(figure: Interval) -> str:
    """A figure with its interval in brackets."""
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def decimals(value: float | None) -> str:
    """Two decimals; "none" where there is none."""
    return "none" if value is None else f"{value:.2f}"


def ending(manifest: ModelManifest, training_s: int | None, notice: str) -> str:
    """The last sections of a card: rights, the command that made the model, versions and weights."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""
## Licence and notices
The weights are trained on data for research use; use them likewise.
{notice}

## Command
    {manifest.command}

{versions}. {training_s} s. Weights `{manifest.weights}`, SHA-256 `{manifest.sha256}`.
"""
