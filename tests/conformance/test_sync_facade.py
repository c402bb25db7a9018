"""The sync facade gives every backend without `await`: a round trip through each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.conformance.conftest import backend_params
from tests.conformance.kit import dicts, held, new_session, said, turn, update, user
from tracker_store_async import DialogueStateTracker, SyncTrackerStore, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conformance.backends import Storage


@pytest.fixture(params=backend_params())
def sync_store(
    request: pytest.FixtureRequest, storage_of: Callable[[str], Storage]
) -> Iterator[SyncTrackerStore]:
    """Give the facade of a store on an empty storage."""
    storage = storage_of(request.param)
    storage.wipe()
    with SyncTrackerStore(storage.store) as store:
        yield store
    storage.forget()


def test_a_conversation_turn_by_turn(sync_store: SyncTrackerStore) -> None:
    old, new = [*new_session(), *turn("old")], [*new_session(), *turn("new")]
    for events in (old, new):
        tracker = sync_store.get_or_create_tracker("a", append_action_listen=False)
        update(tracker, events)
        sync_store.save(tracker)
    latest, full = sync_store.retrieve("a"), sync_store.retrieve_full_tracker("a")
    assert held(latest) == dicts(new)
    assert held(full) == dicts([*old, *new])
    window = sync_store.get_or_create_tracker("a", max_event_history=1)
    assert held(window) == dicts(new[-1:])


def test_listing_and_deleting(sync_store: SyncTrackerStore) -> None:
    names = [f"user-{n}" for n in range(5)]
    sync_store.save_many(
        [DialogueStateTracker.from_events(name, turn()) for name in names]
    )
    assert sorted(sync_store.keys()) == names
    listed = [summary.sender_id for summary in sync_store.conversations(page_size=2)]
    assert sorted(listed) == names
    assert sync_store.delete("user-3")
    assert not sync_store.exists("user-3")
    assert sync_store.health().reachable


def test_many_threads_write_one_conversation(sync_store: SyncTrackerStore) -> None:
    def talk(writer: int) -> None:
        for n in range(3):
            tracker = sync_store.get_or_create_tracker("a")
            tracker.update(user(f"{writer}.{n}"))
            sync_store.save(tracker)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(talk, range(6)))
    texts = said(sync_store.retrieve("a"))
    assert sorted(map(str, texts)) == [f"{w}.{n}" for w in range(6) for n in range(3)]
    for writer in range(6):
        own = [text for text in texts if str(text).startswith(f"{writer}.")]
        assert own == [f"{writer}.{n}" for n in range(3)]


def test_errors_are_those_of_the_store(sync_store: SyncTrackerStore) -> None:
    with pytest.raises(errors.InvalidSenderIdError):
        sync_store.retrieve("")
    sync_store.close()
    with pytest.raises(errors.StoreClosedError):
        sync_store.retrieve("a")
