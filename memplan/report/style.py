"""How tables look: no frame, one palette, so that every command reads alike."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text


def plain_table(*columns: str, left: int = 1, gap: int = 2) -> Table:
    """An empty table without a frame, so that it survives a copy into an issue or a chat.

    Args:
        columns: Headings; an empty one leaves its column unnamed.
        left: How many of the first columns are words, aligned left; the others are numbers. Only
            words after the first column wrap.
        gap: Spaces between columns.
    """
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for index, name in enumerate(columns):
        if index < left:
            table.add_column(name, overflow="fold", no_wrap=index == 0)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def heading(text: str) -> Text:
    """A heading with an empty line above it."""
    return Text("\n" + text, style="bold")


def labelled(label: str, text: str, *, style: str = "") -> Table:
    """One paragraph behind a dim label; wrapped lines stay to the right of the label."""
    row = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    row.add_column(style="dim", no_wrap=True)
    row.add_column(style=style, overflow="fold")
    row.add_row(Text(label), Text(text))
    return row
