"""Passwords that change while a store is open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import ServerMissingError, private_mariadb, private_postgresql
from tests.sql_databases import append, ids, read
from tracker_store_async import create_tracker_store, errors
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.credentials import SecretFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import PrivateMariaDB, PrivatePostgreSQL


class Account:
    """A login whose password can be changed; its sessions are ended then."""

    name = "rotating"

    def __init__(self, private: PrivatePostgreSQL | PrivateMariaDB) -> None:
        self.server = private.server
        self.is_postgresql = self.server.name == "PostgreSQL"
        self.server.create_database("rotation")
        if self.is_postgresql:
            self.run(f"CREATE ROLE {self.name} LOGIN SUPERUSER PASSWORD 'first'")
        else:
            self.run(
                f"CREATE USER {self.name}@'%' IDENTIFIED BY 'first'",
                f"GRANT ALL ON rotation.* TO {self.name}@'%'",
            )

    def run(self, *statements: str) -> None:
        """Run statements as the administrator."""
        for statement in statements:
            self.server.execute(statement, "rotation")

    def set_password(self, password: str) -> None:
        """Change the password, and end the sessions."""
        if self.is_postgresql:
            self.run(
                f"ALTER ROLE {self.name} PASSWORD '{password}'",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE usename = '{self.name}'",
            )
        else:
            self.run(
                f"SET PASSWORD FOR {self.name}@'%' = PASSWORD('{password}')",
                f"KILL USER {self.name}",
            )

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `SQLTrackerStore`, without a password."""
        return {
            "dialect": "postgresql" if self.is_postgresql else "mysql",
            "host": self.server.host,
            "port": self.server.port,
            "db": "rotation",
            "username": self.name,
        }


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.backend(name), id=name)
        for name in ("postgresql", "mysql")
    ],
)
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    start = private_postgresql if request.param == "postgresql" else private_mariadb
    try:
        with start() as private:
            yield Account(private)
    except ServerMissingError as error:
        pytest.skip(str(error))


async def survives(store: SQLTrackerStore) -> None:
    """Append once the sessions have been ended; the first may notice that."""
    for _ in range(3):
        try:
            await store._delete(read().sender_id, None, 0.0)
            break
        except errors.StoreUnavailableError:
            await asyncio.sleep(0.01)
    assert await store._append(append(0))
    assert len(ids(await store._read(read()))) == 3


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_function_is_asked_for_each_connection(
    account: Account, kind: str
) -> None:
    current, asked = ["one"], []

    def password() -> str:
        asked.append(current[0])
        return current[0]

    async def password_async() -> str:
        await asyncio.sleep(0)
        return password()

    account.set_password("one")
    source = password if kind == "sync" else password_async
    async with SQLTrackerStore(**account.options, password=source) as store:
        await survives(store)
        assert set(asked) == {"one"}
        current[0] = "two"
        account.set_password("two")
        await survives(store)
        assert "two" in asked


async def test_a_file_is_read_again(account: Account, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("three\n")
    account.set_password("three")
    section = {"type": "sql", **account.options, "password_file": str(file)}
    store = create_tracker_store(section)
    async with store:
        assert isinstance(store, SQLTrackerStore)
        await survives(store)
        file.write_text("four")
        account.set_password("four")
        await survives(store)


async def test_a_wrong_one_is_refused_and_told_to_nobody(account: Account) -> None:
    store = SQLTrackerStore(**account.options, password=lambda: "wr0ng")
    with pytest.raises(errors.StoreAccessError) as caught:
        await store.open()
    assert "wr0ng" not in str(caught.value)
    await store.close()


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ConnectionError("s3cret"), errors.StoreUnavailableError),
        (PermissionError("s3cret"), errors.StoreAccessError),
        (KeyError("s3cret"), errors.StoreAccessError),
    ],
)
async def test_a_source_that_fails(
    account: Account, raised: Exception, kind: type[Exception]
) -> None:
    def password() -> str:
        raise raised

    store = SQLTrackerStore(**account.options, password=password)
    with pytest.raises(kind, match=type(raised).__name__) as caught:
        await store.open()
    assert type(caught.value) is kind
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__
    await store.close()


async def test_a_source_of_something_else(account: Account) -> None:
    store = SQLTrackerStore(**account.options, password=lambda: 5)  # type: ignore
    with pytest.raises(errors.StoreAccessError, match="int, not text"):
        await store.open()
    await store.close()


def test_a_password_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="given twice"):
        SQLTrackerStore(host="postgresql://u:p@h/d", password=lambda: "p")
    with pytest.raises(errors.ConfigurationError, match="keep one"):
        create_tracker_store(
            {
                "type": "sql",
                "dialect": "postgresql",
                "password": "p",
                "password_file": str(tmp_path / "p"),
            }
        )
    with pytest.raises(errors.ConfigurationError, match="does not apply"):
        SQLTrackerStore(password=lambda: "p")
    with pytest.raises(errors.ConfigurationError, match="keep one"):
        SQLTrackerStore(dialect="postgresql", password="p", password_file="/f")
    with pytest.raises(errors.ConfigurationError, match="does not apply"):
        SQLTrackerStore(password_file="/f")
    assert "SecretFile" in repr(SecretFile("/run/secrets/p"))


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "does not hold UTF-8 text"),
        ("folder", "cannot be read (Is a directory)"),
    ],
)
def test_a_file_that_holds_no_password_is_named(
    tmp_path: Path, held: Any, problem: str
) -> None:
    file = tmp_path / "password"
    if held == "folder":
        file.mkdir()
    elif held is not None:
        file.write_bytes(held)
    store = SQLTrackerStore(dialect="postgresql", password_file=str(file))

    async def look() -> None:
        with pytest.raises(errors.StoreAccessError) as caught:
            await store.open()
        assert problem in str(caught.value)
        assert str(file) in str(caught.value)
        await store.close()

    asyncio.run(look())
