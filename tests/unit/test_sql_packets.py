"""MySQL: what is longer than a statement may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from tests.sql_databases import SENDER, append, database, ids, read, rows
from tracker_store_async.errors import InvalidInputError, SaveManyError
from tracker_store_async.events import BotUttered, SlotSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database

pytestmark = pytest.mark.backend("mysql")


@pytest.fixture
def target(servers: Servers, tmp_path: Path) -> Iterator[Database]:
    with database("mysql", servers, tmp_path) as found:
        yield found


async def limit_of(target: Database) -> int:
    return int((await target.arun("SELECT @@max_allowed_packet"))[0][0])


@pytest.mark.parametrize("character", ["x", '"', "\\", "\N{WINKING FACE}"])
async def test_the_limit_is_that_of_the_server(
    target: Database, character: str
) -> None:
    limit = await limit_of(target)
    each = 4 if len(character.encode()) == 4 else 2 if character != "x" else 1
    async with target.store() as store:
        for spare, is_taken in ((2500, True), (0, False)):
            data = character * ((limit - spare) // each)
            new = rows(1, data=data)
            if is_taken:
                store._check_size(SENDER, new, "{}")
                assert await store._append(append(0, rows=new))
            else:
                with pytest.raises(InvalidInputError, match="max_allowed_packet"):
                    store._check_size(SENDER, new, "{}")
                with pytest.raises(InvalidInputError, match="the state"):
                    store._check_size(SENDER, [], data)
        assert len(ids(await store._read(read()))) == 1


async def test_many_large_rows_exceed_it_only_together(target: Database) -> None:
    async with target.store() as store:
        new = rows(5, data="x" * (await limit_of(target) // 3))
        assert await store._append(append(0, rows=new))
        assert len(ids(await store._read(read()))) == 5


async def test_rows_are_joined_no_further_than_the_server_takes(
    target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with target.store() as store:
        operations = store._operations
        assert operations is not None
        monkeypatch.setattr(operations, "_room_bytes", 20_000)
        sizes: list[int] = []

        def note(*arguments: Any) -> None:
            statement, parameters, is_many = arguments[2], arguments[3], arguments[5]
            if statement.startswith("INSERT INTO events"):
                joined = parameters if is_many else [parameters]
                sizes.append(sum(6_000 for _ in joined))

        event.listen(operations.engine.sync_engine, "before_cursor_execute", note)
        assert await store._append(append(0, rows=rows(30, data="'" * 3_000)))
        assert len(ids(await store._read(read()))) == 30
    assert sizes == [18_000] * 10


async def test_messages_are_joined_no_further_either(
    target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with target.store(outbox=True) as store:
        operations = store._operations
        assert operations is not None
        monkeypatch.setattr(operations, "_room_bytes", 20_000)
        counts: list[int] = []

        def note(*arguments: Any) -> None:
            statement, parameters, is_many = arguments[2], arguments[3], arguments[5]
            if statement.startswith("INSERT INTO outbox"):
                counts.append(len(parameters) if is_many else 1)

        event.listen(operations.engine.sync_engine, "before_cursor_execute", note)
        tracker = await store.get_or_create_tracker("a")
        counts.clear()
        tracker.update_with_events([BotUttered("x" * 6_000) for _ in range(9)])
        await store.save(tracker)
    assert counts == [3] * 3


async def test_it_is_refused_before_anything_is_written(target: Database) -> None:
    async with target.store() as store:
        tracker = await store.get_or_create_tracker("a")
        tracker.update(SlotSet("n", "x" * await limit_of(target)))
        with pytest.raises(InvalidInputError, match=r"event 1 of 1 \(slot\)"):
            await store.save(tracker)
        found = await store.retrieve("a")
        assert found is not None
        assert found.version == 1


@pytest.mark.parametrize("character", ["\N{WINKING FACE}", "\xe9", '"'])
async def test_a_message_is_longer_than_its_event(
    target: Database, character: str
) -> None:
    each = {"\N{WINKING FACE}": 14, "\xe9": 7, '"': 4}[character]
    limit = await limit_of(target)
    async with target.store(outbox=True) as store:
        for spare, is_taken in ((20_000, True), (0, False)):
            tracker = await store.get_or_create_tracker(f"a{spare}")
            tracker.update(SlotSet("n", character * ((limit - spare) // each)))
            if is_taken:
                await store.save(tracker)
            else:
                with pytest.raises(InvalidInputError, match="max_allowed_packet"):
                    await store.save(tracker)


async def test_a_copy_into_a_store_with_an_outbox_has_no_messages(
    target: Database,
) -> None:
    data = "\N{WINKING FACE}" * ((await limit_of(target) - 2500) // 4)
    async with target.store(outbox=True) as store:
        new = rows(1, data=data)
        store._check_size(SENDER, new, "{}")
        assert await store._append(append(0, rows=new))
        assert len(ids(await store._read(read()))) == 1


async def test_a_message_that_is_too_long_fails_its_own_save_of_many(
    target: Database,
) -> None:
    limit = await limit_of(target)
    async with target.store(outbox=True) as store:
        trackers = [await store.get_or_create_tracker(name) for name in "abc"]
        texts = ("x", "\N{WINKING FACE}" * (limit // 14), "x")
        for tracker, text in zip(trackers, texts, strict=True):
            tracker.update(SlotSet("n", text))
        with pytest.raises(SaveManyError) as raised:
            await store.save_many(trackers)
        found = [await store.retrieve(name) for name in "abc"]
    [(_, error)] = raised.value.failures.items()
    assert isinstance(error, InvalidInputError)
    assert "the message of the event at position 1" in str(error)
    assert [each and each.version for each in found] == [2, 1, 2]
