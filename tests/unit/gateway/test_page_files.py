"""The files of the page: what they repeat of the contracts, what is vendored, and colours that can be told apart."""

from __future__ import annotations

import hashlib
import re
from itertools import combinations

import pytest

from services.gateway.problems import GatewayCode
from services.gateway.static_page import FOLDER
from shared.contracts.audio_features import AUDIO_FEATURES
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES, MOODS
from shared.contracts.messages import Status

WORDS = (FOLDER / "js" / "words.js").read_text(encoding="utf-8")
LABELS = (FOLDER / "js" / "labels.js").read_text(encoding="utf-8")
STYLE = (FOLDER / "css" / "base.css").read_text(encoding="utf-8")
VENDORED = FOLDER / "vendor"
#: What WCAG 2.2 asks of text (AA), and of graphics.
TEXT, GRAPHIC = 4.5, 3.0

Colour = tuple[float, float, float]


def test_the_page_has_words_for_every_error_code() -> None:
    table = WORDS[WORDS.index("export const ERRORS") : WORDS.index("const UNKNOWN")]
    codes = set(re.findall(r"^  (\w+): \{ what: ", table, re.MULTILINE))
    assert codes == {code.value for code in (*ErrorCode, *GatewayCode)} | {"offline"}


def test_the_page_shows_the_labels_and_features_of_the_contracts() -> None:
    lists = {
        name: tuple(re.findall(r'"(\w+)"', found)) for name, found in re.findall(r"const (\w+) = \[(.*?)\]", LABELS)
    }
    assert lists == {"GENRES": GENRES, "MOODS": MOODS, "STATUSES": tuple(status.value for status in Status)}
    assert set(re.findall(r'\{ name: "(\w+)", label', WORDS)) == set(AUDIO_FEATURES)


def test_vendored_files_are_those_that_their_table_names() -> None:
    table = dict(re.findall(r"^\| `(\S+)` .* `([0-9a-f]{64})` \|$", (VENDORED / "README.md").read_text(), re.MULTILINE))
    files = {path.name for path in VENDORED.iterdir() if path.suffix in {".js", ".css"}}
    assert set(table) == files
    for name, expected in table.items():
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == expected, name
        assert (VENDORED / f"{name.split('.')[0]}.LICENSE").is_file()


def test_no_markup_is_made_from_text() -> None:
    for script in (FOLDER / "js").glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text("utf-8")
        )
        assert found == [], script.name


def test_the_document_has_no_inline_style_or_script_and_loads_from_its_own_server_only() -> None:
    document = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"\sstyle=|\son\w+=|<style|<script>", document) == []
    assert all(address.startswith(("/", "#")) for address in re.findall(r'(?:src|href)="([^"]+)"', document))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(theme: int) -> None:
    colours = _colours(theme)
    for ground in ("paper", "card"):
        for name in ("ink", "soft", "accent", "bad", "energy", "valence"):
            assert _contrast(colours[name], colours[ground]) >= TEXT, (name, ground)
        for genre in GENRES:
            assert _contrast(colours[f"genre-{genre}"], colours[ground]) >= GRAPHIC, (genre, ground)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("eye", ["usual", "protan", "deutan", "tritan"])
def test_genre_colours_differ_for_every_eye(theme: int, eye: str) -> None:
    colours = _colours(theme)
    seen = {genre: _lab(_seen(eye, colours[f"genre-{genre}"])) for genre in GENRES}
    distances = {
        (one, other): sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        for one, other in combinations(GENRES, 2)
    }
    # A distance of 0.02 in OKLab can just be seen.
    assert min(distances.values()) >= 0.08, min(distances, key=lambda pair: distances[pair])


def _colours(theme: int) -> dict[str, Colour]:
    """The custom properties of the style sheet, linear RGB."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", STYLE)
    return {name: _linear(both[theme]) for name, *both in pairs}


def _linear(colour: str) -> Colour:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return _channel(red), _channel(green), _channel(blue)


def _channel(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _contrast(one: Colour, other: Colour) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    red, green, blue = colour
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


#: Machado, Oliveira and Fernandes (2009), severity 1: linear RGB to what is seen.
_EYES = {
    "usual": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def _seen(eye: str, colour: Colour) -> Colour:
    red, green, blue = (min(1.0, max(0.0, sum(a * b for a, b in zip(row, colour, strict=True)))) for row in _EYES[eye])
    return red, green, blue


def _lab(colour: Colour) -> Colour:
    """OKLab (Ottosson 2020)."""
    red, green, blue = colour
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )
