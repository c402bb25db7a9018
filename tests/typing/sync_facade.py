"""What a type checker knows of the sync facade and of wrapped legacy stores.

Checked by mypy; every wrong type here is an error there. It is never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_type

from tracker_store_async import (
    AwaitableTrackerStore,
    ConversationSummary,
    DialogueStateTracker,
    Domain,
    EventBroker,
    Health,
    InMemoryTrackerStore,
    SyncTrackerStore,
    TrackerStore,
)


def calls(store: SyncTrackerStore, tracker: DialogueStateTracker) -> None:
    """Use every method of the facade."""
    assert_type(store.get_or_create_tracker("alice"), DialogueStateTracker)
    assert_type(store.get_or_create_tracker("alice", 5, False), DialogueStateTracker)
    assert_type(store.get_or_create_full_tracker("alice"), DialogueStateTracker)
    assert_type(store.create_tracker("alice"), DialogueStateTracker)
    assert_type(store.init_tracker("alice"), DialogueStateTracker)
    assert_type(store.deserialise_tracker("alice", b"{}"), DialogueStateTracker)
    assert_type(store.retrieve("alice"), DialogueStateTracker | None)
    assert_type(
        store.retrieve_full_tracker("alice", timeout_seconds=0.5),
        DialogueStateTracker | None,
    )
    assert_type(store.exists("alice"), bool)
    assert_type(store.delete("alice", before_position=3), bool)
    assert_type(store.keys(), Iterable[str])
    assert_type(store.conversations(user_id="u"), Iterator[ConversationSummary])
    assert_type(store.health(), Health)
    store.save(tracker, timeout_seconds=1)
    store.save_many([tracker], timeout_seconds=1)
    store.stream_events(tracker)
    store.open()
    store.close(timeout_seconds=1)


def properties(store: SyncTrackerStore, domain: Domain, broker: EventBroker) -> None:
    """Read and set the properties."""
    assert_type(store.domain, Domain)
    assert_type(store.event_broker, EventBroker | None)
    assert_type(store.max_event_history, int | None)
    store.domain, store.event_broker, store.max_event_history = domain, broker, 5


def ways_to_make_one(store: TrackerStore) -> None:
    """Make a facade of a store, of a function and of a class."""
    assert_type(SyncTrackerStore(store), SyncTrackerStore)
    SyncTrackerStore(lambda: InMemoryTrackerStore(max_event_history=5))
    SyncTrackerStore(InMemoryTrackerStore, timeout_seconds=2.5)
    assert_type(SyncTrackerStore.create(None), SyncTrackerStore)
    with SyncTrackerStore(store) as entered:
        assert_type(entered, SyncTrackerStore)
    legacy = AwaitableTrackerStore(object(), max_workers=2, on_conflict="raise")
    SyncTrackerStore(legacy)


def mistakes(store: SyncTrackerStore, tracker: DialogueStateTracker) -> None:
    """Each of these lines is refused, or mypy calls its `ignore` unused."""
    SyncTrackerStore(object())  # type: ignore[arg-type]
    SyncTrackerStore(store)  # type: ignore[arg-type]
    store.save(tracker, 5)  # type: ignore[call-arg]
    store.save("alice")  # type: ignore[arg-type]
    print(store.retrieve("alice").events)  # type: ignore[union-attr]
    AwaitableTrackerStore(object(), save_scope="all")  # type: ignore[arg-type]
