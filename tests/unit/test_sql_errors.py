"""The error table: one error of ours for each of theirs, and no text of a message."""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.sql_databases import (
    EACH_DIALECT,
    SENDER,
    append,
    database,
    params,
    read,
    rows,
)
from tracker_store_async import errors
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql import errors as error_table
from tracker_store_async.backends.sql.errors import (
    is_contended,
    translate,
)
from tracker_store_async.translation import DriverError, Translated

asyncmy = pytest.importorskip("asyncmy", reason="the extra mysql is not installed")
asyncpg = pytest.importorskip("asyncpg", reason="the extra postgresql is missing")
pytest.importorskip("asyncmy.errors")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database

SECRET = "my doctor says"


def sqlite_error(code: int, text: str = SECRET) -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


class OracleDetails:
    """What python-oracledb puts into its errors."""

    def __init__(self, code: int, full_code: str) -> None:
        self.code = code
        self.full_code = full_code

    def __str__(self) -> str:
        return f"{self.full_code}: {SECRET}"


class OracleError(Exception):
    """One of python-oracledb's errors."""


def oracle_error(code: int, full_code: str | None = None) -> OracleError:
    return OracleError(OracleDetails(code, full_code or f"ORA-{code:05}"))


def mysql_error(code: int) -> Exception:
    return asyncmy.errors.OperationalError(code, SECRET)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "refused"), errors.StoreUnavailableError),
        (ConnectionResetError(), errors.StoreUnavailableError),
        (OSError(-2, "Name or service not known"), errors.StoreUnavailableError),
        (EOFError(), errors.StoreUnavailableError),
        (TimeoutError(), errors.StoreTimeoutError),
        (exc.TimeoutError("QueuePool limit"), errors.StoreTimeoutError),
        (ssl.SSLCertVerificationError("bad"), errors.StoreUnavailableError),
        (
            ConnectionError("server rejected SSL upgrade"),
            errors.StoreUnavailableError,
        ),
        (ValueError("no active connection"), errors.StoreUnavailableError),
        (UnicodeEncodeError("utf-8", SECRET, 0, 1, "no"), errors.StoreDataError),
        (asyncpg.ConnectionDoesNotExistError(SECRET), errors.StoreUnavailableError),
        (asyncpg.InterfaceError("connection is closed"), errors.StoreUnavailableError),
        (asyncpg.InternalClientError(SECRET), errors.StoreUnavailableError),
        (asyncpg.TooManyConnectionsError(SECRET), errors.StoreUnavailableError),
        (asyncpg.AdminShutdownError(SECRET), errors.StoreUnavailableError),
        (asyncpg.ReadOnlySQLTransactionError(SECRET), errors.StoreUnavailableError),
        (asyncpg.DiskFullError(SECRET), errors.StoreUnavailableError),
        (asyncpg.QueryCanceledError(SECRET), errors.StoreTimeoutError),
        (asyncpg.LockNotAvailableError(SECRET), errors.StoreTimeoutError),
        (asyncpg.SerializationError(SECRET), errors.StoreUnavailableError),
        (asyncpg.InvalidPasswordError("no"), errors.StoreAccessError),
        (asyncpg.InsufficientPrivilegeError("no"), errors.StoreAccessError),
        (asyncpg.InvalidCatalogNameError("no"), errors.StoreUnavailableError),
        (asyncpg.UndefinedTableError(SECRET), errors.SchemaError),
        (asyncpg.NotNullViolationError(SECRET), errors.StoreDataError),
        (asyncpg.ProgramLimitExceededError(SECRET), errors.StoreDataError),
        (asyncpg.exceptions.DataError(SECRET), errors.StoreDataError),
        (mysql_error(2003), errors.StoreUnavailableError),
        (mysql_error(2013), errors.StoreUnavailableError),
        (mysql_error(1040), errors.StoreUnavailableError),
        (mysql_error(1045), errors.StoreAccessError),
        (mysql_error(1049), errors.StoreUnavailableError),
        (mysql_error(1146), errors.SchemaError),
        (mysql_error(1205), errors.StoreTimeoutError),
        (mysql_error(1213), errors.StoreUnavailableError),
        (mysql_error(1366), errors.StoreDataError),
        (mysql_error(1836), errors.StoreUnavailableError),
        (mysql_error(3159), errors.StoreUnavailableError),
        (sqlite_error(5), errors.StoreTimeoutError),
        (sqlite_error(5 + 256), errors.StoreTimeoutError),
        (sqlite_error(8), errors.StoreAccessError),
        (sqlite_error(13), errors.StoreUnavailableError),
        (sqlite_error(14), errors.StoreUnavailableError),
        (sqlite_error(19), errors.StoreDataError),
        (sqlite_error(26), errors.StoreDataError),
        (sqlite_error(1, "no such table: events"), errors.SchemaError),
        (sqlite3.ProgrammingError("closed"), errors.StoreDataError),
        (oracle_error(1017), errors.StoreAccessError),
        (oracle_error(3113), errors.StoreUnavailableError),
        (oracle_error(12541), errors.StoreUnavailableError),
        (oracle_error(942), errors.SchemaError),
        (oracle_error(12899), errors.StoreDataError),
        (oracle_error(0, "DPY-6005"), errors.StoreUnavailableError),
        (oracle_error(0, "DPY-4024"), errors.StoreTimeoutError),
        (oracle_error(0, "DPY-9999"), errors.StoreDataError),
    ],
    ids=repr,
)
def test_table(error: Exception, expected: type[errors.TrackerStoreError]) -> None:
    wrapped = exc.DBAPIError(f"INSERT '{SECRET}'", {"data": SECRET}, error)
    for raised in (error, wrapped):
        ours = translate(raised, "here")
        assert type(ours) is expected
        assert str(ours).startswith("here ")
        if expected is not errors.StoreAccessError:
            assert len(str(ours).splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionRefusedError(111, "no"),
            "here cannot be reached: check host and port, and that the server runs "
            "([Errno 111] no)",
        ),
        (
            asyncpg.InvalidAuthorizationSpecificationError('role "x" does not exist'),
            "here refused the credentials or the rights they carry: check username, "
            'password and grants (role "x" does not exist, code 28000)',
        ),
        (
            sqlite_error(14, "unable to open database file"),
            "here cannot be reached: check the path, the rights on the file and its "
            "folder, and the disk (unable to open database file, code 14)",
        ),
        (
            sqlite_error(8, "attempt to write a readonly database"),
            "here refused access: check the rights on the file and its folder "
            "(attempt to write a readonly database, code 8)",
        ),
    ],
    ids=["port", "role", "no file", "read-only file"],
)
def test_it_says_what_to_check(error: Exception, said: str) -> None:
    assert str(translate(error, "here")) == said


UNREACHABLE = "cannot be reached: check host and port, and that the server runs ("
REFUSED = "or the rights they carry: check username, password and grants ("


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_a_wrong_address_says_what_to_check(dialect: str, host: str) -> None:
    store = SQLTrackerStore(
        dialect=dialect, host=host, port=1, db="x", username="me", password="sesame"
    )
    with pytest.raises(errors.StoreUnavailableError) as caught:
        await store.open()
    assert str(caught.value).startswith(f"{dialect} at {host}:1/x {UNREACHABLE}")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "dialect",
    [pytest.param(n, marks=pytest.mark.backend(n)) for n in ("postgresql", "mysql")],
)
async def test_a_wrong_login_says_what_to_check(dialect: str, servers: Servers) -> None:
    server = servers.get(dialect)
    store = SQLTrackerStore(
        dialect=dialect,
        host=server.host,
        port=server.port,
        db="x",
        username="nosuchrole",
        password="sesame",
    )
    with pytest.raises(errors.StoreAccessError) as caught:
        await store.open()
    assert REFUSED in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [KeyError("bug"), TypeError("bug"), exc.InvalidRequestError("bug")]
)
def test_a_bug_of_ours_is_not_dressed_up(error: Exception) -> None:
    assert translate(error, "here") is None
    with pytest.raises(type(error)), Translated("here", error_table):
        raise error


def test_ours_pass_and_cancellation_passes() -> None:
    with pytest.raises(errors.StoreClosedError), Translated("here", error_table):
        raise errors.StoreClosedError("x")
    with pytest.raises(asyncio.CancelledError), Translated("here", error_table):
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.DeadlockDetectedError("x"), True),
        (asyncpg.SerializationError("x"), True),
        (mysql_error(1213), True),
        (mysql_error(1205), True),
        (oracle_error(60), True),
        (asyncpg.UniqueViolationError("x"), False),
        (mysql_error(2013), False),
        (ConnectionResetError(), False),
    ],
    ids=repr,
)
def test_only_what_lost_to_others_is_tried_again(
    error: Exception, expected: bool
) -> None:
    assert is_contended(error) is expected


def test_text_of_a_message_is_in_no_traceback() -> None:
    def fail() -> None:
        cause = asyncpg.NotNullViolationError(SECRET)
        cause.__dict__["detail"] = f"Failing row contains ({SECRET})"
        try:
            raise cause
        except asyncpg.PostgresError as error:
            raise exc.DBAPIError("INSERT", {"data": SECRET}, error) from error

    with (
        pytest.raises(errors.StoreDataError) as caught,
        Translated("here", error_table),
    ):
        fail()
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert isinstance(caught.value.__cause__, DriverError)
    assert "NotNullViolationError, code 23502" in shown
    assert "in test_text_of_a_message_is_in_no_traceback" in shown


@pytest.fixture(params=EACH_DIALECT)
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


REFUSE = {
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.data LIKE '%doctor%'"
        " BEGIN SELECT raise(ABORT, 'refused'); END"
    ),
    "postgresql": (
        "ALTER TABLE events ADD CONSTRAINT refuse CHECK (data NOT LIKE '%doctor%')"
    ),
    "mysql": (
        "ALTER TABLE events ADD CONSTRAINT refuse CHECK (data NOT LIKE '%doctor%')"
    ),
}


async def test_a_refused_message_is_in_no_traceback_and_no_log(
    target: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with target.store() as store:
        await target.arun(REFUSE[target.dialect])
        with pytest.raises(errors.StoreDataError) as caught:
            await store._append(append(0, rows=rows(1, data=f'{{"a": "{SECRET}"}}')))
        assert await store._append(append(0))
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown + caplog.text
    assert SENDER not in shown


@pytest.mark.backend("postgresql")
@pytest.mark.parametrize("operation", ["read", "delete"])
async def test_connection_that_confuses_asyncpg_is_dropped(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    async def run(store: SQLTrackerStore) -> Any:
        if operation == "read":
            return await store._read(read())
        return await store._delete(SENDER, None, 0.0)

    async def confused(*_: Any, **__: Any) -> Any:
        raise asyncpg.InternalClientError(SECRET)

    with database("postgresql", servers, tmp_path) as target:
        async with target.store(pool_size=1) as store:
            assert await store._append(append(0))
            pids = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            mine = f"{pids} AND pid <> pg_backend_pid()"
            before = await target.arun(mine)
            with monkeypatch.context() as patched:
                for name in ("fetch", "prepare"):
                    patched.setattr(asyncpg.Connection, name, confused)
                with pytest.raises(errors.StoreUnavailableError):
                    await run(store)
            assert await run(store)
            assert await target.arun(mine) != before


@pytest.mark.backend("sqlite")
async def test_own_engine_that_shows_parameters_does_not_make_us_show_them(
    tmp_path: Path,
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    async with SQLTrackerStore(engine=engine) as store:
        async with engine.begin() as connection:
            await connection.execute(text(REFUSE["sqlite"]))
        with pytest.raises(errors.StoreDataError) as caught:
            await store._append(append(0, rows=rows(1, data=SECRET)))
    await engine.dispose()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# -- what a user meets first -----------------------------------------------------------


@pytest.mark.backend("sqlite")
@pytest.mark.parametrize("kind", ["no directory", "a directory", "no database"])
async def test_sqlite_file_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "missing" / "x.db"
    if kind == "a directory":
        file = tmp_path
    elif kind == "no database":
        file = tmp_path / "text.db"
        file.write_bytes(b"this is no database at all, but long enough" * 100)
    expected: Any = errors.StoreUnavailableError
    if kind == "no database":
        expected = errors.StoreDataError
    with pytest.raises(expected, match=str(file)):
        await SQLTrackerStore(db=str(file)).open()


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
async def test_server_that_is_not_there(dialect: str) -> None:
    for host, port in (("127.0.0.1", 1), ("no-such-host.invalid", None)):
        store = SQLTrackerStore(
            dialect=dialect, host=host, port=port, username="u", password="sesame"
        )
        with pytest.raises(errors.StoreUnavailableError) as caught:
            await store.open()
        assert host in str(caught.value)
        assert "sesame" not in "".join(traceback.format_exception(caught.value))
        health = await store.health()
        assert not health.reachable
        assert health.error == str(caught.value)


@pytest.mark.parametrize("key", params("postgresql", "mysql"))
async def test_unknown_database_names_the_option(key: str, servers: Servers) -> None:
    server: Any = servers.get(key)
    store = SQLTrackerStore(
        dialect=key,
        host=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        db="no_such_database",
    )
    with pytest.raises(errors.StoreUnavailableError, match=r"no such database.*`db`"):
        await store.open()


def test_unknown_option_of_the_driver() -> None:
    with pytest.raises(errors.ConfigurationError, match="nonsense"):
        SQLTrackerStore(host="postgresql://u:p@h/d?nonsense=1")
