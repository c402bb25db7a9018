"""A wrapper forwards everything, and a member that nobody decided about is noticed."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, user
from tracker_store_async import AwaitableTrackerStore, InMemoryTrackerStore, errors
from tracker_store_async.lifecycle import Lifecycle
from tracker_store_async.rows import Append, Listing, Read, Rewrite
from tracker_store_async.store import TrackerStore
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from tracker_store_async.broker import EventMessage

FORWARDED = {
    *("backend_name", "domain", "event_broker", "max_event_history", "on_conflict"),
    *("record_exp", "conflict_count", "_domain", "_max_event_history"),
    *("_on_publish_error", "_publisher", "_tells_logs_apart", "_creates_layout"),
    "_renews_credentials",
    "_seals",
    *("outbox", "_stores_message_bodies"),
    "_lazy_events",
    "_keeps_columns",
    "_upgrades_layout",
    "_observer",
}
"""Read from the wrapped store and set there."""

PRIMITIVES: dict[str, tuple[Any, ...]] = {
    "_append": (Append("x", 0, [], 0, "", 0.0),),
    "_append_many": ([Append("x", 0, [], 0, "", 0.0)],),
    "_read": (Read("x", 0.0),),
    "_delete": ("x", None, 0.0, 5),
    "_rewrite": (Rewrite("x", 0, 0, 0.0, [], frozenset(), "", None, 0.0),),
    "_list": (Listing(0.0, 1),),
    "_upkeep": (),
    "_health": (),
}
"""Awaited of the wrapped store, with the arguments as they are."""

CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "_check_size": (("x", [], ""), {}),
    "_new_tracker": (("x",), {"max_event_history": 3}),
    "_slots": ((), {}),
    "_now": ((), {}),
    "_open_outbox": ((), {}),
    "_pool_use": ((), {}),
}
"""Called on the wrapped store, with the arguments as they are."""

KEYWORDS: dict[str, dict[str, Any]] = {"_upkeep": {"apply": True}}
"""What a primitive is given by name."""

LIFECYCLE = {"_open", "_close"}
"""Open and close the wrapped store as a whole."""

OWN = {
    # the shared bodies, which work on the primitives above, and `create`
    *("init_tracker", "get_or_create_tracker", "get_or_create_full_tracker"),
    *("create_tracker", "_create", "save", "save_many", "retrieve"),
    *("retrieve_full_tracker", "exists", "delete", "keys", "conversations"),
    *("stream_events", "deserialise_tracker", "health", "create"),
    *("_fetch", "_load"),
    # one after the other of the wrapper's own primitives
    "_read_many",
    # what each store object has for itself
    *("open", "_ensure_open", "_connect", "_wrong_loop", "close"),
    *("_is_open_elsewhere", "_close_to_the_end", "_loop", "_closed", "_opening"),
    *("_is_closed_error", "_reopens", "_pid"),
    *("_tell", "_with_publishing", "_close_publishing", "_broker_handle"),
    *("_loop_turns", "_loader", "_saver", "_relay"),
    # taken over: the outermost store opens and closes the broker
    *("owns_broker", "_is_wrapped"),
}
"""The wrapper's own; nothing of it may be forwarded."""


BOOKKEEPING = {"_is_protocol", "_is_runtime_protocol"}
"""What Python notes on every Protocol."""


def members() -> set[str]:
    """Return the names of everything that a store has."""
    store = InMemoryTrackerStore()
    names = {*vars(TrackerStore), *vars(Lifecycle), *vars(store)}
    for protocol in (TrackerStore, Lifecycle):
        names |= inspect.get_annotations(protocol).keys()
    return {n for n in names if not n.startswith(("__", "_abc_"))} - BOOKKEEPING


def test_every_member_of_a_store_is_decided_about() -> None:
    decided = FORWARDED | PRIMITIVES.keys() | CALLS.keys() | LIFECYCLE | OWN
    assert members() == decided


class Probe(InMemoryTrackerStore):
    """Notes the calls of everything that is to be forwarded, and answers by name."""

    color = "blue"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    async def _open(self) -> None:
        await super()._open()
        self.calls.append("open")

    async def _close(self) -> None:
        self.calls.append("close")


def answer(probe: Probe, name: str, *, is_async: bool) -> None:
    """Replace a method of the probe by one that notes its arguments."""

    def call(*args: Any, **kwargs: Any) -> str:
        probe.calls.append((name, args, kwargs))
        return f"the answer to {name}"

    async def call_async(*args: Any, **kwargs: Any) -> str:
        return call(*args, **kwargs)

    setattr(probe, name, call_async if is_async else call)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", sorted(FORWARDED))
def test_attributes_are_those_of_the_wrapped_store(name: str, depth: int) -> None:
    probe = Probe()
    wrapper: TrackerStore = probe
    for _ in range(depth):
        wrapper = WrapperTrackerStore(wrapper)
    if name != "domain":  # without one, each call gives a new empty one
        assert getattr(wrapper, name) == getattr(probe, name)
    value: Any = FailingBroker() if name == "event_broker" else 7
    setattr(wrapper, name, value)
    assert getattr(probe, name) == value
    assert getattr(wrapper, name) == value


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
async def test_primitives_are_those_of_the_wrapped_store(name: str) -> None:
    probe = Probe()
    answer(probe, name, is_async=True)
    wrapper = WrapperTrackerStore(WrapperTrackerStore(probe))
    named = KEYWORDS.get(name, {})
    found = await getattr(wrapper, name)(*PRIMITIVES[name], **named)
    assert found == f"the answer to {name}"
    assert probe.calls == ["open", (name, PRIMITIVES[name], named)]


@pytest.mark.parametrize("name", sorted(CALLS))
def test_calls_are_passed_on(name: str) -> None:
    probe = Probe()
    answer(probe, name, is_async=False)
    args, kwargs = CALLS[name]
    found = getattr(WrapperTrackerStore(probe), name)(*args, **kwargs)
    if name != "_check_size":
        assert found == f"the answer to {name}"
    assert probe.calls == [(name, args, kwargs)]


@pytest.mark.parametrize("name", sorted(OWN - set(vars(InMemoryTrackerStore()))))
def test_shared_bodies_are_not_overridden(name: str) -> None:
    assert name not in vars(WrapperTrackerStore)


def test_what_only_the_wrapped_store_has_is_found() -> None:
    wrapper = WrapperTrackerStore(Probe())
    assert wrapper.color == "blue"
    assert wrapper.serialise_tracker(wrapper.init_tracker("x"))
    for name in ("no_such_thing", "_no_such_thing"):
        with pytest.raises(AttributeError, match=name):
            getattr(wrapper, name)


async def test_it_opens_and_closes_what_it_wraps() -> None:
    probe = Probe()
    wrapper = WrapperTrackerStore(WrapperTrackerStore(probe))
    async with wrapper:
        assert probe.calls == ["open"]
    assert probe.calls == ["open", "close"]
    with pytest.raises(errors.StoreClosedError):
        await probe.retrieve("x")
    async with wrapper:  # again
        await wrapper.retrieve("x")


class CountingBroker(FailingBroker):
    """Counts how often it is closed."""

    opened = 0
    closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def publish(self, message: EventMessage) -> None:
        assert not self.closed
        await super().publish(message)

    async def close(self) -> None:
        self.closed += 1


async def test_the_broker_is_opened_once_and_closed_once_if_owned() -> None:
    broker = CountingBroker()
    store = InMemoryTrackerStore(event_broker=broker)
    store.owns_broker = True
    async with WrapperTrackerStore(WrapperTrackerStore(store)) as wrapper:
        await wrapper.create_tracker("x")
    assert (broker.opened, broker.closed) == (1, 1)
    assert len(broker.messages) == 1


async def test_an_event_is_published_once_and_the_broker_can_be_replaced() -> None:
    first, second = FailingBroker(), FailingBroker()
    store = WrapperTrackerStore(
        WrapperTrackerStore(InMemoryTrackerStore(event_broker=first))
    )
    tracker = await store.get_or_create_tracker("x")
    store.event_broker = second
    tracker.update(user())
    await store.save(tracker)
    assert (len(first.messages), len(second.messages)) == (1, 1)
    await store.close()


async def test_conflicts_are_counted_through_it() -> None:
    inner = InMemoryTrackerStore(on_conflict="rebase")
    store = WrapperTrackerStore(inner)
    tracker, other = [await store.get_or_create_tracker("x") for _ in range(2)]
    for each in (tracker, other):
        each.update(user())
        await store.save(each)
    assert store.conflict_count == inner.conflict_count == 1
    await store.close()


def test_it_wraps_stores_only() -> None:
    with pytest.raises(errors.ConfigurationError, match="AwaitableTrackerStore first"):
        WrapperTrackerStore(object())  # type: ignore[arg-type]


async def test_a_legacy_store_gives_the_slots_of_its_own_domain() -> None:
    from tests.unit.legacy_stores import JSONTextStore
    from tracker_store_async import Domain

    domain = Domain.from_dict({"slots": {"people": {"type": "float"}}})
    store = WrapperTrackerStore(AwaitableTrackerStore(JSONTextStore(domain=domain)))
    tracker = await store.get_or_create_tracker("x")
    assert list(tracker.slots) == list(
        AwaitableTrackerStore(JSONTextStore(domain=domain)).init_tracker("x").slots
    )
    await store.close()
