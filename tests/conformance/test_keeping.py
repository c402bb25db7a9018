"""Pruning and anonymising mean the same on every backend, and leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    START,
    Clock,
    add,
    bot,
    has,
    has_full,
    held,
    new_session,
    replayed,
    said,
    slot,
    stamp,
    state,
    turn,
    update,
    user,
)
from tracker_store_async.events import (
    ActionExecuted,
    SessionStarted,
    UserUtteranceReverted,
    UserUttered,
)
from tracker_store_async.keeping import Retention, anonymise, prune
from tracker_store_async.keeping.rules import rules_from

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.events import Event

DAY = 86400.0
NOW = START + 1000 * DAY
SECRET = "xyzzy-secret"


def session(text: str, days_ago: float) -> list[Event]:
    """Return a session of four events of some days ago."""
    moment = NOW - days_ago * DAY
    return [
        ActionExecuted("action_session_start", timestamp=moment),
        SessionStarted(timestamp=moment),
        UserUttered(text, timestamp=moment),
        ActionExecuted("action_listen", timestamp=moment),
    ]


async def fill(store: TrackerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store conversations of several ages: what `days` says of each session."""
    histories = {"old": [200, 150, 100], "mixed": [200, 150, 10], "new": [5, 3, 1]}
    for sender_id, days in {**histories, "single": [120]}.items():
        for n, ago in enumerate(days):
            clock = Clock(NOW - ago * DAY)
            monkeypatch.setattr(store, "_now", clock)
            await add(store, sender_id, *session(f"{sender_id} {n}", ago))
    monkeypatch.setattr(store, "_now", Clock(NOW))


async def everything(store: TrackerStore) -> dict[str, list[str | None]]:
    found = {}
    for sender_id in await store.keys():
        found[sender_id] = said(await has_full(store, sender_id))
    return found


ALL = {
    "old": ["old 0", "old 1", "old 2"],
    "mixed": ["mixed 0", "mixed 1", "mixed 2"],
    "new": ["new 0", "new 1", "new 2"],
    "single": ["single 0"],
}


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (
            Retention(older_than_seconds=90 * DAY),
            {"mixed": ["mixed 2"], "new": ALL["new"]},
        ),
        (
            Retention(older_than_seconds=180 * DAY),
            {**ALL, "old": ["old 1", "old 2"], "mixed": ["mixed 1", "mixed 2"]},
        ),
        (
            Retention(older_than_seconds=90 * DAY, keep_last_sessions=2),
            {**ALL, "old": ["old 1", "old 2"], "mixed": ["mixed 1", "mixed 2"]},
        ),
        (
            Retention(keep_last_sessions=1),
            {
                "old": ["old 2"],
                "mixed": ["mixed 2"],
                "new": ["new 2"],
                "single": ["single 0"],
            },
        ),
        (Retention(keep_last_events=5), None),
        (Retention(keep_last_events=12), ALL),
    ],
    ids=["90d", "180d", "90d-2-sessions", "1-session", "5-events", "12-events"],
)
async def test_a_dry_run_says_what_is_erased(
    store: TrackerStore,
    monkeypatch: pytest.MonkeyPatch,
    retention: Retention,
    left: dict[str, list[str]] | None,
) -> None:
    await fill(store, monkeypatch)
    before = await everything(store)
    assert before == ALL
    predicted = [cut async for cut in prune(store, retention, dry_run=True)]
    assert await everything(store) == before
    done = [cut async for cut in prune(store, retention)]
    assert done == predicted
    if left is None:  # five events are the last session and one more
        assert len((await has_full(store, "old")).events) == 5
    else:
        assert await everything(store) == left
    assert [cut async for cut in prune(store, retention) if cut] == []


async def test_an_endless_session_is_cut_and_its_state_stays(
    store: TrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(NOW)
    monkeypatch.setattr(store, "_now", clock)
    events = [
        *new_session(),
        slot("name", "Ada"),
        *turn("first"),
    ]
    for n in range(30):
        events += [*turn(f"message {n}"), slot("city", f"city {n}")]
    await add(store, SENDER, *events)
    older = await has(store, SENDER)
    before = state(older)
    retention = Retention(keep_last_events=20)
    [predicted] = [cut async for cut in prune(store, retention, dry_run=True)]
    assert len((await has_full(store, SENDER)).events) == len(events)
    assert [cut async for cut in prune(store, retention)] == [predicted]
    assert [cut async for cut in prune(store, retention)] == [None]
    left = await has_full(store, SENDER)
    assert len(left.events) == len(events) - predicted.events  # type: ignore[union-attr]
    assert len(left.events) < 30
    assert held(left)[-20:] == held(older)[-20:]
    assert held(await has(store, SENDER)) == held(left)
    for tracker in (left, await has(store, SENDER)):
        assert state(tracker) == before == state(replayed(tracker.events))
    window = await store.get_or_create_tracker(SENDER, max_event_history=2)
    assert state(window) == before
    # What was loaded before does not bring back where the session began.
    more = turn("later")
    update(older, more)
    await store.save(older)
    later = await has(store)
    assert said(later)[-1] == "later"
    assert later._log.session_start == predicted.before  # type: ignore[union-attr]
    update(later, [taken_back := UserUtteranceReverted()])
    await store.save(later)
    whole = replayed([*events, *more, taken_back])
    assert state(await has(store)) == state(whole)
    assert state(await has_full(store)) == state(whole)


async def test_what_was_pruned_is_in_step(
    store: TrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, monkeypatch)
    last = session("old 2", 100)
    async for _ in prune(store, Retention(keep_last_sessions=1)):
        pass
    assert (await has_full(store, "old")).version == 12
    assert state(await has(store, "old")) == state(replayed(last, store)) | {
        "sender_id": "old"
    }
    await add(store, "old", *turn("on"))
    assert said(await has_full(store, "old")) == ["old 2", "on"]


RULES: dict[str, Any] = {
    "rules": [
        {"slots": ["email"], "action": "mask", "keep_left": 2, "keep_right": 3},
        {"entities": ["person"], "action": "replace", "with": "[person]"},
        {"metadata": ["ip"], "action": "replace"},
        {"text": "user", "pattern": r"\d{8,}", "action": "replace", "with": "[number]"},
        {"user_id": True, "action": "replace", "with": "somebody"},
    ]
}

NAME, EMAIL, IP, NUMBER = f"Ann {SECRET}", f"ann@{SECRET}.org", "10.9.8.7", "4929123412"


async def tell(store: TrackerStore, filling: str = "") -> None:
    """Store a conversation that has all of it in several places."""
    tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
    tracker.user_id = f"user {SECRET}"
    entities = [{"entity": "person", "value": NAME, "start": 5, "end": 5 + len(NAME)}]
    said_so = UserUttered(
        f"I am {NAME}, card {NUMBER}",
        entities=entities,
        parse_data={"intent": {"name": "tell"}, "entities": entities},
        metadata={"client": {"ip": IP}},
        timestamp=stamp(),
    )
    update(tracker, [*new_session(), said_so, slot("email", EMAIL)])
    update(tracker, [bot(f"Hello {NAME}! I write to {EMAIL}. {filling}")])
    update(tracker, [slot("other", {"deep": [NAME, 5]}), user(f"{EMAIL} it is")])
    await store.save(tracker)


@pytest.mark.parametrize("length", [0, 700_000])
async def test_anonymised_text_is_nowhere(storage: Storage, length: int) -> None:
    store = storage.store()
    await tell(store, "x" * length)
    rules = rules_from(RULES)
    before = held(await has_full(store, "alice"))
    planned = [each async for each in anonymise(store, rules, dry_run=True)]
    assert held(await has_full(store, "alice")) == before
    done = [each async for each in anonymise(store, rules)]
    assert done == planned
    assert [each.events for each in done] == [5]
    tracker = await has(store, "alice")
    assert tracker.get_slot("email") == "an" + "*" * (len(EMAIL) - 5) + "org"
    assert tracker.get_slot("other") == {"deep": ["[person]", 5]}
    assert tracker.user_id == "somebody"
    assert said(tracker)[0] == "I am [person], card [number]"
    assert [each.is_changed async for each in anonymise(store, rules)] == [False]
    window = await store.get_or_create_tracker("alice", max_event_history=1)
    assert state(window) == state(await has(store, "alice"))
    await storage.close()
    raw = storage.raw()
    assert ("[person]" in raw) is not storage.is_sealed
    for text in (SECRET, IP, NUMBER):
        assert text not in raw
