"""The scripts behind `make up` and `make cli`, with a Docker that is only played."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[3] / "deploy" / "setup"
TOOLS = ("sh", "sed", "tr", "wc", "date", "cat", "sleep", "xargs", "printf", "tail", "cut", "uniq")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder of programs, the only one on PATH: those that every system has, and no Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def add(path: Path, name: str, script: str) -> Path:
    program = path / name
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def run(path: Path, script: str, *arguments: str, **more: str) -> tuple[int, str, str]:
    command = [str(SETUP / script), *arguments]
    environment = {"PATH": str(path), "HOME": os.environ["HOME"], **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_machine_without_docker_or_compose_gets_one_sentence(path: Path) -> None:
    status, said, complained = run(path, "compose.sh", "ps")
    assert (status, said) == (1, "") and complained.startswith("Docker is missing: ") and complained.count("\n") == 1
    add(path, "docker", '[ "$1" != compose ]')
    status, said, complained = run(path, "up.sh", str(SETUP / "compose.sh"))
    assert (status, said) == (1, "") and complained.startswith("Docker Compose is missing: ")
    assert complained.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("permission denied while trying to connect", "this user may not use Docker"),
        ("Cannot connect to the daemon", "the Docker engine does not answer: Cannot connect to the daemon"),
    ],
)
def test_an_engine_that_does_not_answer_is_named(path: Path, error: str, sentence: str) -> None:
    add(path, "docker", f'[ "$1" = compose ] || {{ echo; echo "{error}"; exit 1; }} >&2')
    status, _, complained = run(path, "compose.sh", "up")
    assert status == 1 and complained.startswith(sentence) and complained.count("\n") == 1


def test_the_old_and_the_new_compose_are_both_used(path: Path) -> None:
    add(path, "docker", "exit 1")
    add(path, "docker", '[ "$1 $2" != "compose version" ] && echo "$@"')
    add(path, "docker-compose", 'echo "old $*"')
    assert run(path, "compose.sh", "ps", "-q")[1].endswith("old ps -q\n")
    add(path, "docker", 'echo "$@"')
    assert run(path, "compose.sh", "ps", "-q")[1] == "compose ps -q\n"


def test_arguments_of_the_command_line_keep_what_a_shell_would_take_for_its_own(path: Path) -> None:
    compose = add(path, "compose", 'for one; do echo "[$one]"; done')
    words = "submit https://e.org/a?b=1&c=2;d * --where 'energy < 0.4'"
    said = run(path, "cli.sh", str(compose), RUN=words)[1].split("\n")
    assert said[4:-1] == ["[submit]", "[https://e.org/a?b=1&c=2;d]", "[*]", "[--where]", "[energy < 0.4]"]
    assert run(path, "cli.sh", str(compose), RUN="results 'x")[0] == 2


@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        ("gateway|False|created|0||0|listen tcp4: address already in use", "something else listens on port 8080"),
        ("kafka|False|running|0|unhealthy|0|", "kafka is unhealthy"),
        ("topics|False|exited|1||0|", "topics ended with status 1"),
        ("ingestion|False|restarting|2|starting|3|", "ingestion ends again and again"),
    ],
)
def test_what_fails_at_the_start_is_named_with_the_end_of_its_log(path: Path, container: str, sentence: str) -> None:
    compose = add(path, "compose", 'case "$1" in ps) [ "$2" = -q ] || echo c1 ;; up) exit 1 ;; esac')
    log = "echo 'the last words'"
    ports = "*PortBindings*) echo '8080 ' ;;"
    add(path, "docker", f"case \"$*\" in logs*) {log} ;; {ports} inspect*) echo 'c1|{container}' ;; esac")
    status, _, complained = run(path, "up.sh", str(compose))
    assert status == 1 and sentence in complained and "    the last words\n" in complained


def test_make_up_ends_when_every_worker_takes_work_and_says_where_to_look(path: Path) -> None:
    compose = add(path, "compose", 'case "$1" in ps) [ "$2" = -q ] || echo c1 ;; port) echo 127.0.0.1:18080 ;; esac')
    state = path / "asked"
    ready = f'exec*) [ -e {state} ] || {{ : > {state}; echo \'{{"because": "it waits"}}\'; exit 1; }} ;;'
    line = "c1|genre-worker|False|running|0|healthy|0|"
    add(path, "docker", f"case \"$*\" in {ready} inspect*) echo '{line}' ;; esac")
    status, said, complained = run(path, "up.sh", str(compose))
    assert (status, complained) == (0, "")
    assert said.startswith("waiting until everything works\nTonestream works") and "http://localhost:18080/" in said


def test_make_up_says_what_it_waited_for_in_vain(path: Path) -> None:
    compose = add(path, "compose", 'case "$1" in ps) [ "$2" = -q ] || echo c1 ;; esac')
    waits = 'exec*) echo \'{"because": "it waits for Redis"}\'; exit 1 ;;'
    add(path, "docker", f"case \"$*\" in {waits} inspect*) echo 'c1|ingestion|False|running|0|healthy|0|' ;; esac")
    status, _, complained = run(path, "up.sh", str(compose), UP_WAIT_S="0")
    assert status == 1 and "    ingestion: it waits for Redis\n" in complained
