"""A change of MongoDB's password that meets the end of the store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tracker_store_async import errors
from tracker_store_async.backends.mongo.rotation import RotatingDatabase
from tracker_store_async.rows import Health


class Database:
    """Stands for the database as one client sees it."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.comes_up = asyncio.Event()
        self.is_closed = False

    async def open(self) -> None:
        await self.comes_up.wait()

    async def close(self) -> None:
        self.is_closed = True

    async def health(self) -> Health:
        if self.password == "old":
            raise errors.StoreAccessError("refused")
        return Health("mongod", True, 0.0)


async def test_a_store_that_is_closed_while_it_logs_in_anew_leaves_no_client() -> None:
    passwords = iter(["old", "new"])
    made: list[Database] = []

    async def password() -> str:
        return next(passwords)

    def make(login: Any) -> Any:
        made.append(Database(login.password))
        return made[-1]

    database = RotatingDatabase(password, make)
    opening = asyncio.create_task(database.open())
    while not made:
        await asyncio.sleep(0)
    made[0].comes_up.set()
    await opening
    asking = asyncio.create_task(database.health())
    while len(made) < 2:
        await asyncio.sleep(0)
    await database.close()
    made[1].comes_up.set()
    with pytest.raises(errors.StoreClosedError):
        await asking
    assert [each.is_closed for each in made] == [True, True]
