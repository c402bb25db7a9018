"""`max_event_history` bounds what is read and held; the state is right all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    Spy,
    action,
    add,
    bot,
    dicts,
    has,
    held,
    new_session,
    replayed,
    said,
    slot,
    stamp,
    state,
    stored_dicts,
    turn,
    update,
    user,
)
from tracker_store_async import Domain, errors
from tracker_store_async.events import (
    ActionExecutionRejected,
    ActionReverted,
    ActiveLoop,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    EntitiesAdded,
    FollowupAction,
    LoopInterrupted,
    Restarted,
    UserUtteranceReverted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.backends import Storage
    from tracker_store_async import DialogueStateTracker, TrackerStore
    from tracker_store_async.events import Event
    from tracker_store_async.rows import Read, StoredConversation

ENTITY = {"entity": "number", "value": 4, "start": 0, "end": 1}


def form_events() -> list[Event]:
    """Return a session in which everything that makes up the state happens."""
    return [
        *new_session(),
        user("book a table", input_channel="web"),
        action("booking_form"),
        ActiveLoop("booking_form", timestamp=stamp()),
        slot("people", 4),
        bot("for when?"),
        action(),
        user("what?", intent={"name": "faq"}, entities=[dict(ENTITY)]),
        EntitiesAdded([{"entity": "x", "value": 1}], timestamp=stamp()),
        ActionExecutionRejected("booking_form", timestamp=stamp()),
        LoopInterrupted(True, timestamp=stamp()),
        slot("requested_slot", "time"),
        ConversationPaused(timestamp=stamp()),
        FollowupAction("action_help", timestamp=stamp()),
        BotUttered("later", data={"buttons": [1, {"a": None}]}, timestamp=stamp()),
    ]


async def window(
    store: TrackerStore, size: int, sender_id: str = SENDER
) -> DialogueStateTracker:
    return await store.get_or_create_tracker(sender_id, max_event_history=size)


async def test_a_window_holds_the_last_events(storage: Storage) -> None:
    events = [*turn("one"), *turn("two"), *turn("three")]
    await add(storage.store(), SENDER, *events)
    store = storage.store(max_event_history=5)
    assert held(await has(store)) == dicts(events[-5:])
    assert held(await store.get_or_create_tracker(SENDER)) == dicts(events[-5:])
    assert held(await store.create_tracker(SENDER)) == dicts(events[-5:])
    assert held(await store.retrieve_full_tracker(SENDER)) == dicts(events)


async def test_a_window_reads_no_more_than_it_holds(store: TrackerStore) -> None:
    await add(store, SENDER, *(user(str(n)) for n in range(50)))
    rows_read = []
    read = store._read

    async def counting(request: Read) -> StoredConversation | None:
        found = await read(request)
        assert found is not None
        rows_read.append(len(found.rows))
        return found

    store._read = counting  # type: ignore[method-assign]
    tracker = await window(store, 7)
    tracker.update(user("more"))
    await store.save(tracker)
    assert rows_read == [7]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_the_state_counts_what_lies_before_the_window(
    store: TrackerStore, size: int
) -> None:
    events = form_events()
    await add(store, SENDER, *events)
    tracker = await window(store, size)
    assert held(tracker) == held(replayed(events))[-size:]
    assert state(tracker) == state(replayed(events))
    assert tracker.get_slot("people") == 4
    assert tracker.active_loop_name == "booking_form"


@pytest.mark.parametrize("size", [1, 4])
async def test_turns_saved_through_a_window_keep_the_state_right(
    store: TrackerStore, size: int
) -> None:
    events = form_events()
    for event in events:
        tracker = await store.get_or_create_tracker(
            SENDER, max_event_history=size, append_action_listen=False
        )
        tracker.update(event)
        await store.save(tracker)
        assert len(tracker.events) <= size
    assert await stored_dicts(store) == dicts(events)
    expected = state(replayed(events))
    assert state(await window(store, size)) == expected
    assert state(await window(store, 3)) == expected
    assert state(await has(store)) == expected


@pytest.mark.parametrize("size", [1, 4])
async def test_one_tracker_with_a_window_is_used_for_many_turns(
    store: TrackerStore, size: int
) -> None:
    events = form_events()
    tracker = await store.get_or_create_tracker(
        SENDER, max_event_history=size, append_action_listen=False
    )
    for event in events:
        tracker.update(event)
        await store.save(tracker)
    assert state(tracker) == state(replayed(events))
    assert state(await window(store, 1)) == state(replayed(events))


REVERTS = {
    "rewind": lambda: [UserUtteranceReverted(timestamp=stamp())],
    "undo": lambda: [ActionReverted(timestamp=stamp())],
    "restart": lambda: [Restarted(timestamp=stamp())],
    "reset": lambda: [AllSlotsReset(timestamp=stamp())],
    "undo twice": lambda: [
        ActionReverted(timestamp=stamp()),
        ActionReverted(timestamp=stamp()),
    ],
    "rewind, then on": lambda: [
        UserUtteranceReverted(timestamp=stamp()),
        slot("after", 1),
        user("again"),
    ],
    "restart, then on": lambda: [Restarted(timestamp=stamp()), slot("after", 1)],
}


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("revert", REVERTS.values(), ids=REVERTS)
async def test_what_reverts_events_reaches_behind_the_window(
    store: TrackerStore, revert: Callable[[], list[Event]], size: int
) -> None:
    events = [*new_session(), *turn("one"), slot("a", 1), *turn("two"), slot("a", 2)]
    await add(store, SENDER, *events)
    tracker = await window(store, size)
    reverting = revert()
    update(tracker, reverting)
    await store.save(tracker)
    expected = replayed([*events, *reverting])
    assert state(tracker) == state(expected)
    assert state(await has(store)) == state(expected)
    assert state(await window(store, 1)) == state(expected)
    assert await stored_dicts(store) == dicts([*events, *reverting])


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_session_that_begins_behind_the_window_starts_afresh(
    store: TrackerStore, size: int
) -> None:
    old = [*new_session(), user("old", input_channel="old channel"), slot("a", 1)]
    new = [
        *new_session(),
        user("new", input_channel="new channel"),
        slot("b", 2),
        *turn("more"),
        slot("c", 3),
    ]
    await add(store, SENDER, *old)
    tracker = await window(store, size)
    update(tracker, new)
    await store.save(tracker)
    expected = state(replayed(new))
    assert held(await has(store)) == dicts(new)
    assert state(await window(store, size)) == expected
    assert state(await has(store)) == expected


@pytest.mark.parametrize("size", [1, 3])
async def test_a_new_session_is_rewound_in_a_window(
    store: TrackerStore, size: int
) -> None:
    await add(store, SENDER, *new_session(), *turn("old"), slot("a", 1))
    tracker = await window(store, size)
    new = [
        *new_session(),
        user("first", input_channel="web"),
        action("utter_a"),
        slot("b", 2),
        *turn("second"),
        UserUtteranceReverted(timestamp=stamp()),
    ]
    update(tracker, new)
    await store.save(tracker)
    assert state(await has(store)) == state(replayed(new))
    assert state(await window(store, size)) == state(replayed(new))


async def test_a_bound_for_one_call_does_not_stick(store: TrackerStore) -> None:
    events = [*turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    assert len((await window(store, 2)).events) == 2
    assert store.max_event_history is None
    assert held(await has(store)) == dicts(events)
    assert held(await store.get_or_create_tracker(SENDER)) == dicts(events)


async def test_the_bound_of_the_store_can_be_changed(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("one"), *turn("two"))
    store.max_event_history = 3
    assert len((await has(store)).events) == 3
    store.max_event_history = None
    assert len((await has(store)).events) == 8
    with pytest.raises(errors.ConfigurationError):
        store.max_event_history = 0


async def test_a_window_of_a_new_conversation(storage: Storage) -> None:
    store = storage.store(max_event_history=2)
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn("one"))
    assert len(tracker.events) == 2
    await store.save(tracker)
    assert said(await store.retrieve_full_tracker(SENDER)) == ["one"]


async def test_a_window_knows_slots_that_the_domain_gives(storage: Storage) -> None:
    domain = Domain.from_dict(
        {
            "slots": {
                "people": {"type": "float", "initial_value": 2.0},
                "tags": {"type": "list", "initial_value": ["x"]},
            }
        }
    )
    store = storage.store(domain=domain, max_event_history=1)
    events = [*new_session(), slot("people", 5), slot("tags", ["y"]), user("hi")]
    await add(store, SENDER, *events)
    assert state(await has(store)) == state(replayed(events, store))
    tracker = await has(store)
    tracker.update(AllSlotsReset(timestamp=stamp()))
    await store.save(tracker)
    found = await has(store)
    assert (found.get_slot("people"), found.get_slot("tags")) == (2.0, ["x"])


async def test_a_window_is_saved_without_reading(store: TrackerStore) -> None:
    await add(store, SENDER, *new_session(), *turn(), *turn())
    tracker = await window(store, 2)
    update(tracker, turn("more"))
    spy = Spy(store)
    await store.save(tracker)
    assert spy.calls == ["_append"]


async def test_a_copy_of_a_window_is_saved_as_it_would_be(store: TrackerStore) -> None:
    events = form_events()
    await add(store, SENDER, *events)
    tracker = (await window(store, 2)).copy()
    more = [slot("time", "now"), user("ok", input_channel="phone")]
    update(tracker, more)
    await store.save(tracker)
    assert state(await window(store, 1)) == state(replayed([*events, *more]))


@pytest.mark.parametrize("size", [1, 2])
async def test_a_session_longer_than_the_window_knows_its_own_channel(
    store: TrackerStore, size: int
) -> None:
    await add(store, SENDER, *new_session(), user("old", input_channel="old channel"))
    tracker = await window(store, size)
    new: list[Event] = []
    for events in (
        new_session(),
        [slot("a", 1), slot("b", 2), slot("c", 3)],
        [user("new", input_channel="new channel"), slot("d", 4)],
        [slot("e", 5), slot("f", 6)],
    ):
        new += events
        update(tracker, events)
        await store.save(tracker)
        assert state(await window(store, 1)) == state(replayed(new))


async def test_a_rewound_window_is_right_once_a_copy_of_it_is_saved(
    store: TrackerStore,
) -> None:
    events = [*new_session(), *turn("one"), slot("a", 1), *turn("two"), slot("a", 2)]
    await add(store, SENDER, *events)
    tracker = await window(store, 1)
    rewind = UserUtteranceReverted(timestamp=stamp())
    tracker.update(rewind)
    copy = tracker.copy()
    await store.save(copy)
    await store.save(tracker)
    assert state(tracker) == state(copy) == state(replayed([*events, rewind]))
    assert await stored_dicts(store) == dicts([*events, rewind])


@pytest.mark.parametrize("size", [1, 5, 100])
async def test_a_loop_of_an_earlier_session_is_no_loop_of_this_one(
    store: TrackerStore, size: int
) -> None:
    """In Rasa a loop counts in what a tracker holds: the latest session alone."""
    old = [*new_session(), action("form"), ActiveLoop("form", timestamp=stamp())]
    await add(store, SENDER, *old)
    tracker = await window(store, size)
    undo = ActionReverted(timestamp=stamp())
    new = [*new_session(), action("form"), action("form"), undo]
    update(tracker, new)
    await store.save(tracker)
    for _ in range(2):
        assert state(await window(store, 1)) == state(replayed(new))
        assert state(await has(store)) == state(replayed(new))
        assert (await has(store)).latest_action_name == "form"
        more = [slot("a", number) for number in range(3)]
        update(tracker, more)  # the window moves on
        await store.save(tracker)
        new += more


async def test_a_window_that_only_the_stored_session_completes(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, ActiveLoop("form", timestamp=stamp()))
    tracker = await window(store, 5)
    new = new_session()
    update(tracker, new)
    await store.save(tracker)
    undo = ActionReverted(timestamp=stamp())
    more = [action("form"), action("form"), undo, slot("a", 1), slot("b", 2)]
    update(tracker, more)
    await store.save(tracker)
    expected = state(replayed([*new, *more]))
    assert state(await window(store, 1)) == state(await has(store)) == expected
    assert state(tracker) == expected
