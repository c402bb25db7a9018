"""DynamoDB: items of another log that still lie between those of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from tests.dynamo_tables import (
    NOW,
    SENDER,
    Tables,
    append,
    fresh_tables,
    ids,
    read,
    rows,
)
from tracker_store_async.backends.dynamo.layout import HEAD_KEY, STAGES_KEY, item_key
from tracker_store_async.backends.dynamo.rewriting import Rewriter
from tracker_store_async.rows import Read, Rewrite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import DynamoServer
    from tracker_store_async import DynamoTrackerStore
    from tracker_store_async.rows import Append

SAVES = 120
"""More than a rewrite removes with its own transaction."""

LARGE_STATE = '"' + "s" * 150_000 + '"'
"""A state that is too large for the head."""


@pytest.fixture
async def tables(dynamo_server: DynamoServer) -> AsyncIterator[Tables]:
    async with fresh_tables(dynamo_server) as found:
        yield found


@pytest.fixture
async def store(tables: Tables) -> AsyncIterator[DynamoTrackerStore]:
    async with tables.store() as opened:
        yield opened


@pytest.fixture
async def rewritten(
    store: DynamoTrackerStore, monkeypatch: pytest.MonkeyPatch
) -> DynamoTrackerStore:
    """Rewrite many saves, and crash before the old ones are removed."""
    for n in range(SAVES):
        assert await store._append(append(n, count=1, session_start=max(0, n - 10)))
    changed = Rewrite(
        *(SENDER, SAVES, 0, NOW, rows(0, SAVES, size=9), frozenset(range(SAVES))),
        *(LARGE_STATE, None, NOW),
    )

    async def crash(*_: object) -> None:
        raise KeyError

    with monkeypatch.context() as patched:
        patched.setattr(Rewriter, "_sweep", crash)
        with pytest.raises(KeyError):
            await store._rewrite(changed)
    return store


def names(first: int) -> list[str]:
    return [f"id-{n}" for n in range(first, SAVES)]


async def test_a_rewrite_that_was_cut_short_is_read(
    rewritten: DynamoTrackerStore,
) -> None:
    found = await rewritten._read(read(start=None))
    assert ids(found) == names(109)
    assert found is not None
    assert found.snapshot == LARGE_STATE
    assert [data for _, data in found.rows] == [r.data for r in rows(109, 11, size=9)]
    assert ids(await rewritten._read(read(last=5))) == names(115)
    assert ids(await rewritten._read(read())) == names(0)
    page = await rewritten._read(Read(SENDER, NOW, 50, None, 10))
    assert page is not None
    assert [event_id for event_id, _ in page.rows] == names(50)[:10]


async def test_a_cut_after_such_a_rewrite_loses_nothing_else(
    rewritten: DynamoTrackerStore, tables: Tables
) -> None:
    assert await rewritten._delete(SENDER, 50, NOW)
    found = await rewritten._read(read())
    assert ids(found) == names(50)
    assert found is not None
    assert found.snapshot == LARGE_STATE
    assert found.rows[0][1] == rows(50, 1, size=9)[0].data
    assert not [at for at in await tables.positions() if 0 <= at < 50]


async def test_a_cut_after_a_log_that_dynamodb_has_not_removed_yet(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    for n in range(0, 20, 5):
        await store._append(append(n, count=5, size=1, expires_at=NOW + 60))
    # its time to live takes the head before the rest
    key = item_key(SENDER, HEAD_KEY)
    await tables.client.delete_item(TableName=tables.ours, Key=key)
    later = NOW + 100
    given = {"now": later, "session_start": 12}
    assert await store._append(append(0, count=15, **given, created_at=None))
    assert await store._delete(SENDER, 12, later)
    found = await store._read(read(now=later))
    assert ids(found) == names(12)[:3]
    assert found is not None
    assert found.rows[0][1] == rows(12, 1)[0].data


async def test_a_cut_below_a_megabyte_of_another_log(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    for n in range(20):
        await store._append(append(n, count=1, size=90_000, expires_at=NOW + 60))
    key = item_key(SENDER, HEAD_KEY)
    await tables.client.delete_item(TableName=tables.ours, Key=key)
    later = NOW + 100
    given = {"now": later, "session_start": 18}
    assert await store._append(append(0, count=19, **given, created_at=None))
    assert ids(await store._read(read(None, now=later))) == names(18)[:1]
    assert await store._delete(SENDER, 18, later)
    assert ids(await store._read(read(now=later))) == names(18)[:1]


def state_alone(expected: int, state: str = LARGE_STATE) -> Append:
    return append(expected, count=0, snapshot=state)


async def parts_of(tables: Tables) -> int:
    return sum(at < STAGES_KEY for at in await tables.positions())


async def test_a_large_state_that_was_saved_alone_is_left_to_nobody(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    assert await store._append(append(0))
    huge = '"' + "h" * 700_000 + '"'
    for state, parts in ((LARGE_STATE, 1), (huge, 3), ("{}", 0), (LARGE_STATE, 1)):
        assert await store._append(state_alone(3, state))
        found = await store._read(read())
        assert found is not None
        assert found.snapshot == state
        assert await parts_of(tables) == parts
    assert await store._append(append(3, snapshot=huge))
    assert await parts_of(tables) == 3
    assert await store._append(append(6))
    assert len(ids(await store._read(read()))) == 9
    assert await parts_of(tables) == 3  # these are of a save with events
    assert await store._append(state_alone(9))
    assert await store._delete(SENDER, None, NOW)
    assert await tables.positions() == []


async def test_a_large_state_alone_is_not_removed_by_who_comes_too_late(
    store: DynamoTrackerStore,
) -> None:
    assert await store._append(append(0))
    assert await store._append(state_alone(3))
    assert not await store._append(append(2))
    found = await store._read(read())
    assert found is not None
    assert found.snapshot == LARGE_STATE


async def test_a_rewrite_forgets_that_a_large_state_stood_alone(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    assert await store._append(append(0))
    assert await store._append(state_alone(3))
    found = await store._read(read())
    assert found is not None
    rewrite = Rewrite(
        *(SENDER, 3, 0, found.created_at, rows(0, 3, size=9), frozenset(range(3))),
        *(LARGE_STATE, None, NOW),
    )
    assert await store._rewrite(rewrite)
    found = await store._read(read())
    assert found is not None
    assert await store._append(append(3, created_at=found.created_at))
    assert len(ids(await store._read(read()))) == 6
    assert await parts_of(tables) == 1  # of the save that the rewrite made


async def test_a_cut_through_the_save_before_a_large_state_alone(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    assert await store._append(append(0, count=5, session_start=3))
    assert await store._append(
        append(5, count=0, snapshot=LARGE_STATE, session_start=3)
    )
    assert await store._delete(SENDER, 2, NOW)
    found = await store._read(read())
    assert found is not None
    assert found.snapshot == LARGE_STATE
    assert len(ids(found)) == 3
    assert await store._append(append(5, session_start=3))
    assert await parts_of(tables) == 0
