"""Rows and state of a conversation, sealed for the storage and opened again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.encryption.sealing import (
    DataKey,
    DoesNotOpenError,
    Envelope,
    is_sealed_row,
)
from tracker_store_async.errors import CorruptEventError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from tracker_store_async.rows import NewRow, StoredConversation, StoredRow

COLUMNS = ("type_name", "timestamp", "intent_name", "action_name")
SEALED_TYPE_NAME = "sealed"
"""What stands in place of an event's type; the column must not be empty."""


def without_columns(row: NewRow, hidden: Collection[str]) -> NewRow:
    """Return a row that says nothing in some of its columns."""
    empty: dict[str, str | None] = dict.fromkeys(hidden)
    if "type_name" in empty:
        empty["type_name"] = SEALED_TYPE_NAME
    return row._replace(**empty)  # type: ignore[arg-type]


def seal_rows(
    key: DataKey,
    sender_id: str,
    first: int,
    rows: Iterable[NewRow],
    hidden: Collection[str],
) -> list[NewRow]:
    """Return rows as they are stored.

    Args:
        key: The conversation's key.
        sender_id: The conversation.
        first: Position of the first row.
        rows: The rows, without a gap.
        hidden: The columns that say nothing.
    """
    return [
        without_columns(row, hidden)._replace(
            data=key.seal_row(row.data, sender_id, position, row.event_id)
        )
        for position, row in enumerate(rows, first)
    ]


def open_rows(
    key: DataKey | None,
    sender_id: str,
    first: int,
    rows: Iterable[StoredRow],
    *,
    accepts_plain: bool,
) -> list[StoredRow]:
    """Return stored rows as they were before they were sealed.

    Args:
        key: The conversation's key; None if it is plain.
        sender_id: The conversation.
        first: Position of the first row.
        rows: The rows, without a gap.
        accepts_plain: Whether rows that are not sealed are returned as they are.

    Raises:
        CorruptEventError: One does not open, or is plain and must not be.
    """
    opened: list[StoredRow] = []
    for position, (event_id, data) in enumerate(rows, first):
        if not is_sealed_row(data):
            if not accepts_plain:
                raise CorruptEventError(
                    sender_id, position, "it is not encrypted, and must be"
                )
            opened.append((event_id, data))
            continue
        if key is None:
            raise does_not_open(sender_id, position)
        try:
            text = key.open_row(data, sender_id, position, event_id)
        except DoesNotOpenError:
            raise does_not_open(sender_id, position) from None
        opened.append((event_id, text.decode()))
    return opened


def open_state(
    key: DataKey, envelope: Envelope, sender_id: str, stored: StoredConversation
) -> bytes | None:
    """Return the snapshot in an envelope; what is being copied has none yet.

    Raises:
        CorruptEventError: It is not what was sealed here.
    """
    if envelope.text is None:
        return None
    try:
        return key.open_snapshot(
            envelope.text, sender_id, stored.version, stored.session_start
        )
    except DoesNotOpenError:
        raise does_not_open(sender_id, stored.version) from None


def does_not_open(sender_id: str, position: int) -> CorruptEventError:
    """Return the error that says so; a state has the position after the last row."""
    return CorruptEventError(
        sender_id,
        position,
        "it does not open with the conversation's key: it was changed, moved, or "
        "sealed with another key",
    )
