"""Backups: whole or not at all, checked before use, and exact when restored."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends import BACKENDS
from tests.moving.kit import BEGAN, FAR, append, contents, fill, memory
from tracker_store_async import InMemoryTrackerStore, SQLTrackerStore, errors
from tracker_store_async.moving import (
    DamagedBackupError,
    backup,
    backup_writer,
    restore,
)
from tracker_store_async.moving.backup_file import (
    event_line,
    gzip_member,
    parse_event,
    reading,
)
from tracker_store_async.moving.state import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tracker_store_async.rows import Append, Read, StoredConversation

SIZES = {"alice": 1, "Alice": 24, "bob": 57, "carol": 300, "é \N{WINKING FACE}": 10}
NAMES = ("a.jsonl.gz", "a.jsonl.zst")


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.endswith("zst"):
        pytest.importorskip("zstandard", reason="the extra zstd is not installed")
    return tmp_path / request.param


@pytest.fixture
def gz(tmp_path: Path) -> Path:
    return tmp_path / "a.jsonl.gz"


def lines_of(path: Path) -> list[dict[str, Any]]:
    with reading(path) as file:
        return [json.loads(line) for line in file]


async def test_what_is_restored_equals_the_source(path: Path) -> None:
    source, target = await memory(**SIZES), InMemoryTrackerStore()
    assert await source._append(append("cut", 40, 9, 0, begin=40, session_start=44))
    written = await backup(source, path, page_events=50)
    assert (written.conversations, written.events) == (6, sum(SIZES.values()) + 9)
    assert written.size_bytes == path.stat().st_size
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    report = await restore(path, target, page_events=40)
    assert report.is_complete
    assert (report.conversations, report.copied) == (6, 6)
    assert report.events == written.events
    assert await contents(target) == await contents(source)
    again = await restore(path, target)
    assert (again.unchanged, again.events) == (6, 0)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=pytest.mark.backend(BACKENDS[each].server), id=each)
        for each in ("sqlite", "postgresql", "redis", "mongo", "dynamo")
    ],
)
async def test_it_is_restored_into_another_backend(
    name: str, servers: Servers, tmp_path: Path, gz: Path
) -> None:
    source = await memory(**SIZES)
    await backup(source, gz)
    with BACKENDS[name].storage(servers, tmp_path) as storage:
        async with storage._make() as target:
            await restore(gz, target, page_events=70)
            assert await contents(target) == await contents(source)
            second = tmp_path / "b.jsonl.gz"
            await backup(target, second)
    ours, theirs = lines_of(gz), lines_of(second)
    by_name = {each["conversation"]: each for each in ours if "conversation" in each}
    assert by_name == {
        each["conversation"]: each for each in theirs if "conversation" in each
    }


async def test_a_human_can_read_it(path: Path) -> None:
    source = await memory(bob=2)
    await backup(source, path)
    with reading(path) as file:
        head, conversation, *events, foot = file.read().decode().splitlines()
    assert json.loads(head)["tracker_store_backup"] == 1
    told = json.loads(conversation)
    assert (told["conversation"], told["version"]) == ("bob", 2)
    assert told["expires_at"] == FAR
    assert json.loads(events[1]) == {
        "position": 1,
        "id": "bob-1",
        "event": {"event": "user", "timestamp": BEGAN + 1, "text": "bob é 1"},
    }
    assert json.loads(foot)["end"]["events"] == 2


async def test_every_flipped_byte_is_found_before_anything_is_written(
    path: Path,
) -> None:
    await backup(await memory(alice=1, bob=4), path)
    whole = path.read_bytes()
    target = InMemoryTrackerStore()
    for at in range(0, len(whole), max(1, len(whole) // 300)):
        changed = bytearray(whole)
        changed[at] ^= 0xFF  # a single bit may be padding, and change nothing
        path.write_bytes(changed)
        with pytest.raises((DamagedBackupError, errors.ConfigurationError)):
            await restore(path, target)
    await target.open()
    assert list(await target.keys()) == []


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.999])
async def test_a_file_that_was_cut_off_is_refused(path: Path, kept: float) -> None:
    await backup(await memory(**SIZES), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    target = InMemoryTrackerStore()
    with pytest.raises(DamagedBackupError, match=r"nothing was written|no backup"):
        await restore(path, target)
    await target.open()
    assert list(await target.keys()) == []


def rewrite(path: Path, change: Any) -> None:
    """Change lines as somebody would who keeps the compression right."""
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    change(lines)
    path.write_bytes(gzip_member(b"".join(lines)))


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines.pop(3),
        lambda lines: lines.pop(),
        lambda lines: lines.append(lines[-1]),
        lambda lines: lines.insert(3, lines[3]),
        lambda lines: lines.__setitem__(2, lines[2].replace(b"bob", b"bib", 1)),
        lambda lines: lines.pop(0),
        lambda lines: lines.clear(),
    ],
)
async def test_a_file_that_was_edited_is_refused(gz: Path, change: Any) -> None:
    await backup(await memory(bob=9), gz)
    rewrite(gz, change)
    target = InMemoryTrackerStore()
    with pytest.raises(DamagedBackupError):
        await restore(gz, target)
    await target.open()
    assert list(await target.keys()) == []


async def test_a_newer_format_is_refused(gz: Path) -> None:
    await backup(await memory(bob=1), gz)
    rewrite(gz, lambda lines: lines.__setitem__(0, b'{"tracker_store_backup":2}\n'))
    with pytest.raises(errors.ConfigurationError, match="update"):
        await restore(gz, InMemoryTrackerStore())


async def test_nothing_is_overwritten(gz: Path, tmp_path: Path) -> None:
    source = await memory(bob=1)
    await backup(source, gz)
    before = gz.read_bytes()
    with pytest.raises(errors.ConfigurationError, match="already"):
        await backup(source, gz)
    assert gz.read_bytes() == before
    with pytest.raises(errors.ConfigurationError, match=r"\.jsonl\.gz"):
        await backup(source, tmp_path / "a.zip")
    with pytest.raises(errors.ConfigurationError, match="does not exist"):
        await backup(source, tmp_path / "none" / "a.jsonl.gz")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def rights_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="there rights are not in the mode")
@pytest.mark.usefixtures("open_umask")
async def test_it_is_readable_by_its_owner_alone(
    gz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds in plain text what an encrypted store seals."""
    monkeypatch.setattr(backup_writer, "MEMBER_BYTES", 1)
    writer = backup_writer.BackupWriter(gz, {})
    writer.write([b"{}\n"])
    writer.reached("a", 1, 1)
    left = {each.name: rights_of(each) for each in gz.parent.iterdir()}
    writer.close(keep=True)
    assert left == {f"{gz.name}.part": 0o600, f"{gz.name}.part.state": 0o600}
    gz.with_name(f"{gz.name}.part").chmod(0o644)  # as an earlier version left it
    await backup(await memory(a=1), gz)
    assert rights_of(gz) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="there rights are not in the mode")
@pytest.mark.usefixtures("open_umask")
def test_a_note_that_is_replaced_keeps_its_rights(tmp_path: Path) -> None:
    """Who has opened it to a group expects that to stay."""
    path = tmp_path / "last.state"
    write_atomically(path, b"1")
    assert rights_of(path) == 0o600
    path.chmod(0o640)
    write_atomically(path, b"2")
    assert (rights_of(path), path.read_bytes()) == (0o640, b"2")


async def test_two_at_once_do_not_write_into_each_other(
    gz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would say that all is well, and the file would be of use to nobody."""
    monkeypatch.setattr(backup_writer, "MEMBER_BYTES", 2000)
    second: list[BaseException] = []

    class Busy(InMemoryTrackerStore):
        async def _read_many(self, reads: Any) -> Any:
            if not second:
                with pytest.raises(errors.ConfigurationError) as caught:
                    await backup(await memory(other=3), gz)
                second.append(caught.value)
            return await super()._read_many(reads)

    source, target = Busy(), InMemoryTrackerStore()
    await fill(source, {f"c{n:03}": 3 for n in range(160)})
    await backup(source, gz)
    assert "another backup is being written" in str(second[0])
    await restore(gz, target)
    assert await contents(target) == await contents(source)
    assert list(gz.parent.iterdir()) == [gz]


async def test_one_that_is_finished_just_then_is_not_overwritten(
    gz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backup_writer.BackupWriter(gz, {})
    first.write([b"{}\n"])
    lock = backup_writer._lock

    def finish_then_lock(file: Any) -> None:
        monkeypatch.setattr(backup_writer, "_lock", lock)
        first.finish()
        lock(file)

    monkeypatch.setattr(backup_writer, "_lock", finish_then_lock)
    with pytest.raises(errors.ConfigurationError, match="already"):
        backup_writer.BackupWriter(gz, {})
    assert lines_of(gz)[0] == {}
    assert list(gz.parent.iterdir()) == [gz]


async def test_selections(tmp_path: Path) -> None:
    source = await memory(a=3, b=5, c=7)  # updated at BEGAN plus their size and a half
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"conversations": ["c", "a", "none", "a"]}, ["a", "c"]),
        ({"updated_from": BEGAN + 5.5}, ["b", "c"]),
        ({"updated_before": BEGAN + 5.5}, ["a"]),
        ({"conversations": ["a", "b"], "updated_from": BEGAN + 5}, ["b"]),
    ]
    for number, (options, expected) in enumerate(cases):
        file, target = tmp_path / f"{number}.jsonl.gz", InMemoryTrackerStore()
        written = await backup(source, file, **options)
        assert written.conversations == len(expected)
        await restore(file, target)
        assert list(await target.keys()) == expected


async def test_what_was_added_since_is_restored_on_top(tmp_path: Path) -> None:
    source, target = await memory(a=3, b=5), InMemoryTrackerStore()
    await backup(source, tmp_path / "1.jsonl.gz")
    more = replace(append("a", 3, 4, 3), created_at=None)
    assert await source._append(more)
    await backup(source, tmp_path / "2.jsonl.gz", updated_from=BEGAN + 6)
    for name in ("1.jsonl.gz", "2.jsonl.gz", "1.jsonl.gz"):
        report = await restore(tmp_path / name, target)
    # the older one knows less than what is there by now
    assert [each.sender_id for each in report.problems] == ["a"]
    assert await contents(target) == await contents(source)


async def test_what_has_expired_is_left_out(gz: Path) -> None:
    source = await memory(a=3)
    soon = append("b", 0, 2, 0, expires_at=BEGAN + 60)
    assert await source._append(soon)
    source._now = lambda: BEGAN  # type: ignore[method-assign]
    await backup(source, gz)
    target = InMemoryTrackerStore()
    report = await restore(gz, target)
    assert (report.conversations, report.copied) == (2, 1)
    assert target._conversations.keys() == {"a"}


# -- cut off and continued --


class SlowStore(InMemoryTrackerStore):
    """Is cancelled at its n-th batch of reads."""

    reads_left = 10**9

    async def _read_many(self, reads: Any) -> Any:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise asyncio.CancelledError
        return await super()._read_many(reads)


async def test_a_backup_that_was_cut_off_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_writer, "MEMBER_BYTES", 2000)
    source = SlowStore()
    await fill(source, {f"c{n:03}": 3 for n in range(260)} | {"long": 500})
    before, after = time.time(), 0.0
    for reads in (1, 2, 1):
        source.reads_left = reads
        with pytest.raises(asyncio.CancelledError):
            await backup(source, path, page_events=100)
        assert not path.exists()
        after = after or time.time()
    source.reads_left = 3  # it would take six from the start
    written = await backup(source, path, page_events=100)
    assert before <= written.began_at <= after, "what came since may be missing"
    target = InMemoryTrackerStore()
    assert (await restore(path, target)).copied == 261
    assert await contents(target) == await contents(source)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_what_a_kill_leaves_behind_a_member_is_dropped(
    gz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_writer, "MEMBER_BYTES", 2000)
    source = SlowStore()
    await fill(source, {f"c{n:03}": 3 for n in range(160)})
    source.reads_left = 2
    with pytest.raises(asyncio.CancelledError):
        await backup(source, gz)
    part = gz.with_name(f"{gz.name}.part")
    with part.open("ab") as file:
        file.write(b"half a member")
    source.reads_left = 10
    await backup(source, gz)
    target = InMemoryTrackerStore()
    await restore(gz, target)
    assert await contents(target) == await contents(source)


class FadingStore(InMemoryTrackerStore):
    """Erases and begins a conversation anew while it is read."""

    times = 1

    async def _read(self, read: Read) -> StoredConversation | None:
        if read.start == 20 and self.times and read.sender_id == "long":
            self.times -= 1
            await self._delete("long", None, BEGAN)
            assert await super()._append(append("long", 0, 31, 0, snapshot='{"n":1}'))
        return await super()._read(read)

    async def _append(self, append: Append) -> bool:
        return await super()._append(append)


async def test_a_conversation_that_was_erased_meanwhile_is_called_off(
    gz: Path,
) -> None:
    source = FadingStore()
    await fill(source, {"a": 2, "z": 2})
    old = append("long", 0, 50, 0)
    assert old.origin is not None
    old = replace(old, origin=replace(old.origin, created_at=5.0))
    assert await source._append(old)
    written = await backup(source, gz, page_events=20)
    assert any("abandoned" in line for line in lines_of(gz))
    assert (written.conversations, written.events) == (3, 35)
    target = InMemoryTrackerStore()
    report = await restore(gz, target)
    assert report.copied == 3
    assert await contents(target) == await contents(source)


async def test_what_nobody_can_read_any_more_is_left_out(gz: Path) -> None:
    """As each that was erased since, where a backup of the database came back."""

    erased = {"b", "long b"}

    class Forgotten(InMemoryTrackerStore):
        async def _read(self, read: Read) -> StoredConversation | None:
            if read.sender_id == "long" and read.start == 20:
                erased.add("long")
            if read.sender_id in erased and read.last != 0:
                raise errors.ErasedKeyError("the key was erased")
            return await super()._read(read)

    source, target = Forgotten(), InMemoryTrackerStore()
    sizes = {"a": 3, "b": 2, "c": 4, "long": 50, "long b": 50, "z": 30}
    await fill(source, sizes)
    report = await backup(source, gz, page_events=10)
    assert (report.conversations, report.events) == (3, 37)
    assert (await restore(gz, target)).is_complete
    assert list(await target.keys()) == ["a", "c", "z"]


async def test_what_nobody_can_read_in_the_target_keeps_back_no_other(gz: Path) -> None:
    """Its data key was erased there, and what is sealed with it came back."""

    class Forgotten(InMemoryTrackerStore):
        async def _read(self, read: Read) -> StoredConversation | None:
            if read.sender_id == "b" and read.last != 0:
                raise errors.ErasedKeyError("the key was erased")
            return await super()._read(read)

    await backup(await memory(a=2, b=3, c=4), gz)
    target = Forgotten()
    await fill(target, {"b": 3})
    report = await restore(gz, target)
    assert [problem.sender_id for problem in report.problems] == ["b"]
    assert (report.copied, sorted(await target.keys())) == (2, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("event_id", "data"),
    [
        ("a", '{"event": "user",  "n":1.0}'),
        (None, '{"event":"x","event":{"event":"y"}}'),
        ('q",\\"event\\":"', '{"a":1}'),
        ('"event":', ' {"a" : 1} '),
        ("id", "no json"),
        ("id", ""),
        ("id", '{"a":\n1}'),
        ("id", '{"a": NaN}'),
        ("id", "[1,2]"),
        ("id\n", '{"text": "\\ud83d"}'),
    ],
)
def test_an_event_comes_back_to_the_byte(event_id: str | None, data: str) -> None:
    line = event_line(7, (event_id, data))
    assert line.count(b"\n") == 1
    assert parse_event(line) == (7, (event_id, data))
    json.loads(line)


async def test_a_million_events_would_not_be_held(
    gz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long log: the source is asked for pages, the target is given pages."""
    source, target = await memory(long=2000), InMemoryTrackerStore()
    asked: list[int] = []
    appended: list[int] = []
    read, add = InMemoryTrackerStore._read, InMemoryTrackerStore._append

    async def noted_read(self: Any, request: Read) -> Any:
        found = await read(self, request)
        asked.append(0 if found is None else len(found.rows))
        return found

    async def noted_append(self: Any, request: Append) -> bool:
        appended.append(len(request.rows))
        return await add(self, request)

    monkeypatch.setattr(InMemoryTrackerStore, "_read", noted_read)
    monkeypatch.setattr(InMemoryTrackerStore, "_append", noted_append)
    await backup(source, gz, page_events=100)
    await restore(gz, target, page_events=100)
    assert max(asked) == 100
    assert (max(appended), sum(appended)) == (100, 2000)


async def test_sql_to_sql(tmp_path: Path, gz: Path) -> None:
    async with (
        SQLTrackerStore(db=str(tmp_path / "a.db")) as source,
        SQLTrackerStore(db=str(tmp_path / "b.db")) as target,
    ):
        await fill(source, SIZES)
        await backup(source, gz)
        await restore(gz, target)
        assert await contents(target) == await contents(source)


def sign(lines: list[bytes]) -> None:
    """Give lines that were changed the checksum that belongs to them."""
    foot = json.loads(lines.pop())
    foot["end"]["sha256"] = hashlib.sha256(b"".join(lines)).hexdigest()
    lines.append(json.dumps(foot, separators=(",", ":")).encode() + b"\n")


@pytest.mark.parametrize("change", [3, -2, "twice", "conversations", "events"])
async def test_what_does_not_belong_together_is_refused_for_all_its_checksum(
    gz: Path, change: Any
) -> None:
    def edit(lines: list[bytes]) -> None:
        if change in ("conversations", "events"):
            foot = json.loads(lines.pop())
            foot["end"][change] += 1
            lines.append(json.dumps(foot, separators=(",", ":")).encode() + b"\n")
        elif change == "twice":
            lines.insert(3, lines[3])
        else:
            lines.pop(change)
        sign(lines)

    await backup(await memory(bob=9), gz)
    rewrite(gz, edit)
    with pytest.raises(DamagedBackupError):
        await restore(gz, InMemoryTrackerStore())
