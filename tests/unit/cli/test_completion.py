"""Help and completion: readable without colours, and what a shell offers when somebody presses the tab key."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.main import main
from tests.support.samples import ROOT

SCRIPT = """
tonestream() {{ {python} -m services.cli.main "$@"; }}
eval "$(tonestream completion bash)"
complete_words() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=()
    _shtab_tonestream
    printf '%s\\n' "${{COMPREPLY[@]}}"
}}
complete_words {words}
"""


def offered(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    quoted = " ".join(f"'{word}'" for word in words)
    script = SCRIPT.format(python=sys.executable, words=quoted)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_services_and_options_are_offered() -> None:
    assert offered("tonestream", "cl") == ["classify"]
    assert offered("tonestream", "worker", "genre") == ["genre-worker"]
    assert "--request-id" in offered("tonestream", "results", "--")


def test_files_are_offered_where_a_command_takes_some() -> None:
    assert f"{ROOT}/README.md" in offered("tonestream", "classify", f"{ROOT}/READ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "tonestream" in capsys.readouterr().out


def test_another_shell_is_an_error_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "dos"]) == 2
    assert "bash" in capsys.readouterr().err


def test_without_the_library_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_without_a_terminal_has_no_colours_and_fits(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["results", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= int(columns)


def test_the_help_of_a_terminal_has_colours_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from services.cli.help import Parser

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert type(Parser(prog="x")._get_formatter()).__name__ == "RichHelpFormatter"
    monkeypatch.setenv("NO_COLOR", "1")
    assert type(Parser(prog="x")._get_formatter()).__name__ == "HelpFormatter"


def test_every_command_has_a_file_of_its_own() -> None:
    commands = {file.stem for file in (Path(ROOT) / "services/cli/commands").glob("*.py")} - {"__init__"}
    assert {"classify", "submit", "results", "worker", "topics", "dead_letters", "completion"} <= commands
