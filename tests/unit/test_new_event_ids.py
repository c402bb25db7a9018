"""Ids that are given to several events at once."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from tracker_store_async.cursor import PendingEvent, identify_all
from tracker_store_async.events import ActionExecuted, UserUttered


def test_random_ids_are_what_uuid4_gives() -> None:
    entries = [PendingEvent(UserUttered("hi")) for _ in range(200)]
    identify_all(entries)
    found = [entry.event_id or "" for entry in entries]
    assert len(set(found)) == 200
    for each in found:
        parsed = UUID(each)
        assert (str(parsed), parsed.version, parsed.variant) == (each, 4, RFC_4122)
    assert {each[19] for each in found} == set("89ab")


def test_an_id_stays_and_one_that_is_carried_is_taken() -> None:
    carrying = UserUttered("hi")
    carrying.event_id = "mine"
    entries = [
        PendingEvent(ActionExecuted("a"), "given"),
        PendingEvent(carrying),
        PendingEvent(ActionExecuted("b")),
    ]
    identify_all(entries)
    found = [entry.event_id for entry in entries]
    assert found[:2] == ["given", "mine"]
    identify_all(entries)
    assert [entry.event_id for entry in entries] == found
    assert [entry.identify() for entry in entries] == found
