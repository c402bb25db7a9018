"""Dialects and database URLs as they are written in `endpoints.yml`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from tracker_store_async.redaction import get_logger
from tracker_store_async.settings import RequiredDriver, suggest

logger = get_logger(__name__)

DRIVERS: dict[str, RequiredDriver | None] = {
    "sqlite": None,
    "postgresql": RequiredDriver("asyncpg", "postgresql"),
    "mysql": RequiredDriver("asyncmy", "mysql"),
    "mariadb": RequiredDriver("asyncmy", "mysql"),
    "oracle": RequiredDriver("oracledb", "oracle"),
}
"""Dialect to its asyncio driver; SQLite's always comes with this package."""

_DIALECT_ALIASES = {"postgres": "postgresql"}

_MYSQL_DRIVERS = frozenset(
    {"asyncmy", "aiomysql", "mysqldb", "pymysql", "mysqlconnector", "mariadbconnector"}
)
_KNOWN_DRIVERS = {
    "sqlite": frozenset({"aiosqlite", "pysqlite"}),
    "postgresql": frozenset(
        {"asyncpg", "psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "pg8000"}
    ),
    "mysql": _MYSQL_DRIVERS,
    "mariadb": _MYSQL_DRIVERS,
    "oracle": frozenset({"oracledb", "oracledb_async", "cx_oracle"}),
}
"""Drivers of Rasa's day that a dialect may name; ours is used in place of them."""


def normalise_dialect(value: Any) -> str:
    """Return the plain name of a dialect, such as `postgresql`, without its driver.

    Raises:
        ValueError: The dialect or its driver is not known.
    """
    if not isinstance(value, str):
        raise ValueError("'dialect' must be text")
    name, _, driver = value.strip().lower().partition("+")
    name = _DIALECT_ALIASES.get(name, name)
    if name not in DRIVERS:
        valid = f"it must be one of {', '.join(DRIVERS)}"
        raise ValueError(f"unknown dialect; {suggest(name, DRIVERS, valid)}")
    if driver and driver not in _KNOWN_DRIVERS[name]:
        raise ValueError(f"unknown driver after the '+'; leave it out for {name}")
    if driver:
        logger.debug("driver %s is replaced by the asyncio driver of %s", driver, name)
    return name


def url_parts(host: str) -> dict[str, Any]:
    """Return the keys that `host` stands for: a host, `host:port` or a database URL.

    Raises:
        ValueError: It is none of these; the text does not quote it.
    """
    if "://" in host:
        return _database_url_parts(host)
    if host.startswith("/"):  # the directory of a unix socket
        return {"host": host}
    if host.count(":") > 1 and not host.startswith("["):  # an IPv6 address alone
        host = f"[{host}]"
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        raise ValueError("the port in the host must be a number") from None
    if parts.username or parts.path or parts.query or not parts.hostname:
        raise ValueError("the host must be a host name, 'host:port' or a whole URL")
    return {"host": _bracketed(parts.hostname), "port": port}


def _database_url_parts(url: str) -> dict[str, Any]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "the url is not valid; write dialect://username:password@host:port/db, "
            "with special characters percent-encoded"
        ) from None
    dialect = normalise_dialect(parsed.drivername)
    database = parsed.database
    if dialect == "sqlite" and not database:
        database = ":memory:"
    return {
        "dialect": dialect,
        "host": _bracketed(parsed.host) if parsed.host else None,
        "port": parsed.port,
        "db": database or None,
        "username": parsed.username or None,
        "password": parsed.password or None,
        "query": dict(parsed.query) or None,
    }


def _bracketed(host: str) -> str:
    """Return an IPv6 address in brackets, lest its end be taken for a port."""
    return f"[{host}]" if ":" in host else host
