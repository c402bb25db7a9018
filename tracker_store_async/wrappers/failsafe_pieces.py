"""What an outage left of one conversation, in pieces that every backend takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracker_store_async.rows import Append

PIECE_EVENTS = 500
PIECE_BYTES = 200_000
"""An outage may leave more of a conversation than a backend takes in one append."""


def with_save(
    saves: tuple[tuple[int, int], ...],
    last_bytes: int,
    added: tuple[int, int],
    added_bytes: int,
    *,
    alone: int,
) -> tuple[tuple[tuple[int, int], ...], int]:
    """Note one more save, together with those before it that fit in the same piece.

    They are told with every save of an outage, so there must be few of them: a note of
    its own for each save would make an outage cost the square of its length.

    Args:
        saves: How many events each note has, and where the latest session starts after
            it.
        last_bytes: How many bytes the events of the last one have.
        added: The same of the save.
        added_bytes: How many bytes its events have.
        alone: How many of the first notes must stay as they are.

    Returns:
        The notes, and the bytes of the last one.
    """
    count, start = added
    if len(saves) > alone:
        together, together_bytes = saves[-1][0] + count, last_bytes + added_bytes
        if together <= PIECE_EVENTS and together_bytes <= PIECE_BYTES:
            return (*saves[:-1], (together, start)), together_bytes
    return (*saves, added), added_bytes


def in_pieces(whole: Append, saves: Iterable[tuple[int, int]]) -> Iterator[Append]:
    """Split an append of many saves into such as every backend takes.

    No save is torn apart. Until the last piece is stored the snapshot is that of a
    later version, which is the same as none: the session is replayed for the state.

    Args:
        whole: The append.
        saves: How many of its rows belong to each save, and where the latest session
            starts after it.
    """
    begin = end = size_bytes = 0
    session_start = whole.session_start
    for count, start in saves:
        rows = whole.rows[end : end + count]
        added_bytes = sum(len(row.data) for row in rows)
        is_full = end + count - begin > PIECE_EVENTS
        if end > begin and (is_full or size_bytes + added_bytes > PIECE_BYTES):
            yield _piece(whole, begin, end, session_start)
            begin, size_bytes = end, 0
        end, session_start = end + count, start
        size_bytes += added_bytes
    yield _piece(whole, begin, len(whole.rows), whole.session_start)


def _piece(whole: Append, begin: int, end: int, session_start: int) -> Append:
    return replace(
        whole,
        expected_version=whole.expected_version + begin,
        rows=whole.rows[begin:end],
        session_start=session_start,
    )


def remaining(saves: Iterable[tuple[int, int]], landed: int) -> list[int]:
    """Return how many events of each save are left once so many have landed."""
    left = []
    for count, _ in saves:
        done = min(count, landed)
        landed -= done
        if count > done:
            left.append(count - done)
    return left
