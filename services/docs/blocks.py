"""The generated parts of pages that people write: diagram, topics and keys of the architecture, columns of rows."""

from __future__ import annotations

import re
from typing import Final

from services.docs.tables import table
from services.library.row import COLUMNS
from services.topology import TOPOLOGY
from shared.contracts.codec import CHANNEL_OF
from shared.contracts.topics import FROM_OUTSIDE, MAX_MESSAGE_BYTES, PARTITIONS, RETENTION_MS, Channel
from shared.state.keys import KINDS

_BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_DAY_MS: Final = 24 * 60 * 60 * 1000


def with_blocks(written: str) -> str:
    """The page as it is written, with its generated parts anew."""
    blocks = {"topology": _topology(), "topics": _topics(), "keys": _keys(), "columns": _columns()}
    return _BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found[2]]}\n\n{found[3]}", written)


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
    return f"{table(heads, rows)}\n\nEach has {PARTITIONS} partitions: the most workers of one service."


def _keys() -> str:
    rows = [
        (f"`{kind.name}`", kind.type, kind.holds, kind.writers, kind.readers, kind.life, "yes" if kind.together else "")
        for kind in KINDS
    ]
    return table(("key", "type", "holds", "written by", "read by", "lives", "together"), rows)


def _columns() -> str:
    """The fields of a flat row."""
    rows = [
        (f"`{column.name}`", column.description, column.unit or {"flag": "true or false"}.get(column.kind, column.kind))
        for column in COLUMNS
    ]
    return table(("column", "what it is", "unit or kind"), rows)
