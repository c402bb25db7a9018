"""A later run that also carries what was erased in the source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.moving.kit import BEGAN, append, contents, fill, memory
from tests.moving.test_cli_moving import endpoints, everything, make
from tests.unit.command import error_of, output_of
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.moving import migrate, missing_in
from tracker_store_async.moving.state import StateFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracker_store_async.rows import Append, Read, StoredConversation

SIZES = {"alice": 1, "bob": 57, "carol": 24, "dave": 3}


async def names(source: InMemoryTrackerStore, target: InMemoryTrackerStore) -> set[str]:
    return {each.sender_id async for each in missing_in(source, target)}


async def test_a_second_run_carries_what_was_erased_if_told_so() -> None:
    source, target = await memory(**SIZES), InMemoryTrackerStore()
    await migrate(source, target)
    await source.delete("bob")
    await source.delete("dave")
    report = await migrate(source, target)
    assert (report.problem_count, report.deleted) == (0, 0)
    assert "bob" in await contents(target)
    before = await contents(target)
    assert await names(source, target) == {"bob", "dave"}
    assert await contents(target) == before
    report = await migrate(source, target, delete_missing=True)
    assert (report.deleted, report.copied, report.unchanged) == (2, 0, 2)
    assert await contents(target) == await contents(source)


async def test_one_that_was_begun_again_is_copied_anew() -> None:
    source, target = await memory(**SIZES), InMemoryTrackerStore()
    await migrate(source, target)
    await source.delete("bob")
    assert await source._append(begun_again("bob"))
    report = await migrate(source, target)
    assert [each.sender_id for each in report.problems] == ["bob"]
    assert await names(source, target) == {"bob"}
    report = await migrate(source, target, delete_missing=True, check=True)
    assert (report.problems, report.deleted, report.copied) == ([], 1, 1)
    assert await contents(target) == await contents(source)


async def test_what_somebody_adds_to_meanwhile_stays() -> None:
    class Busy(InMemoryTrackerStore):
        async def _delete(self, *arguments: object) -> bool:  # type: ignore[override]
            more = append("bob", 57, 2, 57)
            assert await self._append(more)
            return await super()._delete(*arguments)  # type: ignore[arg-type]

    source, target = await memory(**SIZES), Busy()
    await migrate(source, target)
    await source.delete("bob")
    report = await migrate(source, target, delete_missing=True)
    assert report.deleted == 0
    assert (await contents(target))["bob"][0] == 59


def begun_again(sender_id: str) -> Append:
    again = append(sender_id, 0, 2, 0)
    assert again.origin is not None
    origin = replace(again.origin, created_at=BEGAN + 9, updated_at=BEGAN + 10)
    return replace(again, origin=origin)


async def test_one_begun_again_behind_the_cursor_is_not_just_erased(
    tmp_path: Path,
) -> None:
    """A run that goes on passes over what was done: its copies are out of date."""
    source, target = await memory(**SIZES), InMemoryTrackerStore()
    state = tmp_path / "s"
    await migrate(source, target)
    job = {"kind": "migrate", "from": repr(source), "to": repr(target)}
    StateFile(state, job).note({"cursor": "carol"})
    await source.delete("bob")
    assert await source._append(begun_again("bob"))
    report = await migrate(source, target, state_path=state, delete_missing=True)
    assert report.is_complete
    assert await contents(target) == await contents(source)
    assert (report.deleted, report.copied) == (1, 1)


async def test_neither_is_one_begun_again_while_the_others_are_copied() -> None:
    class Late(InMemoryTrackerStore):
        times = 1

        async def _read_many(self, reads: Sequence[Read]) -> Any:
            if any(read.sender_id == "dave" for read in reads) and self.times:
                self.times = 0
                found = await super()._read_many(reads)
                await self._delete("bob", None, BEGAN)
                assert await self._append(begun_again("bob"))
                return found
            return await super()._read_many(reads)

    source, target = Late(), InMemoryTrackerStore()
    await fill(source, SIZES)
    report = await migrate(source, target, delete_missing=True)
    assert report.is_complete
    assert await contents(target) == await contents(source)


async def test_a_source_without_conversations_erases_nothing() -> None:
    source, target = InMemoryTrackerStore(), await memory(**SIZES)
    before = await contents(target)
    with pytest.raises(errors.ConfigurationError, match="no conversation"):
        await migrate(source, target, delete_missing=True)
    assert await contents(target) == before


async def test_what_cannot_be_read_counts_as_there() -> None:
    class Spoilt(InMemoryTrackerStore):
        async def _read(self, read: Read) -> StoredConversation | None:
            if read.sender_id == "carol":
                raise errors.StoreDataError("it is spoilt")
            return await super()._read(read)

    source = Spoilt()
    await fill(source, {"carol": 24, "alice": 1})
    target = await memory(**SIZES)
    report = await migrate(source, target, delete_missing=True)
    assert report.deleted == 2
    assert set(await contents(target)) == {"alice", "carol"}


def test_on_the_command_line(tmp_path: Path) -> None:
    make(tmp_path / "a.db", alice=3, bob=24, carol=2)
    words = ("migrate", "--from", "a.db", "--to", "b.db")
    output_of(*words, cwd=tmp_path)
    (tmp_path / "a.db").unlink()
    make(tmp_path / "a.db", alice=3, dave=2)
    error = error_of(*words, "--delete-missing", cwd=tmp_path, code=2)
    assert "--dry-run" in error
    assert "--delete-missing" in error_of(*words, "--dry-run", cwd=tmp_path, code=2)
    assert error_of(*words, "--yes", cwd=tmp_path, code=2)
    before = everything(tmp_path / "b.db")
    lines = output_of(*words, "--delete-missing", "--dry-run", cwd=tmp_path)
    assert lines == [
        "would erase conversation 'bob' (24 events)",
        "would erase conversation 'carol' (2 events)",
        "would erase 2 conversations that the source has not; nothing was changed",
    ]
    assert everything(tmp_path / "b.db") == before
    lines = output_of(*words, "--delete-missing", "--yes", cwd=tmp_path)
    assert lines[-1] == "erased 2 conversations that the source has not"
    assert everything(tmp_path / "b.db") == everything(tmp_path / "a.db")


def test_endpoints_name_stores_too(tmp_path: Path) -> None:
    make(tmp_path / "a.db", alice=3)
    make(tmp_path / "b.db", bob=3)
    first, second = (endpoints(tmp_path / f"{n}.yml", f"{n}.db") for n in "ab")
    words = ("migrate", "--from", first, "--to", second, "--delete-missing", "--yes")
    output_of(*words, cwd=tmp_path)
    assert set(everything(tmp_path / "b.db")) == {"alice"}
