"""The store of what is classified: found again by content, whatever the file is called, and never for other bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.library.store import Store, StoreError, default_path, lasts
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import AnswerKey
from tests.support.rows import failed_result, ok_result

KEY = AnswerKey(
    feature_spec="s", genre_model="g", mood_model="m", tag_model="t", vote="soft", max_segments=20, answer_version=4
)
OTHER = KEY.model_copy(update={"genre_model": "another"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "classified.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path, KEY) as opened:
        yield opened


@pytest.fixture
def song(tmp_path: Path) -> Path:
    file = tmp_path / "song.mp3"
    file.write_bytes(b"music" * 100)
    return file


def test_a_file_is_known_in_the_next_run_also_moved_or_copied(path: Path, song: Path) -> None:
    with Store(path, KEY) as store:
        assert store.known(store.read(song)) is None
        assert store.keep(store.read(song), ok_result(), 12.0)
    copy = song.with_name("copy.mp3")
    shutil.copy(song, copy)
    moved = song.rename(song.with_name("moved.mp3"))
    with Store(path, KEY) as store:
        for file in (moved, copy):
            known = store.known(store.read(file))
            assert known is not None and (known.result, known.finished_at) == (ok_result(), 12.0)


def test_other_bytes_and_other_models_have_answers_of_their_own(path: Path, store: Store, song: Path) -> None:
    store.keep(store.read(song), ok_result(), 12.0)
    with Store(path, OTHER) as other:
        assert other.known(other.read(song)) is None
    song.write_bytes(b"other" * 100)
    assert store.known(store.read(song)) is None


def test_the_bytes_of_a_file_that_looks_the_same_are_not_read_again(
    store: Store, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep(store.read(song), ok_result(), 12.0)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert store.known(store.read(song)) is not None
    os.utime(song, ns=(1, 1))
    with pytest.raises(TypeError):
        store.read(song)


def test_an_answer_is_not_kept_for_a_file_that_was_written_meanwhile(store: Store, song: Path) -> None:
    read = store.read(song)
    song.write_bytes(b"changed")
    assert not store.keep(read, ok_result(), 12.0)
    song.unlink()
    assert not store.keep(read, ok_result(), 12.0)


def test_a_failure_is_kept_if_the_same_bytes_would_fail_again(store: Store, song: Path) -> None:
    read = store.read(song)
    assert not store.keep(read, failed_result(code=ErrorCode.FETCH_TIMEOUT), 12.0)
    assert store.known(read) is None
    assert store.keep(read, failed_result(code=ErrorCode.CORRUPT_AUDIO), 12.0)
    known = store.known(read)
    assert known is not None and known.is_failure
    assert not lasts(failed_result(code=ErrorCode.TOO_LONG))  # the limit may be raised


def test_an_embedding_is_given_where_it_is_asked_for(store: Store, song: Path) -> None:
    read = store.read(song)
    store.keep(read, ok_result(), 12.0)
    assert store.known(read, embedding=True) is None
    store.keep(read, ok_result().model_copy(update={"embedding": (0.5, 0.25)}), 12.0)
    with_it, without = store.known(read, embedding=True), store.known(read)
    assert with_it is not None and with_it.result.embedding == (0.5, 0.25)
    assert without is not None and without.result.embedding is None


def test_a_file_whose_tags_were_rewritten_keeps_its_answer(store: Store, song: Path) -> None:
    before = store.read(song)
    store.keep(before, ok_result(), 12.0)
    song.write_bytes(b"tags and music")
    store.rewritten(before)
    assert store.known(store.read(song)) is not None


def test_a_path_of_bytes_that_are_no_text_is_kept(store: Store, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp3"))
    odd.write_bytes(b"x")
    assert store.keep(store.read(odd), ok_result(), 12.0)
    assert store.known(store.read(odd)) is not None


@pytest.mark.parametrize(
    ("content", "said"), [(b"no database" * 500, "not a database"), (None, "belongs to another program")]
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "file"
    if content is None:
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE theirs (x)")
        other.close()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=said):
        Store(file, KEY)
    assert file.read_bytes() == before


def test_a_store_of_a_newer_version_is_refused(path: Path, store: Store) -> None:
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="newer version"):
        Store(path, KEY)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/x/store cannot be opened: Not a directory"):
        Store(tmp_path / "file" / "x" / "store", KEY)


def test_several_runs_at_once_lose_nothing(path: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.mp3" for number in range(40)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number)

    def run(mine: list[Path]) -> None:
        with Store(path, KEY) as store:
            for file in mine:
                store.keep(store.read(file), ok_result(file.stem), 12.0)

    with ThreadPoolExecutor() as pool:
        list(pool.map(run, [files, files[10:], files]))
    with Store(path, KEY) as store:
        found = [store.known(store.read(file)) for file in files]
    assert [known.result.request_id for known in found if known is not None] == [file.stem for file in files]
    checked = sqlite3.connect(path)
    assert checked.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    checked.close()


def test_the_store_lies_in_the_folder_for_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "tonestream" / "classified.sqlite"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_path() == Path.home() / ".local" / "share" / "tonestream" / "classified.sqlite"
