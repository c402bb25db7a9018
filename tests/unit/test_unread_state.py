"""A state that is read when it is touched: once, and as if it had been read at once."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.kit import SENDER, add, turn, user
from tests.histories import Row, events_of, everything_of, histories
from tests.unit.test_lazy_events import found_in, stored
from tracker_store_async import unread_state
from tracker_store_async.errors import CorruptEventError
from tracker_store_async.events import ActionExecuted, SlotSet, UserUttered
from tracker_store_async.unread_state import MOST_ROWS, UnreadState

if TYPE_CHECKING:
    from collections.abc import Callable


STATE = (
    *("slots", "followup_action", "latest_action", "latest_message"),
    *("latest_bot_utterance", "active_loop", "latest_action_name"),
)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each state that is read."""
    noted: list[str] = []
    tell = UnreadState._told

    def told(self: UnreadState) -> Any:
        noted.append(self._sender_id)
        return tell(self)

    monkeypatch.setattr(UnreadState, "_told", told)
    return noted


# -- when it is read -------------------------------------------------------------------


async def test_whoever_does_not_look_at_the_state_does_not_read_it(
    read: list[str],
) -> None:
    store = await stored(*turn())
    tracker = await found_in(store)
    assert (tracker.version, len(tracker.events)) == (len(turn()), len(turn()))
    assert SENDER in repr(tracker)
    assert (tracker.user_id, tracker.unsaved_events) == (None, [])
    assert not tracker.is_truncated
    assert read == []


@pytest.mark.parametrize("name", STATE)
async def test_it_is_read_once(read: list[str], name: str) -> None:
    store = await stored(user(input_channel="rest"), *turn()[1:])
    tracker = await found_in(store)
    first = getattr(tracker, name)
    for each in (*STATE, name):
        getattr(tracker, each)
    assert tracker.events[-1] is not None
    assert tracker.get_latest_input_channel() == "rest"
    assert tracker._log.input_channel == "rest"
    assert getattr(tracker, name) is first
    assert read == [SENDER]


TOUCHES: dict[str, Callable[[Any], Any]] = {
    "a slot": lambda tracker: tracker.get_slot("name"),
    "an event": lambda tracker: tracker.events[0],
    "the channel": lambda tracker: tracker.get_latest_input_channel(),
    "its place": lambda tracker: tracker._log.input_channel,
    "a copy": lambda tracker: tracker.copy(),
    "pickling": pickle.dumps,
    "a new event": lambda tracker: tracker.update(SlotSet("name", "x")),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES.keys())
async def test_touching_it_reads_it(
    read: list[str], touch: Callable[[Any], Any]
) -> None:
    tracker = await found_in(await stored(*turn()))
    touch(tracker)
    assert read == [SENDER]


async def test_that_of_many_events_is_read_at_once(read: list[str]) -> None:
    events = [ActionExecuted(f"a{number}") for number in range(MOST_ROWS)]
    store = await stored(*events)
    await found_in(store)
    assert read == []
    await add(store, SENDER, ActionExecuted("one more"))
    read.clear()
    tracker = await found_in(store)
    assert read == [SENDER]
    assert tracker.latest_action_name == "one more"
    assert read == [SENDER]


# -- what is read ----------------------------------------------------------------------


async def test_the_latest_message_is_the_event_whatever_is_touched_first() -> None:
    store = await stored(user("hi"), ActionExecuted("a"))
    for first in ("events", "state"):
        tracker = await found_in(store)
        if first == "events":
            event = tracker.events[0]
            assert event is tracker.latest_message
        else:
            message = tracker.latest_message
            assert tracker.events[0] is message


async def test_what_is_set_before_it_is_read_stays() -> None:
    tracker = await found_in(await stored(*turn()))
    expected = tracker.latest_action_name
    tracker = await found_in(await stored(*turn()))
    message = UserUttered("another")
    tracker.followup_action, tracker.latest_message = "mine", message
    assert tracker.latest_action_name == expected
    assert (tracker.followup_action, tracker.latest_message) == ("mine", message)
    assert tracker.latest_message is message
    assert isinstance(tracker.events[0], UserUttered | ActionExecuted)


async def test_a_name_that_is_none_is_said_to_be_none(read: list[str]) -> None:
    tracker = await found_in(await stored(*turn()))
    for _ in range(2):
        with pytest.raises(AttributeError, match="no_such_name"):
            tracker.no_such_name  # type: ignore[attr-defined]  # noqa: B018
    assert read == [SENDER]


async def test_copies_are_whole() -> None:
    store = await stored(*turn())
    expected = everything_of(await found_in(store))
    for make in (
        copy.copy,
        copy.deepcopy,
        lambda tracker: pickle.loads(pickle.dumps(tracker)),
        lambda tracker: tracker.copy(),
    ):
        made = make(await found_in(store))
        assert made.events[0] is made.latest_message
        assert everything_of(made) == expected


async def test_two_threads_that_touch_it_at_once_get_the_same() -> None:
    for _ in range(20):
        tracker = await found_in(await stored(*turn()))
        begin, found = threading.Barrier(4), []

        def look(
            tracker: Any = tracker, begin: Any = begin, found: Any = found
        ) -> None:
            begin.wait()
            found.append((tracker.latest_message, tracker.get_slot("name")))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert tracker.latest_message is tracker.events[0] or (
            tracker.latest_message in [each[0] for each in found]
        )


async def test_what_is_unread_keeps_no_store() -> None:
    store = await stored(*turn())
    tracker = await found_in(store)
    unread = tracker.__dict__["_unread_state"]
    gone = weakref.ref(store)
    del store, tracker
    gc.collect()
    assert gone() is None
    assert unread.read().attributes["latest_message"] is not None


async def test_a_row_that_is_corrupt_is_told_whenever_the_state_is_touched() -> None:
    store = await stored(user("hi"), ActionExecuted("a"))
    log = store._conversations[SENDER]
    log.rows[0] = (log.rows[0][0], "[]")
    tracker = await found_in(store)
    for touch in (
        lambda: tracker.latest_message,
        lambda: tracker.latest_message,
        lambda: tracker.get_slot("name"),
        lambda: tracker.events[0],
        lambda: tracker._log.input_channel,
        lambda: pickle.dumps(tracker),
    ):
        with pytest.raises(CorruptEventError, match="0"):
            touch()
    with pytest.raises(CorruptEventError):
        await store.retrieve(SENDER, validate=True)


async def test_a_state_that_is_no_json_is_not_used() -> None:
    store = await stored(user("hi"), SlotSet("name", "x"))
    expected = everything_of(await found_in(store))
    log = store._conversations[SENDER]
    log.snapshot = log.snapshot[:-9]
    assert everything_of(await found_in(store)) == expected


@pytest.mark.parametrize("slots", ['"slots":[]', '"slots":null', '"none":{}'])
async def test_a_state_of_another_shape_is_not_used(slots: str) -> None:
    store = await stored(user("hi"), SlotSet("name", "x"))
    expected = everything_of(await found_in(store))
    log = store._conversations[SENDER]
    log.snapshot = log.snapshot.replace('"slots":{"name":"x"}', slots)
    assert slots in log.snapshot
    assert everything_of(await found_in(store)) == expected


async def test_a_tracker_that_is_brought_up_to_date_need_not_have_been_read() -> None:
    store = await stored(*turn())
    since = await found_in(store)
    await add(store, SENDER, user("once more"), SlotSet("name", "y"))
    found = await store.retrieve(SENDER, since=since)
    assert found is since
    assert everything_of(since) == everything_of(await found_in(store))
    assert since._log.input_channel == (await found_in(store))._log.input_channel


# -- the same as reading it at once ----------------------------------------------------

STEPS: dict[str, Callable[[Any], Any]] = {
    "slot": lambda tracker: tracker.get_slot("name"),
    "first": lambda tracker: [each.as_dict() for each in list(tracker.events)[:1]],
    "last": lambda tracker: [each.as_dict() for each in list(tracker.events)[-1:]],
    "channel": lambda tracker: tracker.get_latest_input_channel(),
    "place": lambda tracker: tracker._log.input_channel,
    "follow": lambda tracker: tracker.trigger_followup_action("next"),
    "clear": lambda tracker: tracker.clear_followup_action(),
    "state": lambda tracker: tracker.current_state(),
    "applied": lambda tracker: [each.as_dict() for each in tracker.applied_events()],
    "loop": lambda tracker: tracker.active_loop_name,
}


@settings(max_examples=200)
@given(
    histories(max_size=25),
    st.lists(st.one_of(st.sampled_from(sorted(STEPS)), histories(max_size=3))),
)
def test_any_steps_after_a_load_go_as_on_a_tracker_that_was_read_at_once(
    rows: list[Row], steps: list[str | list[Row]]
) -> None:
    async def run() -> None:
        answers = []
        for lazily in (True, False):
            store = await stored(*events_of(rows))
            store._lazy_events = lazily
            tracker = await store.retrieve(SENDER)
            if tracker is None:
                return
            said: list[Any] = []
            for step in steps:
                if isinstance(step, str):
                    said.append(STEPS[step](tracker))
                else:
                    for event in events_of(step):
                        tracker.update(event)
            await store.save(tracker)
            said += [everything_of(tracker), tracker._log.input_channel]
            store._lazy_events = True  # what is no event only the state tells
            again = await store.retrieve(SENDER)
            assert again is not None
            answers.append([*said, everything_of(again)])
        assert answers[0] == answers[1]

    asyncio.run(run())


def test_the_bound_is_one_turn_of_work() -> None:
    """Whoever touches an unread state may have to apply so many events."""
    from tracker_store_async.loading import EVENTS_PER_TURN

    assert unread_state.MOST_ROWS <= EVENTS_PER_TURN
