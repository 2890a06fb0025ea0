"""One word, one meaning: words that the glossary has replaced, and turns of phrase that take a second reading."""

from __future__ import annotations

import re

import pytest

from tests.support.samples import ROOT

#: The words, and what to write in their place.
REPLACED = {
    r"told": "say who says what to whom",
    r"dear|dearer": "cost, regularisation strength",
    r"of which": "a sentence of its own",
    r"tenures?": "ownership epoch",
    r"bury|buried|buries": "send to the dead letters",
    r"verdicts?": "outcome",
    r"lessons?|taught|school": "distillation set, trained, pre-training",
    r"heeds?|heeded": "use, respect",
    r"in company": "in a shared batch",
    r"shall": "must, will",
}
#: Where such a word has its plain meaning, or a name on the wire.
ALLOWED = {
    "training/distillation/student.py": {"taught"},  # the name of a layer in the shipped weights
}
FILES = sorted(
    [file for room in ("shared", "services", "training", "samples") for file in (ROOT / room).rglob("*.py")]
    + list((ROOT / "docs").rglob("*.md"))
    + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
)


@pytest.mark.parametrize(("pattern", "instead"), REPLACED.items(), ids=REPLACED.keys())
def test_replaced_words_do_not_come_back(pattern: str, instead: str) -> None:
    word = re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)
    found = []
    for file in FILES:
        name = file.relative_to(ROOT).as_posix()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            words = {one.lower() for one in word.findall(line)}
            if words - ALLOWED.get(name, set()):
                found.append(f"{name}:{number}: {line.strip()}")
    assert found == [], f"write instead: {instead}"
