"""Conversations to move, and what is compared of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.rows import Append, Origin, Read
from tracker_store_async.serialization import derived_row

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import StoredConversation

BEGAN = 1_700_000_000.125
FAR = 4_000_000_000.5


def text(number: int, name: str = "x") -> str:
    """Return an event of no particular form: what is moved is not decoded."""
    if number % 10 == 3:
        return json.dumps({"event": "action", "name": "action_session_start"})
    if number % 10 == 4:
        return json.dumps({"event": "session_started", "timestamp": BEGAN + number})
    fields = {
        "event": "user",
        "timestamp": BEGAN + number,
        "text": f"{name} é {number}",
    }
    return json.dumps(fields, ensure_ascii=number % 2 == 0)


def append(
    sender_id: str, first: int, count: int, version: int, **fields: Any
) -> Append:
    """Return an append of such events, as a copy with times of its own."""
    rows = [
        derived_row(None if n % 7 == 5 else f"{sender_id}-{n}", text(n, sender_id))
        for n in range(first, first + count)
    ]
    begin = fields.pop("begin", 0)
    values: dict[str, Any] = {
        "session_start": begin,
        "snapshot": json.dumps({"state of": sender_id, "at": first + count}),
        "now": BEGAN,
        "expires_at": FAR,
        "user_id": f"user of {sender_id}",
        "origin": Origin(BEGAN + len(sender_id), BEGAN + first + count + 0.5, begin),
    }
    return Append(sender_id, version, rows, **{**values, **fields})


async def fill(store: TrackerStore, sizes: dict[str, int]) -> TrackerStore:
    """Store conversations of so many events each; return the store, open."""
    await store.open()
    appends = [append(sender_id, 0, size, 0) for sender_id, size in sizes.items()]
    assert set(await store._append_many(appends)) == {True}
    return store


async def memory(**sizes: int) -> InMemoryTrackerStore:
    """Return a memory with such conversations."""
    store = InMemoryTrackerStore()
    await fill(store, sizes)
    return store


async def read(store: TrackerStore, sender_id: str) -> StoredConversation | None:
    """Return header and all rows."""
    await store._ensure_open()
    return await store._read(Read(sender_id, BEGAN, start=0))


async def contents(store: TrackerStore) -> dict[str, Any]:
    """Return everything that is stored, so that equal contents are equal."""
    await store._ensure_open()
    found = {}
    async for summary in store.conversations():
        log = await read(store, summary.sender_id)
        assert log is not None
        assert (summary.created_at, summary.updated_at) == (
            log.created_at,
            log.updated_at,
        )
        found[summary.sender_id] = (
            *(log.version, log.first_position, log.session_start, log.user_id),
            *(log.created_at, log.updated_at, log.expires_at),
            _plain(log.snapshot or None),
            [(event_id, _plain(data)) for event_id, data in log.rows],
        )
    return found


def _plain(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
