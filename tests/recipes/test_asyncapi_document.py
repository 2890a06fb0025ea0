"""The description of the topics satisfies the standard, by the parser that the AsyncAPI project publishes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.recipes.test_recipes import CACHE, need
from tests.support.samples import ROOT

PARSER: Final = ROOT / "deploy" / "setup" / "asyncapi"
DOCUMENT: Final = ROOT / "docs" / "asyncapi.json"


def findings(document: Path) -> list[str]:
    need(shutil.which("node") and (CACHE / "asyncapi.done").exists(), "the AsyncAPI parser")
    script = CACHE / "asyncapi" / "validate.mjs"  # beside its packages
    shutil.copy(PARSER / "validate.mjs", script)
    done = subprocess.run(["node", script, document], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    assert done.returncode == (1 if done.stdout else 0)
    return done.stdout.splitlines()


def test_the_document_satisfies_the_standard() -> None:
    assert findings(DOCUMENT) == []


def test_a_mistake_in_the_document_is_named(tmp_path: Path) -> None:
    document = json.loads(DOCUMENT.read_text())
    next(iter(document["operations"].values()))["action"] = "shout"
    broken = tmp_path / "asyncapi.json"
    broken.write_text(json.dumps(document))
    assert any("action" in line for line in findings(broken))
