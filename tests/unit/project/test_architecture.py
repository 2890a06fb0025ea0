"""The rooms keep their doors shut: who may import whom, and what a worker must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SERVICES = sorted(folder.name for folder in (ROOT / "services").iterdir() if (folder / "__init__.py").exists())


def imports(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield file, node.module


def test_what_is_shared_imports_no_service_and_no_training() -> None:
    wrong = [pair for pair in imports(ROOT / "shared") if pair[1].split(".")[0] in {"services", "training", "tests"}]
    assert wrong == []


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in {"cli", "docs"}])
def test_a_service_imports_no_sibling(service: str) -> None:
    own = f"services.{service}"
    wrong = [
        (file, name)
        for file, name in imports(ROOT / "services" / service)
        if name.split(".")[0] in {"services", "training", "tests"}
        and not name.startswith((own, "services.topology", "services.library", "services.dead_letters"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("services.ingestion.service", ["tensorflow", "librosa", "scipy", "spotipy"]),
        ("services.feature_extraction.service", ["tensorflow", "librosa", "scipy.signal", "spotipy", "httpcore2"]),
        ("services.mood_worker.service", ["tensorflow", "librosa", "scipy.signal", "spotipy", "httpcore2"]),
        ("services.genre_worker.service", ["tensorflow", "librosa", "spotipy", "httpcore2"]),
        ("services.aggregator.service", ["tensorflow", "librosa", "scipy", "spotipy", "httpcore2"]),
        ("services.cli.command_line", ["numpy", "pydantic", "kafka", "redis", "rich"]),
        ("services.cli.commands.classify", ["tensorflow", "librosa", "scipy", "kafka", "redis", "numba", "rich"]),
    ],
)
def test_a_module_is_imported_without_what_it_does_not_need(module: str, unwanted: list[str]) -> None:
    # The genre worker's TensorFlow comes with its model, when it is built, and spotipy where there are credentials.
    script = f"import sys, {module}; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
