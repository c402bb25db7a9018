"""Behind encryption, the raw storage of every backend holds none of what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.backends import TEST_KEY
from tests.conformance.kit import SENDER, add, has, new_session, said, slot, turn, user

if TYPE_CHECKING:
    from tests.conformance.backends import Storage

PLANTED = "xyzzy-planted"


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
