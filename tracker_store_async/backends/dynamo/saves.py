"""One save as items, whatever its size, and the items as rows again.

The events of a save lie in its item: their texts joined by NUL, which no text holds, so
that reading them costs one string and numbers stay exact; and their ids as a JSON list.
What is too large for one item lies in parts, and `parts` of the item says how many
events begin in each; a part in which none begins goes on with the event before it. A
state that is too large for the head follows as further parts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracker_store_async.backends.dynamo.layout import (
    item_key,
    new_token,
    part_key,
    position_of,
)
from tracker_store_async.backends.dynamo.values import (
    Item,
    int_of,
    number,
    text,
    text_of,
    wire_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.rows import StoredRow

PART_BYTES = 300_000
"""Most bytes of events in one item, which may hold 409,600 with everything."""

SNAPSHOT_BYTES = 100_000
"""Largest state that stays in the head, which every save writes."""

LOOSE_PARTS = 90
"""Most parts that one transaction deletes beside a save: a state of 27 MB."""

TRANSACTION_ITEMS = 80
TRANSACTION_BYTES = 900_000
"""What one transaction takes of a save, as it goes over the wire.

DynamoDB's limits are 100 items and 4 MB, but sending more than a megabyte at once holds
up the event loop (aiohttp warns of it).
"""


@dataclass(slots=True)
class SavePlan:
    """The items that one save becomes.

    Attributes:
        token: Names the save.
        item: The item at the save's position.
        parts: Its parts, if it is too large for one item.
        snapshot: The state, if it fits into the head; else it is in parts.
        snapshot_parts: How many of the parts, the last ones, are the state.
    """

    token: int
    item: Item = field(repr=False)
    parts: list[Item] = field(repr=False)
    snapshot: str | None = field(repr=False)
    snapshot_parts: int

    @property
    def fits_a_transaction(self) -> bool:
        """Whether all of it can be written at once."""
        if len(self.parts) > TRANSACTION_ITEMS:
            return False
        return sum(map(wire_bytes, self.parts)) <= TRANSACTION_BYTES

    @property
    def loose(self) -> str | None:
        """What the head says of parts that lie beside no event, or None."""
        if count_of(self.item) or not self.parts:
            return None
        return f"{self.token}:{len(self.parts)}"


def loose_keys(loose: str | None) -> list[int]:
    """Return the sort keys of the parts that a head calls loose."""
    if loose is None:
        return []
    token, count = map(int, loose.split(":"))
    return [part_key(token, n) for n in range(min(count, LOOSE_PARTS))]


def plan_save(
    sender_id: str,
    position: int,
    rows: Sequence[StoredRow],
    snapshot: str | None,
    created_at: float,
    ttl: int | None,
) -> SavePlan:
    """Return the items of a save.

    Args:
        sender_id: The conversation.
        position: Position of its first event.
        rows: Ids and texts of its events.
        snapshot: The state after it, or None.
        created_at: When the log began, which names it.
        ttl: When its items may be removed, in seconds since the epoch.
    """
    token = new_token()
    shared: Item = {"save": text(str(token)), "created_at": number(created_at)}
    if ttl is not None:
        shared["ttl"] = number(ttl)
    pieces = list(_pieces(rows))
    item = {
        **item_key(sender_id, position),
        **shared,
        "count": number(len(rows)),
    }
    if len(pieces) == 1:
        item |= _events(*pieces.pop())
    else:
        item["parts"] = {"L": [number(len(ids)) for ids, _ in pieces]}
    parts = [_events(ids, texts) for ids, texts in pieces]
    snapshot_parts = 0
    if snapshot is not None and len(snapshot.encode()) > SNAPSHOT_BYTES:
        slices = list(_slices(snapshot))
        parts += [{"events": text(piece)} for piece in slices]
        snapshot, snapshot_parts = None, len(slices)
        item["snapshot_parts"] = number(snapshot_parts)
    keyed = [
        {**item_key(sender_id, part_key(token, n)), **shared, **part}
        for n, part in enumerate(parts)
    ]
    return SavePlan(token, item, keyed, snapshot, snapshot_parts)


def _events(ids: Sequence[str | None], texts: Sequence[str]) -> Item:
    return {"events": text("\0".join(texts)), "ids": text(json.dumps(list(ids)))}


def _pieces(rows: Sequence[StoredRow]) -> Iterable[tuple[list[str | None], list[str]]]:
    """Yield ids and texts of at most `PART_BYTES`; large events are cut."""
    ids: list[str | None] = []
    texts: list[str] = []
    size_bytes = 0
    for event_id, data in rows:
        content = data if isinstance(data, str) else data.decode()
        # what `json.dumps` makes of an id is at most six bytes a character
        length = len(content.encode()) + 6 * len(event_id or "") + 8
        if texts and size_bytes + length > PART_BYTES:
            yield ids, texts
            ids, texts, size_bytes = [], [], 0
        if length > PART_BYTES:
            first, *others = _slices(content)
            yield [event_id], [first]
            yield from (([], [piece]) for piece in others)
            continue
        ids.append(event_id)
        texts.append(content)
        size_bytes += length
    if texts or not rows:
        yield ids, texts


def _slices(content: str) -> Iterable[str]:
    """Cut text into pieces of at most `PART_BYTES`, between characters."""
    encoded = content.encode()
    at = 0
    while at < len(encoded):
        end = min(at + PART_BYTES, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:
            end -= 1
        yield encoded[at:end].decode()
        at = end


def rows_in(item: Item) -> list[StoredRow]:
    """Return the rows of a save that lies in one item."""
    ids = json.loads(item["ids"]["S"])
    if not ids:
        return []
    return list(zip(ids, item["events"]["S"].split("\0"), strict=True))


def count_of(item: Item) -> int:
    """Return the number of events of a save."""
    return int_of(item, "count")


def token_of(item: Item) -> int:
    """Return the token of a save."""
    return int(text_of(item, "save") or 0)


def event_parts(item: Item) -> list[int] | None:
    """Return how many events begin in each part, or None if it has no such parts."""
    parts = item.get("parts")
    return None if parts is None else [int(part["N"]) for part in parts["L"]]


def part_keys(item: Item) -> list[int]:
    """Return the sort keys of all parts of a save."""
    count = len(event_parts(item) or ()) + int_of(item, "snapshot_parts")
    return [part_key(token_of(item), n) for n in range(count)]


def parts_from(counts: Sequence[int], skipped: int) -> tuple[int, int]:
    """Return the first part that is needed, and how many events the ones before hold.

    Args:
        counts: How many events begin in each part.
        skipped: How many leading events are not wanted.
    """
    before = first = passed = 0
    for n, count in enumerate(counts):
        if count and before <= skipped:
            first, passed = n, before
        before += count
    return first, passed


def rows_of_parts(parts: Sequence[Item]) -> list[StoredRow]:
    """Return the rows of a run of parts that begins with the beginning of an event."""
    rows: list[StoredRow] = []
    tail: list[str] = []

    def end() -> None:
        if tail:
            event_id, begun = rows[-1]
            rows[-1] = (event_id, "".join([str(begun), *tail]))
            tail.clear()

    for part in parts:
        found = rows_in(part)
        if found:
            end()
            rows += found
        else:
            tail.append(part["events"]["S"])
    end()
    return rows


def is_run(parts: Sequence[Item], token: int, first: int, count: int) -> bool:
    """Whether these are all the parts that are wanted, in order."""
    wanted = [part_key(token, n) for n in range(first, first + count)]
    return [position_of(part) for part in parts] == wanted
