"""The audit of dependencies: what fails it, what is accepted, and that silence is never taken for good news."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "setup" / "audit.py"


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(*fixes: str) -> dict[str, Any]:
    found = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": list(fixes)}
    return {"dependencies": [{"name": "lib", "version": "1.0", "vulns": [found]}]}


def test_a_vulnerability_with_a_fix_fails_and_one_without_does_not(audit: ModuleType) -> None:
    assert audit.told(report("1.1"), {}) == 1
    assert audit.told(report(), {}) == 0


def test_an_accepted_vulnerability_is_shown_with_its_reason(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.told(report("1.1"), {"CVE-1": "we never call it"}) == 0
    assert "accepted: we never call it" in capsys.readouterr().out


def test_an_exception_needs_a_reason(audit: ModuleType) -> None:
    assert audit.exceptions("# a comment\n\nCVE-1 we never call it\n") == {"CVE-1": "we never call it"}
    with pytest.raises(ValueError, match="CVE-2 has no reason"):
        audit.exceptions("CVE-2\n")
    audit.exceptions(audit.IGNORED.read_text())


def test_a_database_that_knows_nothing_counts_as_not_run(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.told({"dependencies": [{"name": "lib", "skip_reason": "not found"}]}, {}) == 0
    assert "AUDIT NOT RUN" in capsys.readouterr().err


def test_without_the_database_the_audit_says_loudly_that_it_was_not_run(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(audit, "PROBE", "http://127.0.0.1:1/")
    assert audit.main(tmp_path) == 0
    assert "AUDIT NOT RUN" in capsys.readouterr().err
