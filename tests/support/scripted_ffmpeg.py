"""A stand-in for ffmpeg that does what a script says."""

from __future__ import annotations

from pathlib import Path

SECONDS = 3.0


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)
