"""A small language that selects rows: ``mood == calm and energy < 0.4 and tags has "guitar"``.

    expression  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation    = "not" negation | "(" expression ")" | comparison
    comparison  = field ( "==" | "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
                | field [ "not" ] "in" "(" value { "," value } ")"
                | field [ "not" ] "between" value "and" value
                | field [ "not" ] ( "has" | "contains" ) value
                | field "is" [ "not" ] "missing"
                | field                                       (of yes and no: ``not uncertain``)
    value       = number | word | "text" | 'text'

A word is text without spaces. Fields are those of ``COLUMNS``. Letters' case does not count, in names and in text.
``tags has x`` means that one of the tags is x; ``title contains x`` means that x is somewhere in the title.

**Missing values.** A comparison with a missing value is unknown, as in SQL: neither true nor false. ``not`` keeps it
unknown, ``and`` and ``or`` decide if their other side does. A row is selected if the whole is true. So a track without
BPM is selected neither by ``bpm < 100`` nor by ``not bpm < 100``. ``bpm is missing`` selects it.

A parsed expression selects rows in Python (``selects``) and in SQLite (``condition``), with the same outcome. Nothing
of it is ever evaluated as code or pasted into SQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.library.row import Column, Row
from services.library.where_parser import DEEPEST, LONGEST, WhereError, parse
from services.library.where_tree import Among, And, Compare, Holds, Missing, Node, Not, Operator, Or, Value, folded

__all__ = ["DEEPEST", "LONGEST", "Condition", "Node", "WhereError", "condition", "parse", "prepare", "selects"]

#: The name of ``folded`` as a function in SQLite.
_FOLDED: Final = "tonestream_folded"
#: What stands between the quotation marks of two stored words.
_BETWEEN_WORDS: Final = ", "


@dataclass(frozen=True, slots=True)
class Condition:
    """The text of an SQL condition with a ``?`` for each of ``values``."""

    sql: str
    values: tuple[Value, ...]


def selects(node: Node, row: Row) -> bool:
    """Whether the row is selected."""
    return _holds(node, row) is True


def condition(node: Node, table: str = "") -> Condition:
    """The condition for a table with the columns of ``COLUMNS``, values as ``Row.stored`` gives them.

    ``table`` is the table's name or alias, if the statement needs one. The connection needs ``prepare``.
    """
    if table and not table.isidentifier():
        raise ValueError(f"{table!r} is no name of a table")
    values: list[Value] = []
    sql = _sql(node, f"{table}." if table else "", values)
    return Condition(sql, tuple(values))


def prepare(connection: sqlite3.Connection) -> None:
    """Add the function to the connection that conditions call."""
    connection.create_function(_FOLDED, 1, lambda text: None if text is None else folded(str(text)), deterministic=True)


# The two evaluators. ``tests/unit/library/test_where.py`` holds them to each other.


def _holds(node: Node, row: Row) -> bool | None:
    """True, False, or None for unknown."""
    match node:
        case Compare(column, operator, value):
            cell = _comparable(column, row)
            return None if cell is None else _compare(cell, operator, value)
        case Among(column, values):
            cell = _comparable(column, row)
            return None if cell is None else cell in values
        case Holds(column, text):
            cell = getattr(row, column.name)
            if column.kind == "words":
                return any(folded(word) == text for word in cell)
            return None if cell is None else text in folded(cell)
        case Missing(column):
            cell = getattr(row, column.name)
            return cell is None or cell == ()
        case Not(inner):
            held = _holds(inner, row)
            return None if held is None else not held
        case And(parts):
            return _all(_holds(part, row) for part in parts)
        case Or(parts):
            none = _all(_negated(_holds(part, row)) for part in parts)
            return _negated(none)


def _all(parts: Iterator[bool | None]) -> bool | None:
    """False if one part is, else unknown if one part is, else true."""
    outcome: bool | None = True
    for part in parts:
        if part is False:
            return False
        if part is None:
            outcome = None
    return outcome


def _negated(held: bool | None) -> bool | None:
    return None if held is None else not held


def _comparable(column: Column, row: Row) -> Value | None:
    cell: Value | None = getattr(row, column.name)
    return folded(cell) if _is_folded(column) and isinstance(cell, str) else cell


def _is_folded(column: Column) -> bool:
    """Whether text of the column is compared folded. Words of our own are in lower case already."""
    return column.kind == "text" and not column.choices


def _compare(cell: Value, operator: Operator, value: Value) -> bool:
    match operator:
        case "==":
            return cell == value
        case "!=":
            return cell != value
    assert not isinstance(cell, str) and not isinstance(value, str)  # the parser refuses an order of texts
    match operator:
        case "<":
            return cell < value
        case "<=":
            return cell <= value
        case ">":
            return cell > value
        case ">=":
            return cell >= value


def _folded_sql(name: str) -> str:
    """A column as it is compared. SQLite folds ASCII by itself, several times as fast as it calls our function."""
    return f"CASE WHEN length({name}) = length(CAST({name} AS BLOB)) THEN lower({name}) ELSE {_FOLDED}({name}) END"


def _has_word(name: str, text: str, values: list[Value]) -> str:
    """Whether one of the words is ``text``, which is the last of ``values``."""
    exact = f"EXISTS (SELECT 1 FROM json_each({name}) WHERE {_FOLDED}(value) = ?)"
    if text == _BETWEEN_WORDS:
        return exact
    # The words are stored as JSON. Where none of them needed an escape, each stands between quotation marks as it is.
    values.insert(len(values) - 1, f'"{text}"')
    return f"CASE WHEN instr({name}, '\\') = 0 THEN instr({_folded_sql(name)}, ?) > 0 ELSE {exact} END"


def _sql(node: Node, prefix: str, values: list[Value]) -> str:
    """SQL for the node; its values are appended to ``values``."""

    def of(column: Column) -> str:
        """The column's name comes from ``COLUMNS``, so it is safe to paste."""
        name = f'{prefix}"{column.name}"'
        return _folded_sql(name) if _is_folded(column) else name

    match node:
        case Compare(column, operator, value):
            values.append(value)
            return f"{of(column)} {operator} ?"
        case Among(column, among):
            values.extend(among)
            return f"{of(column)} IN ({', '.join('?' * len(among))})"
        case Holds(column, text):
            values.append(text)
            if column.kind == "words":
                return _has_word(f'{prefix}"{column.name}"', text, values)
            return f"instr({of(column)}, ?) > 0"
        case Missing(column):
            name = f'{prefix}"{column.name}"'
            return f"{name} = '[]'" if column.kind == "words" else f"{name} IS NULL"
        case Not(inner):
            return f"NOT ({_sql(inner, prefix, values)})"
        case And(parts):
            return " AND ".join(f"({_sql(part, prefix, values)})" for part in parts)
        case Or(parts):
            return " OR ".join(f"({_sql(part, prefix, values)})" for part in parts)
