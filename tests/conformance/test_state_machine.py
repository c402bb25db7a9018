"""Anything in any order: a store does what a list of events and a replay would do."""

from __future__ import annotations

import asyncio
import copy
import os
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conformance.conftest import backend_params
from tests.conformance.kit import (
    Clock,
    FailingBroker,
    stamp,
    state,
    stored_dicts,
    stored_ids,
)
from tests.conformance.model import (
    LIFE_SECONDS,
    Entry,
    Handle,
    Log,
    expected_save,
    replay,
)
from tracker_store_async import DialogueStateTracker, errors
from tracker_store_async.events import UserUttered, event_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.conformance.backends import Storage
    from tracker_store_async.events import Event

SEED = int(os.environ.get("TRACKER_STORE_TEST_SEED", "20261123"))
EXAMPLES = int(os.environ.get("TRACKER_STORE_TEST_EXAMPLES", "0"))
NAMES = ("alice", "bob")
MOST_HANDLES = 6

VALUES = st.sampled_from([None, 1, 1.0, True, "x", [1, {"a": None}], float("inf")])
ENTITY = {"entity": "e", "value": 1}
SINGLE: dict[str, dict[str, Any]] = {
    "user": {"event": "user", "text": "hi", "parse_data": {"entities": []}},
    "user of a channel": {"event": "user", "text": "yo", "input_channel": "web"},
    "user with entity": {
        "event": "user",
        "text": "four",
        "parse_data": {"intent": {"name": "i"}, "entities": [{"entity": "n"}]},
    },
    "bot": {"event": "bot", "text": "hello", "data": {"buttons": None}},
    "listen": {"event": "action", "name": "action_listen"},
    "utter": {"event": "action", "name": "utter_x"},
    "run form": {"event": "action", "name": "form"},
    "form": {"event": "active_loop", "name": "form"},
    "no form": {"event": "active_loop", "name": None},
    "interrupted": {"event": "loop_interrupted", "is_interrupted": True},
    "rejected": {"event": "action_execution_rejected", "name": "form"},
    "entities": {"event": "entities", "entities": [ENTITY]},
    "featurised": {"event": "user_featurization", "use_text_for_featurization": True},
    "restart": {"event": "restart"},
    "rewind": {"event": "rewind"},
    "undo": {"event": "undo"},
    "reset": {"event": "reset_slots"},
    "pause": {"event": "pause"},
    "resume": {"event": "resume"},
    "followup": {"event": "followup", "name": "utter_y"},
    "unknown": {"event": "flow_started", "flow_id": "f", "nested": {"x": [1.0]}},
    "session action": {"event": "action", "name": "action_session_start"},
    "session started": {"event": "session_started"},
}


@st.composite
def events(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return one to six events; timestamps are added when they are used."""
    chosen: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from([*SINGLE, "slot", "session"]))
        if kind == "slot":
            name = draw(st.sampled_from(["a", "b"]))
            chosen.append({"event": "slot", "name": name, "value": draw(VALUES)})
        elif kind == "session":
            chosen += [SINGLE["session action"], SINGLE["session started"]]
        else:
            chosen.append(SINGLE[kind])
    return chosen


class Conversations(RuleBasedStateMachine):
    """Several people use a few conversations through one store."""

    storage: ClassVar[Storage]

    def __init__(self) -> None:
        super().__init__()
        self.storage.wipe()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.broker = FailingBroker()
        self.store = self.storage.store(
            event_broker=self.broker, record_exp=LIFE_SECONDS
        )
        self.clock.drive(self.store)
        self.logs: dict[str, Log] = {}
        self.handles: list[Handle] = []
        self.run(self.store.open())
        self.append = self.store._append
        self.store._append = self.append_and_lose
        self.lose_answer = False
        self.was_copied = False

    def teardown(self) -> None:
        self.run(self.storage.close())
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def append_and_lose(self, append: Any) -> bool:
        answer = await self.append(append)
        if answer and self.lose_answer:
            self.lose_answer = False
            raise errors.StoreUnavailableError("the answer was lost")
        return answer

    def log_of(self, name: str) -> Log:
        """Return the log of a conversation, a new one if it does not exist."""
        log = self.logs.get(name)
        if log is None or log.expires_at <= self.clock():
            return Log()
        return log

    def hold(self, handle: Handle) -> None:
        self.handles.append(handle)
        del self.handles[:-MOST_HANDLES]

    def pick(self, number: int) -> Handle:
        return self.handles[number % len(self.handles)]

    # -- trackers --

    @rule(name=st.sampled_from(NAMES), window=st.sampled_from([None, None, 1, 2, 5]))
    def load(self, name: str, window: int | None) -> None:
        log = self.log_of(name)
        tracker = self.run(self.store.get_or_create_tracker(name, window))
        if not log.version:
            self.created(name, tracker)
        elif window is None:
            assert stamps(tracker) == stamps_of(log.since(log.session_start))
        else:
            expected = stamps_of(log.since(log.session_start)[-window:])
            assert stamps(tracker) == expected
        self.check_tracker(tracker, self.logs[name])
        self.hold(self.loaded(name, tracker))

    def created(self, name: str, tracker: DialogueStateTracker) -> None:
        log = Log(expires_at=self.clock() + LIFE_SECONDS)
        [listen] = tracker.events
        listen_fields = listen.as_dict()
        assert listen_fields["name"] == "action_listen"
        log.entries.append(Entry(listen_fields))
        self.logs[name] = log

    def loaded(self, name: str, tracker: DialogueStateTracker) -> Handle:
        log = self.logs[name]
        return Handle(name, tracker, log.version, [], log.number)

    @rule(name=st.sampled_from(NAMES))
    def load_full(self, name: str) -> None:
        log = self.log_of(name)
        tracker = self.run(self.store.retrieve_full_tracker(name))
        if not log.version:
            assert tracker is None
            return
        assert stamps(tracker) == stamps_of(log.entries)
        assert state(tracker) == {
            **state(replay(log.entries)),
            "sender_id": name,
        }
        self.check_tracker(tracker, log)
        self.hold(self.loaded(name, tracker))

    @rule(name=st.sampled_from(NAMES), begin=st.integers(0, 30), end=st.integers(0, 30))
    def build_by_hand(self, name: str, begin: int, end: int) -> None:
        entries = self.log_of(name).entries[begin:end]
        own = [event_from_dict(entry.fields) for entry in entries]
        tracker = DialogueStateTracker.from_events(name, own)
        self.hold(Handle(name, tracker, None, list(entries), None))

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, MOST_HANDLES))
    def copy(self, number: int) -> None:
        handle = self.pick(number)
        self.was_copied = True
        self.hold(
            Handle(
                handle.name,
                handle.tracker.copy(),
                handle.version,
                list(handle.pending),
                handle.log_number,
            )
        )

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, MOST_HANDLES), new=events())
    def update(self, number: int, new: list[dict[str, Any]]) -> None:
        handle = self.pick(number)
        for fields in new:
            event = new_event(fields)
            handle.pending.append(Entry(event.as_dict()))
            handle.tracker.update(event)

    # -- saving --

    @precondition(lambda self: self.handles)
    @rule(
        number=st.integers(0, MOST_HANDLES),
        policy=st.sampled_from(["rebase", "rebase", "raise"]),
        lose=st.booleans(),
    )
    def save(self, number: int, policy: Any, lose: bool) -> None:
        handle = self.pick(number)
        log = self.log_of(handle.name)
        new, conflict = expected_save(log, handle) if handle.pending else ([], False)
        note(f"expected: {len(new)} new, conflict {conflict}")
        self.store.on_conflict = policy
        self.lose_answer = lose
        if conflict and policy == "raise":
            with pytest.raises(errors.ConcurrentSaveError):
                self.run(self.store.save(handle.tracker))
            self.lose_answer = False
            return
        before = self.store.conflict_count
        try:
            self.run(self.store.save(handle.tracker))
        except errors.StoreUnavailableError:
            assert lose
            assert new
            self.stored(handle, log, new)
            self.answer_lost(handle, log, new, conflict)
            return
        finally:
            self.lose_answer = False
        assert not (lose and new)
        assert (self.store.conflict_count > before) == conflict
        self.stored(handle, log, new)
        self.confirmed(handle, log)

    def stored(self, handle: Handle, log: Log, new: list[Entry]) -> None:
        if new:
            log.entries += new
            log.expires_at = self.clock() + LIFE_SECONDS
            self.logs[handle.name] = log

    def answer_lost(
        self, handle: Handle, log: Log, new: list[Entry], conflict: bool
    ) -> None:
        """Note that what is stored is still pending as far as the tracker knows."""
        handle.pending = new
        handle.version = log.version - len(new)
        handle.log_number = log.number

    def confirmed(self, handle: Handle, log: Log) -> None:
        tracker = handle.tracker
        assert not tracker.unsaved_events
        if not handle.pending:
            return
        handle.pending = []
        assert tracker.version is not None
        assert tracker.version <= log.version
        handle.version = tracker.version
        handle.log_number = log.number
        if tracker.version == log.version:
            self.check_tracker(tracker, log)

    def check_tracker(self, tracker: DialogueStateTracker, log: Log) -> None:
        """Check a tracker that has just been loaded or saved."""
        cursor = tracker._log
        assert cursor.version == log.version
        assert cursor.session_start == log.session_start
        held, kept = stamps(tracker), stamps_of(log.entries)
        common = min(len(held), len(kept))  # it may hold what was erased meanwhile
        assert held[len(held) - common :] == kept[len(kept) - common :]
        if cursor.base >= log.first:
            expected = state(replay(log.since(cursor.base)))
            assert state(tracker) == {**expected, "sender_id": tracker.sender_id}

    # -- what happens to conversations --

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        assert self.run(self.store.delete(name)) == bool(self.log_of(name).version)
        self.logs.pop(name, None)
        self.clock.advance(0.001)

    @rule(name=st.sampled_from(NAMES), share=st.floats(0, 1))
    def delete_prefix(self, name: str, share: float) -> None:
        log = self.log_of(name)
        before = round(log.session_start * share)
        found = self.run(self.store.delete(name, before))
        assert found == (bool(log.version) and before > log.first)
        if found:
            del log.entries[: before - log.first]
            log.first = before

    @rule(seconds=st.sampled_from([1.0, 10.0, LIFE_SECONDS / 2, LIFE_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=st.sampled_from(NAMES))
    def others_append(self, name: str) -> None:
        self.load(name, None)
        self.update(len(self.handles) - 1, [SINGLE["user"], SINGLE["utter"]])
        self.save(len(self.handles) - 1, "raise", lose=False)

    # -- what is true at any time --

    @invariant()
    def what_is_stored_is_the_log(self) -> None:
        alive = []
        for name in NAMES:
            log = self.log_of(name)
            expected = [entry.fields for entry in log.entries]
            if expected:
                alive.append(name)
                assert self.run(stored_from(self.store, name, log.first)) == expected
                ids = self.run(stored_ids(self.store, name))
                assert len(set(ids)) == len(ids)
                assert set(ids) <= set(self.broker.ids)
            assert self.run(self.store.exists(name)) == bool(expected)
        assert sorted(self.run(self.store.keys())) == alive
        if not self.was_copied:  # a copy does not know what the original published
            assert len(set(self.broker.ids)) == len(self.broker.ids)

    @invariant()
    def a_window_has_the_right_state(self) -> None:
        for name in NAMES:
            log = self.log_of(name)
            if log.version:
                tracker = self.run(self.store.get_or_create_tracker(name, 1))
                assert stamps(tracker) == stamps_of(log.entries)[-1:]
                expected = state(replay(log.since(log.session_start)))
                assert state(tracker) == {**expected, "sender_id": name}


async def stored_from(store: Any, name: str, first: int) -> list[dict[str, Any]]:
    """Return what is stored, after checking that it begins at `first`."""
    from tracker_store_async.rows import Read

    found = await store._read(Read(name, store._now(), start=0))
    assert found.first_position == first
    return await stored_dicts(store, name)


def new_event(fields: dict[str, Any]) -> Event:
    """Return a new event, messages as an assistant makes them."""
    if fields["event"] != "user":
        return event_from_dict({**fields, "timestamp": stamp()})
    parse_data = copy.deepcopy(fields.get("parse_data", {}))
    return UserUttered(
        fields["text"],
        intent=parse_data.get("intent"),
        entities=parse_data.get("entities"),
        input_channel=fields.get("input_channel"),
        timestamp=stamp(),
    )


def stamps(tracker: DialogueStateTracker) -> list[float]:
    """Return the timestamps of the held events; no two events share one."""
    return [event.timestamp for event in tracker.events]


def stamps_of(entries: list[Entry]) -> list[float]:
    return [entry.fields["timestamp"] for entry in entries]


@pytest.mark.parametrize("name", backend_params())
def test_a_store_does_what_the_model_does(
    name: str, storage_of: Callable[[str], Storage]
) -> None:
    in_memory = name == "in_memory"
    print(f"seed {SEED}: repeat with TRACKER_STORE_TEST_SEED={SEED}")
    machine = type(name, (Conversations,), {"storage": storage_of(name)})
    run_state_machine_as_test(
        seed(SEED)(machine),
        settings=settings(
            max_examples=EXAMPLES or (200 if in_memory else 12),
            stateful_step_count=40,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
