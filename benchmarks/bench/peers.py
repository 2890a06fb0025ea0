"""Other tools on the same files, each in a virtual environment of its own.

VibeNet (GPL) and essentia (AGPL) are only compared with: the project never imports them. Their drivers run with their
own Python.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.bench.environment import child_environment
from benchmarks.bench.measurement import NotMeasuredError
from benchmarks.bench.warm import Contender

#: Packages by peer; the module of its driver.
PEERS: Final[Mapping[str, tuple[str, str]]] = {
    "vibenet": ("vibenet", "benchmarks.bench.drivers.vibenet_driver"),
    "essentia": ("essentia", "benchmarks.bench.drivers.essentia_driver"),
}
_INSTALL_TIMEOUT_S: Final = 900.0


def peer(name: str, folder: Path) -> Contender:
    """The contender of that name, installed below ``folder`` unless it is there. Raises NotMeasuredError."""
    package, driver = PEERS[name]
    venv = folder / name
    python = venv / "bin" / "python"
    installed = venv / "installed"
    if not installed.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], f"no virtual environment for {name}")
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", package], f"{package} cannot be installed")
        version = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        installed.write_text(_run([str(python), "-c", version, package], f"{package} is not installed").strip())
    return Contender(name, (str(python), "-m", driver), child_environment())


def versions(folder: Path) -> dict[str, str]:
    """The versions of the peers that are installed below ``folder``."""
    installed = {name: folder / name / "installed" for name in PEERS}
    return {name: file.read_text() for name, file in installed.items() if file.exists()}


def _run(command: list[str], failed: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasuredError(f"{failed}: {error}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise NotMeasuredError(f"{failed}: {said[-1][:300] if said else 'no reason given'}")
    return done.stdout
