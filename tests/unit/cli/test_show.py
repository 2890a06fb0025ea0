"""What a person reads of a result, and when: rows come as their tracks are done, with a width that is known before."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from services.cli import show
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import CONTENTS, GENRES
from shared.contracts.messages import Content, ErrorReport, Genre, GenreFit, Stage, Status, Tag, Track, TrackResult


def result(uncertain: bool) -> TrackResult:
    rest = 0.69 / (len(GENRES) - 1)
    genre = Genre(
        label="jazz",
        confidence=0.31,
        uncertain=uncertain,
        agreement=0.5,
        probabilities={label: 0.31 if label == "jazz" else rest for label in GENRES},
        segments=(),
        model="m",
    )
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.MOOD_WORKER, message="why")
    return TrackResult(
        request_id="r", status=Status.PARTIAL, track=Track(key="k", source="s"), genre=genre, errors=(error,)
    )


@pytest.mark.parametrize(("uncertain", "shown"), [(True, "jazz? 31%"), (False, "jazz 31%")])
def test_an_uncertain_label_is_shown_with_a_question_mark(
    capsys: pytest.CaptureFixture[str], uncertain: bool, shown: str
) -> None:
    assert shown in show.line(result(uncertain)).split("\t")
    show.Board(["s"], rows=True, bar=False).add(result(uncertain))
    assert shown in capsys.readouterr().out


def remarked(tags: tuple[str, ...] = (), outside: bool = False, content: str = "music") -> TrackResult:
    plain = result(False)
    assert plain.genre is not None
    fit = GenreFit(probability=0.1 if outside else 0.8, outside=outside)
    probabilities = {name: 0.9 if name == content else 0.05 for name in CONTENTS}
    return plain.model_copy(
        update={
            "genre": plain.genre.model_copy(update={"fit": fit}),
            "tags": tuple(Tag(label=tag, probability=0.5) for tag in tags),
            "content": Content(label=content, confidence=0.9, probabilities=probabilities),
        }
    )


@pytest.mark.parametrize(
    ("shown", "remark"),
    [
        (remarked(("electronic", "house", "dance"), outside=True), "none of the ten? electronic, house, dance"),
        (remarked(outside=True), "none of the ten?"),
        (remarked(content="speech"), "no music? speech 90%"),
        (remarked(content="other"), "no music? other sounds 90%"),
    ],
)
def test_a_line_below_the_row_says_what_the_labels_do_not(
    capsys: pytest.CaptureFixture[str], shown: TrackResult, remark: str
) -> None:
    show.Board(["s"], rows=True, bar=False).add(shown)
    assert f"  {remark}" in capsys.readouterr().out.splitlines()
    assert remark in show.line(shown).split("\t")


@pytest.mark.parametrize(
    "plain", [remarked(("folk",)), remarked(("jazz", "folk"), outside=True), remarked(("folk", "jazz"), outside=True)]
)
def test_music_of_the_genre_that_its_tags_name_needs_no_remark(
    capsys: pytest.CaptureFixture[str], plain: TrackResult
) -> None:
    show.Board(["s"], rows=True, bar=False).add(plain)
    out = capsys.readouterr().out
    assert "none of the ten" not in out and "no music" not in out


def named(source: str) -> TrackResult:
    return result(False).model_copy(update={"track": Track(key="blob:k", source=source)})


def rows(capsys: pytest.CaptureFixture[str], names: list[str]) -> list[str]:
    board = show.Board(names, rows=True, bar=False)
    for name in names:
        board.add(named(name))
    return capsys.readouterr().out.splitlines()


def test_what_went_wrong_stands_below_its_row_and_the_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    board = show.Board(["one", "two"], rows=True, bar=False)
    board.add(named("one"))
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{'one':12}          jazz 31%          50%  –                        partial",
        "  internal (mood-worker): why",
    ]
    assert board.summary() == "1 of 2 tracks done, 0 ok"
    board.close()
    assert capsys.readouterr().out == "1 of 2 tracks done, 0 ok\n"


@pytest.mark.parametrize("columns", [54, 60, 78, 100, 200])
def test_no_row_is_wider_than_the_terminal_and_the_answer_is_whole(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "_width", lambda: columns)
    heading, *others = rows(capsys, ["short.mp3", "a very long name " * 10 + ".mp3", "長い名前の曲" * 20 + ".mp3"])
    for row in (heading, *others[::2]):
        assert cell_len(row) <= columns
    for row in others[::2]:
        assert "jazz 31%" in row and row.endswith("partial")
    assert others[2].startswith("…") and ".mp3  " in others[2]
    # Whatever the script, the columns stand one below the other.
    assert len({cell_len(row.partition("jazz")[0]) for row in others[::2]}) == 1


def test_a_file_gets_whole_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 300 + ".mp3"
    assert rows(capsys, [name])[1].startswith(name)


def test_control_characters_of_names_and_messages_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.MOOD_WORKER, message="\x1b[2J")
    bad = named("\x1b[31m[red]x[/red]").model_copy(update={"errors": (error,)})
    show.Board(["x"], rows=True, bar=False).add(bad)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[red]x[/red]" in out
    assert "\x1b" not in show.line(bad)
