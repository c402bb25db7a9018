"""Events that are decoded when they are touched: once, and with the same results."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import tracemalloc
import weakref
from collections import deque
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden
from tests.conformance.kit import SENDER, add, new_session, said, turn
from tests.histories import Row, domain, events_of, everything_of, histories
from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.errors import CorruptEventError
from tracker_store_async.events import (
    ActionExecuted,
    ActiveLoop,
    DefinePrevUserUtteredFeaturization,
    EntitiesAdded,
    SlotSet,
    UserUttered,
    encode_event,
)
from tracker_store_async.events.codec import decode_event
from tracker_store_async.lazy_events import LazyEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker_store_async import DialogueStateTracker
    from tracker_store_async.events import Event


class Counter:
    """Counts the rows that are decoded."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: str | bytes) -> Any:
        self.count += 1
        return decode_event(data)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    for module in ("lazy_events", "loading", "serialization", "told_state"):
        name = f"tracker_store_async.{module}.decode_event"
        monkeypatch.setattr(name, counter)
    return counter


async def stored(*events: Any) -> InMemoryTrackerStore:
    store = InMemoryTrackerStore(domain())
    await add(store, SENDER, *events)
    return store


async def found_in(store: InMemoryTrackerStore) -> DialogueStateTracker:
    tracker = await store.retrieve(SENDER)
    assert tracker is not None
    return tracker


# -- the same answers ------------------------------------------------------------------


def built(rows: list[Row]) -> list[Event]:
    """Return events as an assistant makes them: not all of it is stored."""
    events = events_of(rows)
    for place, event in enumerate(events):
        if isinstance(event, UserUttered):
            events[place] = UserUttered(
                event.text,
                event.intent,
                event.entities,
                timestamp=event.timestamp,
                input_channel=event.input_channel,
                use_text_for_featurization=[None, True, False][place % 3],
            )
    return events


def spoil(tracker: DialogueStateTracker, how: str) -> None:
    """Change in place what is stored already."""
    loop, message = tracker.active_loop, tracker.latest_message
    trigger = None if loop is None else loop.trigger_message
    if how == "trigger" and trigger is not None:
        trigger["changed"] = True
    elif how == "entities" and message is not None:
        message.entities.append({"entity": "c", "value": 3})
    elif how == "intent" and message is not None:
        message.parse_data["intent"] = {"name": "changed"}
    elif how == "text":
        tracker.latest_bot_utterance.text = "changed"
        if message is not None:
            message.text = "changed"
    elif how == "featurisation" and message is not None:
        message.use_text_for_featurization = True


HOW = ("", "", "trigger", "entities", "intent", "text", "featurisation")


async def compare(
    parts: list[list[Row]],
    bound: int | None,
    hows: Sequence[str] = (),
    make: Callable[[list[Row]], list[Event]] = events_of,
) -> None:
    """Compare both ways to load, whatever is touched first."""
    store = InMemoryTrackerStore(domain())
    writer = None
    for part, how in zip_longest(parts, hows[: len(parts)], fillvalue=""):
        if writer is None or not hows:
            writer = await store.get_or_create_tracker(SENDER, None, False)
        spoil(writer, str(how))
        for event in make(list(part)):
            writer.update(event)
        await store.save(writer)
    for full in (False, True):
        eager = await load(store, bound, full=full, lazily=False)
        if eager is None:
            continue
        expected = everything_of(eager)
        size = len(eager.events)
        for first in {0, size // 3, size - 1} if size else ():
            lazy = await load(store, bound, full=full, lazily=True)
            assert lazy is not None
            assert place_in_log(lazy) == place_in_log(eager)
            touched = lazy.events[first]
            assert everything_of(lazy) == expected
            assert lazy.events[first] is touched
            assert is_placed(lazy) == is_placed(eager)
            assert place_in_log(lazy) == place_in_log(eager)


async def load(
    store: InMemoryTrackerStore, bound: int | None, *, full: bool, lazily: bool
) -> DialogueStateTracker | None:
    store._lazy_events = lazily
    try:
        return await store._load(
            SENDER, start=0 if full else None, last=None if full else bound
        )
    finally:
        store._lazy_events = True


def is_placed(tracker: DialogueStateTracker) -> list[bool]:
    return [event is tracker.latest_message for event in tracker.events]


def place_in_log(tracker: DialogueStateTracker) -> tuple[Any, ...]:
    log = tracker._log
    return (
        *(log.version, log.created_at, log.session_start, log.base, log.whole),
        *(log.input_channel, log.ends_with_session_action),
        tracker.get_latest_input_channel(),
    )


@settings(max_examples=150)
@given(
    st.lists(histories(), min_size=1, max_size=3),
    st.sampled_from([None, None, 1, 3, 100]),
)
def test_the_results_are_those_of_decoding_all(
    parts: list[list[Row]], bound: int | None
) -> None:
    asyncio.run(compare(parts, bound))


@settings(max_examples=150)
@given(
    st.lists(histories(max_size=12), min_size=1, max_size=4),
    st.lists(st.sampled_from(HOW), min_size=4, max_size=4),
    st.booleans(),
)
def test_so_they_are_whatever_was_not_stored(
    parts: list[list[Row]], hows: list[str], is_built: bool
) -> None:
    asyncio.run(compare(parts, None, hows, built if is_built else events_of))


LISTEN = {"event": "action", "name": "action_listen", "timestamp": 1.0}
A, B = {"entity": "a", "value": 1}, {"entity": "b", "value": 2}
SAID = {"event": "user", "text": "x", "parse_data": {"entities": [A]}, "timestamp": 2.0}
LOOP = {"event": "active_loop", "name": "f", "timestamp": 3.0}
MORE = {"event": "entities", "entities": [B], "timestamp": 4.0}
NEXT = {**SAID, "text": "y", "timestamp": 5.0}
DECIDED = {"event": "user_featurization", "use_text_for_featurization": False}
RAN = {"event": "action", "name": "utter_x", "timestamp": 6.0}
UNHEARD = {**DECIDED, "timestamp": 7.0}


@pytest.mark.parametrize(
    ("parts", "hows"),
    [
        # Entities that were added after a loop has begun are its message's once loaded.
        pytest.param([[LISTEN, SAID, LOOP, MORE, NEXT]], [], id="trigger message"),
        pytest.param([[LISTEN, SAID, LOOP], [MORE, NEXT]], ["", ""], id="in two saves"),
        pytest.param([[SAID, LOOP], [NEXT]], ["", "trigger"], id="changed trigger"),
        pytest.param([[SAID], [RAN]], ["", "intent"], id="changed intent"),
        pytest.param([[SAID], [RAN]], ["", "entities"], id="changed entities"),
        pytest.param([[SAID], [RAN]], ["", "text"], id="changed text"),
        # It was said, and nobody listened: what is in memory is not what is stored.
        pytest.param([[LISTEN, SAID, RAN, UNHEARD]], [], id="no effect"),
        pytest.param([[SAID], [RAN, UNHEARD]], ["", "featurisation"], id="changed"),
    ],
)
@pytest.mark.parametrize("make", [events_of, built])
async def test_what_was_not_stored_is_not_loaded(
    parts: list[list[Row]], hows: list[str], make: Callable[[list[Row]], list[Event]]
) -> None:
    await compare(parts, None, hows, make)


async def test_what_is_as_stored_is_not_decoded(decoded: Counter) -> None:
    listen = ActionExecuted("action_listen")
    for extra in ([], [DefinePrevUserUtteredFeaturization(True)], [ActiveLoop("f")]):
        store = await stored(*(SlotSet("name", n) for n in range(50)))
        await add(store, SENDER, listen, *turn("one"), *turn("two"), *extra, listen)
        decoded.count = 0
        await found_in(store)
        assert decoded.count <= 5


def test_golden_conversations_are_the_same() -> None:
    for conversation in golden.conversations():
        asyncio.run(compare(conversation["turns"], None))


# -- decoding --------------------------------------------------------------------------


async def test_loading_and_saving_decode_nothing(decoded: Counter) -> None:
    store = await stored(*turn("one"), *turn("two"), *turn("three"))
    for bound in (None, 100, 4):
        tracker = await store.get_or_create_tracker(SENDER, bound)
        assert tracker.latest_message is not None
        assert tracker.latest_message.text == "three"
        assert decoded.count == 0
        tracker.update(SlotSet("name", "x"))
        await store.save(tracker)
        # The one that leaves a full window is looked at.
        assert decoded.count == (1 if bound == 4 else 0)


async def test_an_event_is_decoded_once(decoded: Counter) -> None:
    count = 40
    store = await stored(*(SlotSet("name", n) for n in range(count)), *turn("end"))
    tracker = await found_in(store)
    last = tracker.events[-1]
    assert 0 < decoded.count < 10
    last.metadata["mine"] = True
    events = list(tracker.events)
    assert events[-1] is last
    assert decoded.count <= len(events) + 3  # some rows are looked at aside
    before = decoded.count
    again = (*tracker.events, *reversed(tracker.events), *tracker.applied_events())
    assert decoded.count == before
    assert {id(event) for event in again} == {id(event) for event in events}
    assert tracker.events[-1].metadata == {"mine": True}


async def test_the_latest_message_is_the_event() -> None:
    store = await stored(*turn("one"), *turn("two"))
    for bound in (None, 5):
        tracker = await store.get_or_create_tracker(SENDER, bound)
        message = tracker.latest_message
        assert message is not None
        message.text = "mine"
        assert any(event is message for event in tracker.events)


async def test_a_snapshot_of_another_version_is_not_used() -> None:
    store = await stored(*turn("one"), SlotSet("name", "right"))
    row = store._conversations[SENDER]
    for wrong in ('"version":999', '"version":null', '"version":0'):
        right = f'"version":{row.version}'
        text = str(row.snapshot)
        assert right in text
        row.snapshot = text.replace(right, wrong).replace("right", "wrong")
        assert (await found_in(store)).get_slot("name") == "right"
        row.snapshot = text


@pytest.mark.parametrize("bound", [None, 8])
async def test_a_corrupt_row_is_named_when_touched(bound: int | None) -> None:
    store = await stored(*(SlotSet("name", n) for n in range(20)))
    row = store._conversations[SENDER]
    row.rows[15] = (row.rows[15][0], '{"event": "slot", ')
    tracker = await store.get_or_create_tracker(SENDER, bound)
    assert tracker.get_slot("name") == 19
    with pytest.raises(CorruptEventError, match=r"\b15\b"):
        list(tracker.events)
    with pytest.raises(CorruptEventError, match=r"\b15\b"):
        await store.retrieve(SENDER, validate=True)
    with pytest.raises(CorruptEventError, match=r"\b15\b"):
        await store.retrieve_full_tracker(SENDER, validate=True)


async def test_a_tracker_holds_no_store() -> None:
    store = await stored(*turn("one"))
    tracker = await found_in(store)
    tracker._log.store = None
    gone = weakref.ref(store)
    await store.close()
    del store
    gc.collect()
    assert gone() is None
    assert said(tracker) == ["one"]


async def test_it_costs_its_bytes() -> None:
    events = (UserUttered("é" * 100, metadata={"x": "y" * 200}) for _ in range(1000))
    store = await stored(*events)
    rows = store._conversations[SENDER].rows
    size_bytes = sum(len(data.encode()) for _, data in rows)
    gc.collect()
    tracemalloc.start()
    tracker = await found_in(store)
    gc.collect()
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(tracker.events) == 1000
    assert held_bytes < 1.25 * size_bytes


async def test_copies_and_pickles_are_the_same() -> None:
    store = await stored(*turn("one"), *new_session(), *turn("three"))
    expected = everything_of(await found_in(store))
    assert everything_of((await found_in(store)).copy()) == expected
    assert everything_of(copy.deepcopy(await found_in(store))) == expected
    assert everything_of(pickle.loads(pickle.dumps(await found_in(store)))) == expected


# -- the deque -------------------------------------------------------------------------


ROWS = [
    {"event": "slot", "name": f"{n}", "value": [n], "timestamp": n}
    for n in range(1, 41)
]
SHARED, ADDED = events_of(ROWS), events_of(ROWS)

TEXTS = [encode_event(event) for event in SHARED]


def lazy_of(size: int, maxlen: int | None) -> LazyEvents:
    return LazyEvents.of_rows(
        "x", 0, TEXTS[:size], maxlen=maxlen, is_whole=size % 2 > 0
    )


OPERATIONS = {
    "append": lambda d, n: d.append(ADDED[n]),
    "appendleft": lambda d, n: d.appendleft(ADDED[n]),
    "extend": lambda d, n: d.extend(ADDED[:n]),
    "extendleft": lambda d, n: d.extendleft(ADDED[:n]),
    "iadd": lambda d, n: d.__iadd__(ADDED[:n]) and None,
    "pop": lambda d, n: d.pop(),
    "popleft": lambda d, n: d.popleft(),
    "remove": lambda d, n: d.remove(SHARED[n]),
    "insert": lambda d, n: d.insert(n, ADDED[0]),
    "reverse": lambda d, n: d.reverse(),
    "rotate": lambda d, n: d.rotate(n),
    "clear": lambda d, n: d.clear(),
    "getitem": lambda d, n: d[n],
    "negative": lambda d, n: d[-n],
    "setitem": lambda d, n: d.__setitem__(n, ADDED[1]),
    "delitem": lambda d, n: d.__delitem__(n),
    "list": lambda d, n: list(d),
    "reversed": lambda d, n: list(reversed(d)),
    "some reversed": lambda d, n: [next(reversed(d))] if d else [],
    "contains": lambda d, n: SHARED[n] in d,
    "index": lambda d, n: d.index(SHARED[n]),
    "count": lambda d, n: d.count(SHARED[n]),
    "copy": lambda d, n: list(d.copy()),
    "copy.copy": lambda d, n: list(copy.copy(d)),
    "pickle": lambda d, n: list(pickle.loads(pickle.dumps(d))),
    "len": lambda d, n: len(d),
    "equal": lambda d, n: d == deque(SHARED[:n]),
    "equal to it": lambda d, n: deque(SHARED[:n]) == d,
    "slice": lambda d, n: d[1:n],
    "plus": lambda d, n: list(d + deque(ADDED[:n])),
    "times": lambda d, n: list(d * 2),
    "maxlen": lambda d, n: d.maxlen,
}


@settings(max_examples=400)
@given(
    st.integers(0, 30),
    st.sampled_from([None, 0, 1, 5, 30]),
    st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 31))),
)
def test_it_is_a_deque(
    size: int, maxlen: int | None, steps: list[tuple[str, int]]
) -> None:
    lazy = lazy_of(size, maxlen)
    model: deque[Any] = deque(SHARED[:size], maxlen)
    for name, number in steps:
        assert outcome(name, lazy, number) == outcome(name, model, number), name
    assert list(lazy) == list(model)
    assert [event.as_dict() for event in lazy] == [each.as_dict() for each in model]


def outcome(name: str, events: Any, number: int) -> Any:
    try:
        return OPERATIONS[name](events, number)
    except (IndexError, ValueError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("decides", [None, True])
async def test_what_is_not_stored_of_a_message_is_not_loaded(
    decides: bool | None,
) -> None:
    message = UserUttered(
        "hi", {"name": "greet"}, [{"entity": "a"}], use_text_for_featurization=decides
    )
    added = EntitiesAdded([{"entity": "b"}])
    store = await stored(ActionExecuted("action_listen"), message, added)
    eager = await load(store, None, full=False, lazily=False)
    assert eager is not None
    assert everything_of(await found_in(store)) == everything_of(eager)
    store = await stored(ActionExecuted("action_listen"), message)
    eager = await load(store, None, full=False, lazily=False)
    assert eager is not None
    assert everything_of(await found_in(store)) == everything_of(eager)
