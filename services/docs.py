"""Write the documents that follow from the code: ``python -m services.docs`` (``make docs``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.asyncapi import document
from services.library.row import COLUMNS
from services.topology import TOPOLOGY
from shared.contracts.codec import CHANNEL_OF
from shared.contracts.topics import FROM_OUTSIDE, MAX_MESSAGE_BYTES, PARTITIONS, RETENTION_MS, Channel
from shared.settings import DEFAULT_SECRETS_DIR, SECRETS_DIR_VARIABLE, as_markdown
from shared.state.keys import KINDS

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"

#: Pages with generated parts.
_PAGES: Final = ("architecture.md", "command-line.md")
_BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_DAY_MS: Final = 24 * 60 * 60 * 1000


def generated() -> dict[str, str]:
    """The documents by file name. Pages with generated parts are those there are, with these parts anew."""
    settings = (
        "# Settings\n\nEnvironment variables, made from `shared/settings.py` by `make docs`. Each may stand in a file"
        f" instead, for secrets: in the folder `{DEFAULT_SECRETS_DIR}`, or another that `{SECRETS_DIR_VARIABLE}` names,"
        " under the variable's name in lower case, e.g. `tonestream_kafka_sasl_password`. A variable that is set goes"
        f" before the file.\n\n{as_markdown()}\n"
    )
    asyncapi = json.dumps(document(version("tonestream")), indent=2, sort_keys=True) + "\n"
    blocks = {"topology": _topology(), "topics": _topics(), "keys": _keys(), "columns": _columns()}
    pages = {
        name: _BLOCK.sub(
            lambda found: f"{found[1]}\n{blocks[found[2]]}\n\n{found[3]}", (DOCS / name).read_text(encoding="utf-8")
        )
        for name in _PAGES
    }
    return {"settings.md": settings, "asyncapi.json": asyncapi, **pages}


def _topology() -> str:
    """A Mermaid diagram of the nodes and the topics between them."""
    lines = ["```mermaid", "flowchart LR", "    user([user])"]
    lines += [f"    {_identifier(node.name)}[{node.name}]" for node in TOPOLOGY]
    lines += [f"    {_identifier(channel.value)}{{{{{channel.value}}}}}" for channel in Channel]
    lines += [f"    user --> {_identifier(channel.value)}" for channel in sorted(FROM_OUTSIDE)]
    for node in TOPOLOGY:
        lines += [f"    {_identifier(channel.value)} --> {_identifier(node.name)}" for channel in node.reads]
        lines += [f"    {_identifier(node.name)} --> {_identifier(channel.value)}" for channel in node.writes]
    lines += [f"    {_identifier(Channel.RESULTS.value)} --> user"]
    lines += ["    workers([any worker]) -.-> dead_letters", "    dead_letters -.-> operator([operator])", "```"]
    return "\n".join(lines)


def _identifier(name: str) -> str:
    """A name that Mermaid takes for one of its own; those of nodes and topics never meet."""
    return re.sub(r"\W", "_", name)


def _topics() -> str:
    rows = []
    for channel in Channel:
        messages = [f"`{model.__name__}`" for model, home in CHANNEL_OF.items() if home is channel]
        rows.append(
            (
                f"`{channel.value}`",
                ", ".join(messages) or {Channel.REQUESTS_RETRY: "`TrackRequest`"}.get(channel, "any record"),
                ", ".join(node.name for node in TOPOLOGY if channel in node.writes)
                or ("users" if channel in FROM_OUTSIDE else "every worker"),
                ", ".join(node.name for node in TOPOLOGY if channel in node.reads)
                or ("users" if channel is Channel.RESULTS else "operators"),
                f"{RETENTION_MS[channel] // _DAY_MS} days",
                f"{MAX_MESSAGE_BYTES[channel] // 1024} KiB",
            )
        )
    heads = ("topic", "messages", "written by", "read by", "kept", "largest message")
    return f"{_table(heads, rows)}\n\nEach has {PARTITIONS} partitions: the most workers of one service."


def _keys() -> str:
    rows = [
        (f"`{kind.name}`", kind.type, kind.holds, kind.writers, kind.readers, kind.life, "yes" if kind.together else "")
        for kind in KINDS
    ]
    return _table(("key", "type", "holds", "written by", "read by", "lives", "together"), rows)


def _columns() -> str:
    """The fields of a flat row."""
    rows = [
        (f"`{column.name}`", column.description, column.unit or {"flag": "true or false"}.get(column.kind, column.kind))
        for column in COLUMNS
    ]
    return _table(("column", "what it is", "unit or kind"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write them to ``docs/``."""
    for name, text in generated().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
