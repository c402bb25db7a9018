"""An append without rows changes the header alone: that is how keys are rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.kit import SENDER, add, turn
from tracker_store_async.rows import Append, Read

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore


async def test_an_append_without_rows_replaces_the_snapshot(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, *turn("x"))
    before = await store._read(Read(SENDER, store._now(), 0))
    assert before is not None

    def request(version: int, snapshot: str) -> Append:
        return Append(
            SENDER,
            version,
            [],
            before.session_start,
            snapshot,
            now=before.updated_at,
            expires_at=before.expires_at,
            created_at=before.created_at,
        )

    assert await store._append(request(before.version, '{"new":1}'))
    assert not await store._append(request(before.version + 1, '{"new":2}'))
    after = await store._read(Read(SENDER, store._now(), 0))
    assert after is not None
    assert after.snapshot in ('{"new":1}', b'{"new":1}')
    assert (after.version, after.updated_at) == (before.version, before.updated_at)
    assert list(after.rows) == list(before.rows)
