"""The table of commands, and the parser that is completed only for the command in use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.cli.commands.table import COMMANDS, parser_for, whole_parser
from services.cli.main import main

_HEAVY = ("numpy", "pydantic", "kafka", "redis", "services.cli.execution")


def test_help_is_printed_without_the_imports_of_any_command() -> None:
    script = (
        "import sys; from services.cli.main import main; status = main(['--help'])\n"
        f"print([name for name in {_HEAVY!r} if name in sys.modules], status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert all(command.help.split()[0] in done.stdout for command in COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_page_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser_for([name, "--help"]).parse_args([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: tonestream {name}" in capsys.readouterr().out


def test_a_command_after_an_option_is_found() -> None:
    assert parser_for(["--", "version"]).parse_args(["version"]).run.__name__ == "_version"


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["--nosuch"], ["--nosuch", "version"]])
def test_an_unknown_command_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser_for(arguments).parse_args(arguments)
    assert ended.value.code == 2


def test_the_whole_parser_knows_the_arguments_of_every_command() -> None:
    assert whole_parser().parse_args(["classify", "a", "b"]).inputs == ["a", "b"]
    assert whole_parser().parse_args(["topics", "create"]).run.__name__ == "_create"


@pytest.mark.parametrize(("given", "wanted"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")])
def test_matrix_products_have_one_thread_unless_the_user_says_otherwise(given: dict[str, str], wanted: str) -> None:
    script = (
        "import os; from services.cli.main import main; main(['version']); print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"} | given
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == wanted


@pytest.mark.parametrize(("command", "status"), [(["worker", "aggregator"], 2), (["settings"], 0)])
def test_traces_that_cannot_be_made_stop_a_worker_and_no_persons_command(
    command: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nonsense")
    assert main(command) == status
    assert "no exporter 'nonsense' here" in capsys.readouterr().err
