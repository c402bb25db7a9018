"""A database whose password changes: refused once, it is asked for anew.

A client of PyMongo logs its connections in with the password that it was made with. So
a new password takes a new client. Operations that are under way on the old one end
there, and only then it is closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tracker_store_async.credentials import Login, current_login, forget
from tracker_store_async.errors import StoreAccessError, StoreClosedError
from tracker_store_async.relay import Outbox
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from tracker_store_async.backends.mongo.database import MongoDatabase
    from tracker_store_async.credentials import PasswordSource
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Health,
        Listing,
        OutboxItem,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _LoggedIn:
    """A client, the login it was made with, and how many operations use it."""

    database: MongoDatabase
    login: Login
    users: int = 0


class RotatingDatabase:
    """The operations of a `MongoDatabase`, with the password of now.

    An operation that is refused is repeated once where the password has changed. That
    is as safe as any retry: an append that landed is recognised by its ids.

    Args:
        source: Returns the password of now.
        make: Makes a database with a password; nothing is sent yet.
    """

    def __init__(
        self, source: PasswordSource, make: Callable[[Login], MongoDatabase]
    ) -> None:
        self._source = source
        self._make = make
        self._login: _LoggedIn | None = None
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect, and make sure that the layout is there."""
        self._login = await self._log_in(await current_login(self._source))

    async def open_outbox(self) -> Outbox:
        """Return the outbox, after its index was created where it is missing."""
        await self.run(lambda database: database.open_outbox())
        return RotatingOutbox(self)

    async def close(self) -> None:
        """Close the clients."""
        login, self._login = self._login, None
        if login is not None:
            await login.database.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        return await self.run(lambda database: database.append(append))

    async def append_many(self, appends: Sequence[Append]) -> list[bool | None]:
        """Append to many conversations; None for those that have to be sent alone."""
        return await self.run(lambda database: database.append_many(appends))

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None."""
        return await self.run(lambda database: database.read(read))

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; return whether there was anything."""
        return await self.run(
            lambda database: database.delete(sender_id, before, now, version)
        )

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content in the place of what is stored; False if it is not that."""
        return await self.run(lambda database: database.rewrite(rewrite))

    async def upkeep(self, *, apply: bool) -> Upkeep:
        """Report on the collections; with `apply`, mend and compact them first."""
        return await self.run(lambda database: database.upkeep(apply=apply))

    async def list(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page, in the order of the sender ids' code points."""
        return await self.run(lambda database: database.list(listing))

    async def health(self) -> Health:
        """Ask the server how it is."""
        return await self.run(lambda database: database.health())

    async def run(self, work: Callable[[MongoDatabase], Awaitable[T]]) -> T:
        """Do something with the database, repeated once after a change of password."""
        login = self._login
        if login is None:
            raise _closed_error()
        try:
            return await self._use(login, work)
        except StoreAccessError:
            renewed = await self._renewed(login)
            if renewed is None:
                raise
        return await self._use(renewed, work)

    async def _use(
        self, login: _LoggedIn, work: Callable[[MongoDatabase], Awaitable[T]]
    ) -> T:
        login.users += 1
        try:
            return await work(login.database)
        finally:
            login.users -= 1
            self._close_if_left(login)

    async def _renewed(self, refused: _LoggedIn) -> _LoggedIn | None:
        """Return a client with the password of now; None if that is the refused one."""
        async with self._renewing:
            if self._login is not refused:
                return self._login
            forget(self._source)
            login = await current_login(self._source)
            if login == refused.login:
                return None
            renewed = await self._log_in(login)
            if self._login is not refused:  # nobody else would close it
                await renewed.database.close()
                raise _closed_error()
            self._login = renewed
            self._close_if_left(refused)
            return renewed

    async def _log_in(self, login: Login) -> _LoggedIn:
        database = self._make(login)
        try:
            await settled(database.open())
        except asyncio.CancelledError:
            await database.close()  # it may have come up after all
            raise
        return _LoggedIn(database, login)

    def _close_if_left(self, login: _LoggedIn) -> None:
        if login is self._login or self._login is None or login.users:
            return
        closing = asyncio.create_task(login.database.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _closed_error() -> StoreClosedError:
    return StoreClosedError("the store was closed while it was in use")


class RotatingOutbox(Outbox):
    """The outbox of the database that a `RotatingDatabase` uses at the moment.

    Args:
        rotating: Repeats what a changed password refuses.
    """

    def __init__(self, rotating: RotatingDatabase) -> None:
        self._run = rotating.run

    async def lease(self, owner: str, seconds: float) -> bool:
        """Return whether the outbox belongs to this relay alone for so long."""
        return await self._run(lambda database: database.outbox.lease(owner, seconds))

    async def release(self, owner: str) -> None:
        """Let another relay have it at once."""
        await self._run(lambda database: database.outbox.release(owner))

    async def read(
        self, limit: int, leave_out: Collection[str] = (), after: Any = None
    ) -> Sequence[OutboxItem]:
        """Return what waits longest."""
        return await self._run(
            lambda database: database.outbox.read(limit, leave_out, after)
        )

    async def remove(self, items: Sequence[OutboxItem]) -> None:
        """Move the marks of conversations on."""
        await self._run(lambda database: database.outbox.remove(items))

    async def count(self, limit: int) -> int:
        """Return how many conversations wait, or the limit if more."""
        return await self._run(lambda database: database.outbox.count(limit))
