"""Whether a read has found all the rows that it asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.errors import CorruptEventError

if TYPE_CHECKING:
    from tracker_store_async.rows import Read


def page_end(read: Read, first: int, version: int) -> int:
    """Return the position behind the last row that a read asks for."""
    return version if read.limit is None else min(version, first + read.limit)


def check_whole(sender_id: str, first: int, version: int, count: int) -> None:
    """Check that the rows from `first` on are all there.

    Raises:
        CorruptEventError: Somebody removed rows behind our back.
    """
    if first + count != version:
        raise CorruptEventError(
            sender_id,
            first,
            f"{version - first} events are needed from here on, {count} are stored",
        )
