"""Every sender id is stored exactly, and no two of them are confused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, add, has, said, stored, turn, user
from tracker_store_async import DialogueStateTracker, errors

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

SENDER_IDS = [
    "a",
    "A",
    "á",
    "a\u0301",  # the same to the eye as the one before
    "\uff41",
    "ß",
    "ss",
    "a" * 255,
    "a" * 254 + "b",
    "é" * 255,
    "😀" * 255,
    "😀",
    "👩‍👩‍👧",
    "user",
    "User",
    "USER",
    "user ",
    " user",
    "user  ",
    "us er",
    "user\n",
    "user\r\n",
    "user\t",
    "\u00a0user",
    "user%",
    "use_",
    "u%",
    "%",
    "_",
    "%%",
    "user'",
    'user"',
    "user`",
    "user\\",
    "user\\'",
    "\\",
    "'; DROP TABLE events; --",
    "' OR '1'='1",
    "x'); DELETE FROM conversations; --",
    "%s %(name)s :name $1 ? {0} {user}",
    "../../etc/passwd",
    "C:\\users\\x",
    "https://example.com/?a=b&c=d#e",
    "tracker:user",
    "{user}",
    "user:1:events",
    "null",
    "None",
    "NULL",
    "0",
    "1",
    "01",
    "1.0",
    "1e0",
    "true",
    "имя",
    "名前",
    "اسم",
    "\u202euser",
    "\ufeffuser",
    "user\u200b",
    "\x01\x1f\x7f",
    "\uffff\U0010ffff",
    "I",
    "\u0130",
    "\u0131",
    "i",
]


async def test_each_is_a_conversation_of_its_own(store: TrackerStore) -> None:
    assert len(set(SENDER_IDS)) == len(SENDER_IDS)
    for n, sender_id in enumerate(SENDER_IDS):
        await add(store, sender_id, user(f"text {n}"))
    for n, sender_id in enumerate(SENDER_IDS):
        found = await has(store, sender_id)
        assert found.sender_id == sender_id
        assert said(found) == [f"text {n}"]
        assert await store.exists(sender_id)


async def test_each_is_listed_exactly_once(store: TrackerStore) -> None:
    for sender_id in SENDER_IDS:
        await add(store, sender_id, user())
    assert sorted(await store.keys()) == sorted(SENDER_IDS)
    paged = [s.sender_id async for s in store.conversations(page_size=7)]
    assert sorted(paged) == sorted(SENDER_IDS)
    for at in (0, 20, len(SENDER_IDS) - 2):
        seen = [s async for s in store.conversations()][at]
        rest = [s.sender_id async for s in store.conversations(cursor=seen.cursor)]
        assert rest == paged[at + 1 :]


async def test_each_is_deleted_alone(store: TrackerStore) -> None:
    for sender_id in SENDER_IDS:
        await add(store, sender_id, user())
    left = set(SENDER_IDS)
    for sender_id in SENDER_IDS:
        assert await store.delete(sender_id)
        left.discard(sender_id)
        assert not await store.exists(sender_id)
        assert set(await store.keys()) == left


async def test_ids_that_only_look_stored_are_not(store: TrackerStore) -> None:
    await add(store, "user", user())
    for other in ("u", "use", "User", "user ", "us_r", "user%", "%", "usér", "users"):
        assert not await store.exists(other)
        assert await store.retrieve(other) is None
        assert not await store.delete(other)
    assert await store.exists("user")


REFUSED = {
    "empty": "",
    "NUL": "a\0b",
    "only NUL": "\0",
    "lone surrogate": "a\ud800",
    "256 characters": "a" * 256,
    "number": 42,
    "None": None,
    "bytes": b"user",
    "tuple": ("user",),
}


@pytest.mark.parametrize("sender_id", REFUSED.values(), ids=REFUSED)
async def test_what_no_backend_could_store_is_refused_everywhere(
    storage: Storage, sender_id: Any
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    await store.open()
    refused = pytest.raises(errors.InvalidSenderIdError)
    with refused:
        await store.get_or_create_tracker(sender_id)
    with refused:
        await store.get_or_create_full_tracker(sender_id)
    with refused:
        await store.create_tracker(sender_id)
    with refused:
        store.init_tracker(sender_id)
    with refused:
        await store.retrieve(sender_id)
    with refused:
        await store.retrieve_full_tracker(sender_id)
    with refused:
        await store.exists(sender_id)
    with refused:
        await store.delete(sender_id)
    tracker = DialogueStateTracker.from_events(sender_id, turn())
    with refused:
        await store.save(tracker)
    with refused:
        await store.stream_events(tracker)
    with refused:
        await store.save(DialogueStateTracker(sender_id))
    assert broker.messages == []
    assert list(await store.keys()) == []


async def test_a_refusal_spoils_nothing(store: TrackerStore) -> None:
    await add(store, "user", user())
    before = await stored(store, "user")
    with pytest.raises(errors.InvalidSenderIdError):
        await store.retrieve("user\0")
    assert await stored(store, "user") == before
