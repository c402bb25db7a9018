"""Behind encryption, the raw storage of every backend holds none of what was said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.conformance.backends import TEST_KEY
from tests.conformance.kit import SENDER, add, has, new_session, said, slot, turn, user
from tracker_store_async.keeping import anonymise
from tracker_store_async.keeping.rules import rules_from
from tracker_store_async.moving.copying import append_of, new_rows
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from tests.conformance.backends import Storage

PLANTED, HIDDEN = "xyzzy-planted", "what was anonymised"
OTHER_KEY = "MTEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


async def test_no_planted_text_can_be_read_past_the_store(storage: Storage) -> None:
    pytest.importorskip("cryptography")
    from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

    for text in ("one", PLANTED):
        store = EncryptedTrackerStore(storage.store(), {"k1": TEST_KEY})
        event = user(text, intent={"name": text}, metadata={text: text})
        await add(store, SENDER, *new_session(), event, *turn(text), slot(text, text))
    assert said(await has(store, SENDER)) == [PLANTED, PLANTED]
    await storage.close()
    raw = storage.raw()
    assert SENDER in raw
    assert PLANTED not in raw
    fresh = EncryptedTrackerStore(storage.store(), {"k1": TEST_KEY})
    tracker = await has(fresh, SENDER)
    assert tracker.current_state()["slots"][PLANTED] == PLANTED


async def test_what_is_anonymised_or_copied_is_sealed_too(storage: Storage) -> None:
    pytest.importorskip("cryptography")
    from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

    rule = {"text": "user", "pattern": PLANTED, "action": "replace", "with": HIDDEN}
    store = EncryptedTrackerStore(storage.store(), {"k1": TEST_KEY})
    for text in ("one", PLANTED, "three"):
        await add(store, SENDER, *new_session(), *turn(text))
    done = [each async for each in anonymise(store, rules_from({"rules": [rule]}))]
    assert [each.is_changed for each in done] == [True]
    await add(store, SENDER, *turn("four"))
    target = EncryptedTrackerStore(storage.store(), {"k2": OTHER_KEY})
    whole = await store._read(Read(SENDER, store._now(), 0))
    assert whole is not None
    for start, end in ((0, 4), (4, whole.version)):
        page = replace(whole, first_position=start, rows=whole.rows[start:end])
        rows = new_rows(page, start)
        append = append_of("copy", page, rows, expected_version=start, now=store._now())
        assert await target._append(append)
    fresh = EncryptedTrackerStore(storage.store(), {"k1": TEST_KEY, "k2": OTHER_KEY})
    for name in (SENDER, "copy"):
        tracker = await fresh.retrieve_full_tracker(name)
        assert said(tracker) == ["one", HIDDEN, "three", "four"]
    await storage.close()
    raw = storage.raw()
    assert PLANTED not in raw
    assert HIDDEN not in raw
