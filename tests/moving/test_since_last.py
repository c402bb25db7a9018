"""Backups of what the last one does not have, restored on top of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends import BACKENDS
from tests.moving.kit import BEGAN, append, contents, memory
from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.keeping.anonymising import rewrite_of
from tracker_store_async.keeping.rules import rules_from
from tracker_store_async.moving import backup, restore
from tracker_store_async.moving.backup_file import conversations_in
from tracker_store_async.moving.last_backup import LastBackup
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Servers
    from tracker_store_async import TrackerStore
    from tracker_store_async.moving import MoveReport
    from tracker_store_async.rows import Append

RULES = rules_from({"rules": [{"text": "all", "action": "replace", "with": "-"}]})


class Chain:
    """Backs a store up, each time what the last backup does not have."""

    def __init__(self, source: TrackerStore, folder: Path) -> None:
        self.source = source
        self._folder = folder
        self.files: list[Path] = []

    async def back_up(self, **more: Any) -> list[str]:
        """Make another backup; return the conversations in it."""
        path = self._folder / f"{len(self.files)}.jsonl.gz"
        last = LastBackup(self._folder / "last.state", "here")
        await backup(self.source, path, last=last, **more)
        self.files.append(path)
        return sorted(sender_id for sender_id, _ in conversations_in(path))

    async def restore(self, target: TrackerStore) -> list[MoveReport]:
        """Restore all of them in their order."""
        return [await restore(path, target) for path in self.files]


@pytest.fixture
async def chain(tmp_path: Path) -> Chain:
    return Chain(await memory(alice=3, bob=24, carol=5), tmp_path)


def begun_at(request: Append, created_at: float) -> Append:
    assert request.origin is not None
    origin = replace(request.origin, created_at=created_at, updated_at=created_at)
    return replace(request, origin=origin)


async def begin_again(store: TrackerStore, sender_id: str, count: int) -> None:
    assert await store._delete(sender_id, None, BEGAN)
    assert await store._append(begun_at(append(sender_id, 0, count, 0), BEGAN + 900))


async def anonymise(store: TrackerStore, sender_id: str) -> None:
    log = await store._read(Read(sender_id, BEGAN, 0))
    assert log is not None
    assert await store._rewrite(rewrite_of(sender_id, log, RULES, BEGAN))


async def test_each_has_what_is_not_as_the_last_one_has_it(chain: Chain) -> None:
    """What keeps the time of its last event, too: no time tells it."""
    assert await chain.back_up() == ["alice", "bob", "carol"]
    assert await chain.back_up() == []
    store = chain.source
    assert await store._append(append("dora", 0, 2, 0))  # as a migration brings it
    await anonymise(store, "bob")
    assert await chain.back_up() == ["bob", "dora"]
    assert await store._append(append("alice", 3, 1, 3))
    assert await store._delete("carol", None, BEGAN)
    assert await chain.back_up(updated_before=BEGAN) == []
    assert await chain.back_up(conversations=["bob", "carol", "eve"]) == []
    assert await chain.back_up() == ["alice"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=pytest.mark.backend(BACKENDS[each].server), id=each)
        for each in ("sqlite", "postgresql", "redis", "mongo", "dynamo")
    ],
)
async def test_restored_in_order_they_are_what_the_store_was(
    chain: Chain, name: str, servers: Servers, tmp_path: Path
) -> None:
    """Also what was begun again, or rewritten, in between: the newest counts."""
    await chain.back_up()
    await begin_again(chain.source, "alice", 2)
    await anonymise(chain.source, "bob")
    await chain.back_up(page_events=10)
    assert await chain.source._append(append("bob", 24, 1, 24))
    await begin_again(chain.source, "carol", 30)
    await chain.back_up(page_events=10)
    with BACKENDS[name].storage(servers, tmp_path) as storage:
        async with storage._make() as target:
            reports = await chain.restore(target)
            assert [report.problems for report in reports] == [[], [], []]
            assert [report.deleted for report in reports] == [0, 2, 1]
            assert [report.continued for report in reports] == [0, 0, 1]
            assert await contents(target) == await contents(chain.source)


async def test_what_was_written_since_it_was_restored_stays(chain: Chain) -> None:
    await chain.back_up()
    await begin_again(chain.source, "alice", 9)
    await chain.back_up()
    target = InMemoryTrackerStore()
    await restore(chain.files[0], target)
    assert await target._append(append("alice", 3, 1, 3))
    before = await contents(target)
    report = await restore(chain.files[1], target)
    [problem] = report.problems
    assert "`tracker-store delete` and restore the backup again" in str(problem)
    assert await contents(target) == before
    assert await target.delete("alice")
    assert (await restore(chain.files[1], target)).is_complete
    assert await contents(target) == await contents(chain.source)


async def test_what_no_backup_before_has_stays(chain: Chain) -> None:
    """One of the same id, in a store that is another one's."""
    await chain.back_up()
    await begin_again(chain.source, "alice", 9)
    await chain.back_up()
    target = await memory(dora=1)
    assert await target._append(begun_at(append("alice", 0, 3, 0), BEGAN))
    before = await contents(target)
    for report in await chain.restore(target):
        assert [problem.sender_id for problem in report.problems] == ["alice"]
    assert (await contents(target))["alice"] == before["alice"]


class CutOff(InMemoryTrackerStore):
    """Takes no append while `is_away`."""

    is_away = False

    async def _append(self, append: Append) -> bool:
        if self.is_away:
            raise ConnectionError
        return await super()._append(append)


async def test_a_restore_that_was_cut_off_between_old_and_new(chain: Chain) -> None:
    await chain.back_up()
    await begin_again(chain.source, "alice", 9)
    await chain.back_up()
    target = CutOff()
    await restore(chain.files[0], target)
    target.is_away = True
    with pytest.raises(ConnectionError):
        await restore(chain.files[1], target)
    target.is_away = False
    assert (await restore(chain.files[1], target)).is_complete
    assert await contents(target) == await contents(chain.source)
