"""The backends and wrappers that the suite runs on: one entry in `BACKENDS` each.

An entry names the server that the backend needs, a key of `tests.servers.MANAGERS`, and
a `Storage`: how to make a store, how to empty what is stored, and how to look at it
past the store. Nothing else in this directory knows of any backend.
"""

from __future__ import annotations

import shutil
import sqlite3
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import tracker_store_async
from tests.servers import fresh_database
from tests.servers.base import run_now
from tests.servers.mongo import MongoServer
from tests.servers.redis import RedisServer
from tests.unit.legacy_stores import JSONTextStore
from tracker_store_async import (
    AwaitableTrackerStore,
    CachedTrackerStore,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    RetryingTrackerStore,
)
from tracker_store_async.auditing.chain import Chain
from tracker_store_async.auditing.sinks import LoggerSink
from tracker_store_async.wrappers.audited import AuditedTrackerStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.servers import Servers
    from tracker_store_async import TrackerStore


class Storage(ABC):
    """One place where conversations are kept, and the stores that share it.

    Attributes:
        is_sealed: Whether what was said cannot be read in it past the store.
    """

    is_sealed = False

    def __init__(self) -> None:
        self._stores: list[TrackerStore] = []

    def store(self, **options: Any) -> TrackerStore:
        """Return a new store object on this storage; `close` closes it.

        Args:
            options: Arguments that every store has, such as `max_event_history`.
        """
        store = self._make(**options)
        self._stores.append(store)
        return store

    async def close(self) -> None:
        """Close every store that was made."""
        while self._stores:
            await self._stores.pop().close()

    def forget(self) -> None:
        """Leave the closing of the stores that were made to somebody else."""
        self._stores.clear()

    @abstractmethod
    def _make(self, **options: Any) -> TrackerStore:
        """Return a new store object."""

    @abstractmethod
    def wipe(self) -> None:
        """Forget everything that is stored."""

    @abstractmethod
    def raw(self) -> str:
        """Return everything that is stored as text, read past the store."""


class _SharedMemoryStore(InMemoryTrackerStore):
    """An in-memory store on a memory that it shares with others, as on a server."""

    async def _open(self) -> None:
        """Connect to nothing: the memory is there."""


class MemoryStorage(Storage):
    """The memory of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.wipe()

    def _make(self, **options: Any) -> TrackerStore:
        store = _SharedMemoryStore(**options)
        store._conversations, store._sorted_ids = self._shared
        return store

    def wipe(self) -> None:
        """Start with a new memory."""
        self._shared: tuple[dict[str, Any], list[str]] = ({}, [])

    def raw(self) -> str:
        """Return the memory's representation."""
        return repr(self._shared)


class SQLiteStorage(Storage):
    """An SQLite file, a new one for each test.

    Each is a copy of one with empty tables: creating them takes longer than most tests.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._number = 0
        run_now(self._create_tables())
        self._empty = self._file.rename(directory / "empty.db")

    async def _create_tables(self) -> None:
        async with self._make():
            pass

    @property
    def _file(self) -> Path:
        return self._directory / f"conversations-{self._number}.db"

    def _make(self, **options: Any) -> TrackerStore:
        return tracker_store_async.SQLTrackerStore(
            dialect="sqlite", db=str(self._file), **options
        )

    def wipe(self) -> None:
        """Start with a new file."""
        for file in self._directory.glob(f"{self._file.name}*"):
            file.unlink()
        self._number += 1
        shutil.copyfile(self._empty, self._file)

    def raw(self) -> str:
        """Return the rows of all tables, and the bytes of the file and its journals."""
        connection = sqlite3.connect(self._file)
        rows = "\n".join(connection.iterdump())
        connection.close()
        files = sorted(self._directory.glob(f"{self._file.name}*"))
        return rows + "".join(file.read_bytes().decode("latin-1") for file in files)


class SQLServerStorage(Storage):
    """A database of our own on an SQL server."""

    def __init__(
        self,
        url: str,
        direct_url: str,
        execute: Callable[[str], None],
        **options: Any,
    ) -> None:
        super().__init__()
        self._url = url
        self._direct_url = direct_url
        self._execute = execute
        self._options = options
        run_now(self._create_tables())

    async def _create_tables(self) -> None:
        async with self._make():
            pass

    def _make(self, **options: Any) -> TrackerStore:
        return tracker_store_async.SQLTrackerStore(
            host=self._url, **self._options, **options
        )

    def wipe(self) -> None:
        """Empty the tables."""
        self._execute("DELETE FROM events")
        self._execute("DELETE FROM conversations")

    def raw(self) -> str:
        """Return the rows of all tables."""
        return run_now(self._rows())

    async def _rows(self) -> str:
        engine = create_async_engine(self._direct_url, poolclass=NullPool)
        found: list[str] = []
        try:
            async with engine.connect() as connection:
                names = await connection.run_sync(
                    lambda sync: inspect(sync).get_table_names()
                )
                for name in names:
                    rows = await connection.execute(text(f"SELECT * FROM {name}"))
                    found += [str(value) for row in rows for value in row]
        finally:
            await engine.dispose()
        return "\n".join(found)


class DynamoStorage(Storage):
    """Tables of our own on a DynamoDB, beside an empty one of Rasa's.

    Args:
        server: The server.
        name: Rasa's table; ours is named after it.
    """

    def __init__(self, server: Any, name: str) -> None:
        super().__init__()
        self._server = server
        self._name = name
        server.call(
            "create_table",
            TableName=name,
            KeySchema=[{"AttributeName": "sender_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "sender_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    def _make(self, **options: Any) -> TrackerStore:
        return tracker_store_async.DynamoTrackerStore(
            table_name=self._name, **self._server.options(), **options
        )

    def wipe(self) -> None:
        """Delete the items of all conversations."""
        table = f"{self._name}_events"
        if table not in self._server.call("list_tables")["TableNames"]:
            return
        keys = [
            {"sender_id": item["sender_id"], "position": item["position"]}
            for item in self._items(table)
            if not item["sender_id"]["S"].startswith("\0")
        ]
        for at in range(0, len(keys), 25):
            deletions = [{"DeleteRequest": {"Key": k}} for k in keys[at : at + 25]]
            self._server.call("batch_write_item", RequestItems={table: deletions})

    def _items(self, table: str) -> list[Any]:
        items: list[Any] = []
        start: dict[str, Any] = {}
        while True:
            page = self._server.call("scan", TableName=table, **start)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return items
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def raw(self) -> str:
        """Return every item of both tables."""
        return "".join(
            str(self._items(table)) for table in (self._name, f"{self._name}_events")
        )


class LegacyStorage(Storage):
    """The memory of a legacy store, which `AwaitableTrackerStore` wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.wipe()

    def _make(self, **options: Any) -> TrackerStore:
        legacy = JSONTextStore(domain=options.pop("domain", None))
        legacy.texts = self._texts
        broker = options.pop("event_broker", None)
        store = AwaitableTrackerStore(legacy, **options)
        store.event_broker = broker
        return store

    def wipe(self) -> None:
        """Start with a new memory."""
        self._texts: dict[str, str] = {}

    def raw(self) -> str:
        """Return the memory's representation."""
        return repr(self._texts)


class WrappedStorage(Storage):
    """The storage of a backend, reached through stores that are wrapped.

    Args:
        inner: The storage.
        wrap: Wraps a store of it.
    """

    def __init__(
        self, inner: Storage, wrap: Callable[[TrackerStore], TrackerStore]
    ) -> None:
        super().__init__()
        self._inner = inner
        self._wrap = wrap

    def _make(self, **options: Any) -> TrackerStore:
        return self._wrap(self._inner._make(**options))

    def wipe(self) -> None:
        """Forget everything that is stored."""
        self._inner.wipe()

    def raw(self) -> str:
        """Return everything that is stored as text."""
        return self._inner.raw()


class MongoStorage(Storage):
    """A database of our own on MongoDB."""

    def __init__(self, server: MongoServer, database: str, driver: str) -> None:
        super().__init__()
        self._url = server.url()
        self._database = database
        self._driver = driver
        from pymongo import MongoClient  # an extra: others must run without it

        self._client: Any = MongoClient(self._url)

    def _make(self, **options: Any) -> TrackerStore:
        return tracker_store_async.MongoTrackerStore(
            host=self._url, db=self._database, driver=self._driver, **options
        )

    def wipe(self) -> None:
        """Empty the collections, but for the layout's version."""
        database = self._client[self._database]
        database.conversations_log.delete_many({"_id": {"$ne": {"layout": 1}}})
        database.conversations_events.delete_many({})
        database.conversations.delete_many({})

    def raw(self) -> str:
        """Return every document of every collection."""
        database = self._client[self._database]
        return "\n".join(
            str(document)
            for name in database.list_collection_names()
            for document in database[name].find()
        )

    def end(self) -> None:
        """Close our own client."""
        self._client.close()


class FailSafeStorage(Storage):
    """Another storage behind fail-safes, whose fallback is the memory by default.

    Args:
        primary: The storage.
    """

    def __init__(self, primary: Storage) -> None:
        super().__init__()
        self._primary = primary
        self._memories: list[Any] = []

    def _make(self, **options: Any) -> TrackerStore:
        store = FailSafeTrackerStore(self._primary._make(**options))
        self._memories.append((store._seen, store._fallbacks[0]))
        return store

    def wipe(self) -> None:
        """Empty the storage."""
        self._memories.clear()
        self._primary.wipe()

    def raw(self) -> str:
        """Return what the storage holds, and what the fail-safes remember."""
        seen = [one for memory, _ in self._memories for one in memory._seen.items()]
        remembered = [(name, vars_of(conversation)) for name, conversation in seen]
        kept = [vars(fallback) for _, fallback in self._memories]
        return self._primary.raw() + repr(remembered) + repr(kept)


class ComposedStorage(Storage):
    """The memory of this process, in wrappers that are wrapped themselves."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = MemoryStorage()

    def _make(self, **options: Any) -> TrackerStore:
        store = RetryingTrackerStore(self._memory._make(**options))
        return CachedTrackerStore(RetryingTrackerStore(FailSafeTrackerStore(store)))

    def wipe(self) -> None:
        """Start with a new memory."""
        self._memory.wipe()

    def raw(self) -> str:
        """Return the memory's representation."""
        return self._memory.raw()


def vars_of(conversation: Any) -> list[Any]:
    """Return what a conversation holds, with what its `repr` leaves out."""
    return [getattr(conversation, name) for name in type(conversation).__slots__]


class RedisStorage(Storage):
    """Keys with a prefix of our own on a Redis or Valkey, or on a cluster."""

    def __init__(self, server: RedisServer, mode: str = "standalone") -> None:
        super().__init__()
        self.server = server
        self.prefix = f"test{uuid4().hex[:12]}"
        self.client = server.client() if mode == "standalone" else None
        if self.client is None:
            self.client = server.cluster_client()
        self._options = {
            "host": server.host,
            "port": server.port,
            "username": server.username or None,
            "password": server.password or None,
            "deployment_mode": mode,
        }

    def _make(self, **options: Any) -> TrackerStore:
        return tracker_store_async.RedisTrackerStore(
            key_prefix=self.prefix, **self._options, **options
        )

    def keys(self) -> list[bytes]:
        """Return the keys that hold our prefix."""
        return sorted(self.client.scan_iter(match=f"*{self.prefix}*", count=1000))

    def wipe(self) -> None:
        """Remove our keys, but for the layout's version."""
        for key in self.keys():
            if not key.endswith(b":layout"):
                self.client.delete(key)

    def raw(self) -> str:
        """Return every key of ours with its value."""
        readers = {
            b"string": lambda key: self.client.get(key),
            b"hash": lambda key: self.client.hgetall(key),
            b"list": lambda key: self.client.lrange(key, 0, -1),
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
            b"none": lambda key: None,
        }
        return "\n".join(
            f"{key!r} {readers[self.client.type(key)](key)!r}" for key in self.keys()
        )

    def end(self) -> None:
        """Remove our keys and close our own client."""
        for key in self.keys():
            self.client.delete(key)
        self.client.close()


@dataclass(frozen=True, slots=True)
class Backend:
    """One entry of the table.

    Attributes:
        server: The server it needs, a key of `tests.servers.MANAGERS`.
        storage: Makes its storage, empty, for one run of the suite.
        beyond: What a wrapper cannot give, as its documentation says: patterns of the
            names of tests that it does not run, by reason. Backends have none.
    """

    server: str
    storage: Callable[[Servers, Path], AbstractContextManager[Storage]]
    beyond: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@contextmanager
def memory_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a memory."""
    yield MemoryStorage()


@contextmanager
def sqlite_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a directory with an SQLite file."""
    yield SQLiteStorage(directory)


@contextmanager
def postgresql_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a database on PostgreSQL."""
    server = servers.get("postgresql")
    with fresh_database(server) as name:
        url = server.url("postgresql+asyncpg", name)
        yield SQLServerStorage(url, url, lambda sql: server.execute(sql, name))


@contextmanager
def mysql_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a database on MariaDB or MySQL."""
    server = servers.get("mysql")
    with fresh_database(server) as name:
        url = server.url("mysql+asyncmy", name)
        yield SQLServerStorage(url, url, lambda sql: server.execute(sql, name))


@contextmanager
def pgbouncer_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a database on PostgreSQL, behind a PgBouncer that pools by transaction."""
    behind, server = servers.get("postgresql"), servers.get("pgbouncer")
    with fresh_database(behind) as name:
        yield SQLServerStorage(
            server.url("postgresql+asyncpg", name),
            behind.url("postgresql+asyncpg", name),
            lambda sql: behind.execute(sql, name),
            pgbouncer=True,
        )


@contextmanager
def dynamo_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield tables on DynamoDB."""
    server = servers.get("dynamo")
    with fresh_database(server) as name:
        yield DynamoStorage(server, name)


@contextmanager
def mongo_storage(
    servers: Servers, directory: Path, driver: str = "motor"
) -> Iterator[Storage]:
    """Yield a database on MongoDB."""
    server = cast(MongoServer, servers.get("mongo"))
    with fresh_database(server) as name:
        storage = MongoStorage(server, name, driver)
        yield storage
        storage.end()


@contextmanager
def redis_storage(
    servers: Servers, directory: Path, key: str = "redis", mode: str = "standalone"
) -> Iterator[Storage]:
    """Yield keys on a Redis, a Valkey or a cluster."""
    storage = RedisStorage(cast(RedisServer, servers.get(key)), mode)
    try:
        yield storage
    finally:
        storage.end()


@contextmanager
def legacy_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield the memory of a legacy store."""
    yield LegacyStorage()


def cached(
    storage: Callable[[Servers, Path], AbstractContextManager[Storage]],
) -> Callable[[Servers, Path], AbstractContextManager[Storage]]:
    """Return what yields a storage that is reached through a cache."""

    @contextmanager
    def cached_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
        with storage(servers, directory) as inner:
            yield WrappedStorage(inner, CachedTrackerStore)

    return cached_storage


@contextmanager
def composed_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a memory in several wrappers."""
    yield ComposedStorage()


@contextmanager
def failsafe_storage(
    storage: Callable[[Servers, Path], AbstractContextManager[Storage]],
    servers: Servers,
    directory: Path,
) -> Iterator[Storage]:
    """Yield another storage behind fail-safes."""
    with storage(servers, directory) as primary:
        yield FailSafeStorage(primary)


@contextmanager
def encrypted_storage(
    storage: Callable[[Servers, Path], AbstractContextManager[Storage]],
    servers: Servers,
    directory: Path,
    **options: Any,
) -> Iterator[Storage]:
    """Yield another storage that is reached through encryption."""
    pytest.importorskip("cryptography")  # an extra: others must run without it
    from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

    if options.pop("with_data_keys", False):
        options["data_keys"] = f"sqlite+aiosqlite:///{directory / 'keys.db'}"

    def wrap(store: TrackerStore) -> TrackerStore:
        return EncryptedTrackerStore(store, {"k1": TEST_KEY}, **options)

    with storage(servers, directory) as inner:
        sealed = WrappedStorage(inner, wrap)
        sealed.is_sealed = True
        yield sealed


@contextmanager
def audited_storage(servers: Servers, directory: Path) -> Iterator[Storage]:
    """Yield a memory that is reached through an audit trail."""

    def wrap(store: TrackerStore) -> TrackerStore:
        return AuditedTrackerStore(store, LoggerSink(Chain()))

    yield WrappedStorage(MemoryStorage(), wrap)


BEYOND_ENCRYPTION: Mapping[str, tuple[str, ...]] = {
    "what is left can be read in the storage no more than what was cut off": (
        "test_erasure::test_what_was_cut_off_leaves_no_trace",
        "test_expiry::test_what_expired_is_overwritten_without_a_trace",
    ),
}

TEST_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

BEYOND_LEGACY_STORES: Mapping[str, tuple[str, ...]] = {
    "no conditional write: two wrappers can overwrite each other's events": (
        "test_concurrent_writers::test_through_a_store_object_each",
        "test_concurrent_writers::test_with_a_tracker_that_is_kept",
        "test_concurrent_writers::test_the_state_is_right_after_many_writers",
        "test_concurrent_writers::test_creating_at_once_creates_once",
        "test_concurrent_writers::test_sessions_started_at_once_are_all_kept",
    ),
    "no ids but of what this wrapper wrote lately, and no name for a log": (
        "test_publishing::test_once_through_a_conflict",
        "test_long_conversations::test_ten_thousand_events_in_one_session",
        "test_lost_acknowledgement::test_a_copy_is_found_in_a_conversation_that_*",
        "test_identity::test_a_conversation_begun_again_*",
    ),
    "no way to erase a part of a conversation": (
        "test_since::test_what_was_cut_off_is_gone",
    ),
    "a save gives the legacy store the whole tracker, not rows": (
        "test_copying::*",
        "test_save_many::test_rows_are_stored_as_one_by_one",
        "test_log::test_rows_come_back_byte_for_byte",
        "test_log::test_the_header_says_what_the_append_said",
        "test_log::test_an_append_at_another_version_changes_nothing",
        "test_log::test_a_read_starts_and_ends_where_it_is_told",
        "test_header::*",
        "test_encryption::*",
        "test_values::test_a_row_of_any_shape_loads_and_goes_on",
        "test_values::test_an_event_of_any_shape_is_stored_as_it_is",
        "test_values::test_text_that_is_not_json_says_where_it_stands",
        "test_conflicts::test_rebase_stores_what_it_would_have_stored",
        "test_golden::test_answers_and_messages_are_rasas",
        "test_window::test_turns_saved_through_a_window_keep_the_state_right",
    ),
    "no changing of what is stored": ("test_rewrite::*", "test_keeping::*"),
    "no deleting of a part": (
        "test_erasure::*_cut*",
        "test_cancellation::test_a_cancelled_deletion_deletes_all_or_nothing",
        "test_long_conversations::test_a_hundred_sessions_of_a_hundred_events",
        "test_lost_acknowledgement::test_what_had_landed_was_erased_up_to_a_*",
        "test_state_machine::*",
    ),
    "no record_exp": (
        "test_expiry::*",
        "test_erasure::test_a_deleted_conversation_leaves_no_trace",
    ),
    "no user_id": (
        "test_listing::test_only_those_of_a_user",
        "test_listing::test_a_user_alone_is_stored",
        "test_listing::test_the_user_stays_until_another_is_named",
    ),
    "times are those of the events, and listing reads every conversation": (
        "test_listing::test_a_summary_says_what_is_stored",
        "test_listing::test_only_those_of_a_time",
        "test_listing::test_every_page_size_lists_each_once",
    ),
}
"""What `AwaitableTrackerStore` says in its docstring that it cannot give."""


class EagerStorage(Storage):
    """Another storage, whose stores decode and apply every event at once."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage

    def _make(self, **options: Any) -> TrackerStore:
        store = self._storage._make(**options)
        store._lazy_events = False
        return store

    def wipe(self) -> None:
        """Forget everything that is stored."""
        self._storage.wipe()

    def raw(self) -> str:
        """Return everything that is stored as text."""
        return self._storage.raw()


@contextmanager
def eager_storage(
    make: Callable[[Servers, Path], AbstractContextManager[Storage]],
    servers: Servers,
    directory: Path,
) -> Iterator[Storage]:
    """Give a storage whose stores are not lazy: the answers have to be the same."""
    with make(servers, directory) as storage:
        yield EagerStorage(storage)


BACKENDS: Mapping[str, Backend] = {
    "in_memory": Backend("memory", memory_storage),
    "sqlite": Backend("sqlite", sqlite_storage),
    "in_memory_eager": Backend("memory", partial(eager_storage, memory_storage)),
    "sqlite_eager": Backend("sqlite", partial(eager_storage, sqlite_storage)),
    "postgresql": Backend("postgresql", postgresql_storage),
    "mariadb": Backend("mysql", mysql_storage),
    "pgbouncer": Backend("pgbouncer", pgbouncer_storage),
    "cached": Backend("memory", cached(memory_storage)),
    "cached_postgresql": Backend("postgresql", cached(postgresql_storage)),
    "dynamo": Backend("dynamo", dynamo_storage),
    "mongo": Backend("mongo", mongo_storage),
    "mongo_pymongo": Backend("mongo", partial(mongo_storage, driver="pymongo")),
    "redis": Backend("redis", redis_storage),
    "redis8": Backend("redis8", partial(redis_storage, key="redis8")),
    "redis_cluster": Backend(
        "redis_cluster", partial(redis_storage, key="redis_cluster", mode="cluster")
    ),
    "valkey": Backend("valkey", partial(redis_storage, key="valkey")),
    "awaitable": Backend("memory", legacy_storage, BEYOND_LEGACY_STORES),
    "failsafe": Backend("memory", partial(failsafe_storage, memory_storage)),
    "failsafe-sqlite": Backend("sqlite", partial(failsafe_storage, sqlite_storage)),
    "failsafe-postgresql": Backend(
        "postgresql", partial(failsafe_storage, postgresql_storage)
    ),
    "composed": Backend("memory", composed_storage),
    "audited": Backend("memory", audited_storage),
    "encrypted-memory": Backend(
        "memory", partial(encrypted_storage, memory_storage), BEYOND_ENCRYPTION
    ),
    "encrypted-sqlite": Backend(
        "sqlite",
        partial(encrypted_storage, sqlite_storage, with_data_keys=True),
        BEYOND_ENCRYPTION,
    ),
}
