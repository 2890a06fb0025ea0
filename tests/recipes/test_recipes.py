"""Each recipe does what its README says, against a real Kafka or a real gateway.

``make recipes`` sets up what they need, and nothing may be missing then. Otherwise those that are not set up are named
and not run: fetching them takes longer than all these tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import mutagen
import pytest

from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.contracts.topics import Topics
from tests.support.answering import Answering, abort_result
from tests.support.mcp_session import McpSession
from tests.support.names import Names
from tests.support.samples import ROOT, SAMPLES
from tests.support.served import Served

RECIPES: Final = ROOT / "recipes"
CACHE: Final = ROOT / ".cache" / "recipes"
KEY: Final = "a-key-of-these-tests"


def need(found: object, what: str) -> None:
    """Skip a recipe whose runtime is not set up; fail where everything has to be."""
    if not found:
        said = f"{what} is not set up: make recipes"
        if os.environ.get("TONESTREAM_RECIPES") == "all":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")} | more


def run(command: Sequence[object], settings: Mapping[str, str], status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], env=settings, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Served(tmp_path_factory.mktemp("gateway"), gateway_api_keys=KEY, genre_model="mfcc-lstm") as served:
        yield served.address


# Over HTTP


def test_curl_classifies_a_file_whatever_its_name(gateway: str, tmp_path: Path) -> None:
    need(shutil.which("curl"), "curl")
    song = tmp_path / "Björk – 100% 'Jóga'.mp3"
    shutil.copy(SAMPLES[0], song)
    settings = environment(TONESTREAM_URL=gateway, TONESTREAM_API_KEY=KEY)
    state = json.loads(run([RECIPES / "curl" / "classify.sh", song], settings).stdout)
    assert state["stage"] == "ok"
    assert state["source"] == song.name
    assert state["result"]["genre"]["label"]


def test_curl_classifies_a_url(gateway: str) -> None:
    need(shutil.which("curl"), "curl")
    settings = environment(TONESTREAM_URL=gateway, TONESTREAM_API_KEY=KEY)
    command = [RECIPES / "curl" / "classify.sh", "http://127.0.0.1:1/a.mp3?x=%22"]
    state = json.loads(run(command, settings).stdout)
    assert [error["code"] for error in state["result"]["errors"]] == ["fetch_forbidden"]
    assert "usage" in run(command[:1], settings, status=2).stderr


def test_the_beets_plugin_fills_what_is_empty(gateway: str, tmp_path: Path) -> None:
    beet = CACHE / "beets" / "bin" / "beet"
    need(beet.exists(), "beets")
    music = tmp_path / "music"
    music.mkdir()
    for sample in SAMPLES[:2]:
        shutil.copy(sample, music)
    tagged, empty = sorted(music.iterdir())
    for file, genres in ((tagged, ["Polka"]), (empty, [])):
        tags = mutagen.File(file, easy=True)
        tags["genre"] = genres
        tags.save()
    config = {
        "directory": str(music),
        "library": str(tmp_path / "library.db"),
        "pluginpath": str(RECIPES / "beets" / "beetsplug"),
        "plugins": "tonestream",
        "import": {"copy": False, "write": True, "autotag": False, "quiet": True},
        "tonestream": {"url": gateway, "api_key": KEY, "min_confidence": 0.0},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    settings = environment(BEETSDIR=str(tmp_path))
    run([beet, "import", "-qA", music], settings)
    assert run([beet, "tonestream"], settings).stderr == ""
    shown = run(
        [beet, "ls", "-f", "$title|$genres|$mood|$bpm|$initial_key|$tonestream_status", "energy:0.0.."], settings
    )
    rows = [line.split("|") for line in shown.stdout.splitlines()]
    assert len(rows) == 2
    assert all(mood and int(bpm) > 0 and key and status == "ok" for _, _, mood, bpm, key, status in rows)
    written = {file.name: mutagen.File(file, easy=True) for file in (tagged, empty)}
    assert written[tagged.name]["genre"] == ["Polka"]
    assert written[empty.name]["genre"][0]
    assert all(int(found["bpm"][0]) > 0 for found in written.values())


def test_the_mcp_server_classifies_and_searches(gateway: str) -> None:
    python = CACHE / "mcp" / "bin" / "python"
    need(python.exists() and (CACHE / "mcp.done").exists(), "mcp")
    settings = environment(TONESTREAM_URL=gateway, TONESTREAM_API_KEY=KEY, TONESTREAM_MUSIC=str(ROOT / "samples"))
    with McpSession([str(python), str(RECIPES / "mcp" / "server.py")], settings) as session:
        tools = {tool["name"] for tool in session.ask("tools/list", {})["tools"]}
        assert tools == {"classify_track", "search_library"}
        answer = session.call("classify_track", track=str(SAMPLES[5]))["structuredContent"]
        assert answer["status"] == "ok"
        assert set(answer["genre"]) == {"label", "confidence", "uncertain"}
        label = answer["genre"]["label"]
        found = session.call("search_library", where=f"genre == {label}", limit=1)["structuredContent"]
        assert [row["genre"] for row in found["result"]] == [label]
        refused = session.call("classify_track", track="/etc/passwd")
        assert refused["isError"] and "may not be read" in refused["content"][0]["text"]
        wrong = session.call("search_library", where="genre ~~ 2")
        assert wrong["isError"] and "invalid_request" in wrong["content"][0]["text"]


# Over Kafka


def prints_the_one_committed_result(
    command: Sequence[str | Path], bootstrap_servers: str, names: Names, settings: Mapping[str, str]
) -> None:
    """The program gets a result only when it is committed, although one that is not stands before it."""
    topics = Topics(names.prefix)
    bus = KafkaBus(KafkaConfig(bootstrap_servers=bootstrap_servers))
    own = {"KAFKA": bootstrap_servers, "TOPIC_PREFIX": names.prefix, "REQUEST_ID": "later-1"}
    with (
        Answering(bus, topics) as workers,
        subprocess.Popen(
            [*command, "https://example.org/song.mp3"],
            env={**settings, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program,
    ):
        deadline = time.monotonic() + 60
        while not workers.seen and program.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if workers.seen:
            abort_result(bootstrap_servers, topics, "later-1")
            workers.release()
        try:
            out, errors = program.communicate(timeout=60)
        finally:
            program.kill()
    bus.close()
    assert program.returncode == 0, errors
    (line,) = out.splitlines()
    result = json.loads(line)
    assert (result["request_id"], result["status"], result["genre"]["label"]) == ("later-1", "ok", "jazz")


@pytest.mark.kafka
def test_node_publishes_a_request_and_reads_its_one_result(bootstrap_servers: str, names: Names) -> None:
    need(shutil.which("node") and (CACHE / "node.done").exists(), "the Node recipe")
    script = CACHE / "node" / "classify.mjs"  # beside its packages
    shutil.copy(RECIPES / "node" / "classify.mjs", script)
    prints_the_one_committed_result(["node", script], bootstrap_servers, names, environment())


@pytest.mark.kafka
def test_go_publishes_a_request_and_reads_its_one_result(bootstrap_servers: str, names: Names) -> None:
    need(shutil.which("go") and (CACHE / "go.done").exists(), "the Go recipe")
    program = CACHE / "go" / "classify"
    offline = environment(
        GOMODCACHE=str(CACHE / "go" / "mod"), GOCACHE=str(CACHE / "go" / "build"), GOPROXY="off", GOFLAGS="-modcacherw"
    )
    run(["go", "build", "-C", RECIPES / "go", "-o", program, "."], offline)
    prints_the_one_committed_result([program], bootstrap_servers, names, environment())


@pytest.mark.parametrize("recipe", sorted(folder.name for folder in RECIPES.iterdir() if folder.is_dir()))
def test_each_recipe_is_described(recipe: str) -> None:
    assert (RECIPES / recipe / "README.md").exists()
    assert f"]({recipe}/)" in (RECIPES / "README.md").read_text(encoding="utf-8")
