"""Options of drivers in `query` and in URLs: what is used, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from tests.sql_databases import append, database
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql.config import SQLConfig
from tracker_store_async.backends.sql.engine import ConnectionOptions, make_engine
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Servers


def parse(**settings: Any) -> SQLConfig:
    return parse_settings(SQLConfig, settings, where="tracker_store", type_name="sql")


def problem(dialect: str, **query: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        parse(dialect=dialect, query=query)
    # a store that is given its URL says the same
    host = None if dialect == "sqlite" else "h"
    with pytest.raises(ConfigurationError) as by_hand:
        SQLTrackerStore(dialect=dialect, host=host, query=query)
    assert str(raised.value) == f"tracker_store: {by_hand.value}"
    return str(by_hand.value)


LIBPQ = {
    "application_name": "assistant",
    "options": "-c statement_timeout=5000 -c lock_timeout=4s",
    "target_session_attrs": "read-write",
    "connect_timeout": "5",
    "sslmode": "prefer",
    "idle_in_transaction_session_timeout": "3000",
    "statement_cache_size": "7",
    "prepared_statement_cache_size": "7",
}
SHOWN = {
    "application_name": "assistant",
    "statement_timeout": "5s",
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "3s",
}


@pytest.mark.parametrize("where", ["query", "url", "configuration"])
@pytest.mark.backend("postgresql")
async def test_what_libpq_takes_reaches_postgresql(
    servers: Servers, tmp_path: Path, where: str
) -> None:
    with database("postgresql", servers, tmp_path) as target:
        if where == "query":
            store = target.store(query=LIBPQ)
        elif where == "url":
            pairs = "&".join(f"{name}={value}" for name, value in LIBPQ.items())
            store = SQLTrackerStore(host=f"{target.url}?{pairs.replace(' ', '%20')}")
        else:
            config = parse(**target.options, query=LIBPQ)
            store = SQLTrackerStore(**config.store_kwargs())
        async with store:
            assert await store._append(append(0))
            operations: Any = store._operations
            async with operations.connection() as connection:
                for name, expected in SHOWN.items():
                    found = await connection.execute(text(f"SHOW {name}"))
                    assert found.scalar() == expected


@pytest.mark.backend("postgresql")
async def test_the_name_to_fall_back_on(servers: Servers, tmp_path: Path) -> None:
    with database("postgresql", servers, tmp_path) as target:
        async with target.store(query={"fallback_application_name": "f"}) as store:
            operations: Any = store._operations
            async with operations.connection() as connection:
                found = await connection.execute(text("SHOW application_name"))
                assert found.scalar() == "f"


@pytest.mark.backend("mysql")
async def test_what_mysql_takes(servers: Servers, tmp_path: Path) -> None:
    query = {
        "charset": "utf8mb4",
        "connect_timeout": 5,
        "max_allowed_packet": 1_000_000,
        "program_name": "assistant",
        "read_timeout": 30,
        "sql_mode": "ANSI_QUOTES",
        "use_unicode": True,
    }
    with database("mysql", servers, tmp_path) as target:
        async with target.store(query=query) as store:
            assert await store._append(append(0))
            operations: Any = store._operations
            async with operations.connection() as connection:
                found = await connection.execute(text("SELECT @@sql_mode"))
                assert found.scalar() == "ANSI_QUOTES"


@pytest.mark.backend("sqlite")
async def test_what_sqlite_takes(tmp_path: Path) -> None:
    query = {"uri": True, "mode": "rwc", "cached_statements": 9, "timeout": 2}
    store = SQLTrackerStore(db=f"file:{tmp_path}/x.db", query=query)
    assert store._connector.options.connect_timeout_seconds == 2
    async with store:
        assert await store._append(append(0))
    assert (tmp_path / "x.db").exists()


def test_a_uri_that_is_none_is_refused() -> None:
    # else SQLite would make a file of that name, with the query and all
    query = {"uri": True, "mode": "ro"}
    with pytest.raises(ConfigurationError, match="a 'db' such as file:"):
        parse(dialect="sqlite", db="rasa.db", query=query)
    with pytest.raises(ConfigurationError, match="a 'db' such as file:"):
        SQLTrackerStore(db="rasa.db", query=query)


@pytest.mark.parametrize(
    ("dialect", "query", "words"),
    [
        ("postgresql", {"driver": "my-driver"}, "'driver' in 'query' is not an option"),
        ("postgresql", {"aplication_name": "x"}, "did you mean 'application_name'?"),
        ("postgresql", {"keepalives": 1}, "'keepalives' in 'query' is libpq's"),
        ("postgresql", {"tcp_user_timeout": 1}, "leave it out"),
        ("postgresql", {"sslcrl": "x"}, "use the keys ssl_mode, ssl_ca_certs"),
        ("postgresql", {"target_session_attrs": "rw"}, "must be one of any, primary"),
        ("postgresql", {"statement_cache_size": "no"}, "must be a whole number"),
        ("postgresql", {"connect_timeout": "soon"}, "a positive number of seconds"),
        ("postgresql", {"connect_timeout": 0}, "a positive number of seconds"),
        ("postgresql", {"application_name": ["a", "b"]}, "must have one value"),
        ("postgresql", {"ssl": True, "sslmode": "require"}, "what another option says"),
        ("mysql", {"init_command": "x"}, "not an option of asyncmy"),
        ("mariadb", {"ssl_verify_cert": "x"}, "use the keys ssl_mode"),
        ("sqlite", {"isolation_level": "x"}, "not an option of aiosqlite"),
        ("sqlite", {"mode": "ro"}, "'mode' in 'query' needs 'uri: true'"),
        ("oracle", {"encoding": "UTF-8"}, "not an option of oracledb"),
    ],
)
def test_what_the_driver_cannot_do_is_refused_at_once(
    dialect: str, query: dict[str, Any], words: str
) -> None:
    assert words in problem(dialect, **query)


@pytest.mark.parametrize(
    ("value", "mode"),
    [(True, "verify-full"), ("false", "disable"), ("require", "require")],
)
def test_ssl_is_sslmode(value: Any, mode: str) -> None:
    assert parse(dialect="postgresql", query={"ssl": value}).ssl_mode == mode


# -- Oracle ----------------------------------------------------------------------------

ADDRESS = {"dialect": "oracle+cx_oracle", "host": "h", "port": 1521}


@pytest.mark.parametrize(
    ("settings", "descriptor"),
    [
        ({"db": "", "query": {"service_name": "s"}}, "(SERVICE_NAME=s)"),
        ({"query": {"service_name": "s"}}, "(SERVICE_NAME=s)"),
        ({"db": "sid"}, "(SID=sid)"),
        ({"db": ""}, "h"),
    ],
)
def test_oracle_is_found_by_its_service_its_sid_or_a_tns_name(
    settings: dict[str, Any], descriptor: str
) -> None:
    pytest.importorskip("oracledb", reason="the extra oracle is not installed")
    store = SQLTrackerStore(**parse(**ADDRESS, **settings).store_kwargs())
    engine = make_engine(store._connector._url, ConnectionOptions(), None)
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert descriptor in arguments["dsn"]
    assert "service_name" not in arguments


def test_oracle_is_found_in_one_way() -> None:
    with pytest.raises(ConfigurationError, match="'db' is an Oracle SID"):
        parse(**ADDRESS, db="sid", query={"service_name": "s"})


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
def test_elsewhere_the_database_has_a_name(dialect: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"tracker_store\.db: must not be empty"
    ):
        parse(dialect=dialect, db="")
