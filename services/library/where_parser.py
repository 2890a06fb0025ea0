"""From the text of a filter to its tree. ``where.py`` has the grammar."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from services.library.row import COLUMNS, Column
from services.library.where_tree import Among, And, Compare, Holds, Missing, Node, Not, Operator, Or, Value, folded
from shared.contracts.faults import meant

#: The longest expression, in characters.
LONGEST: Final = 2000
#: How deep parentheses and ``not`` may be nested.
DEEPEST: Final = 50

#: How much of a long expression an error quotes before and after the place.
_AROUND: Final = 60

_TOKEN: Final = re.compile(
    r"""
    (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.#-]))
    | (?P<text>"[^"]*"|'[^']*')
    | (?P<symbol>==|!=|<=|>=|=|<|>|\(|\)|,)
    | (?P<word>[\w#][\w#.’-]*)
    """,
    re.VERBOSE,
)
_SPACE: Final = re.compile(r"\s*")
_WORDS_OF_THE_LANGUAGE: Final = frozenset({"and", "or", "not", "in", "between", "has", "contains", "is", "missing"})
#: What people write who know another language, and what this one has instead.
_FOREIGN: Final = {"&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "~": "contains", "<>": "!=", ":": "=="}

_OPERATORS: Final[dict[str, Operator]] = {
    "==": "==", "=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip


class WhereError(ValueError):
    """An expression that cannot be understood. ``message`` says why; ``position`` counts characters from 0."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.text = text
        self.position = position

    def shown(self) -> str:
        """The message, and below it the expression with a caret under the place; three lines."""
        start = max(0, self.position - _AROUND)
        end = min(len(self.text), self.position + _AROUND)
        before = ("…" if start else "") + _plain(self.text[start : self.position])
        after = _plain(self.text[self.position : end]) + ("…" if end < len(self.text) else "")
        return f"{self.message}\n  {before}{after}\n  {' ' * _width(before)}^"


def parse(text: str) -> Node:
    """The tree of an expression. Raises WhereError."""
    if len(text) > LONGEST:
        raise WhereError(
            f"an expression may have at most {LONGEST} characters, this one has {len(text)}", text, LONGEST
        )
    if (half := next((sign for sign in text if "\ud800" <= sign <= "\udfff"), None)) is not None:
        raise WhereError("here are bytes that are no text in UTF-8", text, text.index(half))
    return _Parser(text).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["number", "text", "symbol", "word", "end"]
    text: str
    position: int

    @property
    def keyword(self) -> str:
        """A word or symbol of the language, in lower case; empty for everything else."""
        lower = self.text.lower()
        return lower if self.kind == "symbol" or (self.kind == "word" and lower in _WORDS_OF_THE_LANGUAGE) else ""

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else _plain(self.text)


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._tokenised())
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        if self._ended():
            raise self._fault("an expression is expected, for example: mood == calm and energy < 0.4")
        node = self._alternatives()
        if not self._ended():
            raise self._unexpected()
        return node

    # Grammar

    def _alternatives(self) -> Node:
        parts = [self._conjunction()]
        while self._take("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _conjunction(self) -> Node:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _negation(self) -> Node:
        opening = self._next
        if opening.keyword not in {"not", "("}:
            return self._comparison()
        if self._depth == DEEPEST:
            raise self._fault(f"parentheses and not may be nested {DEEPEST} deep, not deeper")
        self._depth += 1
        self._at += 1
        if opening.keyword == "not":
            node: Node = Not(self._negation())
        else:
            node = self._alternatives()
            if not self._take(")"):
                if self._ended():
                    raise self._fault("this parenthesis is never closed", opening)
                raise self._unexpected()
        self._depth -= 1
        return node

    def _comparison(self) -> Node:
        column = self._field()
        given = self._next
        if given.keyword in _OPERATORS:
            self._at += 1
            return self._compared(column, given, _OPERATORS[given.keyword])
        if self._take("is"):
            negated = self._take("not")
            if not self._take("missing"):
                raise self._fault(f"after is comes missing, or not missing; to compare, write: {_example(column)}")
            return Not(Missing(column)) if negated else Missing(column)
        negated = self._take("not")
        operator = self._next
        if self._take("in"):
            node: Node = self._among(column, operator)
        elif self._take("between"):
            node = self._between(column, operator)
        elif self._take("has") or self._take("contains"):
            node = self._holding(column, operator)
        elif column.kind == "flag" and not negated:
            return Compare(column, "==", True)
        else:
            raise self._fault(f"after {column.name} comes a comparison, for example: {_example(column)}")
        return Not(node) if negated else node

    def _compared(self, column: Column, given: _Token, operator: Operator) -> Node:
        if column.kind == "words":
            raise self._fault(f"{column.name} holds several words; write: {_example(column)}", given)
        if operator not in {"==", "!="} and column.kind in {"text", "flag"}:
            raise self._fault(f"{column.name} has no order; write: {_example(column)}", given)
        return Compare(column, operator, self._value(column))

    def _among(self, column: Column, given: _Token) -> Node:
        if column.kind == "words":
            raise self._fault(f"{column.name} holds several words; write: {_example(column)}", given)
        if not self._take("("):
            raise self._fault(f"after in come values in parentheses, for example: {_example(column, among=True)}")
        values = [self._value(column)]
        while self._take(","):
            values.append(self._value(column))
        if not self._take(")"):
            raise self._fault(f"a comma or a closing parenthesis is expected, not {self._next.shown}{self._quotes()}")
        return Among(column, tuple(values))

    def _between(self, column: Column, given: _Token) -> Node:
        if column.kind not in {"number", "time"}:
            raise self._fault(f"{column.name} has no order; write: {_example(column)}", given)
        low = self._value(column)
        if not self._take("and"):
            raise self._fault(f"between takes two values, for example: {column.name} between 1 and 2")
        high_token = self._next
        high = self._value(column)
        assert not isinstance(low, str) and not isinstance(high, str)
        if high < low:
            raise self._fault("nothing is between these two: the lesser one comes first", high_token)
        return And((Compare(column, ">=", low), Compare(column, "<=", high)))

    def _holding(self, column: Column, given: _Token) -> Node:
        if column.kind not in {"text", "words"}:
            raise self._fault(f"{column.name} is no text; write: {_example(column)}", given)
        return Holds(column, folded(self._string(column)))

    def _field(self) -> Column:
        token = self._next
        if token.kind != "word" or token.keyword:
            if token.kind in {"number", "text"}:
                raise self._fault(f"a comparison begins with a field, not with a value: {', '.join(FIELDS)}")
            raise self._fault(f"a field is expected, not {token.shown}: {', '.join(FIELDS)}")
        column = _NAMED.get(token.text.lower())
        if column is None:
            likely = meant(token.text, list(_NAMED))
            hint = f"; did you mean {likely}?" if likely else "."
            raise self._fault(f"there is no field {token.shown}{hint} Fields are {', '.join(FIELDS)}")
        self._at += 1
        return column

    # Values

    def _value(self, column: Column) -> Value:
        match column.kind:
            case "number":
                return self._number(column)
            case "time":
                return self._time(column)
            case "flag":
                return self._flag(column)
            case _:
                token = self._next
                value = folded(self._string(column))
                if column.choices and value not in column.choices:
                    likely = meant(value, column.choices)
                    raise self._fault(
                        f"{column.name} is never {token.shown}{f'; did you mean {likely}?' if likely else '.'}"
                        f" It is one of {', '.join(column.choices)}",
                        token,
                    )
                return value

    def _number(self, column: Column) -> float:
        token = self._next
        if token.kind != "number":
            raise self._fault(f"{column.name} is compared with a number ({column.unit}), not with {token.shown}")
        number = float(token.text)
        if not math.isfinite(number):
            raise self._fault("this number is too large")
        if column.bounds is not None and not column.bounds[0] <= number <= column.bounds[1]:
            low, high = column.bounds
            hint = f"; did you mean {number / 100:g}?" if high < number <= 100 * high else ""
            raise self._fault(f"{column.name} goes from {low:g} to {high:g}{hint}")
        self._at += 1
        return number

    def _time(self, column: Column) -> float:
        token = self._next
        if token.kind == "number" and "." not in token.text and len(token.text) <= len("2026"):
            raise self._fault(f"{column.name} is compared with a date, for example 2026-11-29 or '2026-11-29 18:00'")
        if token.kind == "number":
            return self._number(column)
        try:
            moment = datetime.fromisoformat(self._string(column))
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise self._fault(
                f"{token.shown} is no date; {column.name} is compared with one, for example 2026-11-29 or"
                " '2026-11-29 18:00'",
                token,
            ) from error

    def _flag(self, column: Column) -> bool:
        token = self._next
        if token.kind != "word" or token.text.lower() not in _FLAGS:
            raise self._fault(f"{column.name} is true or false, not {token.shown}")
        self._at += 1
        return _FLAGS[token.text.lower()]

    def _string(self, column: Column) -> str:
        token = self._next
        if token.kind == "text":
            self._at += 1
            return token.text[1:-1]
        if token.kind in {"word", "number"} and not token.keyword:
            self._at += 1
            return token.text
        quoted = f"; quote it: {token.text!r}" if token.kind == "word" else ""
        raise self._fault(f"{column.name} is compared with a word or a quoted text, not with {token.shown}{quoted}")

    # Tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _ended(self) -> bool:
        return self._next.kind == "end"

    def _take(self, keyword: str) -> bool:
        """Whether the next token is that word or symbol, which is then used up."""
        if self._next.keyword != keyword:
            return False
        self._at += 1
        return True

    def _tokenised(self) -> Iterator[_Token]:
        position = _after_space(self._text, 0)
        while position < len(self._text):
            found = _TOKEN.match(self._text, position)
            if found is None:
                raise WhereError(_strange(self._text, position), self._text, position)
            kind = found.lastgroup
            assert kind is not None
            yield _Token(kind, found.group(), position)  # type: ignore[arg-type]
            position = _after_space(self._text, found.end())
        yield _Token("end", "", len(self._text))

    def _unexpected(self) -> WhereError:
        """What follows a whole comparison is neither and nor or."""
        if self._next.keyword == ")":
            return self._fault("there is no open parenthesis to close here")
        return self._fault(f"and or or is expected, not {self._next.shown}{self._quotes()}")

    def _quotes(self) -> str:
        """A hint if the tokens look like a text of several words without quotes."""
        before = self._tokens[self._at - 1]
        if self._next.kind == "word" and before.kind in {"word", "number"} and not before.keyword:
            return f"; text of several words needs quotes: '{before.text} {self._next.text}'"
        return ""

    def _fault(self, message: str, at: _Token | None = None) -> WhereError:
        return WhereError(message, self._text, (at or self._next).position)


#: The names of all fields, for messages and documents.
FIELDS: Final[Sequence[str]] = tuple(column.name for column in COLUMNS)
_NAMED: Final = {name: column for column in COLUMNS for name in (column.name, *column.aliases)}
_FLAGS: Final = {"true": True, "yes": True, "false": False, "no": False}


def _example(column: Column, among: bool = False) -> str:
    value = column.choices[0] if column.choices else {"number": "1", "flag": "true"}.get(column.kind, "'some text'")
    if column.kind == "words":
        return f"{column.name} has guitar"
    if among:
        return f"{column.name} in ({', '.join(column.choices[:2]) or value})"
    return f"{column.name} {'<' if column.kind == 'number' else '=='} {value}"


def _strange(text: str, position: int) -> str:
    """Why no token begins here."""
    sign = text[position]
    if sign in "\"'":
        return "this quotation mark is never closed"
    for foreign, ours in _FOREIGN.items():
        if text.startswith(foreign, position):
            return f"{foreign} is not known here; write {ours}"
    if sign == "%":
        return "there are no percentages here; write 0.7 for 70%"
    return f"{_plain(sign)} is not known here; text with signs needs quotes"


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()


def _plain(text: str) -> str:
    """``text`` on one line, without control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _width(text: str) -> int:
    """Columns of a terminal that ``text`` takes."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
