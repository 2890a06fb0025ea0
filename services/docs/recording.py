"""``python -m services.docs.recording`` (``make recording``): a run of the command as an SVG that plays.

The command runs in a pseudo-terminal, with its colours. Each line of its output appears in the picture when it appeared
in the terminal. A progress bar that the command removes is left out. Readers who want no motion, and viewers without
animation, see the finished output.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.docs import DOCS

if TYPE_CHECKING:
    from rich.text import Text

#: What is typed, and run in the folder of the repository.
COMMAND: Final = ("tonestream", "classify", "samples")
PICTURE: Final = DOCS / "images" / "terminal.svg"

_COLUMNS: Final = 92
_CHARACTER: Final = 8.4
_LINE: Final = 20
_MARGIN: Final = 20
_BAR: Final = 30
#: The time before the first output that is spent on typing, and the longest pause that is shown, in seconds.
_TYPING_S: Final = 0.8
_LONGEST_PAUSE_S: Final = 1.5
#: Of the terminal's own colours red, green and yellow.
_COLOURS: Final = {"color(1)": "#ff7b72", "color(2)": "#7ee787", "color(3)": "#e3b341"}
#: How a progress bar is removed: the cursor goes one line up and erases it.
_LINE_REMOVED: Final = "\x1b[1A\x1b[2K"
_STYLE: Final = """
.screen { fill: #16181d; } .bar { fill: #24272e; } .dot { fill: #4b5059; }
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d7dae0;
  white-space: pre; }
.bold { font-weight: bold; } .prompt { fill: #7ee787; }
@media (prefers-reduced-motion: no-preference) {
  .line { opacity: 0; animation: appear 1ms linear forwards; }
  @keyframes appear { to { opacity: 1; } }
}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output with its escape sequences, and when it was there, in seconds after the first."""

    text: str
    at_s: float


def record(command: Sequence[str], folder: Path) -> list[Line]:
    """Run ``command`` with a pseudo-terminal as its standard output. Raises CalledProcessError if it fails."""
    ours, its = pty.openpty()
    environment = os.environ | {"COLUMNS": str(_COLUMNS), "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    process = subprocess.Popen(command, cwd=folder, stdout=its, stderr=subprocess.DEVNULL, env=environment)
    os.close(its)
    lines: list[Line] = []
    pending = b""
    while True:
        try:
            found = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            found = b""
        if not found:
            break
        *whole, pending = (pending + found).split(b"\n")
        for line in whole:
            shown = line.decode().rstrip("\r").rpartition("\r")[2]
            if shown.startswith(_LINE_REMOVED) and lines:
                lines.pop()
            lines.append(Line(shown.removeprefix(_LINE_REMOVED), time.monotonic()))
    os.close(ours)
    if (status := process.wait()) != 0:
        raise subprocess.CalledProcessError(status, command)
    start = lines[0].at_s if lines else 0.0
    return [Line(line.text, line.at_s - start) for line in lines]


def picture(command: Sequence[str], lines: Sequence[Line]) -> str:
    """The recording as an SVG."""
    from rich.ansi import AnsiDecoder

    width = 2 * _MARGIN + round(_COLUMNS * _CHARACTER)
    height = _BAR + 2 * _MARGIN + (len(lines) + 1) * _LINE
    drawn = [_row(0, 0.0, f"{_run('$', 0, 'prompt')}{_run(' '.join(command), 2, 'bold')}")]
    at_s, before_s = _TYPING_S, 0.0
    decoder = AnsiDecoder()
    for number, line in enumerate(lines, 1):
        at_s += min(line.at_s - before_s, _LONGEST_PAUSE_S)
        before_s = line.at_s
        drawn.append(_row(number, at_s, _runs(decoder.decode_line(line.text))))
    dots = "".join(f'<circle class="dot" cx="{20 + 18 * n}" cy="15" r="5"/>' for n in range(3))
    spoken = escape(f"{' '.join(command)}: a table of tracks with genre and mood", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" viewBox="0 0 {width} {height}" width="{width}"'
        f' role="img" aria-label="{spoken}"><style>{_STYLE}</style>'
        f'<rect class="screen" width="{width}" height="{height}" rx="8"/>'
        f'<path class="bar" d="M0 {_BAR} V8 a8 8 0 0 1 8 -8 H{width - 8} a8 8 0 0 1 8 8 V{_BAR} z"/>{dots}\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _row(number: int, at_s: float, runs: str) -> str:
    y = _BAR + _MARGIN + number * _LINE + 10
    return f'<g class="line" style="animation-delay:{at_s:.2f}s" transform="translate({_MARGIN} {y})">{runs}</g>'


def _runs(text: Text) -> str:
    """The runs of one style of a line."""
    cuts = sorted({0, len(text), *(place for span in text.spans for place in (span.start, span.end))})
    drawn = []
    for start, end in pairwise(cuts):
        words = text.plain[start:end]
        styles = " ".join(str(span.style) for span in text.spans if span.start <= start and span.end >= end).split()
        colour = next((_COLOURS[name] for name in styles if name in _COLOURS), "")
        lead = len(words) - len(words.lstrip())
        if words.strip():
            drawn.append(_run(words.strip(), start + lead, "bold" if "bold" in styles else "", colour))
    return "".join(drawn)


def _run(words: str, column: int, name: str = "", colour: str = "") -> str:
    # The length is given, so that the columns stand one below another whatever font the reader has.
    style = (f' class="{name}"' if name else "") + (f' style="fill:{colour}"' if colour else "")
    length = f'textLength="{len(words) * _CHARACTER:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{column * _CHARACTER:.1f}" {length}{style}>{escape(words, quote=False)}</text>'


def main() -> None:
    """Record ``COMMAND`` and write the picture."""
    program = Path(sys.executable).with_name(COMMAND[0])
    lines = record([str(program), *COMMAND[1:]], DOCS.parent)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(COMMAND, lines), encoding="utf-8")
    print(f"{PICTURE}: {len(lines)} lines, {PICTURE.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
