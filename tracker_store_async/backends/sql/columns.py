"""What goes into the columns of table `events`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.schema import COLUMN_LENGTH

if TYPE_CHECKING:
    from tracker_store_async.rows import Append, Rewrite


def event_values(append: Append) -> list[dict[str, Any]]:
    """Return the rows that an append inserts."""
    return [
        {
            "sender_id": append.sender_id,
            "type_name": column_text(row.type_name),
            "timestamp": column_time(row.timestamp),
            "intent_name": column_text(row.intent_name),
            "action_name": column_text(row.action_name),
            "data": row.data,
            "position": position,
            "event_id": row.event_id,
        }
        for position, row in enumerate(append.rows, append.position)
    ]


def event_tuples(append: Append) -> list[tuple[Any, ...]]:
    """Return the rows that an append inserts, as tuples in the order of `INSERTED`."""
    sender_id, found = append.sender_id, []
    columns: tuple[Any, ...]
    for position, row in enumerate(append.rows, append.position):
        event_id, data, type_name, timestamp, intent_name, action_name = row
        names = f"{type_name}{intent_name or ''}{action_name or ''}"
        if _fits(names) and (timestamp is None or math.isfinite(timestamp)):
            columns = type_name, timestamp, intent_name, action_name
        else:  # one of them does not
            columns = (
                column_text(type_name),
                column_time(timestamp),
                column_text(intent_name),
                column_text(action_name),
            )
        found.append((sender_id, position, event_id, data, *columns))
    return found


INSERTED = (
    *("sender_id", "position", "event_id", "data"),
    *("type_name", "timestamp", "intent_name", "action_name"),
)
"""The columns of an event that are inserted."""

CONTENT = ("data", "type_name", "timestamp", "intent_name", "action_name")
"""The columns of an event that a rewrite replaces."""


def changed_content(rewrite: Rewrite) -> list[tuple[int, dict[str, Any]]]:
    """Return the positions and the new columns of the rows that a rewrite changes."""
    return [
        (
            position,
            {
                "data": row.data,
                "type_name": column_text(row.type_name),
                "timestamp": column_time(row.timestamp),
                "intent_name": column_text(row.intent_name),
                "action_name": column_text(row.action_name),
            },
        )
        for position, row in rewrite.changed_rows
    ]


def _fits(text: str) -> bool:
    return len(text) <= COLUMN_LENGTH and text.isprintable() and text.isascii()


def column_text(text: str | None) -> str | None:
    """Return a derived text as its column can hold it: the event's JSON has the rest.

    It is cut to the width of the column, and what no database can store (NUL, half of a
    surrogate pair) is replaced.
    """
    if text is None or _fits(text):
        return text
    text = text[:COLUMN_LENGTH]
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode(errors="replace").decode()


def column_time(timestamp: float | None) -> float | None:
    """Return a time that every database can hold: the event's JSON has the rest."""
    if timestamp is None or math.isfinite(timestamp):
        return timestamp
    return None
