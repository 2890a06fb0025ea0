"""What shells bring: encodings, full and closed outputs, readers that leave, signals, terminals. No traceback, ever."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.names import Names

ROOT = Path(__file__).resolve().parent.parent.parent
#: The whole command line, and one whose pipeline answers at once.
REAL, QUICK = "services.cli.main", "tests.support.quick_cli"
#: Nobody listens there.
NOWHERE = {
    "TONESTREAM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "TONESTREAM_REDIS_URL": "redis://127.0.0.1:1/0",
    "TONESTREAM_KAFKA_COMMIT_TIMEOUT_S": "2",
}


def command(*arguments: str, module: str = REAL) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    # Python's own buffer is what people have; a test may run without.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, **NOWHERE, "PYTHONPATH": str(ROOT), **more}


def run(
    *arguments: str, module: str = REAL, cwd: Path | None = None, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    more = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, **more}
    return subprocess.run(
        command(*arguments, module=module), cwd=cwd, env=environment(**more.pop("settings", {})), timeout=120,
        check=False, **more,
    )  # fmt: skip


def heed_signals() -> None:
    """In a child: whoever started the tests may ignore some, as nohup does, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def together(*processes: Sequence[str]) -> list[subprocess.CompletedProcess[bytes]]:
    """Several commands side by side: each waits ten seconds for a broker."""
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda arguments: run(*arguments), processes))


# Outputs

PRINTING = {
    "--help": (REAL, ["--help"]),
    "settings": (REAL, ["settings"]),
    "classify": (QUICK, ["classify", "x.mp3", "nothing"]),
    "classify --json": (QUICK, ["classify", "--json", "x.mp3", "nothing"]),
}


@pytest.mark.parametrize("name", PRINTING)
@pytest.mark.skipif(sys.platform != "linux", reason="no other system has /dev/full")
def test_a_full_a_closed_and_a_deserted_output_end_a_command_with_a_line_at_most(name: str, tmp_path: Path) -> None:
    module, arguments = PRINTING[name]
    (tmp_path / "x.mp3").write_bytes(b"x")
    lost = b"tonestream: standard output cannot be written: "
    for redirection, settings, said in (
        ('exec "$@" > /dev/full', {}, [lost + b"No space left on device"]),
        ('exec "$@" > /dev/full', {"PYTHONUNBUFFERED": "1"}, [lost + b"No space left on device"]),
        ('exec "$@" >&-', {}, [lost + b"Bad file descriptor"]),
        ('"$@" | true; exit ${PIPESTATUS[0]}', {}, []),
    ):
        done = subprocess.run(
            ["bash", "-c", redirection, "bash", *command(*arguments, module=module)],
            cwd=tmp_path, env=environment(**settings), capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.splitlines()) == (1, said), redirection


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has /dev/full")
def test_a_full_or_closed_standard_error_changes_nothing(tmp_path: Path) -> None:
    for name in ("x.mp3", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for redirection in ("2>/dev/full", "2>&-"):
        done = subprocess.run(
            ["bash", "-c", f'exec "$@" {redirection}', "bash", *command("classify", ".", "x", "--json", module=QUICK)],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_ends_a_run_and_json_stays_json(encoding: str, tmp_path: Path) -> None:
    names = ["日本語の曲.mp3", "plain.mp3", os.fsdecode(b"no-\xff-text.mp3")]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    settings = {"PYTHONIOENCODING": encoding}
    table = run("classify", *names, module=QUICK, cwd=tmp_path, settings=settings)
    lines = run("classify", "--json", *names, module=QUICK, cwd=tmp_path, settings=settings)
    assert (table.returncode, lines.returncode, table.stderr, lines.stderr) == (1, 1, b"", b"")
    codec = encoding.partition(":")[0]
    results = [json.loads(line) for line in lines.stdout.decode(codec).splitlines()]
    assert [one["track"]["source"] for one in results] == ["日本語の曲.mp3", "plain.mp3", "no-\\xff-text.mp3"]
    assert {one["track"]["title"] for one in results} == {"Jürgen 🎵"}
    shown = table.stdout.decode(codec)
    assert ("日本語の曲.mp3" if codec == "utf-8" else "\\u65e5\\u672c\\u8a9e\\u306e\\u66f2.mp3") in shown


def test_a_working_folder_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$@"'
    for arguments in (["classify", "x.mp3", "."], ["version"]):
        done = subprocess.run(
            ["bash", "-c", script, "bash", *command(*arguments, module=QUICK)],
            cwd=tmp_path, env=environment(), capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        (tmp_path / "gone").mkdir()
        assert b"Traceback" not in done.stderr, done.stderr


# Signals


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_what_is_finished_is_shown_whatever_ends_the_run(number: int, status: int, tmp_path: Path) -> None:
    for name in ("1.mp3", "2.mp3", "3-slow.mp3", "4.mp3"):
        (tmp_path / name).write_bytes(b"x")
    process = subprocess.Popen(
        command("classify", ".", module=QUICK), cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_signals,
    )  # fmt: skip
    assert process.stdout is not None
    rows = [process.stdout.readline() for _ in range(5)]
    assert rows[0].startswith(b"track ") and rows[1].startswith(b"1.mp3 ") and rows[3].startswith(b"2.mp3 ")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert out == b"2 of 4 tracks done, 0 ok\n"
    assert err == b"tonestream: interrupted\n"
    assert process.returncode == status


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3, 0.6])
def test_ctrl_c_at_any_moment_is_no_traceback(after_s: float) -> None:
    # Python itself takes a moment until it reaches us: what it says of a signal before that is its own. So the line
    # that starts the clock is printed by the first thing that the command does.
    script = (
        "import services.cli.main as m, sys; m._keep_blas_to_one_thread = lambda: print(flush=True);"
        " sys.argv[1:] = ['settings']; sys.exit(m.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_signals,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert err in (b"", b"tonestream: interrupted\n")
    assert process.returncode in (0, 130, -signal.SIGINT)


def test_a_run_that_is_to_survive_its_terminal_does(tmp_path: Path) -> None:
    """``nohup`` ignores the signal, and so does the command."""
    (tmp_path / "slow.mp3").write_bytes(b"x")
    (tmp_path / "1.mp3").write_bytes(b"x")
    process = subprocess.Popen(
        ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", *command("classify", ".", module=QUICK)],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


# Terminals


def test_json_goes_to_its_file_also_while_a_bar_is_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "x.mp3").write_bytes(b"x")
    ours, theirs = pty.openpty()
    with (tmp_path / "out.jsonl").open("wb") as out:
        done = run("classify", "--json", "x.mp3", module=QUICK, cwd=tmp_path, stdout=out, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 100_000)
    os.close(ours)
    assert done.returncode == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["track"]["source"] == "x.mp3"
    assert b"request_id" not in shown and b"1/1" in shown


def test_rows_appear_on_a_terminal_above_the_bar(tmp_path: Path) -> None:
    for name in ("1.mp3", "2.mp3"):
        (tmp_path / name).write_bytes(b"x")
    ours, theirs = pty.openpty()
    done = run("classify", ".", module=QUICK, cwd=tmp_path, stdout=theirs, stderr=theirs, settings={"COLUMNS": "80"})
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 1
    assert shown.index("1.mp3  ") < shown.index("2.mp3  ") < shown.index("0 of 2 tracks ok")


# Servers that are not there


def test_without_kafka_each_command_says_one_line_that_helps() -> None:
    commands = [
        ["submit", "https://example.org/a.mp3"], ["results"], ["results", "--follow"], ["topics", "create"],
        ["dead-letters", "list"], ["dead-letters", "show", "0:1"], ["dead-letters", "replay", "0:1"],
    ]  # fmt: skip
    for arguments, done in zip(commands, together(*commands), strict=True):
        lines = done.stderr.decode().splitlines()
        assert lines == [
            "tonestream: no Kafka broker answers at 127.0.0.1:1: Connection refused"
            " (TONESTREAM_KAFKA_BOOTSTRAP_SERVERS names the brokers)"
        ], arguments
        assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.kafka
def test_without_topics_a_command_says_which_one_creates_them(bootstrap_servers: str, names: Names) -> None:
    settings = {
        "TONESTREAM_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "TONESTREAM_TOPIC_PREFIX": names.prefix,
    }
    for arguments in (["submit", "https://example.org/a.mp3"], ["results"], ["dead-letters", "list"]):
        done = run(*arguments, settings=settings)
        assert (done.returncode, done.stdout) == (1, b""), arguments
        (line,) = done.stderr.decode().splitlines()
        assert "`tonestream topics create` creates the topics" in line


def test_a_broker_that_is_no_address_is_a_setting_to_put_right() -> None:
    for servers in ("localhost:abc", "a:9092,,b:9092", ":9092", "localhost:99999"):
        done = run("results", settings={"TONESTREAM_KAFKA_BOOTSTRAP_SERVERS": servers})
        assert done.returncode == 2 and b"kafka_bootstrap_servers" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_health_endpoint_that_speaks_something_else_is_no_traceback() -> None:
    wrong = run("health", "--port", "99999")
    assert wrong.returncode == 2 and b"is no port" in wrong.stderr
    silent = run("health", "--port", "1")
    assert silent.stderr == b"tonestream: no worker answers on port 1: [Errno 111] Connection refused\n"
    assert silent.returncode == 1


def test_a_command_whose_packages_are_not_installed_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['httpcore2'] = None; from services.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", script, "classify", str(ROOT / "samples" / "cave-at-night.mp3")]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tonestream: ")]
    assert "httpcore2" in line and "pip install 'tonestream[all]'" in line
    assert "Traceback" not in done.stderr
