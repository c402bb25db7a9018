"""Lists of conversations as aligned lines, lines of JSON or plain ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells
from rich.text import Text

from tracker_store_async.inspection.terminal import date_and_time, json_text, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console

    from tracker_store_async.rows import ConversationSummary

ROWS_ALIGNED = 100
"""Rows whose columns are aligned with each other: so many are held, and no more."""

MAX_COLUMN = 40
"""Widest cell: the rest of a longer one is cut off, and whole in JSON."""

HEADER = ("conversation", "events", "created", "updated", "user")


async def write_table(
    console: Console, summaries: AsyncIterator[ConversationSummary]
) -> ConversationSummary | None:
    """Write a line for each conversation, under a header; return the last one."""
    rows: list[tuple[str, ...]] = []
    summary, header = None, True
    async for summary in summaries:
        rows.append(_cells(summary))
        if len(rows) == ROWS_ALIGNED:
            _write_rows(console, rows, header=header)
            rows, header = [], False
    if rows:
        _write_rows(console, rows, header=header)
    return summary


def _cells(summary: ConversationSummary) -> tuple[str, ...]:
    return (
        _cut(printable(summary.sender_id)),
        str(summary.version),
        date_and_time(summary.created_at),
        date_and_time(summary.updated_at),
        _cut(printable(summary.user_id or "")),
    )


def _cut(text: str) -> str:
    if cell_len(text) <= MAX_COLUMN:
        return text
    # Three dots: the sign for them is not in every encoding.
    return chop_cells(text, MAX_COLUMN - 3)[0] + "..."


def _write_rows(console: Console, rows: list[tuple[str, ...]], *, header: bool) -> None:
    widths = [
        max(cell_len(cell) for cell in column)
        for column in zip(HEADER, *rows, strict=True)
    ]
    if header:
        console.print(Text(_line(HEADER, widths), "bold"), soft_wrap=True)
    for row in rows:
        console.print(Text(_line(row, widths)), soft_wrap=True)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = []
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        # Numbers of events stand right, everything else left.
        padded.append(space + cell if number == 1 else cell + space)
    return "  ".join(padded).rstrip()


def summary_json(summary: ConversationSummary) -> str:
    """Return a summary as one line of JSON; `cursor` goes into `--after`."""
    fields: dict[str, Any] = {
        name: getattr(summary, name)
        for name in (
            "sender_id",
            "version",
            "created_at",
            "updated_at",
            "user_id",
            "cursor",
        )
    }
    return json_text(fields)
