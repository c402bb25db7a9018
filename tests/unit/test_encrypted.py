"""Encryption at rest: what is sealed, what opens it, and what forgets it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("cryptography")

from cryptography.fernet import Fernet

from tests.conformance.backends import MemoryStorage, SQLiteStorage
from tests.conformance.kit import (
    SENDER,
    add,
    has,
    has_full,
    new_session,
    said,
    slot,
    turn,
)
from tracker_store_async import (
    AwaitableTrackerStore,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    create_tracker_store,
    errors,
)
from tracker_store_async.encryption.keyring import generate_key, parse_keys
from tracker_store_async.keeping.anonymising import anonymise
from tracker_store_async.keeping.pruning import Retention, prune
from tracker_store_async.keeping.rules import rules_from
from tracker_store_async.ops.resealing import reseal_all
from tracker_store_async.rows import Read
from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore
from tracker_store_async.wrappers.retrying import RetryingTrackerStore

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async import TrackerStore

PLANTED = "xyzzy-planted"
OLD, NEW = generate_key(), generate_key()


def sealed_by(
    storage: MemoryStorage | SQLiteStorage, keys: Any = None, **options: Any
) -> EncryptedTrackerStore:
    """Return a new store object on a storage, behind encryption."""
    store = EncryptedTrackerStore(storage._make(), keys or {"old": OLD}, **options)
    storage._stores.append(store)
    return store


@pytest.fixture
def memory() -> MemoryStorage:
    return MemoryStorage()


async def raw_read(storage: MemoryStorage) -> Any:
    return await storage._make()._read(Read(SENDER, 0.0, 0))


async def test_neither_events_nor_state_nor_columns_can_be_read(
    tmp_path: Path,
) -> None:
    storage = SQLiteStorage(tmp_path)
    store = sealed_by(storage)
    await add(store, SENDER, *turn(PLANTED), slot(PLANTED, PLANTED))
    assert said(await has(store, SENDER)) == [PLANTED]
    await storage.close()
    raw = storage.raw()
    assert PLANTED not in raw
    assert "slot" not in raw.partition("INSERT")[2]
    columns = columns_of(storage)
    assert {row[1:] for row in columns} == {("sealed", None, None, None)}
    assert all(isinstance(json.loads(row[0]), str) for row in columns)


async def test_columns_are_kept_that_one_wants(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path)
    store = sealed_by(storage, keep_columns=["type_name", "timestamp"])
    await add(store, SENDER, slot("a", PLANTED))
    await storage.close()
    (row,) = columns_of(storage)
    assert row[1] == "slot"
    assert row[2] is not None
    assert row[3:] == (None, None)


def columns_of(storage: SQLiteStorage) -> list[Any]:
    connection = sqlite3.connect(storage._file)
    found = connection.execute(
        "SELECT data, type_name, timestamp, intent_name, action_name FROM events"
    ).fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("key", [OLD, f"fernet:{Fernet.generate_key().decode()}"])
async def test_another_process_opens_it_with_the_same_keys(
    memory: MemoryStorage, key: str
) -> None:
    await add(sealed_by(memory, {"a": key}), SENDER, *turn("one"))
    other = sealed_by(memory, {"b": NEW, "a": key})
    await add(other, SENDER, *turn("two"))
    assert said(await has(sealed_by(memory, {"b": NEW, "a": key}), SENDER)) == [
        "one",
        "two",
    ]


async def test_without_the_key_nothing_opens_and_it_can_be_deleted(
    memory: MemoryStorage,
) -> None:
    await add(sealed_by(memory), SENDER, *turn(PLANTED))
    wrong_id = sealed_by(memory, {"new": NEW})
    with pytest.raises(errors.EncryptionKeyError, match="the key 'old' is needed"):
        await wrong_id.retrieve(SENDER)
    with pytest.raises(errors.EncryptionKeyError, match="does not open with the key"):
        await sealed_by(memory, {"old": NEW}).retrieve(SENDER)
    with pytest.raises(errors.CorruptEventError, match="it is encrypted"):
        await memory.store().retrieve(SENDER)
    assert await wrong_id.exists(SENDER)
    assert await wrong_id.delete(SENDER)
    assert not await wrong_id.exists(SENDER)


async def swap_rows(memory: MemoryStorage) -> None:
    rows = memory._shared[0][SENDER].rows
    rows[0], rows[1] = rows[1], rows[0]


async def swap_texts(memory: MemoryStorage) -> None:
    rows = memory._shared[0][SENDER].rows
    (a, x), (b, y) = rows[:2]
    rows[:2] = [(a, y), (b, x)]


async def take_over_another(memory: MemoryStorage) -> None:
    await add(sealed_by(memory), "bob", *turn("bob"))
    conversations = memory._shared[0]
    conversations[SENDER].rows = conversations["bob"].rows


async def change_a_letter(memory: MemoryStorage) -> None:
    rows = memory._shared[0][SENDER].rows
    event_id, text = rows[0]
    rows[0] = (event_id, text[:40] + ("A" if text[40] != "A" else "B") + text[41:])


async def turn_the_snapshot_back(memory: MemoryStorage) -> None:
    conversation = memory._shared[0][SENDER]
    before = conversation.snapshot
    await add(sealed_by(memory), SENDER, slot("a", 1))
    conversation.snapshot = before


@pytest.mark.parametrize(
    "tamper",
    [
        swap_rows,
        swap_texts,
        take_over_another,
        change_a_letter,
        turn_the_snapshot_back,
    ],
)
async def test_what_was_changed_or_moved_does_not_open(
    memory: MemoryStorage, tamper: Any
) -> None:
    await add(sealed_by(memory), SENDER, *turn(PLANTED))
    await tamper(memory)
    with pytest.raises(errors.CorruptEventError) as caught:
        await sealed_by(memory).retrieve(SENDER)
    assert PLANTED not in str(caught.value)


async def test_a_whole_header_of_another_conversation_does_not_open(
    memory: MemoryStorage,
) -> None:
    for sender_id in (SENDER, "bob"):
        await add(sealed_by(memory), sender_id, *turn("x"))
    conversations = memory._shared[0]
    conversations[SENDER] = conversations["bob"]
    with pytest.raises(errors.EncryptionKeyError):
        await sealed_by(memory).retrieve(SENDER)


async def test_plain_events_are_accepted_until_they_are_refused(
    memory: MemoryStorage,
) -> None:
    await add(memory.store(), SENDER, *turn("plain"))
    store = sealed_by(memory)
    await add(store, SENDER, *turn(PLANTED))
    assert said(await has_full(store, SENDER)) == ["plain", PLANTED]
    assert PLANTED not in memory.raw()
    strict = sealed_by(memory, plaintext="refuse")
    with pytest.raises(errors.CorruptEventError, match=r"event 0 .* not encrypted"):
        await strict.retrieve(SENDER)


async def test_a_new_key_is_used_by_the_next_save_or_by_resealing(
    memory: MemoryStorage,
) -> None:
    before = sealed_by(memory)
    for sender_id in (SENDER, "idle"):
        await add(before, sender_id, *turn("one"))
    tracker = await before.retrieve("idle")
    assert tracker is not None
    rotated = sealed_by(memory, {"new": NEW, "old": OLD})
    await add(rotated, SENDER, *turn("two"))
    assert not await rotated.reseal(SENDER)  # the save has done it
    assert await rotated.reseal("idle")
    assert not await rotated.reseal("idle")
    only_new = sealed_by(memory, {"new": NEW})
    assert said(await has(only_new, SENDER)) == ["one", "two"]
    assert said(await has(only_new, "idle")) == ["one"]
    tracker.update(slot("a", 1))
    await before.save(tracker)  # with the key that it still holds
    assert (await has(rotated, "idle")).get_slot("a") == 1


async def test_a_conversation_begun_again_has_another_key(
    memory: MemoryStorage,
) -> None:
    """A writer that still holds the old key cannot seal with it."""
    one, other = sealed_by(memory), sealed_by(memory)
    await add(one, SENDER, *turn("first"))
    tracker = await one.retrieve(SENDER)
    assert tracker is not None
    await other.delete(SENDER)
    await add(other, SENDER, *turn("again"))
    tracker.update(slot("a", 1))
    await one.save(tracker)
    assert said(await has(other, SENDER)) == ["again"]
    assert (await has(other, SENDER)).get_slot("a") == 1


async def test_erasing_the_data_key_forgets_copies_too(
    memory: MemoryStorage, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    store = sealed_by(memory, data_keys=url)
    await add(store, SENDER, *turn(PLANTED))
    await add(store, "bob", *turn("bob"))
    backup = dict(memory._shared[0])
    assert await store.delete(SENDER)
    memory._shared[0].update(backup)  # restored
    memory._shared[1].append(SENDER)
    for reader in (store, sealed_by(memory, data_keys=url)):
        with pytest.raises(errors.EncryptionKeyError, match="was erased"):
            await reader.retrieve(SENDER)
        assert said(await has(reader, "bob")) == ["bob"]
    with pytest.raises(errors.EncryptionKeyError, match=r"encryption\.data_keys"):
        await sealed_by(memory).retrieve("bob")
    await memory.close()
    connection = sqlite3.connect(tmp_path / "keys.db")
    assert connection.execute("SELECT count(*) FROM conversation_data_keys").fetchone()
    connection.close()


@pytest.mark.parametrize("does", ["retrieve", "retrieve_full", "save"])
async def test_who_meets_a_deletion_finds_nothing_and_no_erased_key(
    does: str, memory: MemoryStorage, tmp_path: Path
) -> None:
    """The key goes first, and the conversation a moment later."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    store = sealed_by(memory, data_keys=url)
    tracker = await add(store, SENDER, *turn("x"))
    other = sealed_by(memory, data_keys=url)
    await other.open()
    if does == "save":
        tracker = await has(other, SENDER)
        other._keys.clear()
    backend: Any = store._wrapped
    delete, is_key_gone = backend._delete, asyncio.Event()

    async def slow(*arguments: Any) -> bool:
        is_key_gone.set()
        await asyncio.sleep(0.03)
        return bool(await delete(*arguments))

    backend._delete = slow
    deleting = asyncio.create_task(store.delete(SENDER))
    await is_key_gone.wait()
    if does == "retrieve":
        assert await other.retrieve(SENDER) is None
    elif does == "retrieve_full":
        assert await other.retrieve_full_tracker(SENDER) is None
    else:
        tracker.update(slot("a", "new"))
        await other.save(tracker)
        assert (await has(other, SENDER)).get_slot("a") == "new"
    assert await deleting
    await memory.close()


async def test_what_nobody_can_read_any_more_ends_no_retention_and_no_anonymising(
    memory: MemoryStorage, tmp_path: Path
) -> None:
    """As where a backup of the database came back, of before a deletion."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    store = sealed_by(memory, data_keys=url)
    for name in ("a", "b", "c"):
        await add(store, name, *new_session(), *turn("one"))
        await add(store, name, *new_session(), *turn("two"))
    backup = memory._shared[0]["b"]
    assert await store.delete("b")
    memory._shared[0]["b"] = backup
    memory._shared[1].insert(1, "b")
    rules = rules_from({"rules": [{"text": "user", "action": "replace"}]})
    done = {each.sender_id: each.events async for each in anonymise(store, rules)}
    assert done == {"a": 4, "b": 0, "c": 4}  # of the user, and of the bot as well
    sessions = Retention(keep_last_sessions=1)
    cuts = [cut async for cut in prune(store, sessions)]
    assert [cut and cut.sender_id for cut in cuts] == ["a", None, "c"]
    assert list(await store.keys()) == ["a", "b", "c"]
    later = time.time() + 100
    old = [cut async for cut in prune(store, Retention(10.0), now=later)]
    assert sorted(cut.sender_id for cut in old if cut) == ["a", "b", "c"]
    assert list(await store.keys()) == []
    await memory.close()


async def test_data_keys_in_a_database_are_resealed(
    memory: MemoryStorage, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    await add(sealed_by(memory, data_keys=url), SENDER, *turn("x"))
    rotated = sealed_by(memory, {"new": NEW, "old": OLD}, data_keys=url)
    assert await rotated.reseal(SENDER)
    assert not await rotated.reseal(SENDER)
    only_new = sealed_by(memory, {"new": NEW}, data_keys=url)
    assert said(await has(only_new, SENDER)) == ["x"]
    await memory.close()


async def test_keys_come_from_a_file_and_are_read_again(
    memory: MemoryStorage, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# comment\nold={OLD}\n")
    section = {"type": "in_memory", "encryption": {"keys_file": str(file)}}
    store = create_tracker_store(section)
    await add(store, SENDER, *turn("x"))
    await store.close()
    file.write_text("no key at all")
    with pytest.raises(errors.ConfigurationError, match="entry 1 is not id=key"):
        await create_tracker_store(section).open()
    file.unlink()
    with pytest.raises(errors.ConfigurationError, match="cannot be read"):
        await create_tracker_store(section).open()


async def test_a_key_that_is_not_known_is_asked_for(memory: MemoryStorage) -> None:
    keys = {"old": OLD}

    async def source() -> dict[str, str]:
        return dict(keys)

    store = sealed_by(memory, source)
    await add(store, SENDER, *turn("x"))
    keys = {"new": NEW, "old": OLD}
    await add(sealed_by(memory, keys), "bob", *turn("bob"))
    assert said(await has(store, "bob")) == ["bob"]


async def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"type": "in_memory", "encryption": {"keys_env": "TEST_KEYS"}}
    store = create_tracker_store(section)
    with pytest.raises(errors.ConfigurationError, match="TEST_KEYS is not set"):
        await store.open()
    monkeypatch.setenv("TEST_KEYS", f"new={NEW}, old={OLD}")
    await store.open()
    details = (await store.health()).details["encryption"]
    assert details == {
        "active_key": "new",
        "keys": ["new", "old"],
        "data_keys": "header",
    }
    await store.close()


def failing() -> dict[str, str]:
    """Fail, as somebody's vault does, with a secret in the text."""
    raise RuntimeError(PLANTED)


async def test_a_source_that_fails_gives_nothing_away() -> None:
    section = {
        "type": "in_memory",
        "encryption": {"keys_callable": f"{__name__}.failing"},
    }
    with pytest.raises(errors.EncryptionKeyError, match="RuntimeError") as caught:
        await create_tracker_store(section).open()
    assert PLANTED not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ({}, {}, "at least one key"),
        ({"a": PLANTED}, {}, "key 'a' must be 32 bytes"),
        ({"a": f"fernet:{PLANTED}"}, {}, "key 'a' must be 32 bytes"),
        ({"a": 7}, {}, "key 'a' must be 32 bytes"),
        ({"a.b": OLD}, {}, "id of a key"),
        ({"a": OLD}, {"active_key": "b"}, "active_key is 'b'"),
        (PLANTED, {}, "mapping of key id to key"),
        ({"a": OLD}, {"plaintext": "perhaps"}, "plaintext"),
        ({"a": OLD}, {"keep_columns": ["data"]}, "keep_columns"),
        ({"a": OLD}, {"data_keys": f"postgresql://me:{PLANTED}@h/x"}, "asyncio driver"),
    ],
)
def test_what_is_wrong_is_said_and_not_shown(
    memory: MemoryStorage, keys: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        EncryptedTrackerStore(memory._make(), keys, **options)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize(
    "section", [True, {}, {"keys": {"a": OLD}, "keys_env": "X"}, {"keys": {"a": 1.5}}]
)
def test_a_section_names_one_source(section: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="encryption") as caught:
        create_tracker_store({"type": "in_memory", "encryption": section})
    assert OLD not in str(caught.value)


def test_a_legacy_store_cannot_hold_it() -> None:
    from tests.unit.legacy_stores import JSONTextStore

    store = AwaitableTrackerStore(JSONTextStore())
    with pytest.raises(errors.ConfigurationError, match="hands whole trackers"):
        EncryptedTrackerStore(store, {"a": OLD})


def test_an_entry_without_a_name_is_not_shown() -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        parse_keys(f"a={OLD}\n{PLANTED}", "here")
    assert PLANTED not in str(caught.value)


async def test_the_journal_of_an_outage_is_sealed_too(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    store = create_tracker_store(
        {
            "type": "in_memory",
            "encryption": {"keys": {"a": OLD}},
            "fail_safe": {"journal": str(journal)},
        }
    )
    await add(store, SENDER, *turn("before"))
    primary: Any = store
    while hasattr(primary, "_wrapped"):
        primary = primary._wrapped

    async def away(*args: Any) -> Any:
        raise errors.StoreUnavailableError("away")

    primary._append = primary._read = away
    await add_known(store, PLANTED)
    raw = b"".join(file.read_bytes() for file in tmp_path.glob("journal*"))
    assert b"sealed:1:" in raw
    assert PLANTED.encode() not in raw
    del primary._append, primary._read
    assert said(await has(store, SENDER))[-1] == PLANTED
    await store.close()


async def add_known(store: TrackerStore, text: str) -> None:
    tracker = await store.retrieve(SENDER)
    assert tracker is not None
    for event in turn(text):
        tracker.update(event)
    await store.save(tracker)


async def test_a_read_that_is_handed_on_is_as_it_was_stored(
    memory: MemoryStorage,
) -> None:
    """Sealing does not change what the caller's own request holds."""
    store = sealed_by(memory)
    await add(store, SENDER, *turn("x"))
    stored = await raw_read(memory)
    again = replace(stored)
    assert await has(store, SENDER)
    assert (await raw_read(memory)).rows == again.rows


def test_the_command_makes_keys_and_rotates_them(tmp_path: Path) -> None:
    from tests.unit.command import error_of, output_of, run

    old, new = (output_of("encryption", "new-key", cwd=tmp_path)[0] for _ in range(2))
    assert old != new

    def endpoints(*keys: str) -> None:
        lines = "\n".join(f"      {key}" for key in keys)
        (tmp_path / "endpoints.yml").write_text(
            "tracker_store:\n  type: sql\n  dialect: sqlite\n  db: chats.db\n"
            f"  encryption:\n    keys:\n{lines}\n"
        )

    async def fill() -> None:
        config = {
            "type": "sql",
            "dialect": "sqlite",
            "db": str(tmp_path / "chats.db"),
            "encryption": {"keys": {"old": old}},
        }
        async with create_tracker_store(config) as store:
            for name in ("alice", "bob"):
                await add(store, name, *turn(PLANTED))

    asyncio.run(fill())
    command = ("encryption", "reseal")
    endpoints(f"new: {new}", f"old: {old}")
    assert output_of(*command, cwd=tmp_path) == ["2 of 2 conversations resealed"]
    assert output_of(*command, cwd=tmp_path) == ["0 of 2 conversations resealed"]
    endpoints(f"new: {new}")
    shown = output_of("show", "alice", cwd=tmp_path)
    assert PLANTED in "".join(shown)
    unread = error_of("show", "alice", "--db", "chats.db", cwd=tmp_path, code=1)
    assert "it is encrypted" in unread
    endpoints(f"other: {generate_key()}")
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 1
    assert "2 conversations have a key that is not configured" in result.stderr


async def test_key_ids_that_differ_by_their_case_are_two(
    memory: MemoryStorage, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    await add(sealed_by(memory, {"V1": OLD}, data_keys=url), SENDER, *turn("x"))
    rotated = sealed_by(memory, {"v1": NEW, "V1": OLD}, data_keys=url)
    assert await rotated.reseal(SENDER)
    only_new = sealed_by(memory, {"v1": NEW}, data_keys=url)
    assert said(await has(only_new, SENDER)) == ["x"]
    await memory.close()


async def test_a_state_that_is_not_sealed_is_refused_as_well(
    memory: MemoryStorage,
) -> None:
    """Else an open header would have its conversation sealed with another key."""
    await add(sealed_by(memory), SENDER, *turn(PLANTED))
    await add(memory._make(), "forged", slot("role", "admin"))
    stored, forged = memory._shared[0][SENDER], memory._shared[0]["forged"]
    sealed = stored.snapshot
    stored.snapshot = forged.snapshot
    stored.session_start = stored.version  # no event is read with it

    store = sealed_by(memory, plaintext="refuse")
    tracker = store.init_tracker(SENDER)
    tracker.update(slot("a", 1))
    for work in (store.retrieve(SENDER), store.save(tracker)):
        with pytest.raises(errors.CorruptEventError, match="must be"):
            await work
    assert await store.exists(SENDER)

    stored.snapshot, stored.session_start = sealed, 0
    assert said(await has_full(store, SENDER)) == [PLANTED]
    assert await store.delete("forged")
    await memory.close()


def test_an_encrypted_primary_has_no_plain_fallback_on_a_disk(tmp_path: Path) -> None:
    """What an outage adds would be kept plain in its file."""

    def primary() -> EncryptedTrackerStore:
        return EncryptedTrackerStore(InMemoryTrackerStore(), {"a": OLD})

    journal = str(tmp_path / "journal.db")
    for inner in (primary(), RetryingTrackerStore(primary())):
        with pytest.raises(errors.ConfigurationError, match="wrap_fallback"):
            FailSafeTrackerStore(inner, journal=journal)
    plain = create_tracker_store({"type": "sql", "db": journal})
    with pytest.raises(errors.ConfigurationError, match="wrap_fallback"):
        FailSafeTrackerStore(primary(), plain)

    def seal(store: TrackerStore) -> TrackerStore:
        return EncryptedTrackerStore(store, {"a": OLD})

    assert FailSafeTrackerStore(primary(), journal=journal, wrap_fallback=seal)
    assert FailSafeTrackerStore(primary(), wrap_fallback=seal)
    assert FailSafeTrackerStore(primary())
    assert FailSafeTrackerStore(primary(), InMemoryTrackerStore())


async def test_health_looks_at_the_data_keys_too(
    memory: MemoryStorage, tmp_path: Path
) -> None:
    path = tmp_path / "keys.db"
    store = sealed_by(memory, data_keys=f"sqlite+aiosqlite:///{path}")
    assert (await store.health()).reachable
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE conversation_data_keys")
    connection.close()
    health = await store.health()
    assert not health.reachable
    assert "of encryption.data_keys (sqlite database" in str(health.error)
    assert "run `tracker-store schema upgrade`" in str(health.error)
    await memory.close()


@pytest.mark.parametrize(
    "damage",
    ['{"sealed":2}', '{"sealed":', '{"sealed":1,"data_key":5}', "another's state"],
)
async def test_a_damaged_state_does_not_end_a_rotation(
    memory: MemoryStorage, damage: str
) -> None:
    for name in ("a", "b", "c"):
        await add(sealed_by(memory), name, *turn(name))
    shared = memory._shared[0]
    if damage == "another's state":
        envelopes = [json.loads(shared[name].snapshot) for name in "bc"]
        envelopes[0]["text"] = envelopes[1]["text"]
        damage = json.dumps(envelopes[0], separators=(",", ":"))
    shared["b"].snapshot = damage
    rotated = sealed_by(memory, {"new": NEW, "old": OLD})
    done = await reseal_all(rotated)
    assert (done.conversations, done.resealed, done.unreadable) == (3, 2, ["b"])
    await memory.close()
