"""Filters: what they select, that Python and SQLite select the same, and what a mistake is answered with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.library import where
from services.library.row import COLUMNS, Cell, Column, Row
from services.library.where import WhereError, parse, selects
from tests.support.rows import row


@pytest.mark.parametrize(
    "expression",
    [
        'mood == calm and energy < 0.4 and confidence > 0.7 and tags has "guitar"',
        "genre = jazz",
        "GENRE == Jazz AND Mood == CALM",
        "not (genre == rock or genre == pop)",
        "genre in (blues, jazz)",
        "genre not in (rock)",
        "bpm between 90 and 120",
        "bpm between 90 and 120 and energy<=.4",
        "title contains 'NIGHT'",
        "artist contains björk",
        "tags not has guit",
        "not uncertain",
        "uncertain == false",
        "error is missing and key is not missing",
        "key == 'f minor'",
        "finished_at > 2023-11-14 and finished_at < '2023-11-15 12:00'",
        'title == "Night\'s end"',
        "loudness > -15 and loudness < -1.3e1",
    ],
)
def test_an_expression_selects_a_row_that_fits(expression: str) -> None:
    assert selects(parse(expression), SONG)


SONG = row(
    title="Night's end", artist="BJÖRK", genre="jazz", genre_confidence=0.8, mood="calm", energy=0.3, bpm=100.0,
    loudness=-14.0, key="F minor", tags=("guitar", "female vocals"), finished_at=1_700_000_000.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "expression",
    ["bpm < 100", "not bpm < 100", "bpm != 100", "bpm in (100, 120)", "not bpm in (100, 120)", "bpm between 1 and 200"],
)
def test_a_comparison_with_a_missing_value_selects_nothing_and_neither_does_its_opposite(expression: str) -> None:
    assert not selects(parse(expression), replace(SONG, bpm=None))


def test_what_is_missing_can_be_asked_for() -> None:
    assert selects(parse("bpm is missing"), replace(SONG, bpm=None))
    assert selects(parse("bpm is missing or bpm < 100"), replace(SONG, bpm=None))
    assert not selects(parse("bpm is not missing"), replace(SONG, bpm=None))
    assert selects(parse("tags is missing"), replace(SONG, tags=()))


@pytest.mark.parametrize(
    ("expression", "message", "position"),
    [
        ("", "an expression is expected", 0),
        ("mod == calm", "no field mod; did you mean mood?", 0),
        ("colour == red", "Fields are id, source, title", 0),
        ("mood == clam", "mood is never clam; did you mean calm? It is one of calm, energetic, happy, sad", 8),
        ("mood == calm energy < 1", "and or or is expected, not energy; text of several words needs quotes", 13),
        ("tags has female vocals", "needs quotes: 'female vocals'", 16),
        ("confidence > 70", "genre_confidence goes from 0 to 1; did you mean 0.7?", 13),
        ("confidence > 70%", "there are no percentages here; write 0.7 for 70%", 15),
        ("energy < low", "energy is compared with a number (0 to 1), not with low", 9),
        ("genre < rock", "genre has no order", 6),
        ("tags == guitar", "write: tags has guitar", 5),
        ("bpm contains 1", "bpm is no text", 4),
        ("(mood == calm", "this parenthesis is never closed", 0),
        ("mood == calm)", "no open parenthesis to close", 12),
        ("mood == 'calm", "this quotation mark is never closed", 8),
        ("mood == calm && energy < 1", "&& is not known here; write and", 13),
        ("mood:calm", ": is not known here; write ==", 4),
        ("mood == calm and", "a field is expected, not the end", 16),
        ("0.4 > energy", "begins with a field, not with a value", 0),
        ("genre in jazz", "in parentheses, for example: genre in (blues, classical)", 9),
        ("genre is jazz", "after is comes missing", 9),
        ("bpm between 120 and 90", "the lesser one comes first", 20),
        ("bpm < 1e999", "too large", 6),
        ("uncertain == maybe", "true or false, not maybe", 13),
        ("mood", "after mood comes a comparison, for example: mood == calm", 4),
        ("finished_at > yesterday", "yesterday is no date", 14),
        ("finished_at > 2026", "compared with a date", 14),
        ("title == \udcff", "no text in UTF-8", 9),
        ("title == and", "quote it: 'and'", 9),
        (f"{'(' * 51}mood == calm{')' * 51}", "nested 50 deep", 50),
        (f"{'not ' * 51}outside", "nested 50 deep", 200),
        ("x" * 2001, "at most 2000 characters", 2000),
    ],
)
def test_a_mistake_is_named_with_its_place(expression: str, message: str, position: int) -> None:
    with pytest.raises(WhereError) as raised:
        parse(expression)
    assert message in raised.value.message
    assert raised.value.position == position


def test_the_caret_stands_under_the_mistake_also_after_wide_characters() -> None:
    with pytest.raises(WhereError) as raised:
        parse("title contains '夜曲' and mod == calm")
    _, line, caret = raised.value.shown().splitlines()
    assert line == "  title contains '夜曲' and mod == calm"
    assert caret == " " * (2 + len("title contains '夜曲' and ") + 2) + "^"


def test_a_long_expression_is_quoted_around_its_mistake() -> None:
    with pytest.raises(WhereError) as raised:
        parse(" or ".join(["mood == calm"] * 50) + " or mod == calm and " + " and ".join(["energy < 1"] * 50))
    _, line, caret = raised.value.shown().splitlines()
    assert len(line) < 130 and line[caret.index("^") :].startswith("mod == calm")


@given(st.text(max_size=80))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        parse(text)
    except WhereError as error:
        assert 0 <= error.position <= len(text) and len(error.shown().splitlines()) == 3


# The two evaluators

_TEXTS = st.sampled_from(
    ["", "a", "A", "Ä", "ä", "a\u0308", "ß", "SS", "İ", "%", "_", "x' OR 1=1 --", "夜", "\0", "ab", "B"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_WORDS = _TEXTS.filter(lambda text: "\0" not in text)
_NUMBERS = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 1.0]) | st.floats(0.0, 1.0)


def _cells(column: Column) -> st.SearchStrategy[Cell]:
    match column.kind:
        case "words":
            return st.lists(_WORDS, max_size=3).map(tuple)
        case "flag":
            return st.none() | st.booleans()
        case "number" | "time":
            return st.none() | _NUMBERS
        case _:
            return st.none() | (st.sampled_from(column.choices) if column.choices else _TEXTS)


_ROWS = st.fixed_dictionaries({column.name: _cells(column) for column in COLUMNS}).map(lambda cells: Row(**cells))  # type: ignore[arg-type]


def _quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text else f"'{text}'" if "'" not in text else "''"


def _literals(column: Column) -> st.SearchStrategy[str]:
    match column.kind:
        case "flag":
            return st.sampled_from(["true", "false"])
        case "number" | "time":
            return _NUMBERS.map(lambda number: f"{number!r}" if column.kind == "number" else f"{number:.8f}")
        case "words":
            return _WORDS.map(_quoted)
        case _:
            return st.sampled_from(column.choices) if column.choices else _TEXTS.map(_quoted)


@st.composite
def _comparisons(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from(COLUMNS))
    literals = _literals(column)
    forms = [f"{column.name} is missing", f"{column.name} is not missing"]
    if column.kind in {"text", "words"}:
        forms += [f"{column.name} has {draw(literals)}", f"{column.name} not contains {draw(literals)}"]
    if column.kind != "words":
        forms += [f"{column.name} {operator} {draw(literals)}" for operator in ("==", "!=")]
        among = ", ".join(draw(st.lists(literals, min_size=1, max_size=3)))
        forms += [f"{column.name} in ({among})", f"{column.name} not in ({among})"]
    if column.kind in {"number", "time"}:
        forms += [f"{column.name} {operator} {draw(literals)}" for operator in ("<", "<=", ">", ">=")]
    if column.kind == "flag":
        forms.append(column.name)
    return draw(st.sampled_from(forms))


_EXPRESSIONS = st.recursive(
    _comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} {parts[2]}"
        ),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    where.prepare(connection)
    connection.execute(f"CREATE TABLE tracks ({', '.join(column.sqlite for column in COLUMNS)})")
    yield connection
    connection.close()


@settings(max_examples=400, deadline=None)
@given(rows=st.lists(_ROWS, min_size=1, max_size=4), expression=_EXPRESSIONS)
def test_python_and_sqlite_select_the_same_rows(table: sqlite3.Connection, rows: list[Row], expression: str) -> None:
    node = parse(expression)
    table.execute("DELETE FROM tracks")
    slots = ", ".join("?" * len(COLUMNS))
    table.executemany(f"INSERT INTO tracks VALUES ({slots})", [one.stored() for one in rows])
    names = ", ".join(f'"{column.name}"' for column in COLUMNS)
    condition = where.condition(node, "tracks")
    found = table.execute(f"SELECT {names} FROM tracks WHERE {condition.sql} ORDER BY rowid", condition.values)
    assert [Row.from_sqlite(stored) for stored in found] == [one for one in rows if selects(node, one)]


def test_a_value_never_becomes_part_of_the_sql() -> None:
    condition = where.condition(parse("title == \"x') OR 1=1 --\" and artist contains '\\'"))
    assert "OR" not in condition.sql and condition.values == ("x') or 1=1 --", "\\")


def test_the_longest_expression_fits_into_what_sqlite_takes(table: sqlite3.Connection) -> None:
    expression = "bpm>1"
    while len(expression) + len(" or bpm>1") <= where.LONGEST:
        expression += " or bpm>1"
    condition = where.condition(parse(expression))
    table.execute(f"SELECT 1 FROM tracks WHERE {condition.sql}", condition.values).fetchall()
    deep = f"{'not (' * 25}bpm>1{')' * 25}"
    condition = where.condition(parse(deep))
    table.execute(f"SELECT 1 FROM tracks WHERE {condition.sql}", condition.values).fetchall()
