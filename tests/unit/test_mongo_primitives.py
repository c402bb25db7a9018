"""Buckets, sizes, expiry and options of the MongoDB store."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tests.mongo_databases import EACH_DRIVER, mongo_database
from tests.sql_databases import NOW, SENDER, append, ids, read, rows
from tracker_store_async import MongoTrackerStore, errors
from tracker_store_async.events import BotUttered, SlotSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mongo_databases import MongoTarget
    from tests.servers import Servers

pytest.importorskip("motor", reason="the extra mongo is not installed")
MEGABYTE = 1024 * 1024


@pytest.fixture
def target(servers: Servers) -> Iterator[MongoTarget]:
    with mongo_database(servers) as found:
        yield found


async def fill(store: MongoTrackerStore, saves: int, **changes: Any) -> int:
    """Append saves of some 30 kB; return the version."""
    data = '{"event":"slot","value":"%s"}' % ("x" * 10_000)
    for number in range(saves):
        version = 3 * number
        assert await store._append(
            append(version, rows=rows(3, version, data), **changes)
        )
    return 3 * saves


@pytest.mark.backend("mongo")
class TestBuckets:
    async def test_no_document_grows_without_bound(self, target: MongoTarget) -> None:
        async with target.store() as store:
            version = await fill(store, 30)
            header = target.header()
            assert header["version"] == version
            assert len(header["tail"]) <= 9
            assert [(b["first"], b["end"]) for b in target.buckets()] == [
                (first, first + 9) for first in range(0, header["tail_first"], 9)
            ]
            found = await store._read(read())
            assert ids(found) == [f"id-{number}" for number in range(version)]
            for start in (0, 1, 8, 9, 10, 80, 88, 89, 90, 1000):
                for last in (None, 1, 9, 10, 89):
                    part = await store._read(read(start=start, last=last))
                    first = max(min(start, version), version - (last or version))
                    assert part is not None
                    assert part.first_position == first
                    assert ids(part) == ids(found)[first:]

    async def test_twenty_thousand_events_at_once(self, target: MongoTarget) -> None:
        data = '{"event":"slot","value":"%s"}' % ("x" * 1000)
        async with target.store() as store:
            assert await store._append(append(0, rows=rows(20_000, 0, data)))
            assert await store._append(append(20_000))
            found = await store._read(read())
            assert found is not None
            assert found.version == len(found.rows) == 20_003
            sizes = [sum(len(r["data"]) for r in b["rows"]) for b in target.buckets()]
            assert max(sizes) < MEGABYTE

    @pytest.mark.parametrize("driver", EACH_DRIVER)
    async def test_a_large_event_and_one_that_is_too_large(
        self, target: MongoTarget, driver: Any
    ) -> None:
        async with target.store(driver=driver) as store:
            tracker = store.init_tracker(SENDER)
            tracker.update(BotUttered("x" * 10 * MEGABYTE, timestamp=1.0))
            await store.save(tracker)
            tracker.update(SlotSet("a", 1, timestamp=2.0))
            await store.save(tracker)
            loaded = await store.retrieve(SENDER)
            assert loaded is not None
            assert len(loaded.events) == 2
            tracker.update(BotUttered("x" * 20 * MEGABYTE, timestamp=3.0))
            with pytest.raises(errors.InvalidInputError, match="MongoDB stores"):
                await store.save(tracker)
            assert target.header()["version"] == 2

    async def test_the_largest_event_fits(self, target: MongoTarget) -> None:
        from tracker_store_async.backends.mongo.layout import MAX_ROW_BYTES

        data = '"%s"' % ("x" * (MAX_ROW_BYTES - 100))
        async with target.store() as store:
            store._check_size(SENDER, rows(1, 0, data), "{}")
            assert await store._append(append(0, rows=rows(1, 0, data)))
            assert (await store._read(read())).rows[0][1] == data  # type: ignore[union-attr]
            with pytest.raises(errors.InvalidInputError):
                store._check_size(SENDER, rows(1, 0, data + "x" * 100), "{}")
            with pytest.raises(errors.InvalidInputError, match="the state of"):
                store._check_size(SENDER, [], "x" * 15 * MEGABYTE)

    async def test_rivals_move_the_same_rows(self, target: MongoTarget) -> None:
        async with target.store() as one, target.store() as other:
            version = await fill(one, 3)
            results = await asyncio.gather(
                *(store._append(append(version)) for store in (one, other) * 4)
            )
            assert sorted(results) == [False] * 7 + [True]
            assert len(target.buckets()) == 1
            assert len(ids(await one._read(read()))) == 12

    @pytest.mark.parametrize("what", ["bucket", "row", "tail"])
    async def test_rows_that_somebody_removed(
        self, target: MongoTarget, what: str
    ) -> None:
        async with target.store() as store:
            await fill(store, 8)
            if what == "bucket":
                target.raw.conversations_events.delete_one({"first": 9})
            elif what == "row":
                target.raw.conversations_events.update_one(
                    {"first": 9}, {"$pop": {"rows": 1}}
                )
            else:
                target.raw.conversations_log.update_one(
                    {"_id": SENDER}, {"$pop": {"tail": 1}}
                )
            with pytest.raises(errors.CorruptEventError):
                await store._read(read())


@pytest.mark.backend("mongo")
class TestExpiry:
    async def test_buckets_live_as_long_as_the_conversation(
        self, target: MongoTarget
    ) -> None:
        async with target.store() as store:
            version = await fill(store, 6, expires_at=NOW + 100)
            commands = 0
            for number in range(20):
                now = NOW + 20 * number
                before = target.buckets()[0]["ttl"]
                assert await store._append(
                    append(version, 1, now=now, expires_at=now + 100)
                )
                version += 1
                header = target.header()
                commands += target.buckets()[0]["ttl"] != before
                assert header["buckets_until"] >= header["expires_at"]
                assert all(b["ttl"] >= header["ttl"] for b in target.buckets())
            assert 2 <= commands <= 5  # not at each save

    async def test_an_end_is_taken_away_and_given(self, target: MongoTarget) -> None:
        async with target.store() as store:
            version = await fill(store, 6, expires_at=NOW + 100)
            assert await store._append(append(version))
            documents = [target.header(), *target.buckets()]
            assert all("ttl" not in document for document in documents)
            assert await store._append(append(version + 3, expires_at=NOW + 100))
            header = target.header()
            assert all(b["ttl"] > header["ttl"] for b in target.buckets())
            assert header["buckets_until"] == NOW + 200


class TestOptions:
    def test_no_credentials_in_the_representation(self) -> None:
        store = MongoTrackerStore(
            host="mongodb://eve:sesame@a:1,b:2/x?authSource=y", password="sesame"
        )
        assert repr(store) == "<MongoTrackerStore: mongodb at a:1,b:2/rasa>"
        assert repr(MongoTrackerStore(host="h")).endswith(": mongodb at h/rasa>")
        assert "sesame" not in repr(store._options)

    def test_rasas_order_of_arguments(self) -> None:
        store = MongoTrackerStore(None, "h", "d", "u", "p", "s", "c", None)
        assert (store.db_name, store.collection) == ("d", "c")
        assert (
            store._options.driver_options().items()
            >= {
                "username": "u",
                "password": "p",
                "authSource": "s",
                "serverSelectionTimeoutMS": 10_000,
                "socketTimeoutMS": 60_000,
            }.items()
        )

    def test_auth_source_in_the_url_comes_first(self) -> None:
        store = MongoTrackerStore(host="mongodb://h/?authSource=x")
        assert "authSource" not in store._options.driver_options()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"driver": "asyncio"}, "driver must be one of"),
            ({"client": object()}, "`client` must be an AsyncIOMotorClient"),
            ({"write_concern": 0}, "write_concern 0"),
        ],
    )
    def test_wrong(self, options: Any, words: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=words):
            MongoTrackerStore(**options)

    @pytest.mark.parametrize("driver", EACH_DRIVER)
    async def test_a_client_of_ones_own_is_not_closed(
        self, target: MongoTarget, driver: Any
    ) -> None:
        from motor.motor_asyncio import AsyncIOMotorClient
        from pymongo import AsyncMongoClient

        kind = AsyncIOMotorClient if driver == "motor" else AsyncMongoClient
        client: Any = kind(target.server.url())
        async with MongoTrackerStore(client=client, db=target.name) as store:
            assert store.driver == driver
            assert await store._append(append(0))
        assert (await client.admin.command("ping"))["ok"] == 1
        with pytest.raises(errors.ConfigurationError, match="its own address"):
            MongoTrackerStore(client=client, username="u")
        closing = client.close()
        if closing is not None:
            await closing

    @pytest.mark.backend("mongo")
    async def test_health_and_a_newer_layout(self, target: MongoTarget) -> None:
        async with target.store() as store:
            health = await store.health()
            assert (health.schema_version, health.reachable) == (1, True)
            assert health.server_version
            assert health.details["driver"] == "motor"
        target.raw.conversations_log.update_one(
            {"_id": {"layout": 1}}, {"$set": {"version": 2}}
        )
        with pytest.raises(errors.SchemaTooNewError, match="version 2 of the layout"):
            await target.store().open()

    @pytest.mark.backend("mongo")
    async def test_many_open_at_once(self, target: MongoTarget) -> None:
        stores = [target.store() for _ in range(8)]
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(store.close() for store in stores))
        assert target.is_clean()


class TestErrors:
    @pytest.mark.backend("mongo")
    async def test_no_text_of_a_message_in_an_error(self, target: MongoTarget) -> None:
        secret = "my doctor says"
        async with target.store() as store:
            bad = append(0, snapshot=secret + "x" * 17 * MEGABYTE)
            with pytest.raises(errors.StoreDataError) as caught:
                await store._append(bad)
        shown = "".join(traceback.format_exception(caught.value))
        assert secret not in shown
        assert "16 MB" in str(caught.value)

    def test_one_error_of_ours_for_each_of_theirs(self) -> None:
        from pymongo import errors as driver

        from tracker_store_async.backends.mongo.errors import translate

        secret = "my doctor says"
        refused = {
            18: errors.StoreAccessError,
            13: errors.StoreAccessError,
            50: errors.StoreTimeoutError,
            64: errors.StoreTimeoutError,
            85: errors.SchemaError,
            91: errors.StoreUnavailableError,
            121: errors.StoreDataError,
            10107: errors.StoreUnavailableError,
            10334: errors.StoreDataError,
            14031: errors.StoreUnavailableError,
        }
        table: list[tuple[BaseException, type[BaseException]]] = [
            (driver.OperationFailure(secret, code), ours)
            for code, ours in refused.items()
        ]
        details = {"writeErrors": [{"code": 10334, "op": {"data": secret}}]}
        table += [
            (driver.BulkWriteError(details), errors.StoreDataError),
            (driver.DocumentTooLarge(secret), errors.StoreDataError),
            (driver.AutoReconnect("connection closed"), errors.StoreUnavailableError),
            (driver.NotPrimaryError(secret), errors.StoreUnavailableError),
            (driver.NetworkTimeout("timed out"), errors.StoreTimeoutError),
            (driver.WaitQueueTimeoutError("x"), errors.StoreTimeoutError),
            (driver.InvalidOperation("after close"), errors.StoreUnavailableError),
            (driver.ConfigurationError("x"), errors.ConfigurationError),
            (OSError(113, "x"), errors.StoreUnavailableError),
            (TimeoutError(), errors.StoreTimeoutError),
        ]
        for error, ours in table:
            found = translate(error, "mongodb at h/rasa")
            assert type(found) is ours, error
            assert str(found).startswith("mongodb at h/rasa ")
            assert secret not in str(found)
        assert translate(KeyError("x"), "here") is None
