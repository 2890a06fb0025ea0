"""``classify --write-tags`` and ``undo`` as a person uses them, with a pipeline that answers at once."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from rich.cells import cell_len

from services.cli.classify import run
from services.cli.inputs import Input
from services.cli.main import main
from services.cli.tagging import TagWriting, preview
from services.library.tagging.formats import open_tags, save_tags
from services.library.tagging.journal import Journal
from services.library.tagging.leftovers import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from services.library.tagging.plan import plan
from services.library.tagging.rules import Existing, Rules
from shared.contracts.messages import TrackRequest, TrackResult
from tests.support.samples import ROOT
from tests.support.tagged_files import Heard, make

ANSWERS: dict[str, Heard] = {}


class Answering:
    """In the place of EmbeddedPipeline: an answer for each file by a part of its name, or the usual one."""

    def __init__(self, settings: object) -> None:
        self._files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was started."""

    def upload(self, file: Path) -> str:
        self._files += 1
        return f"blob:uploads/{self._files}"

    def classify(self, requests: Iterable[TrackRequest | TrackResult | None]) -> Iterator[TrackResult]:
        for request in list(requests):
            if request is None:
                continue
            if isinstance(request, TrackResult):
                yield request
                continue
            source = request.shown_source
            heard = next((heard for part, heard in ANSWERS.items() if part in source), Heard())
            if "meddled" in source:
                os.utime(source, (1, 1))
            yield heard.result(request.request_id, source)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "EmbeddedPipeline", Answering)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    ANSWERS.clear()


def said(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """Lines of standard output and of standard error."""
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_by_default_no_file_is_touched(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    before = file.read_bytes()
    assert main(["classify", str(file)]) == 0
    assert file.read_bytes() == before


def test_tags_are_written_and_undone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make(tmp_path, "flac")
    before = open_tags(file).contents()
    assert main(["classify", "--write-tags", str(file)]) == 0
    out, err = said(capsys)
    assert out[-1] == "  tags: wrote genre Rock, mood Happy, BPM 128, key F#m, energy 7, evidence"
    assert err[-1].startswith("tonestream: tags: 1 file written; undo with: tonestream undo --run ")
    name = err[-1].split()[-1]

    assert main(["undo", "--list"]) == 0
    (listed,) = said(capsys)[0]
    assert listed.startswith(name) and listed.endswith("1 file")
    assert main(["undo", "--run", name, "--dry-run"]) == 0
    assert "  GENRE: Rock → nothing" in said(capsys)[0] and open_tags(file).text("GENRE") == ("Rock",)
    assert main(["undo", "--run", name]) == 0
    assert said(capsys)[0] == [
        str(file), "  GENRE: Rock → nothing", "  MOOD: Happy → nothing", "  BPM: 128 → nothing",
        "  INITIALKEY: F#m → nothing", "  ENERGYLEVEL: 7 → nothing", "  evidence: 12 fields",
    ]  # fmt: skip
    assert open_tags(file).contents() == before
    for again in (["--last"], ["--run", name]):
        assert main(["undo", *again]) == 0
        assert said(capsys)[0] == ["nothing to undo"]
    assert main(["undo", str(file)]) == 0
    assert said(capsys)[0] == [f"{file}: nothing to undo, it is undone already"]
    assert main(["undo", "--list"]) == 0
    assert said(capsys)[0][0].endswith("undone")


def test_a_dry_run_shows_old_and_new_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make(tmp_path, "mp3-v24")
    before = file.read_bytes()
    assert main(["classify", "--write-tags", "--dry-run", str(file)]) == 0
    out, err = said(capsys)
    assert "  genre      TCON                      –             Rock" in out
    assert err[-1] == "tonestream: tags: 1 file would change, none was written"
    assert file.read_bytes() == before and not (tmp_path / "data").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_the_preview_fits_and_says_what_stays_and_why(width: int, tmp_path: Path) -> None:
    file = make(tmp_path, "mp3-v23")
    tags = open_tags(file)
    tags.put("TCON", ["Shoegaze of a very long kind, 日本の長いジャンル名、とても長い"])
    save_tags(tags, file)
    change = plan(file, Heard(mood_uncertain=True, mood_confidence=0.34).result(), Rules())
    lines = preview(change, width)
    assert all(cell_len(line) <= width for line in lines)
    assert [line.split()[0] for line in lines] == ["tag", "genre", "mood", "BPM", "key", "energy", "evidence"]
    assert lines[1].endswith("(kept; heard Rock 92%)") and "Shoegaze of a" in lines[1] and "…" in lines[1]
    assert lines[2].endswith("(nothing: Happy 34% is a guess)")
    assert ("TBPM" in lines[3]) == (width == 120)


def test_json_stays_clean_and_standard_error_says_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make(tmp_path, "flac")
    assert main(["classify", "--json", "--write-tags", str(file)]) == 0
    out, err = said(capsys)
    assert [json.loads(line)["status"] for line in out] == ["ok"]
    assert err[0] == "tonestream: tags: wrote genre Rock, mood Happy, BPM 128, key F#m, energy 7, evidence"


def test_a_refused_file_is_named_and_the_others_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = make(tmp_path, "flac", called="a")
    bad.chmod(0o444)
    meddled = make(tmp_path, "mp3-v23", called="b-meddled")
    good = make(tmp_path, "ogg", called="c")
    assert main(["classify", "--write-tags", str(tmp_path), "https://example.org/song.mp3"]) == 1
    out, err = said(capsys)
    assert "  tags not written: the file is read-only" in out
    assert "  tags not written: the file has changed since it was heard" in out
    assert "  tags: only local files can be tagged, and this is none" in out
    assert "1 file written, 2 refused, 1 not local;" in err[-1]
    assert open_tags(good).text("GENRE") == ("Rock",) and open_tags(meddled).text("TCON") == ()


def test_a_file_given_twice_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make(tmp_path, "flac")
    link = tmp_path / "link.flac"
    link.symlink_to(file)
    assert main(["classify", "--write-tags", str(file), str(link)]) == 0
    assert "  tags: this file was written already, under another name" in said(capsys)[0]


def test_a_file_that_is_heard_again_later_is_looked_at_again(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    writing = TagWriting(Rules(), journal=Journal(tmp_path / "journal.jsonl"))
    shown: list[str] = []
    for number in range(3):
        writing.expect(str(number), Input("file", str(file)))
        heard = Heard(tempo=127.6 if number < 2 else 90.0)
        writing.take(heard.result(str(number)), shown.extend)
    assert shown[1].startswith("  tags: nothing to write – kept genre Rock")
    assert shown[2].startswith("  tags: wrote evidence – kept genre Rock")


def test_guesses_are_named_and_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ANSWERS.update(unsure=Heard(uncertain=True, confidence=0.3), speech=Heard(content="speech"))
    unsure, speech = make(tmp_path, "flac", called="unsure"), make(tmp_path, "flac", called="speech")
    assert main(["classify", "--write-tags", str(unsure), str(speech)]) == 0
    out, _ = said(capsys)
    assert "wrote mood Happy, BPM 128, key F#m, energy 7, evidence – no genre: Rock 30% is a guess" in "".join(out)
    assert "nothing to write – no genre, mood, BPM, key, energy, evidence: no music, but speech (90%)" in "".join(out)
    assert open_tags(unsure).text("GENRE") == () and open_tags(speech).text("MOOD") == ()


def test_own_words_and_chosen_fields(tmp_path: Path) -> None:
    file, words = make(tmp_path, "flac"), tmp_path / "words.txt"
    words.write_text("rock = Rock; Alternative\n", encoding="utf-8")
    given = ["--genre-map", str(words), "--fields", "genre, bpm", "--journal", str(tmp_path / "mine.jsonl")]
    assert main(["classify", "--write-tags", *given, str(file)]) == 0
    tags = open_tags(file)
    assert tags.text("GENRE") == ("Rock", "Alternative") and tags.text("BPM") == ("128",) and tags.text("MOOD") == ()
    assert main(["undo", "--last", "--journal", str(tmp_path / "mine.jsonl")]) == 0
    assert open_tags(file).text("GENRE") == () and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--dry-run"], "--dry-run goes with --write-tags"),
        (["--overwrite"], "--keep, --merge or --overwrite goes with --write-tags"),
        (["--floor", "0"], "--floor goes with --write-tags"),
        (["--write-tags", "--floor", "2"], "'2' is no confidence from 0 to 1"),
        (["--write-tags", "--floor", "nan"], "'nan' is no confidence from 0 to 1"),
        (["--write-tags", "--fields", "genre,colour"], "'colour' is none of genre, mood"),
        (["--write-tags", "--keep", "--merge"], "not allowed with argument"),
        (["--write-tags", "--genre-map", "nosuch"], "nosuch: No such file"),
        (["--write-tags", "--genre-map", "bad.txt"], "bad.txt: line 2: there is no genre 'shoegaze'"),
        (["--write-tags", "--genre-map", "latin.txt"], "latin.txt: line 2: not UTF-8"),
        (["--write-tags", "--genre-map", "large.txt"], "large.txt: too large for a genre map"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_heard(
    given: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text("rock = Rock\nshoegaze = Indie\n", encoding="utf-8")
    Path("latin.txt").write_bytes(b"rock = Rock\npop = Chanson fran\xe7aise\n")
    Path("large.txt").write_bytes(b"#" * 70_000)
    file = make(tmp_path, "flac")
    before = file.read_bytes()
    assert main(["classify", *given, str(file)]) == 2
    assert error in capsys.readouterr().err and file.read_bytes() == before


@pytest.mark.parametrize("command", [["classify", "--write-tags", "{file}"], ["undo", "--last"]])
def test_without_mutagen_one_line_says_how_to_get_it(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "mutagen":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    file = make(tmp_path, "flac")
    assert main([part.format(file=file) for part in command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'pip install "tonestream[tags]"' in line and ".venv/bin/pip install mutagen" in line


def test_mutagen_is_not_imported_unless_tags_are_asked_for() -> None:
    script = (
        "import sys, services.cli.commands.classify, services.cli.commands.undo, services.library.tagging.formats\n"
        "print([name for name in ('mutagen', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ([], "name files, or give --last, --run ID or --list"),
        (["--last", "--list"], "--last and --list do not go together"),
        (["--run", "nosuch"], "there is no run nosuch"),
        (["--last", "--journal", "nosuch"], "the journal nosuch cannot be read: No such file or directory"),
    ],
)
def test_undo_says_what_it_needs(
    given: list[str], error: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["undo", *given]) == 2
    assert error in capsys.readouterr().err


def test_undo_of_files_that_nobody_wrote_or_that_are_gone_fails_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make(tmp_path, "flac")
    assert main(["undo", str(file), str(tmp_path / "gone.mp3")]) == 1
    _, err = said(capsys)
    assert err == [
        f"tonestream: {file}: no tags were written into this file",
        f"tonestream: {tmp_path / 'gone.mp3'}: No such file or directory",
    ]
    assert main(["undo", "--last"]) == 0
    assert main(["classify", "--write-tags", str(file)]) == 0
    file.unlink()
    capsys.readouterr()
    assert main(["undo", "--last"]) == 1
    assert said(capsys)[1] == [f"tonestream: {file}: not undone: the file is gone"]


def test_undo_leaves_what_was_changed_since_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make(tmp_path, "flac")
    assert main(["classify", "--write-tags", "--overwrite", str(file)]) == 0
    tags = open_tags(file)
    tags.put("GENRE", ["Mine"])
    save_tags(tags, file)
    capsys.readouterr()
    assert main(["undo", str(file)]) == 1
    line = "  GENRE: Mine was changed since, so it stays (--force restores nothing)"
    assert line in said(capsys)[0] and open_tags(file).text("GENRE") == ("Mine",)
    assert main(["undo", "--force", str(file)]) == 0
    assert open_tags(file).text("GENRE") == ()


def test_two_runs_on_one_file_are_undone_together_by_its_name(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    before = open_tags(file).contents()
    assert main(["classify", "--write-tags", str(file)]) == 0
    ANSWERS.update(song=Heard(genre="jazz"))
    assert main(["classify", "--write-tags", "--overwrite", str(file)]) == 0
    assert open_tags(file).text("GENRE") == ("Jazz",)
    assert main(["undo", str(file)]) == 0
    assert open_tags(file).contents() == before


def test_an_unfinished_copy_is_no_music(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make(tmp_path, "flac")
    (tmp_path / f"{TEMPORARY_PREFIX}{'0' * 32}{TEMPORARY_SUFFIX}").write_bytes(file.read_bytes())
    assert main(["classify", "--json", str(tmp_path)]) == 0
    assert len(said(capsys)[0]) == 1


def test_merging_is_shown_as_it_will_read(tmp_path: Path) -> None:
    file = make(tmp_path, "flac")
    tags = open_tags(file)
    tags.put("GENRE", ["Shoegaze"])
    save_tags(tags, file)
    change = plan(file, Heard().result(), Rules(existing=Existing.MERGE))
    assert preview(change, 80)[1].split() == ["genre", "Shoegaze", "Shoegaze;", "Rock"]
