"""The bills of materials: every locked package, its licence, and what no image may hold."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from services.topology import SERVICE_NAMES
from tests.support.samples import ROOT


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "deploy" / "setup" / "sbom.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sbom"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_no_image_holds_a_package_that_asks_for_its_own_licence(sbom: ModuleType) -> None:
    assert set(sbom.DELIVERED) == {*SERVICE_NAMES, "gateway", "cli", "laptop"}
    for image in sbom.DELIVERED:
        found = sbom.packages(image)
        assert len(found) > 10
        assert sbom.objections(found) == [], image
        assert "mutagen" not in {package.name for package in found}, "it is under the GPL"


@pytest.mark.parametrize(
    ("licence", "refused"),
    [("GPL-3.0-or-later", True), ("AGPL-3.0-only", True), ("MIT", False), ("MIT OR GPL-2.0-only", False),
     ("MIT AND GPL-2.0-only", True), ("LGPL-2.1-or-later", False), ("LGPL-3.0-only", True), ("MPL-2.0", False)],
)  # fmt: skip
def test_a_licence_is_refused_where_it_leaves_no_choice(sbom: ModuleType, licence: str, refused: bool) -> None:
    package = sbom.Package("lib", "1.0", "", (), licence)
    assert bool(sbom.objections([package])) == refused


def test_a_package_without_a_licence_stops_the_bill(sbom: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "own_licence", lambda name: None)
    with pytest.raises(sbom.UnknownLicenceError, match=r"states no licence"):
        sbom.packages("core")


def test_no_package_contradicts_what_the_table_says_of_it(sbom: ModuleType) -> None:
    table = sbom.known()["stated"]
    assert {name: own for name in table if (own := sbom.own_licence(name)) not in {None, table[name]}} == {}


def test_a_bill_names_every_locked_package_and_its_hashes_and_is_the_same_twice(sbom: ModuleType) -> None:
    text = sbom.bill("ingestion", "1.2.3")
    assert text == sbom.bill("ingestion", "1.2.3")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    locked = (ROOT / "deploy" / "requirements" / "ingestion.txt").read_text(encoding="utf-8")
    named = {one["name"] for one in bill["components"]}
    assert named == {*re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==", locked, re.MULTILINE), "ffmpeg"}
    hashes = {one["hashes"][0]["content"] for part in bill["components"] for one in part.get("externalReferences", ())}
    assert hashes == set(re.findall("sha256:([0-9a-f]{64})", locked))
    (ffmpeg,) = [one for one in bill["components"] if one["name"] == "ffmpeg"]
    assert ffmpeg["licenses"] == [{"license": {"id": "GPL-3.0-or-later"}}]


def test_everything_is_written_by_one_command(
    sbom: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sbom.main(tmp_path) == 0
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}.cdx.json" for name in sbom.DELIVERED} | {
        "licences.md"
    }
    assert "| soxr | " in (tmp_path / "licences.md").read_text(encoding="utf-8")
    assert "bills of materials" in capsys.readouterr().out
