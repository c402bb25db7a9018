"""The text of stored rows as a tracker or a cache holds it, in the least room."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, overload

from tracker_store_async.rows import RawRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracker_store_async.rows import StoredRow


class PackedRows(Sequence["tuple[None, str | bytes]"]):
    """Rows whose text is packed already; their ids are forgotten.

    Args:
        data: The text of each row; nobody changes the list any more.
    """

    __slots__ = ("data",)

    def __init__(self, data: list[str | bytes]) -> None:
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


def packed(rows: Iterable[StoredRow]) -> list[str | bytes]:
    """Return the text of rows as it takes the least room, without the ids.

    Text beyond ASCII takes two or four bytes for each character as a `str`.

    Args:
        rows: The rows.
    """
    texts = rows.texts() if isinstance(rows, RawRows) else (data for _, data in rows)
    return [
        data
        if isinstance(data, bytes) or data.isascii()
        else data.encode(errors="surrogatepass")
        for data in texts
    ]
