"""Migrating: exact, resumable, and never over something else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.moving.kit import BEGAN, append, contents, fill, memory, read
from tests.unit.legacy_stores import JSONTextStore
from tracker_store_async import (
    AwaitableTrackerStore,
    DialogueStateTracker,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    SQLTrackerStore,
    errors,
)
from tracker_store_async.events import UserUttered, decode_event
from tracker_store_async.keeping.anonymising import rewrite_of
from tracker_store_async.keeping.rules import rules_from
from tracker_store_async.moving import backup, migrate, restore, verify
from tracker_store_async.moving.batches import Batch, Frontier
from tracker_store_async.moving.pages import SessionScan
from tracker_store_async.rows import ConversationSummary, Read
from tracker_store_async.sessions import session_starts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracker_store_async.rows import Append, StoredConversation

SIZES = {"alice": 1, "Alice": 24, "bob": 57, "carol": 300, "é \N{WINKING FACE}": 10}


async def test_everything_arrives_as_it_is(tmp_path: Path) -> None:
    source = await memory(**SIZES)
    async with SQLTrackerStore(db=str(tmp_path / "b.db")) as target:
        report = await migrate(source, target, page_events=50, check=True)
        assert report.is_complete
        assert report.verified
        assert (report.conversations, report.copied) == (5, 5)
        assert report.events == sum(SIZES.values())
        assert await contents(target) == await contents(source)
        back = InMemoryTrackerStore()
        await migrate(target, back)
        assert await contents(back) == await contents(source)


async def test_a_second_run_brings_the_rest() -> None:
    source, target = await memory(**SIZES), InMemoryTrackerStore()
    await migrate(source, target)
    more = append("bob", 57, 5, 57, session_start=54, expires_at=None)
    more = replace(more, created_at=BEGAN + 3)
    assert await source._append(more)
    await fill(source, {"dave": 2})
    report = await migrate(source, target, page_events=20)
    assert (report.copied, report.continued, report.unchanged) == (1, 1, 4)
    assert report.events == 7
    assert await contents(target) == await contents(source)


async def test_a_beginning_that_was_erased_is_erased_in_the_copy() -> None:
    source, target = await memory(bob=57), InMemoryTrackerStore()
    await migrate(source, target)
    more = append("bob", 57, 5, 57, session_start=54)
    assert await source._append(more)
    assert await source._delete("bob", 50, BEGAN)
    await migrate(source, target)
    assert await contents(target) == await contents(source)
    fresh = InMemoryTrackerStore()
    await migrate(source, fresh, page_events=4, check=True)
    assert await contents(fresh) == await contents(source)


async def test_a_copy_that_lies_wholly_before_the_beginning_starts_anew() -> None:
    source, target = await memory(bob=57), InMemoryTrackerStore()
    await migrate(source, target)
    assert await source._append(append("bob", 57, 50, 57, session_start=104))
    assert await source._delete("bob", 100, BEGAN)
    report = await migrate(source, target)
    assert report.is_complete
    assert await contents(target) == await contents(source)


@pytest.mark.parametrize("stored", [1, 19, 20, 21, 56])
async def test_it_goes_on_behind_a_prefix(stored: int) -> None:
    source, target = await memory(bob=57), await memory(bob=stored)
    report = await migrate(source, target, page_events=20)
    assert (report.continued, report.events) == (1, 57 - stored)
    assert await contents(target) == await contents(source)


@pytest.mark.parametrize(
    ("changes", "position", "reason"),
    [
        ({"first": 1}, 0, "another event"),
        ({"late": True}, 29, "another event"),
        ({"count": 58}, 57, "more events"),
        ({"begun": True}, None, "begun at another time"),
    ],
)
async def test_something_else_is_reported_and_not_touched(
    changes: dict[str, Any], position: int | None, reason: str
) -> None:
    source, target = await memory(bob=57, carol=3), InMemoryTrackerStore()
    await target.open()
    other = append("bob", changes.get("first", 0), changes.get("count", 30), 0)
    if "late" in changes:
        other = replace(other, rows=[*other.rows[:29], other.rows[0]])
    if "begun" in changes:
        assert other.origin is not None
        other = replace(other, origin=replace(other.origin, created_at=1.0))
    assert await target._append(other)
    before = await read(target, "bob")
    report = await migrate(source, target, page_events=20)
    assert (report.problem_count, report.copied) == (1, 1)
    [problem] = report.problems
    assert (problem.sender_id, problem.position) == ("bob", position)
    assert reason in problem.reason
    assert await read(target, "bob") == before
    assert await read(target, "carol") == await read(source, "carol")


class CutError(Exception):
    """The process is gone."""


class CutStore(InMemoryTrackerStore):
    """Ends everything at its n-th append, before or after that has landed."""

    appends_left = 0
    lands = False

    async def _append(self, append: Append) -> bool:
        self.appends_left -= 1
        if not self.appends_left:
            if self.lands:
                await super()._append(append)
            raise CutError
        return await super()._append(append)


@pytest.mark.parametrize("lands", [False, True])
async def test_it_may_be_cut_off_at_any_append(lands: bool, tmp_path: Path) -> None:
    sizes = {"a": 3, "b": 57, "c": 41, "d": 1}
    source = await memory(**sizes)
    for number in range(1, 20):
        target = CutStore()
        target.appends_left, target.lands = number, lands
        state = tmp_path / "state.json"
        options: dict[str, Any] = {"page_events": 10, "state_path": state}
        try:
            await migrate(source, target, concurrency=1, **options)
        except CutError:
            await assert_prefixes(source, target)
            assert state.exists() == (number > 1)
        report = await migrate(source, target, **options)
        assert report.is_complete
        assert not state.exists()
        assert await contents(target) == await contents(source)
    assert target.appends_left > 0, "the last round was not cut off at all"


async def assert_prefixes(
    source: InMemoryTrackerStore, target: InMemoryTrackerStore
) -> None:
    for sender_id in await target.keys():
        ours, theirs = await read(target, sender_id), await read(source, sender_id)
        assert ours is not None
        assert theirs is not None
        assert list(ours.rows) == list(theirs.rows)[: ours.version]
        texts = [data for _, data in ours.rows]
        if ours.version < theirs.version:
            assert ours.snapshot is None
            starts = session_starts([decode_event(each) for each in texts])
            assert ours.session_start == ([0, *starts])[-1]


class Watched(InMemoryTrackerStore):
    """Notes how much is asked for at once, and what is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.most_rows = self.most_reads = 0
        self.cursors: list[str | None] = []

    async def _read(self, read: Read) -> StoredConversation | None:
        found = await super()._read(read)
        if found is not None:
            self.most_rows = max(self.most_rows, len(found.rows))
        return found

    async def _read_many(
        self, reads: Sequence[Read]
    ) -> list[StoredConversation | None]:
        self.most_reads = max(self.most_reads, len(reads))
        return await super()._read_many(reads)

    async def _list(self, listing: Any) -> Any:
        self.cursors.append(listing.after)
        return await super()._list(listing)


async def test_pages_and_conversations_in_flight_are_bounded() -> None:
    source = Watched()
    await fill(source, {f"c{n}": 2 for n in range(40)} | {"long": 1000})
    target = InMemoryTrackerStore()
    await migrate(source, target, page_events=30, concurrency=8, check=True)
    assert source.most_rows == 30
    await migrate(source, InMemoryTrackerStore(), page_events=30, concurrency=8)
    assert await contents(target) == await contents(source)


async def test_conversations_in_flight_are_bounded() -> None:
    source = Watched()
    await fill(source, {f"c{n}": 2 for n in range(40)})
    await migrate(source, InMemoryTrackerStore(), concurrency=8)
    assert source.most_reads == 2  # of four workers


async def test_a_run_that_was_cut_off_does_not_list_from_the_start(
    tmp_path: Path,
) -> None:
    source, target = Watched(), CutStore()
    await fill(source, {f"c{n:02}": 2 for n in range(40)})
    target.appends_left = 20
    state = tmp_path / "state.json"
    with pytest.raises(CutError):
        await migrate(source, target, concurrency=1, state_path=state)
    cursor = json.loads(state.read_text())["progress"]["cursor"]
    assert cursor == "c18"
    source.cursors.clear()
    report = await migrate(source, target, concurrency=1, state_path=state)
    assert source.cursors == [cursor, None]  # the second for what was updated since
    assert report.conversations == 21
    assert await contents(target) == await contents(source)


async def test_a_run_that_goes_on_brings_what_was_added_behind_its_back(
    tmp_path: Path,
) -> None:
    """It may be the last one, after which the writers are pointed to the target."""
    source, target, state = InMemoryTrackerStore(), CutStore(), tmp_path / "s"
    await fill(source, {f"c{n:02}": 2 for n in range(40)})
    target.appends_left = 20
    with pytest.raises(CutError):
        await migrate(source, target, concurrency=1, state_path=state)
    for name in ("c03", "c30"):
        tracker = await source.retrieve(name)
        assert tracker is not None
        tracker.update(UserUttered("one more"))
        await source.save(tracker)
    await source.save(DialogueStateTracker.from_events("a new one", [UserUttered("x")]))
    target.appends_left = 22
    with pytest.raises(CutError):  # it is cut off once more, at the last of these
        await migrate(source, target, concurrency=1, state_path=state)
    assert len(list(await target.keys())) == 40
    report = await migrate(source, target, concurrency=1, state_path=state)
    assert report.is_complete
    assert not state.exists()
    assert await contents(target) == await contents(source)


async def test_a_user_that_was_set_in_the_target_since_stays(tmp_path: Path) -> None:
    """No event tells it, and a restore of an older backup would take it back."""
    source, target = await memory(alice=3), InMemoryTrackerStore()
    await migrate(source, target)
    await backup(source, tmp_path / "a.jsonl.gz")
    now, fields = BEGAN + 999, {"origin": None, "user_id": "another"}
    assert await target._append(append("alice", 3, 0, 3, now=now, **fields))
    before = await contents(target)
    for report in (
        await migrate(source, target),
        await restore(tmp_path / "a.jsonl.gz", target),
    ):
        assert ["saved later" in each.reason for each in report.problems] == [True]
        assert await contents(target) == before
    # What is newer in the source comes as before.
    fields["user_id"] = "a third"
    assert await source._append(append("alice", 3, 0, 3, now=now + 1, **fields))
    assert (await migrate(source, target)).is_complete
    assert await contents(target) == await contents(source)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_what_was_added_in_the_target_is_not_begun_anew(when: str) -> None:
    """The source has erased all that the target has, which cannot be compared then."""

    class Busy(InMemoryTrackerStore):
        async def _delete(
            self, sender_id: str, before: int | None, now: float, version: Any = None
        ) -> bool:
            if when == "meanwhile":
                assert await self._append(append("bob", 5, 1, 5))
            return await super()._delete(sender_id, before, now, version)

    source, target = await memory(bob=5), Busy()
    await migrate(source, target)
    assert await source._append(append("bob", 5, 10, 5, session_start=10))
    assert await source._delete("bob", 10, BEGAN)
    if when == "before":
        assert await target._append(
            append("bob", 5, 1, 5, origin=None, now=BEGAN + 999)
        )
    report = await migrate(source, target)
    assert [each.sender_id for each in report.problems] == ["bob"]
    log = await read(target, "bob")
    assert log is not None
    assert (log.first_position, log.version) == (0, 6)


async def test_a_run_that_goes_on_sees_what_kept_its_time(tmp_path: Path) -> None:
    """What was restored, or anonymised, was last updated long before the first run."""
    source, target, state = InMemoryTrackerStore(), CutStore(), tmp_path / "s"
    await fill(source, {f"c{n:02}": 2 for n in range(40)})
    target.appends_left = 20
    with pytest.raises(CutError):
        await migrate(source, target, concurrency=1, state_path=state)
    passed = json.loads(state.read_text())["progress"]["cursor"]
    assert passed > "c05"
    assert await source._append(append("c041", 0, 2, 0))  # as a restore brings it
    rules = rules_from({"rules": [{"text": "all", "action": "replace", "with": "-"}]})
    log = await source._read(Read("c05", BEGAN, 0))
    assert log is not None
    assert await source._rewrite(rewrite_of("c05", log, rules, BEGAN))
    report = await migrate(source, target, concurrency=1, state_path=state)
    assert [each.sender_id for each in report.problems] == ["c05"]
    assert await target.exists("c041")


async def test_what_could_not_be_copied_is_told_by_the_run_that_goes_on(
    tmp_path: Path,
) -> None:
    """Else the last run says that all is well, and the source is put away."""
    source, target, state = InMemoryTrackerStore(), CutStore(), tmp_path / "s"
    await fill(source, {f"c{n:02}": 2 for n in range(40)})
    await target.open()
    other = append("c03", 0, 2, 0)
    assert other.origin is not None
    other = replace(other, origin=replace(other.origin, created_at=1.0))
    assert await target._append(other)
    target.appends_left = 20
    with pytest.raises(CutError):
        await migrate(source, target, concurrency=1, state_path=state)
    assert json.loads(state.read_text())["progress"]["cursor"] == "c02"
    report = await migrate(source, target, concurrency=1, state_path=state)
    assert [problem.sender_id for problem in report.problems] == ["c03"]
    assert not state.exists()
    assert len(list(await target.keys())) == 40


async def test_a_state_of_another_move_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    source = await memory(a=1)
    for content in ("{}", "no json", '{"job": {"kind": "x"}, "progress": {}}'):
        state.write_text(content)
        with pytest.raises(errors.ConfigurationError, match="delete it"):
            await migrate(source, InMemoryTrackerStore(), state_path=state)
        assert state.read_text() == content


async def test_a_cancellation_leaves_prefixes_and_where_to_go_on(
    tmp_path: Path,
) -> None:
    source, state = await memory(**{f"c{n:02}": 25 for n in range(30)}), tmp_path / "s"
    target = InMemoryTrackerStore()
    task = asyncio.create_task(
        migrate(source, target, page_events=10, state_path=state, concurrency=2)
    )
    while not state.exists():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < len(list(await target.keys())) < 30
    await assert_prefixes(source, target)
    await migrate(source, target, state_path=state)
    assert await contents(target) == await contents(source)


async def test_what_cannot_be_read_is_reported_and_the_rest_is_moved() -> None:
    class Corrupt(InMemoryTrackerStore):
        async def _read(self, read: Read) -> StoredConversation | None:
            if read.sender_id == "b":
                raise errors.CorruptEventError("b", 3, "somebody was here")
            return await super()._read(read)

    source, target = Corrupt(), InMemoryTrackerStore()
    await fill(source, {"a": 2, "b": 3, "c": 4})
    report = await migrate(source, target, check=True)
    assert [problem.sender_id for problem in report.problems] == ["b"]
    assert (report.problem_count, report.copied) == (1, 2)
    assert list(await target.keys()) == ["a", "c"]


async def test_one_whose_key_was_erased_keeps_back_no_other() -> None:
    """As each that was erased since, where a backup of the database came back."""

    class Forgotten(InMemoryTrackerStore):
        async def _read(self, read: Read) -> StoredConversation | None:
            if read.sender_id == "b" and read.last != 0:
                raise errors.ErasedKeyError("the key of b was erased")
            return await super()._read(read)

    source, target = Forgotten(), InMemoryTrackerStore()
    await fill(source, {"a": 2, "b": 3, "c": 4})
    report = await migrate(source, target)
    assert [problem.sender_id for problem in report.problems] == ["b"]
    assert list(await target.keys()) == ["a", "c"]
    report = await verify(source, target)
    assert [problem.sender_id for problem in report.problems] == ["b"]


async def test_one_store_is_no_move() -> None:
    store = await memory(a=1)
    with pytest.raises(errors.ConfigurationError, match="the same store"):
        await migrate(store, store)


# -- comparing --


async def test_verify_says_where_the_first_difference_is() -> None:
    source = await memory(a=50, b=50, c=50, d=50, e=50, f=5)
    target = InMemoryTrackerStore()
    await migrate(source, target)
    assert (await verify(source, target, page_events=7)).is_complete
    conversations = target._conversations
    conversations["a"].rows[33] = ("other", conversations["a"].rows[33][1])
    conversations["b"].rows[12] = (conversations["b"].rows[12][0], "{}")
    conversations["c"].rows.pop()
    conversations["d"].snapshot = "{}"
    target._forget("e")
    conversations["f"].user_id = "somebody"
    for page_events in (7, 1000):
        report = await verify(source, target, page_events=page_events)
        found = {each.sender_id: each for each in report.problems}
        positions = {name: each.position for name, each in found.items()}
        assert positions == {
            "a": 33,
            "b": 12,
            "c": 49,
            "d": None,
            "e": None,
            "f": None,
        }
        assert "snapshot" in found["d"].reason
        assert "not in the target" in found["e"].reason
        assert "user_id" in found["f"].reason
        assert not report.is_complete
        assert "é" not in "".join(map(str, report.problems)), "no text of an event"


def test_a_scan_finds_sessions_as_the_rule_does() -> None:
    texts = [
        '{"event": "user", "text": "session_started"}',
        '{"event": "action", "name": "action_session_start"}',
        '{"event": "session_started"}',
        '{"event": "session_started"}',
        '{"event": "user", "text": "action_session_start"}',
        '{"event": "session_started"}',
        '{"event": "action", "name": "action_session_start"}',
    ]
    for end in range(len(texts) + 1):
        for page in (1, 2, 10):
            scan = SessionScan(0)
            for at in range(0, end, page):
                rows = [(None, each) for each in texts[at : min(at + page, end)]]
                scan.add(at, rows)
            starts = session_starts([decode_event(each) for each in texts[:end]])
            assert scan.start == ([0, *starts])[-1]


# -- while others are at it, and through wrappers --


async def test_a_source_may_be_written_to_meanwhile(tmp_path: Path) -> None:
    """Whatever is copied while others write is a beginning; the last run brings all."""
    async with SQLTrackerStore(db=str(tmp_path / "a.db")) as source:
        await fill(source, {f"c{n}": 30 for n in range(8)})
        target, is_over = InMemoryTrackerStore(), asyncio.Event()

        async def write(sender_id: str) -> None:
            version = 30
            while not is_over.is_set():
                more = append(sender_id, version, 3, version)
                assert await source._append(more)
                version += 3

        writers = [asyncio.create_task(write(f"c{n}")) for n in range(4)]
        try:
            for _ in range(5):
                report = await migrate(source, target, page_events=10)
                assert report.is_complete
                for sender_id in await target.keys():
                    ours = await read(target, sender_id)
                    theirs = await read(source, sender_id)
                    assert ours is not None
                    assert theirs is not None
                    assert list(ours.rows) == list(theirs.rows)[: ours.version]
        finally:
            is_over.set()
            await asyncio.gather(*writers)
        await migrate(source, target)
        assert await contents(target) == await contents(source)


async def test_a_fail_safe_passes_a_copy_on_or_fails() -> None:
    source = await memory(**SIZES)
    primary = CutStore()
    async with FailSafeTrackerStore(primary, InMemoryTrackerStore()) as target:
        await migrate(source, target)
        assert await contents(primary) == await contents(source)

        async def away(append: Append) -> bool:
            raise errors.StoreUnavailableError("it is away")

        primary._append = away  # type: ignore[method-assign]
        await fill(source, {"more": 3})
        with pytest.raises(errors.StoreUnavailableError):
            await migrate(source, target)
        assert "more" not in await contents(primary)


async def test_a_legacy_store_is_a_source_and_no_target() -> None:
    legacy = AwaitableTrackerStore(JSONTextStore())
    tracker = DialogueStateTracker.from_events("alice", [UserUttered("hello")])
    await legacy.save(tracker)
    target = InMemoryTrackerStore()
    report = await migrate(legacy, target)
    assert (report.copied, report.events) == (1, 1)
    with pytest.raises(errors.ConfigurationError, match="neither ids nor times"):
        await migrate(await memory(bob=2), legacy)
    await legacy.close()


async def test_a_last_event_that_differs_is_seen_without_comparing_everything() -> None:
    source, target = await memory(bob=9), InMemoryTrackerStore()
    await migrate(source, target)
    target._conversations["bob"].rows[8] = ("other", "{}")
    report = await migrate(source, target)
    assert [problem.position for problem in report.problems] == [8]


class CutWhileRead(InMemoryTrackerStore):
    """Loses its beginning once, when it is read from a position on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    async def _read(self, read: Read) -> StoredConversation | None:
        if read.start == self.at:
            self.at = -1
            assert await self._delete("bob", 50, BEGAN)
        return await super()._read(read)


@pytest.mark.parametrize("at", [20, 40])
async def test_a_source_that_is_cut_while_it_is_read_is_read_anew(at: int) -> None:
    source, target = CutWhileRead(at), InMemoryTrackerStore()
    await source.open()
    assert await source._append(append("bob", 0, 70, 0, session_start=60))
    report = await migrate(source, target, page_events=20)
    assert (source.at, report.is_complete) == (-1, True)
    assert await contents(target) == await contents(source)


def test_a_cursor_moves_only_when_everything_before_it_is_done() -> None:
    def batch(number: int) -> Batch:
        name = f"c{number}"
        return Batch(number, [ConversationSummary(name, 1, 0.0, 0.0, None, name)])

    frontier = Frontier()
    moved = [frontier.finish(batch(number)) for number in (1, 2, 0, 4, 3)]
    assert moved == [False, False, True, False, True]
    assert frontier.cursor == "c4"
    frontier.hold(batch(6))
    frontier.hold(batch(9))
    moved = [frontier.finish(batch(number)) for number in (6, 7, 8, 9, 5)]
    assert moved == [False, False, False, False, True]
    assert frontier.cursor == "c5"
