"""The shipped model folders: their figures are typed, and each card is exactly what its manifest gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.models.manifest import ModelManifest
from training.mood.card import mood_card
from training.musicnn.tags import tag_card
from training.reports.card import genre_card
from training.reports.figures import Figures, GenreFigures, MoodFigures, TagFigures

FOLDERS = sorted(path.parent for path in (Path(__file__).resolve().parents[3] / "models").glob("*/manifest.json"))
FIGURES: dict[str, type[Figures]] = {"genre": GenreFigures, "mood": MoodFigures, "tags": TagFigures}
CARDS = {"genre": genre_card, "mood": mood_card, "tags": tag_card}


def read(folder: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((folder / "manifest.json").read_bytes())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_figures_of_a_shipped_manifest_survive_their_types_unchanged(folder: Path) -> None:
    manifest = read(folder)
    written = json.loads((folder / "manifest.json").read_bytes())["figures"]
    assert FIGURES[manifest.kind].model_validate(manifest.figures).as_json() == written


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_card_is_byte_for_byte_what_its_manifest_gives(folder: Path) -> None:
    manifest = read(folder)
    assert CARDS[manifest.kind](manifest).encode() == (folder / "CARD.md").read_bytes()
