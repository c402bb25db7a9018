"""A process that dies at any command leaves nothing that the next one cannot mend.

Each test runs one operation again and again and ends it at its first command, its
second ... until it completes, in two ways: before the command reached the server, and
after it was done. Another process then goes on with the same conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.mongo_databases import mongo_database, rasa_events, values
from tests.sql_databases import NOW, append, ids, read
from tracker_store_async.backends.mongo import appending, database, layout, staging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.mongo_databases import MongoTarget
    from tests.servers import Servers
    from tracker_store_async import MongoTrackerStore

pytestmark = pytest.mark.backend("mongo")

COMMANDS = (
    "bulk_write",
    "delete_many",
    "delete_one",
    "find_one",
    "find_one_and_update",
    "insert_many",
    "insert_one",
    "update_many",
    "update_one",
)
MOST_COMMANDS = 40


class CrashError(Exception):
    """The process dies here."""


class Doomed:
    """Counts commands, and ends at one of them.

    Attributes:
        left: Commands to go, or None to live on.
    """

    def __init__(self, *, late: bool) -> None:
        self.left: int | None = None
        self._late = late

    async def run(self, command: Callable[[], Awaitable[Any]]) -> Any:
        if self.left is None:
            return await command()
        self.left -= 1
        if self.left > 0:
            return await command()
        if self.left == 0 and self._late:
            await command()
        raise CrashError  # and so does everything after it


class DoomedCollection:
    """A collection whose commands go through :class:`Doomed`."""

    def __init__(self, collection: Any, doomed: Doomed) -> None:
        self._collection = collection
        self._doomed = doomed

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collection, name)
        if name not in COMMANDS:
            return method
        return lambda *args, **kw: self._doomed.run(lambda: method(*args, **kw))


@pytest.fixture(params=[False, True], ids=["before", "after"])
def doomed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Doomed:
    doomed = Doomed(late=request.param)

    def collections(**found: Any) -> Any:
        wrapped = {name: DoomedCollection(each, doomed) for name, each in found.items()}
        return layout.Collections(**wrapped)

    monkeypatch.setattr(database, "Collections", collections)
    return doomed


@pytest.fixture
def target(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoTarget]:
    monkeypatch.setattr(appending, "TAIL_BYTES", 250)  # three events
    monkeypatch.setattr(appending, "INLINE_BYTES", 2000)
    monkeypatch.setattr(layout, "BUCKET_BYTES", 1000)
    with mongo_database(servers) as found:
        yield found


async def crash_everywhere(
    target: MongoTarget,
    doomed: Doomed,
    operation: Callable[[MongoTrackerStore], Awaitable[Any]],
    prepare: Callable[[MongoTrackerStore], Awaitable[None]],
    check: Callable[[MongoTrackerStore], Awaitable[None]],
    **options: Any,
) -> None:
    """Crash at every command in turn; each time another store goes on."""
    async with target.store(**options) as dying, target.store(**options) as next_one:
        for number in range(1, MOST_COMMANDS):
            await prepare(next_one)
            doomed.left = number
            crashed = False
            try:
                await operation(dying)
            except CrashError:
                crashed = True
            doomed.left = None
            await check(next_one)
            await next_one._delete("conversation", None, NOW)
            assert target.is_clean()
            if not crashed:
                assert number > 1
                return
    raise AssertionError("it never completed")


def more(version: int, count: int = 3, **changes: Any) -> Any:
    return append(version, count, sender_id="conversation", **changes)


async def stored(store: MongoTrackerStore) -> list[str | None]:
    """Return the ids of everything that is stored; the run must be gapless."""
    found = await store._read(read(sender_id="conversation"))
    return [] if found is None else ids(found)


def numbered(count: int, first: int = 0) -> list[str | None]:
    return [f"id-{number}" for number in range(first, count)]


async def begin(store: MongoTrackerStore, *counts: int, **changes: Any) -> None:
    version = 0
    for count in counts:
        assert await store._append(more(version, count, **changes))
        version += count


def goes_on(before: int, after: int) -> Callable[[MongoTrackerStore], Awaitable[None]]:
    """Return a check: it landed or it did not, and either way the log goes on."""

    async def check(store: MongoTrackerStore) -> None:
        found = await stored(store)
        assert found in (numbered(before), numbered(after))
        version = len(found)
        for _ in range(4):
            assert await store._append(more(version))
            version += 3
            assert await stored(store) == numbered(version)

    return check


async def test_a_tail_that_is_moved(target: MongoTarget, doomed: Doomed) -> None:
    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(9)),
        lambda store: begin(store, 3, 3, 3),
        goes_on(9, 12),
    )


@pytest.mark.parametrize("counts", [(2,), (3, 3, 3)], ids=["short tail", "full tail"])
async def test_a_large_append(
    target: MongoTarget, doomed: Doomed, counts: tuple[int, ...]
) -> None:
    version = sum(counts)
    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(version, 40)),
        lambda store: begin(store, *counts),
        goes_on(version, version + 40),
    )


@pytest.mark.parametrize("count", [3, 40])
async def test_a_first_append(target: MongoTarget, doomed: Doomed, count: int) -> None:
    async def nothing(store: MongoTrackerStore) -> None:
        return

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(0, count)),
        nothing,
        goes_on(0, count),
    )


async def test_an_expired_one_that_is_begun_again(
    target: MongoTarget, doomed: Doomed
) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        await begin(store, 3, 3, 3, 3, expires_at=NOW + 1)

    async def check(store: MongoTrackerStore) -> None:
        later = NOW + 2
        found = await store._read(read(sender_id="conversation", now=later))
        if found is None:
            assert await store._append(more(0, now=later))
            found = await store._read(read(sender_id="conversation", now=later))
        assert ids(found) == numbered(3)

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(0, now=NOW + 2)),
        prepare,
        check,
    )


async def test_a_life_that_is_prolonged(target: MongoTarget, doomed: Doomed) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        await begin(store, 3, 3, 3, 3, expires_at=NOW + 100)

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(12, now=NOW + 90, expires_at=NOW + 1000)),
        prepare,
        goes_on(12, 15),
    )


async def test_a_life_that_gets_an_end(target: MongoTarget, doomed: Doomed) -> None:
    async def check(store: MongoTrackerStore) -> None:
        await goes_on(12, 15)(store)
        assert all("ttl" not in bucket for bucket in target.buckets())

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(12, expires_at=NOW + 1000)),
        lambda store: begin(store, 3, 3, 3, 3),
        check,
    )


@pytest.mark.parametrize("with_rasas", [False, True], ids=["ours", "rasas"])
async def test_a_deletion(
    target: MongoTarget, doomed: Doomed, with_rasas: bool
) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        if with_rasas:
            target.add_rasas(rasa_events(12), "conversation")
            assert await store._append(more(12))
        else:
            await begin(store, 3, 3, 3, 3)

    async def check(store: MongoTrackerStore) -> None:
        found = await stored(store)
        assert len(found) in ((0, 15) if with_rasas else (0, 12))
        if not found:
            # It is gone for every purpose, although not yet from the disk.
            assert not await store._delete("conversation", 1, NOW)
            assert await store._append(more(0))
            assert await stored(store) == numbered(3)

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._delete("conversation", None, NOW),
        prepare,
        check,
    )


@pytest.mark.parametrize("before", [2, 3, 10, 18, 20])
async def test_a_cut(target: MongoTarget, doomed: Doomed, before: int) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        await begin(store, 9, 9, session_start=0)
        assert await store._append(more(18, session_start=20))

    async def check(store: MongoTrackerStore) -> None:
        found = await stored(store)
        assert found in (numbered(21), numbered(21, before))
        await store._delete("conversation", before, NOW)
        assert await stored(store) == numbered(21, before)
        raw = str([*target.buckets(), target.header("conversation")])
        assert f"'id-{before - 1}'" not in raw
        assert f"'id-{before}'" in raw
        for version in (21, 24, 27, 30, 33):
            assert await store._append(more(version, session_start=20))
            assert await stored(store) == numbered(version + 3, before)

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._delete("conversation", before, NOW),
        prepare,
        check,
    )


@pytest.mark.parametrize("delete_rasa_data", [False, True], ids=["left", "deleted"])
@pytest.mark.parametrize("count", [12, 40])
async def test_a_take_over(
    target: MongoTarget, doomed: Doomed, count: int, delete_rasa_data: bool
) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        target.add_rasas(rasa_events(count), "conversation")

    async def check(store: MongoTrackerStore) -> None:
        found = await store._read(read(sender_id="conversation"))
        assert found is not None
        assert values(found)[:count] == list(range(count))
        version = found.version
        assert version in (count, count + 3)
        listed = await store._list(everything())
        assert [(each.sender_id, each.version) for each in listed] == [
            ("conversation", version)
        ]
        assert await store._append(more(version, expires_at=NOW + 50))
        assert len(target.rasas()) == (0 if delete_rasa_data else 1)
        # What has expired does not come back from Rasa's document.
        late = read(sender_id="conversation", now=NOW + 60)
        assert await store._read(late) is None
        target.raw.conversations_log.delete_one({"_id": "conversation"})
        assert await store._read(late) is None
        assert await store._list(everything()) == []
        target.raw.conversations_events.delete_many({})

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(more(count)),
        prepare,
        check,
        delete_rasa_data=delete_rasa_data,
    )


async def test_a_cut_of_what_rasa_wrote(target: MongoTarget, doomed: Doomed) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        target.add_rasas(rasa_events(40), "conversation")

    async def check(store: MongoTrackerStore) -> None:
        found = await store._read(read(sender_id="conversation"))
        assert found is not None
        assert values(found) in (list(range(40)), list(range(25, 40)))
        await store._delete("conversation", 25, NOW)
        found = await store._read(read(sender_id="conversation"))
        assert found is not None
        assert values(found) == list(range(25, 40))
        assert target.rasas() == []
        assert '"value":24' not in str(target.buckets())

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._delete("conversation", 25, NOW),
        prepare,
        check,
    )


def everything() -> Any:
    from tracker_store_async.rows import Listing

    return Listing(NOW, 10)


async def test_a_slow_writer_cannot_bring_back_what_was_deleted(
    target: MongoTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion comes between the look at the header and the filling of a bucket."""
    async with target.store() as store, target.store() as other:
        await begin(store, 3, 3, 3)
        fill = staging._fill

        async def deleted_first(*args: Any) -> bool:
            assert await other._delete("conversation", None, NOW)
            return await fill(*args)

        monkeypatch.setattr(staging, "_fill", deleted_first)
        assert not await store._append(more(9))
        assert target.is_clean()


@pytest.mark.parametrize("before", [5, 6, 8])
async def test_a_slow_writer_cannot_bring_back_what_was_cut_off(
    target: MongoTarget, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    async with target.store() as store, target.store() as other:
        await begin(store, 3, 3, session_start=0)
        assert await store._append(more(6, session_start=8))
        fill = staging._fill
        monkeypatch.setattr(staging, "_fill", fill)

        async def cut_first(*args: Any) -> bool:
            monkeypatch.setattr(staging, "_fill", fill)
            assert await other._delete("conversation", before, NOW)
            return await fill(*args)

        monkeypatch.setattr(staging, "_fill", cut_first)
        assert await store._append(more(9, session_start=8))
        assert await stored(store) == numbered(12, before)
        raw = str([*target.buckets(), target.header("conversation")])
        assert f"'id-{before - 1}'" not in raw


async def test_a_copy_of_the_tail_that_a_crash_left_is_cut_off_too(
    target: MongoTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with target.store() as store:
        await begin(store, 3, 3, session_start=0)
        assert await store._append(more(6, session_start=8))

        async def stage_and_die(*args: Any) -> bool:
            assert await staging.stage(*args)
            raise CrashError

        with monkeypatch.context() as patch:
            patch.setattr(appending, "stage", stage_and_die)
            with pytest.raises(CrashError):
                await store._append(more(9, session_start=8))
        assert [bucket["first"] for bucket in target.buckets()] == [0, 3, 6]
        assert await store._delete("conversation", 8, NOW)
        assert target.buckets() == []
        assert await stored(store) == ["id-8"]


async def test_a_deletion_between_the_two_looks_of_a_take_over(
    target: MongoTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.add_rasas(rasa_events(12), "conversation")
    async with target.store() as store, target.store() as other:
        commit = appending.Appender._commit

        async def deleted_first(*args: Any) -> bool:
            assert await other._delete("conversation", None, NOW)
            return await commit(*args)

        monkeypatch.setattr(appending.Appender, "_commit", deleted_first)
        assert not await store._append(more(12))
        assert target.is_clean()
