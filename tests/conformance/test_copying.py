"""A log is read page by page, and copied with its ids, its times and its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.conformance.kit import SENDER, user
from tracker_store_async.moving.pages import as_text
from tracker_store_async.rows import Append, Listing, NewRow, Origin, Read

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import StoredConversation

NOW = 1_900_000_000.0
BEGAN, UPDATED = 1_600_000_000.123456, 1_600_000_777.654321


def row(number: int, event_id: str | None = "") -> NewRow:
    data = f'{{"event":"x", "n" : {number}.0}}'
    found = f"id-{number}" if event_id == "" else event_id
    return NewRow(found, data, "x", None, None, None)  # type: ignore[arg-type]


def copy(expected: int, rows: list[NewRow], **fields: object) -> Append:
    first = fields.pop("first_position", 0)
    values = {"session_start": 0, "snapshot": None, "now": NOW, **fields}
    origin = Origin(BEGAN, UPDATED, first)  # type: ignore[arg-type]
    return Append(SENDER, expected, rows, origin=origin, **values)  # type: ignore[arg-type]


async def read(
    store: TrackerStore, start: int = 0, limit: int | None = None, now: float = NOW
) -> StoredConversation:
    found = await store._read(Read(SENDER, now, start=start, limit=limit))
    assert found is not None
    return found


def numbers(found: StoredConversation) -> list[int]:
    return [int(i.removeprefix("id-")) for i, _ in found.rows if i is not None]


async def test_a_log_is_read_page_by_page(store: TrackerStore) -> None:
    await store.open()
    for at, count in ((0, 3), (3, 1), (4, 6)):
        rows = [row(n) for n in range(at, at + count)]
        append = Append(SENDER, at, rows, 0 if at < 4 else 3, f'{{"at":{at}}}', NOW)
        assert await store._append(append)
    for start in (0, 1, 2, 3, 4, 9):
        for limit in (1, 2, 4, 100):
            found = await read(store, start, limit)
            assert found.first_position == start
            assert numbers(found) == list(range(start, min(10, start + limit)))
            assert (found.version, found.session_start) == (10, 3)
    found = await read(store, 10, 5)
    assert (found.first_position, list(found.rows)) == (10, [])
    snapshot = (await read(store, 0, 2)).snapshot
    assert snapshot in ('{"at":4}', b'{"at":4}')


async def test_pages_begin_where_the_log_does(store: TrackerStore) -> None:
    await store.open()
    rows = [row(n) for n in range(8)]
    assert await store._append(Append(SENDER, 0, rows, 5, "{}", NOW))
    assert await store._delete(SENDER, 5, NOW)
    found = await read(store, 0, 2)
    assert (found.first_position, numbers(found)) == (5, [5, 6])
    assert numbers(await read(store, 6, 1)) == [6]


async def test_a_copy_keeps_times_ids_and_the_end(storage: Storage) -> None:
    store = storage.store(record_exp=5.0)
    await store.open()
    first = copy(0, [row(0), row(1, None)], user_id="u", expires_at=NOW + 1000.5)
    assert await store._append(first)
    rest = copy(
        2,
        [row(2)],
        session_start=2,
        snapshot='{"s":1}',
        expires_at=NOW + 1000.25,
        created_at=BEGAN,
    )
    assert await store._append(rest)
    found = await read(store)
    assert (found.created_at, found.updated_at) == (BEGAN, UPDATED)
    assert (found.version, found.session_start, found.user_id) == (3, 2, "u")
    assert found.expires_at == NOW + 1000.25
    assert [event_id for event_id, _ in found.rows] == ["id-0", None, "id-2"]
    assert found.snapshot in ('{"s":1}', b'{"s":1}')
    [summary] = await store._list(Listing(NOW, 10))
    assert (summary.created_at, summary.updated_at) == (BEGAN, UPDATED)
    assert await store._read(Read(SENDER, NOW + 1001)) is None


async def test_a_copy_never_overwrites(store: TrackerStore) -> None:
    await store.open()
    assert await store._append(Append(SENDER, 0, [row(7)], 0, "{}", NOW))
    assert not await store._append(copy(0, [row(0)]))
    assert not await store._append(copy(2, [row(0)]))
    assert not await store._append(copy(1, [row(0)], created_at=BEGAN))
    assert numbers(await read(store)) == [7]


async def test_a_copy_begins_where_its_original_does(store: TrackerStore) -> None:
    await store.open()
    start = copy(0, [row(40), row(41)], first_position=40, session_start=40)
    assert start.new_version == 42
    assert await store._append(start)
    assert await store._append(copy(42, [row(42)], session_start=41))
    found = await read(store)
    assert (found.version, found.first_position) == (43, 40)
    assert numbers(found) == [40, 41, 42]
    found = await read(store, 41, 1)
    assert (found.first_position, numbers(found)) == (41, [41])
    assert await store._delete(SENDER, 41, NOW)
    assert numbers(await read(store)) == [41, 42]


async def test_a_copy_may_change_the_header_alone(store: TrackerStore) -> None:
    await store.open()
    assert await store._append(copy(0, [row(0)], expires_at=NOW + 5))
    for snapshot in ('{"s":2}', '{"s":"' + 150_000 * "x" + '"}'):
        assert await store._append(copy(1, [], snapshot=snapshot))
        found = await read(store)
        assert found.expires_at is None
        assert found.snapshot in (snapshot, snapshot.encode())
        assert numbers(found) == [0]
    assert await store._append(copy(1, [row(1)], snapshot="{}"))
    assert numbers(await read(store)) == [0, 1]


async def test_a_copy_goes_on_as_any_other_conversation(store: TrackerStore) -> None:
    await store.open()
    data = '{"event":"action","name":"action_listen","timestamp":1.0}'
    first = NewRow(None, data, "action", 1.0, None, "action_listen")  # type: ignore[arg-type]
    assert await store._append(copy(0, [first]))
    tracker = await store.retrieve(SENDER)
    assert tracker is not None
    tracker.update(user("hello"))
    await store.save(tracker)
    again = await store.retrieve_full_tracker(SENDER)
    assert again is not None
    assert [event.type_name for event in again.events] == ["action", "user"]


async def test_several_are_appended_to_and_read_at_once(store: TrackerStore) -> None:
    await store.open()
    names = [f"many-{n}" for n in range(5)]
    blocked = Append("many-3", 0, [row(99)], 0, "{}", NOW)
    assert await store._append(blocked)
    expired = Append("many-4", 0, [row(98)], 0, "{}", NOW - 9, expires_at=NOW - 5)
    assert await store._append(expired)
    begun = [replace(copy(0, [row(0), row(1)]), sender_id=name) for name in names]
    begun[2] = replace(begun[2], user_id="u")
    assert await store._append_many(begun) == [True, True, True, False, True]
    rest = [
        replace(copy(2, [row(2)], user_id="u", created_at=BEGAN), sender_id="many-0"),
        replace(copy(5, [row(2)]), sender_id="many-1"),
        replace(copy(0, [row(7)]), sender_id="many-5"),
    ]
    assert await store._append_many(rest) == [True, False, True]
    reads = [Read(name, NOW, start=0, limit=2) for name in (*names, "many-6")]
    found = await store._read_many(reads)
    pages = [None if each is None else numbers(each) for each in found]
    assert pages == [[0, 1], [0, 1], [0, 1], [99], [0, 1], None]
    assert found[0] is not None
    assert (found[0].version, found[0].user_id) == (3, "u")
    assert [each.sender_id async for each in store.conversations(user_id="u")] == [
        *("many-0", "many-2")
    ]
    headers = await store._read_many([Read(name, NOW, last=0) for name in names])
    assert [each and each.version for each in headers] == [3, 2, 2, 1, 2]


async def test_a_read_with_columns_gives_the_same_rows(store: TrackerStore) -> None:
    await store.open()
    data = '{"event":"action","name":"act","timestamp":5.5}'
    rows = [NewRow("id-0", data, "action", 5.5, None, "act"), row(1)]
    assert await store._append(copy(0, rows))
    request = Read(SENDER, NOW, start=0, limit=5, columns=True)
    for found in (await store._read(request), *await store._read_many([request])):
        assert found is not None
        pairs = [(each[0], as_text(each[1])) for each in found.rows]
        assert pairs == [(each.event_id, each.data) for each in rows]
        for mine, each in zip(found.rows, rows, strict=True):
            if isinstance(mine, NewRow):
                assert mine == each
