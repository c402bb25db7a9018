"""Users of PostgreSQL who lose their rights while their connections stay open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import private_postgresql
from tests.sql_databases import append, ids, read
from tracker_store_async import SQLTrackerStore, errors
from tracker_store_async.backends.sql import lost
from tracker_store_async.credentials import Login
from tracker_store_async.wrappers.retrying import RetryingTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgresql import PostgreSQLServer

pytestmark = pytest.mark.backend("postgresql")

DATABASE = "leased"
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


class Place:
    """A server of our own, and users who come and go."""

    def __init__(self, server: PostgreSQLServer) -> None:
        self.server = server
        self.user = ""

    def lease(self, user: str) -> None:
        """Make a user who may do what an assistant does."""
        self.user = user
        for statement in (
            f"CREATE ROLE {user} LOGIN PASSWORD 'p'",
            f"GRANT {RIGHTS} ON ALL TABLES IN SCHEMA public TO {user}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}",
        ):
            self.server.execute(statement, DATABASE)

    def revoke(self, user: str) -> None:
        """Do what Vault does at the end of a lease: no session is ended."""
        for statement in (f"DROP OWNED BY {user}", f"DROP ROLE {user}"):
            self.server.execute(statement, DATABASE)

    def store(self, **options: Any) -> SQLTrackerStore:
        """Return a store that logs in as the user of now."""
        return SQLTrackerStore(
            dialect="postgresql",
            host=self.server.host,
            port=self.server.port,
            db=DATABASE,
            username="nobody",
            password=lambda: Login("p", self.user),
            create_tables=False,
            **options,
        )


@pytest.fixture
def place() -> Iterator[Place]:
    with private_postgresql() as private:
        private.server.create_database(DATABASE)
        asyncio.run(create_tables(private.server.url("postgresql", DATABASE)))
        yield Place(private.server)


async def create_tables(url: str) -> None:
    async with SQLTrackerStore(host=url):
        pass


async def lose_rights(place: Place, store: Any) -> None:
    """Fill the pool, and then let its user be followed by another one."""
    await asyncio.gather(*(store._append(append(0, sender_id=n)) for n in "abcdef"))
    place.lease("second")
    place.revoke("first")


async def test_connections_of_a_user_that_is_gone_are_not_used_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "MIN_LOGIN_AGE_SECONDS", 0.0)
    place.lease("first")
    async with place.store(pool_size=4) as store:
        await lose_rights(place, store)
        with pytest.raises(errors.StoreAccessError):
            await store._append(append(3, sender_id="a"))
        for sender_id in "abcd":
            assert await store._append(append(3, sender_id=sender_id))
        assert await store._delete("f", None, 0.0)


async def test_with_retries_nobody_notices(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "MIN_LOGIN_AGE_SECONDS", 0.0)
    place.lease("first")
    async with RetryingTrackerStore(place.store(pool_size=4)) as store:
        await lose_rights(place, store)
        assert await store._delete("f", None, 0.0)
        assert await store._append(append(3, sender_id="a"))
        assert len(ids(await store._read(read(sender_id="a")))) == 6
