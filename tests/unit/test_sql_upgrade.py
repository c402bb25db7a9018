"""Rasa's table: recognised, refused, upgraded when told to, and then answered from."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests import golden
from tests.sql_databases import (
    EACH_DIALECT,
    RASA_DDL,
    append,
    copy_golden_file,
    database,
    golden_rows,
    ids,
    make_rasa_database,
)
from tracker_store_async import Domain, EventVerbosity, SQLTrackerStore, errors
from tracker_store_async.backends.sql import layout
from tracker_store_async.events import decode_event
from tracker_store_async.rows import Listing, Read
from tracker_store_async.sessions import session_starts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database

ROWS = golden_rows()


@pytest.fixture(params=EACH_DIALECT)
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


def write_as_rasa(target: Database, rows: list[dict[str, Any]]) -> None:
    """Make the database of a Rasa; for SQLite with all rows, the file it wrote."""
    if target.dialect == "sqlite" and rows is ROWS:
        copy_golden_file(target)
    else:
        make_rasa_database(target, rows)


def row(sender_id: str, kind: str, **changes: Any) -> dict[str, Any]:
    """Return a row as Rasa writes it."""
    name = changes.pop("name", None)
    timestamp = changes.pop("timestamp", 1_700_000_000.25)
    event = {"event": kind, "timestamp": timestamp, "name": name}
    return {
        "sender_id": sender_id,
        "type_name": kind,
        "timestamp": timestamp,
        "intent_name": None,
        "action_name": name,
        "data": json.dumps(event),
        **changes,
    }


async def read(store: SQLTrackerStore, sender_id: str, **changes: Any) -> Any:
    found = await store._read(Read(sender_id, 0.0, **{"start": 0, **changes}))
    assert found is not None
    return found


# -- Rasa's own data -------------------------------------------------------------------


async def test_refused_with_a_message_that_says_how(target: Database) -> None:
    write_as_rasa(target, ROWS)
    before = await target.arun("SELECT * FROM events ORDER BY id")
    store = target.store()
    with pytest.raises(errors.SchemaUpgradeRequiredError) as caught:
        await store.open()
    for way in ("auto_upgrade: true", "auto_upgrade=True", "upgrade_schema()"):
        assert way in str(caught.value)
    assert await store.schema_state() == "Rasa's layout (upgrade needed)"
    assert await target.arun("SELECT * FROM events ORDER BY id") == before
    await store.upgrade_schema()
    assert await store.schema_state() == "current (1)"
    await store.upgrade_schema()
    async with store:
        assert len(await store._list(Listing(0.0, 1000))) > 0


async def test_every_row_that_rasa_wrote(target: Database) -> None:
    write_as_rasa(target, ROWS)
    expected: dict[str, list[dict[str, Any]]] = {}
    for written in ROWS:
        expected.setdefault(written["sender_id"], []).append(written)
    async with target.store(auto_upgrade=True) as store:
        listed = await store._list(Listing(0.0, 1000))
        assert {summary.sender_id for summary in listed} == set(expected)
        for sender_id, written in expected.items():
            found = await read(store, sender_id)
            texts = [one["data"] for one in written]
            assert [text for _, text in found.rows] == texts
            starts = session_starts([decode_event(text) for text in texts])
            assert found.session_start == (starts[-1] if starts else 0)
            assert (found.version, found.snapshot) == (len(texts), None)
            times = [json.loads(text)["timestamp"] for text in texts]
            finite = [time for time in times if abs(time) < 1e300]
            assert found.created_at == pytest.approx(min(finite), abs=1e-6)
            assert found.updated_at == pytest.approx(max(finite), abs=1e-6)
    kept = await target.arun(
        "SELECT id, sender_id, type_name, intent_name, action_name, data"
        " FROM events ORDER BY id"
    )
    assert [tuple(one) for one in kept] == [
        tuple(value for key, value in one.items() if key != "timestamp") for one in ROWS
    ]


async def test_answers_as_rasa_does(target: Database) -> None:
    write_as_rasa(target, ROWS)
    domain = Domain.load(golden.path("domain.yml"))
    answers = golden.load("answers")
    async with target.store(domain=domain, auto_upgrade=True) as store:
        for sender_id in golden.sender_ids():
            answer = answers["answers"]["sqlite"][sender_id]["retrieve_full_tracker"]
            tracker = await store.retrieve_full_tracker(sender_id)
            if answer is None:
                assert tracker is None
                continue
            assert tracker is not None
            expected = dict(answers["states"][answer["ALL"]["state"]])
            expected["events"] = answers["events"][answer["ALL"]["events"]]
            state = tracker.current_state(EventVerbosity.ALL)
            is_same = _text(state) == _text(expected)
            assert is_same, sender_id


def _text(state: dict[str, Any]) -> str:
    """Return text that is equal for equal states: NaN is NaN, and 1 is not 1.0."""
    return json.dumps(state, sort_keys=True)


async def test_conversation_goes_on(target: Database) -> None:
    write_as_rasa(target, ROWS)
    sender_id = ROWS[0]["sender_id"]
    async with target.store(auto_upgrade=True) as store:
        before = await read(store, sender_id)
        version = before.version
        assert not await store._append(append(version - 1, sender_id=sender_id))
        assert await store._append(append(version, 2, sender_id=sender_id))
        after = await read(store, sender_id)
        assert ids(after)[-3:] == [None, f"id-{version}", f"id-{version + 1}"]
        assert await store._append(append(0, 2, sender_id="somebody new"))
        assert await store._delete(sender_id, None, 0.0)


async def test_rasa_can_no_longer_write(target: Database) -> None:
    write_as_rasa(target, [row("a", "action", name="x")])
    await target.store().upgrade_schema()
    insert = (
        "INSERT INTO events (sender_id, type_name, timestamp, intent_name,"
        " action_name, data) VALUES ('a', 'slot', 1.0, NULL, 'n', '{}')"
    )
    with pytest.raises(DBAPIError):
        await target.arun(insert)
    async with target.store() as store:
        assert (await read(store, "a")).version == 1


# -- the rules -------------------------------------------------------------------------

ACTION = {"kind": "action", "name": "action_session_start"}
STARTED = {"kind": "session_started"}
OTHER = {"kind": "action", "name": "action_listen"}
SLOT = {"kind": "slot", "name": "action_session_start"}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([OTHER], 0),
        ([OTHER, ACTION], 0),
        ([STARTED], 0),
        ([ACTION, STARTED, OTHER], 0),
        ([OTHER, ACTION, STARTED], 1),
        ([OTHER, STARTED], 1),
        ([ACTION, OTHER, STARTED], 2),
        ([SLOT, STARTED], 1),
        ([ACTION, STARTED, OTHER, ACTION, STARTED, OTHER], 3),
        ([ACTION, STARTED, OTHER, ACTION], 0),
        ([STARTED, STARTED], 1),
        ([ACTION, STARTED, ACTION, STARTED], 2),
    ],
)
@pytest.mark.backend("sqlite")
async def test_where_the_latest_session_starts(
    servers: Servers, tmp_path: Path, events: list[dict[str, Any]], expected: int
) -> None:
    with database("sqlite", servers, tmp_path) as target:
        rows = [row("a", **event) for event in events]
        starts = session_starts([decode_event(one["data"]) for one in rows])
        assert (starts[-1] if starts else 0) == expected
        write_as_rasa(target, rows)
        async with target.store(auto_upgrade=True) as store:
            assert (await read(store, "a")).session_start == expected


async def test_conversations_that_only_their_bytes_tell_apart(
    target: Database,
) -> None:
    names = ["Alice", "alice", "alice ", "Ålice", "A", "\N{WINKING FACE}"]
    if target.dialect == "mysql":
        # Such a server is not told apart from one that holds these names only.
        await target.arun(
            f"ALTER DATABASE `{target.options['db']}` CHARACTER SET utf8mb4"
        )
    rows = [
        row(name, "action", name=f"{number}") for number in range(3) for name in names
    ]
    write_as_rasa(target, rows)
    async with target.store(auto_upgrade=True) as store:
        for name in names:
            found = await read(store, name)
            texts = [one["data"] for one in rows if one["sender_id"] == name]
            assert [text for _, text in found.rows] == texts


async def test_times_that_are_none(target: Database) -> None:
    rows = [
        row("nan", "action", timestamp=float("nan")),
        row("inf", "action", timestamp=float("inf")),
        row("inf", "action", timestamp=12.5),
        row("none", "action", timestamp=None),
    ]
    if target.dialect == "mysql":  # its column holds neither
        for one in rows[:2]:
            one["timestamp"] = None
    write_as_rasa(target, rows)
    async with target.store(auto_upgrade=True) as store:
        assert (await read(store, "inf")).updated_at == 12.5
        for name in ("nan", "none"):
            assert (await read(store, name)).updated_at > 1_700_000_000


async def test_row_without_data_is_reported_when_it_is_read(target: Database) -> None:
    write_as_rasa(target, [row("a", "action"), row("a", "action", data=None)])
    async with target.store(auto_upgrade=True) as store:
        with pytest.raises(errors.CorruptEventError, match="event 1"):
            await store.retrieve("a")


async def test_empty_table(target: Database) -> None:
    write_as_rasa(target, [])
    with pytest.raises(errors.SchemaUpgradeRequiredError):
        await target.store().open()
    async with target.store(auto_upgrade=True) as store:
        assert await store._list(Listing(0.0, 10)) == []
        assert await store._append(append(0))


async def test_what_others_added_to_the_table_stays(target: Database) -> None:
    write_as_rasa(target, [row("a", "action", name="n")])
    await target.arun(
        "ALTER TABLE events ADD COLUMN extra VARCHAR(20)",
        "UPDATE events SET extra = 'kept'",
        "CREATE INDEX ix_extra ON events (extra)",
        "CREATE VIEW actions AS SELECT action_name, extra FROM events",
    )
    async with target.store(auto_upgrade=True) as store:
        assert await store._append(append(1, 1, sender_id="a"))
    assert await target.arun("SELECT * FROM actions ORDER BY extra DESC") in (
        [("n", "kept"), ("n", None)],
        [("n", None), ("n", "kept")],
    )
    with pytest.raises(DBAPIError):
        await target.arun("CREATE INDEX ix_extra ON events (extra)")


async def test_ids_that_the_library_refuses(
    target: Database, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["", "a", "", "\N{WINKING FACE}" * 255]
    refused = 1
    if target.dialect == "sqlite":
        names += ["b" * 256, "c\0d", "\0"]
        refused = 4
    rows = [row(name, "action", name="n") for name in names]
    write_as_rasa(target, rows)
    async with target.store(auto_upgrade=True) as store:
        listed = await store.keys()
        assert sorted(listed) == sorted(["a", "\N{WINKING FACE}" * 255])
        for name in listed:
            assert (await read(store, name)).version == 1
    assert f"{refused} conversations have a sender id" in caplog.text
    stored = await target.arun("SELECT sender_id, data FROM events ORDER BY id")
    assert [tuple(one) for one in stored] == [
        (one["sender_id"], one["data"]) for one in rows
    ]
    assert await target.store().schema_state() == "current (1)"


# -- a part of ours --------------------------------------------------------------------

HELPERS = ["conversations", "tracker_store_schema"]


async def test_events_without_the_other_tables(target: Database) -> None:
    async with target.store() as store:
        assert await store._append(append(0, 8, sender_id="cut", session_start=4))
        assert await store._delete("cut", 3, 0.0)
        assert await store._append(append(0, 3, sender_id="whole"))
    await target.arun(*(f"DROP TABLE {name}" for name in HELPERS))
    state = await target.store().schema_state()
    assert state == "events without their conversations (upgrade needed)"
    with pytest.raises(errors.SchemaUpgradeRequiredError, match="partial restore"):
        await target.store().open()
    before = await target.arun("SELECT * FROM events ORDER BY id")
    async with target.store(auto_upgrade=True) as store:
        cut = await read(store, "cut")
        assert (cut.version, cut.first_position, len(cut.rows)) == (8, 3, 5)
        assert (await read(store, "whole")).version == 3
        assert await target.arun("SELECT * FROM events ORDER BY id") == before
        assert not await store._append(append(0, 1, sender_id="whole"))
        assert await store._append(append(3, 1, sender_id="whole"))
        assert await store._append(append(8, 1, sender_id="cut"))


async def test_events_with_an_empty_table_of_conversations(target: Database) -> None:
    async with target.store() as store:
        assert await store._append(append(0, 3, sender_id="a"))
    await target.arun("DELETE FROM conversations", "DROP TABLE tracker_store_schema")
    with pytest.raises(errors.SchemaUpgradeRequiredError):
        await target.store().open()
    await target.store().upgrade_schema()
    async with target.store() as store:
        assert (await read(store, "a")).version == 3


async def test_empty_events_without_the_other_tables(target: Database) -> None:
    await target.store().upgrade_schema()
    await target.arun(*(f"DROP TABLE {name}" for name in HELPERS))
    assert await target.store().schema_state() == "not created"
    async with target.store() as store:
        assert await store._append(append(0))


@pytest.mark.parametrize("name", ["position", "event_id"])
async def test_column_by_a_name_of_ours_is_refused(target: Database, name: str) -> None:
    write_as_rasa(target, [row("a", "action", name="n")])
    await target.arun(f"ALTER TABLE events ADD COLUMN {name} INTEGER DEFAULT 7")
    before = await target.arun("SELECT * FROM events")
    with pytest.raises(errors.SchemaError, match=rf"column '{name}'.*rename"):
        await target.store(auto_upgrade=True).open()
    assert await target.arun("SELECT * FROM events") == before


@pytest.fixture
def sqlite(servers: Servers, tmp_path: Path) -> Iterator[Database]:
    with database("sqlite", servers, tmp_path) as found:
        yield found


@pytest.mark.backend("sqlite")
@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("length INTEGER AS (length(data))", "generated column 'length'"),
        ("length INTEGER AS (length(data)) STORED", "generated column 'length'"),
        ("length INTEGER NOT NULL", "'length', which is NOT NULL and has no default"),
    ],
)
async def test_sqlite_column_that_cannot_be_kept(
    sqlite: Database, column: str, said: str
) -> None:
    create = RASA_DDL["sqlite"].replace("PRIMARY KEY", f"{column}, PRIMARY KEY")
    await sqlite.arun(create)
    with pytest.raises(errors.SchemaError, match=said):
        await sqlite.store(auto_upgrade=True).open()
    assert await sqlite.arun("SELECT sql FROM sqlite_master") == [(create,)]


@pytest.mark.backend("sqlite")
async def test_sqlite_columns_that_are_kept(sqlite: Database) -> None:
    create = (
        RASA_DDL["sqlite"].replace("sender_id", "SENDER_ID").replace("data", "Data")
    )
    extra = (
        "Tag TEXT NOT NULL DEFAULT 'it''s', moment TEXT DEFAULT CURRENT_TIMESTAMP,"
        " three INTEGER NOT NULL DEFAULT (1 + 2)"
    )
    await sqlite.arun(
        create.replace("PRIMARY KEY", f"{extra}, PRIMARY KEY"),
        "INSERT INTO events (sender_id, type_name, data, tag)"
        " VALUES ('a', 'slot', '{}', 'old')",
    )
    async with sqlite.store(auto_upgrade=True) as store:
        assert (await read(store, "a")).rows == [(None, "{}")]
        assert await store._append(append(1, 1, sender_id="a"))
    found = await sqlite.arun("SELECT tag, three FROM events ORDER BY position")
    assert found == [("old", 3), ("it's", 3)]
    assert await sqlite.arun("SELECT 1 FROM events WHERE moment IS NULL") == []
    with pytest.raises(DBAPIError):
        await sqlite.arun("UPDATE events SET tag = NULL")


@pytest.mark.backend("mysql")
async def test_mysql_gets_back_the_times_that_rasas_column_rounded(
    servers: Servers, tmp_path: Path
) -> None:
    with database("mysql", servers, tmp_path) as target:
        rows = [row("a", "action", timestamp=1_700_000_001.5)]
        write_as_rasa(target, rows)
        rounded = await target.arun("SELECT timestamp FROM events")
        assert abs(rounded[0][0] - 1_700_000_001.5) > 1
        async with target.store(auto_upgrade=True) as store:
            assert (await read(store, "a")).created_at == 1_700_000_001.5
        assert await target.arun("SELECT timestamp FROM events") == [(1_700_000_001.5,)]


@pytest.mark.backend("postgresql")
async def test_in_a_schema(servers: Servers, tmp_path: Path) -> None:
    with database("postgresql", servers, tmp_path) as target:
        write_as_rasa(target, [row("a", "action"), row("b", "action")])
        await target.arun(
            'CREATE SCHEMA "Old Rasa"', 'ALTER TABLE events SET SCHEMA "Old Rasa"'
        )
        async with target.store(schema="Old Rasa", auto_upgrade=True) as store:
            assert len(await store._list(Listing(0.0, 10))) == 2
            assert await store._append(append(1, 1, sender_id="a"))
        assert await target.store().schema_state() == "not created"


@pytest.mark.backend("postgresql")
async def test_upgraded_table_has_the_layout_of_a_new_one(
    servers: Servers, tmp_path: Path
) -> None:
    query = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    with database("postgresql", servers, tmp_path) as target:
        write_as_rasa(target, ROWS)
        await target.store().upgrade_schema()
        upgraded = await target.arun(query)
    with database("postgresql", servers, tmp_path) as target:
        await target.store().upgrade_schema()
        assert await target.arun(query) == upgraded


async def test_a_layout_that_comes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLTrackerStore(db=str(tmp_path / "there.db")) as store:
        assert await store._append(append(0))
    look, path = layout._missing, tmp_path / "new.db"

    def slow(*arguments: Any) -> set[str]:
        found = look(*arguments)
        if arguments[2].name == "conversations" and not path.stat().st_size:
            # another process has created the tables, and saved something
            with (
                closing(sqlite3.connect(tmp_path / "there.db")) as other,
                closing(sqlite3.connect(path)) as here,
            ):
                other.backup(here)
        return found

    monkeypatch.setattr(layout, "_missing", slow)
    path.touch()
    store = SQLTrackerStore(db=str(path))
    assert await store.schema_state() == "current (1)"
