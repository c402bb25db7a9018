"""The audit trail beside what moves, keeps and saves many, and whom commands name."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.canaries import TEXT
from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    add,
    has,
    new_session,
    slot,
    turn,
    user,
)
from tests.unit.command import run
from tests.unit.test_audited import ListSink
from tracker_store_async import (
    InMemoryTrackerStore,
    SQLTrackerStore,
    create_tracker_store,
    errors,
)
from tracker_store_async.auditing import acting_as
from tracker_store_async.config import EndpointConfig
from tracker_store_async.inspection.opening import NotFoundError
from tracker_store_async.inspection.targets import Target
from tracker_store_async.keeping import anonymise, prune
from tracker_store_async.keeping.pruning import Retention
from tracker_store_async.keeping.rules import rules_from
from tracker_store_async.moving import backup, migrate
from tracker_store_async.moving.commands import opened_source
from tracker_store_async.moving.opening import (
    source_store,
    target_store,
)
from tracker_store_async.rows import Read
from tracker_store_async.wrappers.audited import AuditedTrackerStore

if TYPE_CHECKING:
    from pathlib import Path

RULES = "rules: [{text: user, pattern: canary, action: replace, with: gone}]"


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


def records_of(sink: ListSink) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sink.lines]


async def test_what_is_anonymised_is_recorded_as_changed(sink: ListSink) -> None:
    inner = InMemoryTrackerStore()
    await add(inner, SENDER, *turn(f"canary {TEXT}"), slot("a", "canary"))
    store = AuditedTrackerStore(inner, sink)
    rule = {"text": "user", "pattern": "canary", "action": "replace", "with": "gone"}
    with acting_as("privacy job", "anonymise"):
        done = [each async for each in anonymise(store, rules_from({"rules": [rule]}))]
    assert sink.told == [
        ("privacy job", "list", None),
        ("privacy job", "anonymise", SENDER),
        ("privacy job", "change", SENDER),
    ]
    change = records_of(sink)[-1]
    assert (change["rewritten"], change["events"]) == (True, done[0].events)
    assert "canary" not in "".join(sink.lines)
    await store.close()


async def test_a_rewrite_that_is_refused_is_said_of_its_record(sink: ListSink) -> None:
    inner = InMemoryTrackerStore()
    await add(inner, SENDER, *turn("canary"))
    store = AuditedTrackerStore(inner, sink)
    refused = iter([False])
    rewriting = inner._rewrite

    async def overtaken(rewrite: Any) -> bool:
        return next(refused, True) and await rewriting(rewrite)

    inner._rewrite = overtaken  # type: ignore[method-assign]
    rule = {"text": "user", "pattern": "canary", "action": "replace", "with": "gone"}
    assert [each async for each in anonymise(store, rules_from({"rules": [rule]}))]
    notes = [record for record in records_of(sink) if "of" in record]
    assert [note["outcome"] for note in notes] == ["refused"]
    await store.close()


async def test_what_is_pruned_is_recorded_as_deleted(sink: ListSink) -> None:
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    await add(store, SENDER, *turn())
    found = await store._read(Read(SENDER, 0.0, last=0))
    assert found is not None
    assert not await store._delete(SENDER, None, store._now(), found.version + 1)
    with acting_as("nightly", "prune"):
        old = Retention(older_than_seconds=1e-9)
        assert [each async for each in prune(store, old)]
    assert not await store.exists(SENDER)
    await asyncio.sleep(0)
    deletions = [r for r in records_of(sink) if r["action"] == "delete"]
    assert [r["actor"] for r in deletions if "of" not in r] == ["unknown", "nightly"]
    assert deletions[0]["only_version"] == found.version + 1
    await store.close()
    notes = [r for r in records_of(sink) if "of" in r]
    assert [note["of"] for note in notes] == [deletions[0]["id"]]


async def test_what_is_copied_is_recorded_on_both_sides(
    sink: ListSink, tmp_path: Path
) -> None:
    inner, into = InMemoryTrackerStore(), ListSink()
    await add(inner, SENDER, *turn(TEXT), slot("a", TEXT))
    source = AuditedTrackerStore(inner, sink)
    target = AuditedTrackerStore(InMemoryTrackerStore(), into)
    with acting_as("admin", "export"):
        report = await migrate(source, target, page_events=2)
        assert report.copied == 1
        assert ("admin", "export", SENDER) in sink.told
        changes = [r for r in records_of(into) if r["action"] == "change"]
        assert [r["position"] for r in changes][:2] == [0, 2]
        assert sum(r["events"] for r in changes) == report.events
        sink.lines.clear()
        await backup(source, tmp_path / "all.jsonl.gz")
        assert ("admin", "export", SENDER) in sink.told
    assert TEXT not in "".join([*sink.lines, *into.lines])
    await source.close()
    await target.close()


async def test_each_of_many_is_recorded_and_none_without_a_record(
    sink: ListSink,
) -> None:
    inner = InMemoryTrackerStore()
    store = AuditedTrackerStore(inner, sink)
    trackers = [store.init_tracker(name) for name in ("a", "b", "c")]
    for tracker in trackers:
        tracker.update(user())
    await store.save_many(trackers)
    changed = [told for told in sink.told if told[1] == "change"]
    assert sorted(changed) == [("unknown", "change", n) for n in ("a", "b", "c")]
    sink.is_full = True
    for tracker in trackers:
        tracker.update(user("unrecorded"))
    with pytest.raises(errors.SaveManyError):
        await store.save_many(trackers)
    for name in ("a", "b", "c"):
        assert len((await has(inner, name)).events) == 1
    sink.is_full = False
    await store.close()


async def test_a_store_with_an_outbox_can_be_audited(
    sink: ListSink, tmp_path: Path
) -> None:
    broker = FailingBroker()
    inner = SQLTrackerStore(db=str(tmp_path / "db"), outbox=True, event_broker=broker)
    async with AuditedTrackerStore(inner, sink) as store:
        await add(store, SENDER, user("one"))
        assert (await store.health()).details["audit"]["records"] == len(sink.lines) > 1
    assert [body.get("text") for body in broker.bodies] == ["one"]


@pytest.mark.parametrize("open_store", [source_store, target_store])
def test_what_moves_does_without_the_fail_safe_within(
    open_store: Any, tmp_path: Path
) -> None:
    """The trail stands around it, and a fail-safe would hide an outage."""
    section = {
        "type": "sql",
        "db": str(tmp_path / "db"),
        "fail_safe": True,
        "audit": {"sink": "logger"},
        "cache": True,
    }
    store: Any = open_store(EndpointConfig(**section))
    names = []
    while hasattr(store, "_wrapped"):
        names.append(type(store).__name__.removesuffix("TrackerStore"))
        store = store._wrapped
    assert names == ["Cached", "Audited"]


async def test_a_file_that_is_not_there_is_missed_through_wrappers(
    tmp_path: Path,
) -> None:
    section = {"type": "sql", "db": str(tmp_path / "typo"), "audit": {"sink": "logger"}}
    source = Target(EndpointConfig(**section), "e.yml", "")
    with pytest.raises(NotFoundError, match="its SQLite file does not exist"):
        async with opened_source(source):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "actions"),
    [
        (("show", SENDER), {"read"}),
        (("stats",), {"list"}),
        (("transcript", SENDER, "--from", "endpoints.yml"), {"export"}),
        (("backup", "--from", "endpoints.yml", "all.jsonl.gz"), {"list", "export"}),
        (
            ("migrate", "--from", "endpoints.yml", "--to", "other.db"),
            {"list", "export"},
        ),
        (("prune", "--keep-last-sessions", "1"), {"list", "prune", "delete"}),
        (("anonymise", "rules.yml"), {"list", "anonymise", "change"}),
        (("delete", SENDER), {"delete"}),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_a_command_says_who_acts_and_what_for(
    command: tuple[str, ...], actions: set[str], tmp_path: Path
) -> None:
    section = {"type": "sql", "dialect": "sqlite", "db": "chats.db"}
    trail = {"sink": "file", "path": "audit.jsonl"}
    (tmp_path / "endpoints.yml").write_text(
        json.dumps({"tracker_store": {**section, "audit": trail}})
    )
    (tmp_path / "rules.yml").write_text(RULES)

    async def fill() -> None:
        config = {**section, "db": str(tmp_path / "chats.db")}
        async with create_tracker_store(config) as store:
            for text in ("canary one", "canary two"):
                await add(store, SENDER, *new_session(), *turn(text))

    asyncio.run(fill())
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["action"] for record in records} == actions
    assert all(r["actor"].startswith("command line") for r in records)
    assert "canary" not in "".join(lines)
