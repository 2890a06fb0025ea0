"""Draw the Mermaid blocks of the pages as inline SVG, without a script in the browser and without a layout program.

Two kinds are drawn, in the subset of Mermaid that the pages use. A ``flowchart`` of services and topics becomes a chart
in which every topic is a horizontal line and every service a column; marks say who writes and who reads. A
``stateDiagram-v2`` becomes a row of states with arrows between them. The colours are those of the page, light or dark.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

#: ``name[words]`` and ``name([words])`` are people and services, ``name{{words}}`` are topics.
_NODE: Final = re.compile(r"(\w+)(?:\(\[([^\]]+)\]\)|\[([^\]]+)\]|\{\{([^}]+)\}\})")
_ARROW: Final = re.compile(r"(\w+|\[\*\]) (?:-->|-\.->) (\w+|\[\*\])(?:: (.+))?")
#: The start and the end of a state diagram.
_POINT: Final = "[*]"

_LEFT, _TOP, _COLUMN, _ROW = 112, 58, 80, 32
_GAP, _BOX, _MIDDLE = 140, 76, 80


@dataclass(frozen=True, slots=True)
class Arrow:
    """One arrow of a diagram, by the identifiers at its ends, with the words on it."""

    source: str
    target: str
    label: str = ""


class Mermaid(SphinxDirective):
    """A fenced block of Mermaid, as inline SVG. A line that cannot be read is a warning."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The drawn block."""
        kind, *lines = [line.strip() for line in self.content if line.strip()]
        try:
            drawn = state_chart(lines) if kind == "stateDiagram-v2" else topic_chart(lines)
        except ValueError as error:
            return [self.state_machine.reporter.warning(f"the diagram has a line that cannot be drawn: {error}")]
        return [nodes.raw("", f'<div class="diagram">{drawn}</div>', format="html")]


def topic_chart(lines: Sequence[str]) -> str:
    """Services as columns and topics as lines, as SVG. Raises ValueError with the line that it cannot read."""
    services: dict[str, str] = {}
    topics: dict[str, str] = {}
    arrows: list[Arrow] = []
    for line in lines:
        for name, person, service, topic in _NODE.findall(line):
            (topics if topic else services)[name] = topic or person or service
        bare = _NODE.sub(lambda found: found[1], line)
        if arrow := _ARROW.fullmatch(bare):
            arrows.append(Arrow(arrow[1], arrow[2]))
        elif not re.fullmatch(r"\w+", bare):
            raise ValueError(line)
    column = {name: _LEFT + _COLUMN * (place + 0.5) for place, name in enumerate(services)}
    row = {name: _TOP + _ROW * (place + 0.5) for place, name in enumerate(topics)}
    width, height = _LEFT + _COLUMN * len(services), _TOP + _ROW * len(topics) + 30
    parts = []
    for name, shown in services.items():
        x = column[name]
        words = re.sub(r"-", "- ", shown).split()
        parts += [
            f'<text class="head" x="{x}" y="{_TOP - 14 - 15 * (len(words) - 1 - n)}">{escape(word)}</text>'
            for n, word in enumerate(words)
        ]
        parts.append(f'<line class="life" x1="{x}" y1="{_TOP - 6}" x2="{x}" y2="{height - 30}"/>')
    for name, shown in topics.items():
        y = row[name]
        touching = [column[one] for one in services if Arrow(one, name) in arrows or Arrow(name, one) in arrows]
        parts.append(f'<text class="topic" x="{_LEFT - 8}" y="{y + 4}">{escape(shown)}</text>')
        parts.append(f'<line class="wire" x1="{min(touching)}" y1="{y}" x2="{max(touching)}" y2="{y}"/>')
        for service, x in column.items():
            writes, reads = Arrow(service, name) in arrows, Arrow(name, service) in arrows
            if writes:
                parts.append(f'<circle class="writes" cx="{x - 9 * reads}" cy="{y}" r="6"/>')
            if reads:
                parts.append(f'<circle class="reads" cx="{x + 9 * writes}" cy="{y}" r="6"/>')
    key = height - 10
    parts.append(
        f'<circle class="writes" cx="{_LEFT}" cy="{key - 4}" r="6"/><text x="{_LEFT + 14}" y="{key}">writes</text>'
    )
    parts.append(
        f'<circle class="reads" cx="{_LEFT + 90}" cy="{key - 4}" r="6"/><text x="{_LEFT + 104}" y="{key}">reads</text>'
    )
    spoken = "; ".join(
        f"{services[arrow.source]} writes {topics[arrow.target]}"
        if arrow.source in services
        else f"{services[arrow.target]} reads {topics[arrow.source]}"
        for arrow in arrows
    )
    return _svg(width, height, spoken, parts)


def state_chart(lines: Sequence[str]) -> str:
    """States in a row with arrows between them, as SVG. Raises ValueError with the line that it cannot read."""
    arrows = []
    for line in lines:
        if not (arrow := _ARROW.fullmatch(line)):
            raise ValueError(line)
        # The start and the end have the same name in Mermaid, and not the same place.
        source = "start" if arrow[1] == _POINT else arrow[1]
        arrows.append(Arrow(source, "end" if arrow[2] == _POINT else arrow[2], arrow[3] or ""))
    states = list(dict.fromkeys(name for arrow in arrows for name in (arrow.source, arrow.target)))
    if "end" in states:
        states.append(states.pop(states.index("end")))
    centre = {name: 40.0 + _GAP * place for place, name in enumerate(states)}
    half = {name: 8.0 if name in ("start", "end") else _BOX / 2 for name in states}
    parts = []
    for name, x in centre.items():
        if half[name] < _BOX / 2:
            parts.append(f'<circle class="{"writes" if name == "start" else "reads"}" cx="{x}" cy="{_MIDDLE}" r="7"/>')
        else:
            parts.append(f'<rect x="{x - _BOX / 2}" y="{_MIDDLE - 16}" width="{_BOX}" height="32" rx="6"/>')
            parts.append(f'<text class="head" x="{x}" y="{_MIDDLE + 4}">{escape(name)}</text>')
    for arrow in arrows:
        start, end = centre[arrow.source], centre[arrow.target]
        if start == end:
            path, words = f"M{start - 16} {_MIDDLE - 16} v-18 h32 v14", (start, _MIDDLE - 42, -1)
        elif end - start == _GAP:
            path = f"M{start + half[arrow.source]} {_MIDDLE} H{end - half[arrow.target] - 4}"
            words = ((start + half[arrow.source] + end - half[arrow.target]) / 2, _MIDDLE + 36, 1)
        else:
            path = f"M{start - 8} {_MIDDLE + 16} v62 H{end + 8} v-58"
            words = ((start + end) / 2, _MIDDLE + 94, 1)
        parts.append(f'<path class="arrow" d="{path}" marker-end="url(#arrow-head)"/>')
        wrapped = textwrap.wrap(arrow.label, 17 if abs(end - start) == _GAP else 60)
        if words[2] < 0:
            wrapped.reverse()
        parts += [
            f'<text class="word" x="{words[0]}" y="{words[1] + 13 * words[2] * n}">{escape(line)}</text>'
            for n, line in enumerate(wrapped)
        ]
    head = (
        '<defs><marker id="arrow-head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path class="head-of-arrow" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    spoken = "; ".join(f"{arrow.source} to {arrow.target}: {arrow.label}".rstrip(": ") for arrow in arrows)
    return _svg(int(60 + _GAP * (len(states) - 1)), _MIDDLE + 110, spoken, [head, *parts])


def _svg(width: int, height: int, spoken: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
        f' aria-label="{escape(spoken, quote=True)}">{"".join(parts)}</svg>'
    )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
