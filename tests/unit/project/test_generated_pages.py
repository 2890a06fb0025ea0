"""The pages that are made from the code: complete, and true of what runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.docs.api_reference import api_reference
from services.docs.blocks import with_blocks
from services.docs.recording import Line, picture, record
from services.docs.settings import SECTIONS, used_by
from services.topology import SERVICE_NAMES
from shared.settings import Settings
from tests.support.samples import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
#: Settings that the images or the files decide.
FIXED = {"models_dir", "blob_url", "ffmpeg", "health_host", "health_port"}


Users = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def users() -> Users:
    return used_by()


def test_every_section_of_the_settings_begins_with_a_setting() -> None:
    assert set(SECTIONS) <= set(Settings.model_fields)
    assert next(iter(Settings.model_fields)) in SECTIONS


def test_every_setting_has_a_user(users: Users) -> None:
    assert {name for name in Settings.model_fields if not users.get(name)} == set()


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_a_container_is_given_every_setting_that_its_service_reads(service: str, users: Users) -> None:
    given = COMPOSE["services"][service]["environment"]
    read = {name for name, readers in users.items() if service in readers} - FIXED
    assert {name for name in read if f"TONESTREAM_{name.upper()}" not in given} == set()


def test_the_reference_of_the_api_has_every_operation_and_every_link_a_section() -> None:
    page = api_reference()
    for operation in ("POST /v1/tracks", "GET /v1/results", "GET /v1/events", "GET /readyz"):
        assert f"## `{operation}`" in page
    assert "Internal Server Error" not in page


def test_a_page_without_generated_parts_stays_as_it_is() -> None:
    assert with_blocks("# Words\n\nof people\n") == "# Words\n\nof people\n"


def test_a_recording_shows_every_line_when_it_came(tmp_path: Path) -> None:
    row, bar, last = r"'\x1b[1mbold\x1b[0m & \x1b[32mok\x1b[0m'", "'bar'", r"'\r\x1b[1A\x1b[2K', sys.stdout.isatty()"
    printed = f"import sys; print({row}); print({bar}); print({last})"
    lines = record([sys.executable, "-c", printed], tmp_path)
    assert [line.text for line in lines] == ["\x1b[1mbold\x1b[0m & \x1b[32mok\x1b[0m", " True"]
    drawn = picture(["command"], [*lines, Line("late", 99.0)])
    assert 'class="bold">bold</text>' in drawn and 'style="fill:#7ee787">ok</text>' in drawn and "&amp;" in drawn
    assert drawn.index(">late<") > drawn.index(">ok<")
    assert "prefers-reduced-motion" in drawn and "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
