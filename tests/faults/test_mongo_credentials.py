"""Passwords of MongoDB that change while a store is open."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.servers import ServerMissingError, private_mongo
from tests.sql_databases import append, ids, read
from tracker_store_async import MongoTrackerStore, create_tracker_store, errors
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.events import UserUttered
from tracker_store_async.wrappers.retrying import RetryingTrackerStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.servers.mongo import PrivateMongo

pytestmark = pytest.mark.backend("mongo")

USER = "rotating"
SOON = "?heartbeatFrequencyMS=500"  # else a client takes its 10 s to close
DRIVERS = ("motor", "pymongo")
CONVERSATIONS = [f"sender-{number}" for number in range(8)]


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateMongo]:
    try:
        with private_mongo(auth=True) as running:
            with running.server.client() as client:
                roles = [{"role": "root", "db": "admin"}]
                client.admin.command("createUser", USER, pwd="first", roles=roles)
            yield running
    except ServerMissingError as error:
        pytest.skip(str(error))


class Account:
    """A login whose password can be changed."""

    def __init__(self, private: PrivateMongo, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.server = private.server
        self.server.drop_database("rotation")
        self.set_password("first")

    def set_password(self, password: str) -> None:
        """Change the password."""
        with self.server.client() as client:
            client.admin.command("updateUser", USER, pwd=password)

    def end_sessions(self) -> None:
        """End all connections of the stores."""
        self.proxy.cut()

    def options(self, driver: str) -> dict[str, Any]:
        """Arguments of the store, without a password."""
        return {
            "host": f"mongodb://{self.proxy.host}:{self.proxy.port}/{SOON}",
            "db": "rotation",
            "username": USER,
            "driver": driver,
            "connect_timeout_seconds": 20,
        }


@pytest.fixture
async def account(private: PrivateMongo) -> AsyncIterator[Account]:
    async with FaultProxy(private.server.host, private.server.port) as proxy:
        yield Account(private, proxy)


async def reads(store: Any) -> int:
    """Return how many events are stored; the first reads may lose the connection."""
    for _ in range(10):
        try:
            return len(ids(await store._read(read())))
        except errors.StoreUnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_password_is_asked_for_anew(
    account: Account, driver: str, tmp_path: Path
) -> None:
    """A function and a file; the new client takes the place of the old one."""
    file = tmp_path / "password"
    file.write_text("first\n")
    current, asked = ["first"], []

    async def password() -> str:
        asked.append(current[0])
        return current[0]

    options = account.options(driver)
    section = {"type": "mongod", **options, "password_file": str(file)}
    async with (
        create_tracker_store(section) as by_file,
        MongoTrackerStore(**options, password=password) as by_function,
    ):
        assert await by_file._append(append(0))
        assert asked == ["first"]
        account.set_password("second")
        file.write_text("second\n")
        current[0] = "second"
        account.end_sessions()
        assert await reads(by_file) == 3
        assert await reads(by_function) == 3
        assert asked == ["first", "second"]
        assert await by_function._append(append(3))
        assert await reads(by_file) == 6


async def test_an_outbox_goes_on_with_the_new_password(account: Account) -> None:
    """Its relay has no operation of the caller's that would renew the login for it."""
    current = ["first"]
    broker = RecordingBroker()
    store = MongoTrackerStore(
        **account.options("motor"),
        password=lambda: current[0],
        outbox=True,
        event_broker=broker,
    )
    async with store:
        tracker = await store.create_tracker("ada")
        await store.save(tracker)
        await published(broker, 1)
        account.set_password("second")
        current[0] = "second"
        account.end_sessions()
        tracker.update(UserUttered("hello"))
        await RetryingTrackerStore(store, attempts=100).save(tracker)
        await published(broker, 2)


async def published(broker: RecordingBroker, count: int) -> None:
    """Wait until the broker has that many events."""
    async with asyncio.timeout(30):
        while len(broker.messages) < count:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_is_under_way_is_neither_broken_nor_doubled(
    account: Account, driver: str
) -> None:
    """Writers go on while the password changes, three times, and connections end."""
    current = ["first"]
    done = asyncio.Event()
    inner = MongoTrackerStore(**account.options(driver), password=lambda: current[0])
    retrying = RetryingTrackerStore(inner, attempts=1000, budget_seconds=60)
    async with retrying as store:
        writing = [
            asyncio.create_task(write(store, name, done)) for name in CONVERSATIONS
        ]
        for password in ("second", "third", "fourth"):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(account.set_password, password)
            current[0] = password
            account.end_sessions()
        await asyncio.sleep(0.1)
        done.set()
        versions = await asyncio.gather(*writing)
        assert min(versions) > 0
        for name, version in zip(CONVERSATIONS, versions, strict=True):
            found = await store._read(replace(read(), sender_id=name, start=0))
            assert ids(found) == [f"id-{number}" for number in range(version)]


async def write(store: Any, name: str, done: asyncio.Event) -> int:
    """Append until told to stop; return how many events that were."""
    version = 0
    while not done.is_set():
        added = replace(append(version), sender_id=name)
        if not await store._append(added):
            # the answer had been lost: then all of it is there
            found = await store._read(replace(read(), sender_id=name))
            assert found.version == version + len(added.rows)
        version += len(added.rows)
    return version


async def test_an_old_client_ends_what_it_has_begun(account: Account) -> None:
    """It is closed when its last operation has ended, and not before."""
    current = ["first"]
    options = account.options("pymongo")
    async with MongoTrackerStore(**options, password=lambda: current[0]) as store:
        assert await store._append(append(0))
        rotating: Any = store._database
        old = rotating._login
        closed, go_on = [], asyncio.Event()
        close = old.database.close

        async def note_and_close() -> None:
            closed.append(old.users)
            await close()

        async def slow(database: Any) -> Any:
            found = await database.read(read())
            await go_on.wait()
            return found, list(closed)

        old.database.close = note_and_close
        under_way = asyncio.create_task(rotating.run(slow))
        await asyncio.sleep(0.05)
        current[0] = "second"
        account.set_password("second")
        assert await rotating._renewed(old) is not old
        assert await reads(store) == 3
        assert closed == []
        go_on.set()
        found, closed_before = await under_way
        assert len(ids(found)) == 3
        assert closed_before == []
        await asyncio.sleep(0.05)
        assert closed == [0]


async def test_a_wrong_one_is_refused_and_told_to_nobody(
    account: Account, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong, asked = tmp_path / "password", []
    wrong.write_text("wr0ng")

    def raising() -> str:
        asked.append(1)
        raise RuntimeError("wr0ng")

    options = account.options("pymongo")
    for given in ({"password_file": str(wrong)}, {"password": raising}):
        store = MongoTrackerStore(**options, **given)
        with pytest.raises(errors.StoreAccessError) as caught:
            await store.open()
        error: BaseException | None = caught.value
        while error is not None:
            assert "wr0ng" not in f"{error} {error!r}"
            error = error.__cause__ or error.__context__
        assert "wr0ng" not in repr(store) + repr(store._options)
        await store.close()
    assert "wr0ng" not in caplog.text
    missing = MongoTrackerStore(**options, password_file=str(tmp_path / "none"))
    with pytest.raises(errors.StoreAccessError, match="does not exist"):
        await missing.open()
    await missing.close()


async def test_refused_with_the_same_password_it_is_not_made_anew(
    account: Account,
) -> None:
    asked = []

    def password() -> str:
        asked.append("first")
        return "first"

    options = account.options("pymongo")
    async with MongoTrackerStore(**options, password=password) as store:
        rotating: Any = store._database
        before = rotating._login
        made: list[str] = []
        rotating._make = made.append
        account.set_password("second")
        account.end_sessions()
        with pytest.raises(errors.StoreAccessError):
            await reads(store)
        assert asked == ["first", "first"]
        assert rotating._login is before
        assert made == []  # else each refusal would cost another login


def test_a_password_is_given_once() -> None:
    with pytest.raises(errors.ConfigurationError, match="keep one"):
        MongoTrackerStore(username="u", password="p", password_file="/f")
    with pytest.raises(errors.ConfigurationError, match="without"):
        MongoTrackerStore(password_file="/f")
    for section, problem in (
        ({"username": "u", "password": "p"}, "keep one"),
        ({"url": "mongodb://u:p@h"}, "keep one"),
        ({}, "without 'username'"),
    ):
        with pytest.raises(errors.ConfigurationError, match=problem):
            create_tracker_store({"type": "mongod", **section, "password_file": "/f"})
