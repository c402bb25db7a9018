"""The text of stored rows as a tracker or a cache holds it, in the least room."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, overload

from tracker_store_async.rows import BytesRows, RawRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracker_store_async.rows import StoredConversation, StoredRow


class PackedRows(Sequence["tuple[None, str | bytes]"]):
    """Rows whose text is packed already; their ids are forgotten.

    Args:
        data: The text of each row; nobody changes the list any more.
    """

    __slots__ = ("data",)

    def __init__(self, data: Sequence[str | bytes]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, key: int) -> tuple[None, str | bytes]: ...
    @overload
    def __getitem__(self, key: slice) -> PackedRows: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return PackedRows(self.data[key])
        return None, self.data[key]

    def __iter__(self) -> Iterator[tuple[None, str | bytes]]:
        return zip(repeat(None), self.data, strict=False)


def rest_after(
    held: Sequence[str | bytes], end: int, stored: StoredConversation
) -> StoredConversation | None:
    """Return what was appended after rows that are held, or None if they do not go on.

    The same log is not enough: in an outage a fail-safe shows what another writer's
    events may come before, and a copy may end otherwise than what it was copied from.
    So the last row that is held is read again (`position_after`) and compared.

    Args:
        held: The rows.
        end: Position after the last one.
        stored: What was read.
    """
    if not held:
        return stored if stored.first_position == end else None
    if stored.first_position != end - 1 or not len(stored.rows):
        return None
    if packed(stored.rows[:1])[0] != held[-1]:
        return None
    return stored.with_rows(end, stored.rows[1:])


def position_after(held: Sequence[str | bytes], end: int) -> int:
    """Return from where on to read what `rest_after` looks at."""
    return end - 1 if held else end


def in_place(rows: Sequence[StoredRow]) -> Sequence[str | bytes]:
    """Return the text of rows in the least time, for who looks at few of them.

    Args:
        rows: The rows.

    Returns:
        The texts; nobody may change what it is.
    """
    if type(rows) is BytesRows:
        return rows.texts_in_place()
    return packed(rows)


def packed(rows: Iterable[StoredRow]) -> list[str | bytes]:
    """Return the text of rows as it takes the least room, without the ids.

    Text beyond ASCII takes two or four bytes for each character as a `str`.

    Args:
        rows: The rows.

    Returns:
        The texts; nobody may change the list, which may be that of `PackedRows`.
    """
    kind = type(rows)
    if kind is PackedRows:
        data: Any = rows.data  # type: ignore[attr-defined]
        return data if type(data) is list else list(data)
    if kind is BytesRows:
        return rows.texts()  # type: ignore[attr-defined, no-any-return]
    if kind is RawRows:
        return packed_texts(rows.texts())  # type: ignore[attr-defined]
    return packed_texts(map(itemgetter(1), rows))


def packed_texts(texts: Iterable[str | bytes]) -> list[str | bytes]:
    """Return texts as they take the least room."""
    return [
        data
        if type(data) is not str or data.isascii()
        else data.encode(errors="surrogatepass")
        for data in texts
    ]
