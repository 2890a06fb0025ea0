"""docs/architecture.md speaks of what is there."""

from __future__ import annotations

import re

import pytest

from shared.state.requests import Phase
from tests.support.samples import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:shared|services|training|tests|deploy|models|samples|docs)/[\w./-]*)`", PAGE)))


@pytest.mark.parametrize("path", NAMED)
def test_every_file_and_folder_that_the_page_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_room_is_on_the_page() -> None:
    rooms = {f"`shared/{folder.name}/`" for folder in (ROOT / "shared").iterdir() if (folder / "__init__.py").exists()}
    assert {room for room in rooms if room not in PAGE} == set()


def test_the_diagram_has_every_phase_of_a_request() -> None:
    arrows = re.findall(r"^    (\w+|\[\*\]) --> (\w+|\[\*\])", PAGE.split("stateDiagram-v2")[1].split("```")[0], re.M)
    assert {name for arrow in arrows for name in arrow} - {"[*]"} == {phase.value for phase in Phase}


def test_the_glossary_is_in_order_and_explains_each_word_once() -> None:
    words = re.findall(r"^\| ([\w ,-]+) \| ", PAGE.split("## Glossary")[1], re.M)[1:]
    assert len(words) >= 30 and len(set(words)) == len(words)
