"""The audit trail: what is recorded, and what gives away that it was tampered with."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.canaries import TEXT
from tests.conformance.kit import SENDER, add, new_session, said, slot, turn, user
from tests.unit.command import error_of, run
from tracker_store_async import (
    InMemoryTrackerStore,
    SyncTrackerStore,
    create_tracker_store,
    errors,
)
from tracker_store_async.auditing import acting_as
from tracker_store_async.auditing.chain import Chain, parse_head, verify
from tracker_store_async.auditing.sinks import (
    FileSink,
    LoggerSink,
    Sink,
    archives,
    read_file,
)
from tracker_store_async.auditing.sql import SQLSink
from tracker_store_async.wrappers.audited import AuditedTrackerStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEY = "a key of the chain"


class ListSink(Sink):
    """Keeps records in a list, and fails when it is told to."""

    name = "list"

    def __init__(self) -> None:
        super().__init__(Chain())
        self.lines: list[str] = []
        self.batches: list[int] = []
        self.is_full = False

    async def open(self) -> None:
        """Nothing."""

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep them."""
        await asyncio.sleep(0)
        if self.is_full:
            raise errors.AuditError("the disk is full")
        self.batches.append(len(records))
        self.lines += self._linked(records, self.head)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        """Who did what to what."""
        records = map(json.loads, self.lines)
        return [(r["actor"], r["action"], r["sender_id"]) for r in records]


class Faulty(InMemoryTrackerStore):
    """A store that fails when it is told to."""

    is_away = False

    async def _append(self, append: Any) -> bool:
        if self.is_away:
            raise errors.StoreUnavailableError("away")
        return await super()._append(append)


class StuckSink(ListSink):
    """Does not answer for a while."""

    is_stuck = False

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep them, or wait."""
        while self.is_stuck:
            await asyncio.sleep(0.01)
        await super().write(records)


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


async def test_every_access_says_who_what_and_when(sink: ListSink) -> None:
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    tracker = store.init_tracker(SENDER)
    for event in (*new_session(), *turn(TEXT), slot(TEXT, TEXT), *new_session()):
        tracker.update(event)
    with acting_as("bot"):
        await store.save(tracker)
    with acting_as("maria"):
        await store.retrieve(SENDER)
        with acting_as("maria", "export"):
            await store.retrieve_full_tracker(SENDER)
        await store.exists(SENDER)  # says nothing of what was said
        assert list(await store.keys()) == [SENDER]
        await store.delete(SENDER, before_position=7)
        await store.delete(SENDER)
    await store.retrieve(SENDER)
    assert sink.told[-7:] == [
        ("bot", "change", SENDER),
        ("maria", "read", SENDER),
        ("maria", "export", SENDER),
        ("maria", "list", None),
        ("maria", "delete", SENDER),
        ("maria", "delete", SENDER),
        ("unknown", "read", SENDER),
    ]
    assert TEXT not in "".join(sink.lines)
    records = [json.loads(line) for line in sink.lines]
    change = next(record for record in records if record["action"] == "change")
    assert (change["position"], change["events"]) == (0, 9)
    assert abs(change["time"] - store._now()) < 60
    assert records[-3]["before_position"] == 7
    assert verify(sink.lines, Chain()).is_intact
    assert (await store.health()).details["audit"] == {
        "sink": "list",
        "records": len(sink.lines),
        "error": None,
    }
    await store.close()


async def test_what_cannot_be_recorded_is_not_done(sink: ListSink) -> None:
    inner = InMemoryTrackerStore()
    store = AuditedTrackerStore(inner, sink)
    await add(store, SENDER, *turn("one"))
    tracker = await store.retrieve(SENDER)
    assert tracker is not None
    sink.is_full = True
    tracker.update(user("two"))
    for work in (store.save(tracker), store.retrieve(SENDER), store.delete(SENDER)):
        with pytest.raises(errors.AuditError, match="the disk is full"):
            await work
    assert said(await inner.retrieve(SENDER)) == ["one"]
    sink.is_full = False
    await store.save(tracker)
    assert said(await inner.retrieve(SENDER)) == ["one", "two"]
    await store.close()


async def test_what_fails_or_is_refused_is_said_of_the_record(sink: ListSink) -> None:
    inner = Faulty()
    store = AuditedTrackerStore(inner, sink)
    trackers = [await store.get_or_create_tracker(SENDER) for _ in range(2)]
    for each in trackers:
        each.update(user())
    inner.is_away = True
    with pytest.raises(errors.StoreUnavailableError):
        await store.save(trackers[0])
    inner.is_away = False
    for each in trackers:
        await store.save(each)
    await store.close()
    records = [json.loads(line) for line in sink.lines]
    outcomes = {r["of"]: r["outcome"] for r in records if "of" in r}
    assert sorted(outcomes.values()) == ["StoreUnavailableError", "refused"]
    changes = {r["id"] for r in records if r["action"] == "change" and "of" not in r}
    assert outcomes.keys() <= changes


async def test_reads_may_be_left_out(sink: ListSink) -> None:
    store = AuditedTrackerStore(
        InMemoryTrackerStore(), sink, reads=False, default_actor="the bot"
    )
    await add(store, SENDER, *turn())
    await store.retrieve(SENDER)
    await store.keys()
    assert sink.told == [("the bot", "change", SENDER)]
    await store.close()


async def test_those_who_come_together_are_written_together(sink: ListSink) -> None:
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    await store.open()
    await asyncio.gather(*(store.retrieve(str(number)) for number in range(50)))
    assert sum(sink.batches) == 50
    assert len(sink.batches) <= 3
    await store.close()


def test_the_sync_facade_knows_who_acts(sink: ListSink) -> None:
    with SyncTrackerStore(AuditedTrackerStore(InMemoryTrackerStore(), sink)) as store:
        with acting_as("a thread", "export"):
            store.retrieve(SENDER)
        store.retrieve(SENDER)
    assert sink.told == [("a thread", "export", SENDER), ("unknown", "read", SENDER)]


@pytest.mark.parametrize("name", ["", "x" * 256, None])
def test_an_actor_is_a_text(name: Any) -> None:
    with pytest.raises(errors.InvalidInputError, match="1 to 255"), acting_as(name):
        pass


# -- tampering -------------------------------------------------------------------------


async def file_trail(path: Path, key: str | None = None) -> list[bytes]:
    """Write a trail of eleven records; return its lines."""
    store = AuditedTrackerStore(InMemoryTrackerStore(), FileSink(str(path), Chain(key)))
    for number in range(11):
        await store.retrieve(f"c{number}")
    await store.close()
    return path.read_bytes().splitlines(keepends=True)


def edit(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"c5"', b'"cX"') for line in lines]


def edit_and_hash_again(lines: list[bytes]) -> list[bytes]:
    record = json.loads(lines[5]) | {"actor": "somebody else"}
    record["hash"] = Chain().digest(record)
    return [*lines[:5], json.dumps(record).encode() + b"\n", *lines[6:]]


def remove(lines: list[bytes]) -> list[bytes]:
    return lines[:4] + lines[5:]


def remove_the_first(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def reorder(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def repeat(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[2], *lines[3:]]


def spoil(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"[1]\n", *lines[4:]]


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "tamper",
    [edit, edit_and_hash_again, remove, remove_the_first, reorder, repeat, spoil],
)
async def test_tampering_is_found(
    tmp_path: Path, key: str | None, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    lines = await file_trail(tmp_path / "audit.jsonl", key)
    whole = verify(lines, Chain(key))
    assert (whole.is_intact, whole.records) == (True, 11)
    assert not verify(tamper(lines), Chain(key)).is_intact


async def test_a_trail_written_anew_needs_the_key(tmp_path: Path) -> None:
    lines = await file_trail(tmp_path / "audit.jsonl", KEY)
    await file_trail(tmp_path / "forged.jsonl")
    forged = (tmp_path / "forged.jsonl").read_bytes().splitlines()
    assert verify(forged, Chain()).is_intact
    assert not verify(forged, Chain(KEY)).is_intact
    assert not verify(lines, Chain("another key")).is_intact


async def test_what_was_cut_off_is_found_by_a_head_kept_elsewhere(
    tmp_path: Path,
) -> None:
    lines = await file_trail(tmp_path / "audit.jsonl")
    head = verify(lines, Chain()).head
    cut = lines[:-3]
    assert verify(cut, Chain()).is_intact  # nothing in it tells
    (problem,) = verify(cut, Chain(), head).problems
    assert "record 11" in problem
    earlier = verify(cut, Chain()).head
    assert verify(lines, Chain(), earlier).is_intact
    assert parse_head(str(head)) == head


@pytest.mark.parametrize("text", ["", "7", "7:abc", f"x:{'0' * 64}", f"7:{'z' * 64}"])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="NUMBER:HASH"):
        parse_head(text)


# -- sinks -----------------------------------------------------------------------------


async def test_a_torn_line_of_a_crash_is_removed_and_the_chain_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    await file_trail(path)
    assert path.stat().st_mode & 0o077 == 0
    with path.open("ab") as file:
        file.write(b'{"seq":12,"id":"ha')
    await file_trail(path)
    found = verify(read_file(path), Chain())
    assert (found.problems, found.records) == ([], 22)


def record(number: int) -> dict[str, Any]:
    return {"id": f"r{number}", "time": 1.5, "actor": "us", "action": "read"}


async def test_a_file_that_has_grown_is_continued_in_another(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sinks = [FileSink(str(path), Chain(KEY), max_bytes=600) for _ in range(2)]
    for number in range(12):  # two that write by turns
        await sinks[number % 2].write([record(number)])
    kept = archives(path)
    assert len(kept) >= 2
    assert all(each.stat().st_mode & 0o077 == 0 for each in [path, *kept])
    found = verify(read_file(path), Chain(KEY))
    written = [json.loads(line) for line in read_file(path)]
    assert found.problems == []
    ids = [each["id"] for each in written if each["action"] != "rotate"]
    assert ids == [f"r{number}" for number in range(12)]
    assert len(written) == 12 + len(kept) == found.head.seq
    # what was put away is missed, unless one says what it was
    first = verify(kept[0].read_bytes().splitlines(), Chain(KEY)).head
    assert kept[0].name.endswith(f".{first.seq:012}")
    kept[0].unlink()
    assert not verify(read_file(path), Chain(KEY)).is_intact
    assert verify(read_file(path), Chain(KEY), found.head, first).is_intact
    kept[1].unlink()  # in the middle
    assert not verify(read_file(path), Chain(KEY), None, first).is_intact


@pytest.mark.parametrize("step", ["unlink", "replace"])
async def test_a_rotation_that_is_cut_off_loses_and_doubles_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    """The old file has both names by then; the new one is not there, or not named."""
    path = tmp_path / "audit.jsonl"
    sink = FileSink(str(path), Chain(), max_bytes=1)
    with monkeypatch.context() as patched:

        def crash(*_: Any, **__: Any) -> None:
            raise OSError(5, "crashed")

        patched.setattr(Path, step, crash)
        await sink.write([record(0)])  # the record stands, and the log tells
    assert [getattr(each, "event", None) for each in caplog.records] == [
        "audit_not_rotated"
    ]
    assert sink.head.seq == 1
    assert len(archives(path)) == 1
    assert verify(read_file(path), Chain()).records == 1
    sink = FileSink(str(path), Chain(), max_bytes=1)
    await sink.write([record(1)])
    found = verify(read_file(path), Chain())
    assert found.problems == []
    assert [json.loads(line)["id"] for line in read_file(path)][:2] == ["r0", "r1"]
    assert found.records == 3  # with the record of the rotation


async def test_a_file_that_was_moved_away_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = FileSink(str(path), Chain())
    await sink.write([record(0)])
    lock = FileSink._locked

    def moved(sink: FileSink) -> int:
        """Have it moved away between the opening and the lock."""
        flock = fcntl.flock

        def flock_once(file: int, how: int) -> None:
            fcntl.flock = flock
            path.rename(tmp_path / "moved")
            flock(file, how)

        fcntl.flock = flock_once
        return lock(sink)

    sink._locked = lambda: moved(sink)  # type: ignore[method-assign]
    await sink.write([record(1)])
    assert json.loads(path.read_text())["id"] == "r1"
    assert json.loads((tmp_path / "moved").read_text())["id"] == "r0"


async def test_a_file_that_somebody_spoilt_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("not a record\n")
    store = AuditedTrackerStore(InMemoryTrackerStore(), FileSink(str(path), Chain()))
    with pytest.raises(errors.AuditError, match="is no record"):
        await store.open()
    missing = FileSink(str(tmp_path / "none" / "audit.jsonl"), Chain())
    with pytest.raises(errors.AuditError, match="No such file"):
        await missing.open()


WRITER = """
import asyncio, sys
from tracker_store_async import create_tracker_store
from tracker_store_async.auditing import acting_as

async def main():
    section = {"sink": sys.argv[1], sys.argv[2]: sys.argv[3]}
    config = {"type": "in_memory", "audit": section}
    async with create_tracker_store(config) as store:
        with acting_as(sys.argv[4]):
            for number in range(20):
                await store.retrieve(f"c{number}")

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["file", "sql"])
async def test_several_processes_write_one_chain(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "audit.jsonl")
    url = f"sqlite+aiosqlite:///{tmp_path / 'audit.db'}"
    where = ("path", path) if kind == "file" else ("url", url)
    if kind == "sql":  # it is made once, before they come
        first = SQLSink(url, Chain())
        await first.open()
        await first.close()
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, kind, *where, f"p{number}"])
        for number in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    if kind == "file":
        found = verify(read_file(path), Chain())
    else:
        sink = SQLSink(url, Chain())
        await sink.open()
        found = verify([line async for line in sink.read()], Chain())
        await sink.close()
    assert (found.problems, found.records) == ([], 60)


async def test_a_file_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "audit.jsonl")
    sinks = [FileSink(path, Chain()) for _ in range(4)]
    record = {"id": "x", "actor": "a", "action": "read", "sender_id": SENDER}
    await asyncio.gather(*(sinks[n % 4].write([record]) for n in range(200)))
    found = verify(read_file(path), Chain())
    assert (found.problems, found.records) == ([], 200)


@pytest.mark.backend("postgresql")
async def test_a_table_on_a_server(postgresql_server: Any) -> None:
    from tests.servers import fresh_database

    with fresh_database(postgresql_server) as name:
        url = postgresql_server.url("postgresql+asyncpg", name)
        sinks = [SQLSink(url, Chain(KEY)) for _ in range(2)]
        for sink in sinks:
            await sink.open()
        record = {"id": "x", "actor": "a", "action": "read", "sender_id": SENDER}
        await asyncio.gather(*(sinks[n % 2].write([record]) for n in range(20)))
        found = verify([line async for line in sinks[0].read()], Chain(KEY))
        assert (found.problems, found.records) == ([], 20)
        for sink in sinks:
            await sink.close()


async def test_the_logger_gets_a_chain(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tracker_store_async.audit")
    store = AuditedTrackerStore(InMemoryTrackerStore(), LoggerSink(Chain()))
    await add(store, "token: looks like a secret", *turn(TEXT))
    await store.close()
    lines = [r.getMessage() for r in caplog.records if r.name.endswith(".audit")]
    found = verify(lines, Chain())
    assert found.is_intact
    assert found.records == len(lines) > 1
    assert TEXT not in caplog.text


# -- configuration and command ---------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sink": "file"}, "needs the key path"),
        ({"sink": "sql", "path": "x"}, "has no path"),
        ({"sink": "logger", "path": "x"}, "has no path"),
        ({"sink": "sql", "url": f"postgresql://me:{KEY}@h/x"}, "asyncio driver"),
        ({"sink": "paper"}, "audit"),
        (True, "audit"),
    ],
)
def test_a_section_fits_its_sink(section: Any, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        create_tracker_store({"type": "in_memory", "audit": section})
    assert KEY not in str(caught.value)


def test_it_stands_within_the_cache() -> None:
    section = {"type": "in_memory", "audit": {"sink": "logger"}, "cache": True}
    store: Any = create_tracker_store({**section, "fail_safe": True, "retry": True})
    names = []
    while hasattr(store, "_wrapped"):
        names.append(type(store).__name__.removesuffix("TrackerStore"))
        store = store._wrapped
    assert names == ["Cached", "Audited", "FailSafe", "Retrying"]


def test_the_command_records_itself_and_finds_tampering(tmp_path: Path) -> None:
    trail = tmp_path / "audit.jsonl"
    endpoints = (
        "tracker_store: {type: sql, dialect: sqlite, db: chats.db, "
        "audit: {sink: file, path: audit.jsonl, key: '${AUDIT_KEY}'}}"
    )
    (tmp_path / "endpoints.yml").write_text(endpoints)
    env = {"AUDIT_KEY": KEY}

    async def fill() -> None:
        config = {"type": "sql", "dialect": "sqlite", "db": str(tmp_path / "chats.db")}
        async with create_tracker_store(config) as store:
            await add(store, SENDER, *turn(TEXT))

    asyncio.run(fill())
    assert run("show", SENDER, "--json", cwd=tmp_path, env=env).returncode == 0
    assert run("show", SENDER, cwd=tmp_path, env=env).returncode == 0
    records = [json.loads(line) for line in trail.read_text().splitlines()]
    assert [record["action"] for record in records] == ["export", "read"]
    assert all(r["actor"].startswith("command line: ") for r in records)
    head = run("audit", "head", cwd=tmp_path, env=env).stdout.strip()
    assert head.startswith("2:")
    intact = run("audit", "verify", "--head", head, cwd=tmp_path, env=env)
    assert (intact.returncode, intact.stdout) == (0, f"2 records, the last is {head}\n")
    lines = trail.read_text().splitlines(keepends=True)
    trail.write_text(lines[0])
    cut = run("audit", "verify", "--head", head, cwd=tmp_path, env=env)
    assert cut.returncode == 1
    assert "record 2, whose hash was kept, is not there" in cut.stdout
    trail.write_text("".join(lines).replace("export", "read", 1))
    arguments = ("audit", "verify", "--file", "audit.jsonl")
    edited = run(*arguments, cwd=tmp_path, env={"TRACKER_STORE_AUDIT_KEY": KEY})
    assert edited.returncode == 1
    assert "record 1 was edited" in edited.stdout


def test_the_command_says_where_there_is_no_trail(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yml").write_text("tracker_store: {type: in_memory}")
    assert "no audit trail" in error_of("audit", "verify", cwd=tmp_path, code=2)
    missing = error_of("audit", "verify", "--file", "none", cwd=tmp_path, code=2)
    assert "cannot be read" in missing


@pytest.mark.parametrize("ends", ["cancelled", "closed"])
def test_a_loop_that_ends_while_a_record_is_written_ends_the_trail_for_nobody(
    ends: str,
) -> None:
    """Whoever opened the store again waited for the writer of the loop before."""
    sink = StuckSink()
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    loop = asyncio.new_event_loop()

    async def stuck() -> None:
        await store.open()
        sink.is_stuck = True
        reading = asyncio.create_task(store.retrieve(SENDER))
        await asyncio.sleep(0.05)
        store._note({"actor": "a", "action": "b", "sender_id": "c", "id": "d"}, "e")
        if ends == "cancelled":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    async def again() -> None:
        sink.is_stuck = False
        async with asyncio.timeout(5):
            await store.close()
            await store.open()
            await store.retrieve(SENDER)
            await store.close()

    loop.run_until_complete(stuck())
    if ends == "cancelled":
        loop.run_until_complete(again())
        loop.close()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop.close()
            asyncio.run(again())
    assert sink.told[0] == ("a", "b", "c")
    assert sink.told[-1] == ("unknown", "read", SENDER)


async def test_nobody_waits_for_a_writer_that_was_cancelled() -> None:
    sink = StuckSink()
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    await store.open()
    sink.is_stuck = True
    readings = [asyncio.create_task(store.retrieve(SENDER))]
    await asyncio.sleep(0.05)
    readings.append(asyncio.create_task(store.retrieve(SENDER)))
    await asyncio.sleep(0.05)
    assert store._trail._writer is not None
    store._trail._writer.cancel()
    done, _ = await asyncio.wait(readings, timeout=5)
    assert all(reading.cancelled() for reading in done)
    assert len(done) == 2
    sink.is_stuck = False
    async with asyncio.timeout(5):
        await store.retrieve(SENDER)
        await store.close()
