"""``make sbom``: a bill of materials for each image, and the licences of everything in it.

Writes ``NAME.cdx.json`` (CycloneDX 1.6) for each file of ``deploy/requirements`` that is installed somewhere for users,
and ``licences.md``, into the folder that is named (``build/sbom``). What is listed is what was locked: versions and
hashes come from the locked files, licences from the packages themselves, or from ``licences.toml`` where they state
none.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKED: Final = ROOT / "deploy" / "requirements"
#: What users get: the images, and `make run`. The others are for those who work on the code.
DELIVERED: Final = (
    "ingestion", "feature-extraction", "genre-worker", "mood-worker", "aggregator", "gateway", "cli", "laptop",
)  # fmt: skip
#: Licences that ask a whole program to be under them.
_STRONG: Final = re.compile(r"\b(A?GPL-|SSPL|EUPL|CC-BY-SA|CC-BY-NC|OSL-)")
_WEAK: Final = re.compile(r"\b(LGPL-|MPL-|EPL-|CDDL-)")
_PACKAGE: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==([^ ;\\]+)(?: ; ([^\\]+))?", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Package:
    """One locked package. ``marker`` says for which machines; ``program`` is what it brings along, with its licence."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    licence: str
    program: tuple[str, str] | None = None


class UnknownLicenceError(Exception):
    """A package states no licence, and ``licences.toml`` has no line for it."""


def known() -> dict[str, Any]:
    """What ``licences.toml`` says."""
    return tomllib.loads(Path(__file__).with_name("licences.toml").read_text(encoding="utf-8"))


def own_licence(name: str) -> str | None:
    """The SPDX expression that the installed package states; None if it states none, or is not installed here."""
    try:
        return metadata(name).get("License-Expression")
    except PackageNotFoundError:
        return None


def packages(image: str) -> list[Package]:
    """What is locked for an image, sorted by name. Raises UnknownLicenceError."""
    file = LOCKED / f"{image}.txt"
    # An image without an extra of its own has the core.
    text = (file if file.exists() else LOCKED / "core.txt").read_text(encoding="utf-8")
    table = known()
    starts = list(_PACKAGE.finditer(text))
    found = []
    for one, following in zip(starts, [*starts[1:], None], strict=True):
        name, version, marker = one.groups()
        licence = own_licence(name) or table["stated"].get(name)
        if licence is None:
            raise UnknownLicenceError(f"{name} states no licence: read it, and add it to deploy/setup/licences.toml")
        hashes = tuple(_HASH.findall(text[one.end() : following.start() if following else None]))
        brought = table["programs"].get(name)
        program = (brought["name"], brought["licence"]) if brought else None
        found.append(Package(name, version, (marker or "").strip(), hashes, licence, program))
    return sorted(found, key=lambda package: package.name)


def objections(found: Iterable[Package]) -> list[str]:
    """Packages that no image may hold, with the reason."""
    allowed = set(known()["weak"]["allowed"])
    said = []
    for package in found:
        choices = [choice.strip(" ()") for choice in package.licence.split(" OR ")]
        if all(_STRONG.search(choice) for choice in choices):
            said.append(f"{package.name} is under {package.licence}")
        elif all(_WEAK.search(choice) for choice in choices) and not any(choice in allowed for choice in choices):
            said.append(f"{package.name} is under {package.licence}, which licences.toml does not allow")
    return said


def bill(image: str, version: str) -> str:
    """The bill of materials as CycloneDX JSON. The same locked file makes the same bill."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    licences = LicenseFactory()
    described = Component(
        name=f"tonestream/{image}",
        version=version,
        type=ComponentType.APPLICATION if image == "laptop" else ComponentType.CONTAINER,
        bom_ref=f"tonestream-{image}",
        licenses=[licences.make_from_string("Apache-2.0")],
    )
    components = []
    for package in packages(image):
        purl = PackageURL("pypi", name=package.name, version=package.version)
        files = [
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(str(purl)),
                comment=digest,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
            for digest in package.hashes
        ]
        components.append(
            Component(
                name=package.name,
                version=package.version,
                bom_ref=str(purl),
                purl=purl,
                licenses=[licences.make_from_string(package.licence)],
                external_references=files,
                properties=[Property(name="tonestream:marker", value=package.marker)] if package.marker else [],
            )
        )
        if package.program:
            name, licence = package.program
            components.append(
                Component(
                    name=name,
                    type=ComponentType.APPLICATION,
                    bom_ref=f"{purl}#{name}",
                    description=f"the program that {package.name} brings along",
                    licenses=[licences.make_from_string(licence)],
                )
            )
    made = Bom(components=components, metadata=BomMetaData(component=described))
    made.register_dependency(described, components)
    output = JsonV1Dot6(made)
    made.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(str(one) for one in (version, *packages(image))))
    document = json.loads(output.output_as_string())
    del document["metadata"]["timestamp"]
    return json.dumps(document, indent=2, sort_keys=True)


def table() -> str:
    """The licences of everything that is delivered, as Markdown."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for image in DELIVERED:
        for package in packages(image):
            rows.setdefault((package.name, package.version, package.licence), []).append(image)
            if package.program:
                name, licence = package.program
                rows.setdefault((f"{name} (in {package.name})", package.version, licence), []).append(image)
    lines = ["| package | version | licence | in |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(package)} | {', '.join(where)} |" for package, where in sorted(rows.items())]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> int:
    """Write them all. Exit status 1 if an image holds what it must not, or a licence is not known."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        said = [f"{image}: {one}" for image in DELIVERED for one in objections(packages(image))]
        for image in DELIVERED:
            (folder / f"{image}.cdx.json").write_text(bill(image, version) + "\n", encoding="utf-8")
        (folder / "licences.md").write_text(table(), encoding="utf-8")
    except UnknownLicenceError as error:
        said = [str(error)]
    for one in said:
        print(f"sbom: {one}", file=sys.stderr)
    if not said:
        print(f"sbom: {len(DELIVERED)} bills of materials and licences.md are in {folder}")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
