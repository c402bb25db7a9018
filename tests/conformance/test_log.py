"""A conversation is a log: what was appended is read back, exactly and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.kit import (
    SENDER,
    Spy,
    action,
    add,
    dicts,
    has,
    held,
    new_session,
    said,
    slot,
    stored,
    stored_dicts,
    stored_ids,
    turn,
    update,
    user,
    version,
)
from tracker_store_async.events import encode_event
from tracker_store_async.rows import Append, NewRow, Read

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

NOW = 1_700_000_000.0


def append(expected_version: int, *rows: NewRow, **fields: object) -> Append:
    values = {"session_start": 0, "snapshot": "{}", "now": NOW, **fields}
    return Append(SENDER, expected_version, rows, **values)  # type: ignore[arg-type]


def row(event_id: str, data: str = '{"event": "x"}') -> NewRow:
    return NewRow(event_id, data, "x", None, None, None)


async def test_rows_come_back_byte_for_byte(store: TrackerStore) -> None:
    await store.open()
    texts = [
        '{"event":"x", "a" : 1.0,"b":1,"a":2}',
        ' {"event": "\\u00e9\\ud83d\\ude00", "é": "😀"} ',
        '{"event": "x", "big": 123456789012345678901234567890, "f": 1e999}',
        '{"event": "x", "text": "' + "y" * 100_000 + '"}',
        '{"event": "x", "quotes": "\'\\"`;--%_\\\\", "nul": "\\u0000"}',
    ]
    rows = [row(f"id-{n}", text) for n, text in enumerate(texts)]
    assert await store._append(append(0, *rows, snapshot=texts[1]))
    found = await store._read(Read(SENDER, NOW, start=0))
    assert found is not None
    assert [(i, d if isinstance(d, str) else d.decode()) for i, d in found.rows] == [
        (f"id-{n}", text) for n, text in enumerate(texts)
    ]
    snapshot = found.snapshot
    assert (snapshot if isinstance(snapshot, str) else snapshot.decode()) == texts[1]


async def test_the_header_says_what_the_append_said(store: TrackerStore) -> None:
    await store.open()
    first = append(0, row("a"), row("b"), session_start=1, now=NOW, user_id="u")
    assert await store._append(first)
    second = append(2, row("c"), session_start=2, now=NOW + 2.25, expires_at=NOW + 9.5)
    assert await store._append(second)
    found = await store._read(Read(SENDER, NOW + 3, start=None))
    assert found is not None
    assert (found.version, found.session_start, found.first_position) == (3, 2, 2)
    assert (found.created_at, found.updated_at) == (NOW, NOW + 2.25)
    assert found.expires_at == NOW + 9.5
    assert found.user_id == "u"


async def test_an_append_at_another_version_changes_nothing(
    store: TrackerStore,
) -> None:
    await store.open()
    assert not await store._append(append(1, row("too early")))
    assert await store._read(Read(SENDER, NOW)) is None
    assert await store._append(append(0, row("a"), row("b")))
    for wrong in (0, 1, 3):
        assert not await store._append(append(wrong, row("wrong"), snapshot="wrong"))
    assert await stored_ids(store) == ["a", "b"]
    found = await store._read(Read(SENDER, NOW))
    assert found is not None
    assert found.snapshot in ("{}", b"{}")


async def test_a_read_starts_and_ends_where_it_is_told(store: TrackerStore) -> None:
    await store.open()
    assert await store._append(
        append(0, *(row(str(n)) for n in range(10)), session_start=4)
    )

    async def read(start: int | None, last: int | None) -> tuple[int, list[str | None]]:
        found = await store._read(Read(SENDER, NOW, start=start, last=last))
        assert found is not None
        assert found.version == 10
        return found.first_position, [event_id for event_id, _ in found.rows]

    assert await read(None, None) == (4, ["4", "5", "6", "7", "8", "9"])
    assert await read(0, None) == (0, [str(n) for n in range(10)])
    assert await read(7, None) == (7, ["7", "8", "9"])
    assert await read(10, None) == (10, [])
    assert await read(None, 2) == (8, ["8", "9"])
    assert await read(None, 100) == (4, ["4", "5", "6", "7", "8", "9"])
    assert await read(0, 7) == (3, ["3", "4", "5", "6", "7", "8", "9"])
    assert await read(9, 7) == (9, ["9"])
    assert await read(None, 0) == (10, [])


async def test_what_is_saved_is_what_the_event_says(store: TrackerStore) -> None:
    events = [*new_session(), *turn("hello"), slot("people", 4)]
    tracker = store.init_tracker(SENDER)
    update(tracker, events)
    texts = [encode_event(event) for event in events]
    await store.save(tracker)
    assert [data for _, data in await stored(store)] == texts
    assert held(await has(store)) == dicts(events)


async def test_every_event_has_an_id_of_its_own(store: TrackerStore) -> None:
    event = user("again and again")
    await add(store, SENDER, event, event, event)
    await add(store, SENDER, event)
    ids = await stored_ids(store)
    assert len(ids) == 4
    assert all(ids)
    assert len(set(ids)) == 4


async def test_the_id_that_an_event_carries_is_its_id(store: TrackerStore) -> None:
    event = user("hi")
    event.event_id = "event-😀-1"
    await add(store, SENDER, event, user("there"))
    ids = await stored_ids(store)
    assert ids[0] == "event-😀-1"
    assert ids[1] not in (None, "event-😀-1")
    assert (await has(store)).events[0].event_id == "event-😀-1"


async def test_a_generated_id_is_not_written_into_the_event(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, user("hi"))
    assert "event_id" not in (await stored_dicts(store))[0]
    assert (await has(store)).events[0].event_id is None


async def test_order_is_that_of_the_saves_whatever_the_timestamps_say(
    store: TrackerStore,
) -> None:
    for n, timestamp in enumerate((5e9, 3.5, 1e9, 1e9, 2e9)):
        event = user(str(n))
        event.timestamp = timestamp
        await add(store, SENDER, event)
    assert said(await has(store)) == ["0", "1", "2", "3", "4"]


async def test_a_clock_that_went_back_loses_no_session(store: TrackerStore) -> None:
    for n, timestamp in enumerate((5e9, 3.5, 1e9)):
        session = [*new_session(), user(str(n))]
        for event in session:
            event.timestamp = timestamp
        await add(store, SENDER, *session)
    assert said(await has(store)) == ["2"]
    assert said(await store.retrieve_full_tracker(SENDER)) == ["0", "1", "2"]


async def test_conversations_do_not_mix(store: TrackerStore) -> None:
    for n in range(3):
        for sender_id in ("a", "b", "c"):
            await add(store, sender_id, user(f"{sender_id}{n}"))
    for sender_id in ("a", "b", "c"):
        found = await has(store, sender_id)
        assert found.sender_id == sender_id
        assert said(found) == [f"{sender_id}{n}" for n in range(3)]


async def test_what_does_not_exist_is_none(store: TrackerStore) -> None:
    assert await store.retrieve(SENDER) is None
    assert await store.retrieve_full_tracker(SENDER) is None
    assert not await store.exists(SENDER)
    assert list(await store.keys()) == []
    assert not await store.delete(SENDER)
    await add(store, SENDER, user())
    assert await store.exists(SENDER)
    assert not await store.exists(SENDER + SENDER)


async def test_another_store_object_sees_what_is_stored(storage: Storage) -> None:
    await add(storage.store(), SENDER, *turn("one"))
    await add(storage.store(), SENDER, *turn("two"))
    assert said(await has(storage.store())) == ["one", "two"]


# -- the version cursor: a save reads nothing --


async def test_a_loaded_tracker_is_saved_by_one_append_and_no_read(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, *turn())
    tracker = await has(store)
    update(tracker, turn())
    spy = Spy(store)
    await store.save(tracker)
    assert spy.calls == ["_append"]


async def test_a_load_is_one_read(store: TrackerStore) -> None:
    await add(store, SENDER, *new_session(), *turn())
    spy = Spy(store)
    await store.retrieve(SENDER)
    await store.retrieve_full_tracker(SENDER)
    await store.get_or_create_tracker(SENDER)
    await store.get_or_create_tracker(SENDER, max_event_history=2)
    await store.exists(SENDER)
    assert spy.calls == ["_read"] * 5


async def test_a_tracker_is_saved_again_and_again(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    spy = Spy(store)
    for n in range(1, 6):
        update(tracker, turn(str(n)))
        await store.save(tracker)
        assert await version(store) == 1 + 4 * n
    assert spy.calls.count("_append") == 5
    assert said(await has(store)) == ["1", "2", "3", "4", "5"]


async def test_a_save_without_changes_does_nothing(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    spy = Spy(store)
    await store.save(tracker)
    await store.save(tracker)
    found = await store.retrieve(SENDER)
    assert found is not None
    await store.save(found)
    assert spy.calls == ["_read"]
    assert await version(store) == 1


async def test_an_empty_tracker_stores_nothing(store: TrackerStore) -> None:
    await store.save(store.init_tracker(SENDER))
    assert not await store.exists(SENDER)
    created = await store.create_tracker(SENDER, append_action_listen=False)
    await store.save(created)
    assert not await store.exists(SENDER)


async def test_an_event_added_while_a_save_is_under_way_is_not_lost(
    store: TrackerStore,
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("one"))
    land = store._append

    async def updating(append: Append) -> bool:
        landed = await land(append)
        if "two" not in said(tracker):
            tracker.update(user("two"))
        return landed

    store._append = updating  # type: ignore[method-assign]
    await store.save(tracker)
    assert said(await has(store)) == ["one"]
    await store.save(tracker)
    assert said(await has(store)) == ["one", "two"]


# -- creating --


async def test_get_or_create_stores_one_action_listen(store: TrackerStore) -> None:
    created = await store.get_or_create_tracker(SENDER)
    assert [e["name"] for e in await stored_dicts(store)] == ["action_listen"]
    again = await store.get_or_create_tracker(SENDER)
    full = await store.get_or_create_full_tracker(SENDER)
    assert held(again) == held(full) == held(created)
    assert await version(store) == 1


async def test_without_action_listen_nothing_is_stored(store: TrackerStore) -> None:
    for created in (
        await store.get_or_create_tracker(SENDER, append_action_listen=False),
        await store.get_or_create_full_tracker(SENDER, append_action_listen=False),
        await store.create_tracker(SENDER, append_action_listen=False),
    ):
        assert held(created) == []
        assert not await store.exists(SENDER)
    created.update(action())
    await store.save(created)
    assert await version(store) == 1


async def test_creating_what_exists_returns_it(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("first"))
    created = await store.create_tracker(SENDER)
    assert said(created) == ["first"]
    assert await version(store) == 4
    created.update(user("second"))
    await store.save(created)
    assert said(await has(store)) == ["first", "second"]
