"""From options to an async engine: URL, driver, pool and TLS."""

from __future__ import annotations

import importlib.util
import math
import ssl
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tracker_store_async.backends.sql.config_query import (
    check_sqlite_uri,
    driver_arguments,
    split_query,
    taken_from_query,
)
from tracker_store_async.backends.sql.config_url import DRIVERS
from tracker_store_async.backends.sql.connecting import (
    connect_mysql,
    connect_oracle,
    connect_postgresql,
)
from tracker_store_async.errors import ConfigurationError, MissingExtraError
from tracker_store_async.options import check_choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tracker_store_async.credentials import PasswordSource

SslMode: TypeAlias = Literal["disable", "require", "verify-ca", "verify-full"]
SSL_MODES: tuple[str, ...] = get_args(SslMode)

_ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
    "oracle": "oracle+oracledb_async",
}
"""Dialect to the driver that is used in place of whatever sync driver was named."""

_TIMEOUT_ARGUMENTS = {
    "sqlite": "timeout",
    "postgresql": "timeout",
    "mysql": "connect_timeout",
    "oracle": "tcp_connect_timeout",
}


DEFAULT_COMMAND_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to connect; see `SQLTrackerStore` for what each option means."""

    schema: str | None = None
    pool_size: int | None = None
    max_overflow: int | None = None
    pool_recycle_seconds: float | None = None
    pool_pre_ping: bool = False
    pool_timeout_seconds: float | None = None
    connect_timeout_seconds: float | None = None
    command_timeout_seconds: float | None = None
    ssl_mode: SslMode | None = None
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    pgbouncer: bool = False
    password_source: PasswordSource | None = None

    @property
    def checks_connections(self) -> bool:
        """Whether the pool has to look at a connection before each use."""
        return self.pool_pre_ping or self.pool_recycle_seconds is not None

    def given(self) -> set[str]:
        """Return the names of the options that say something."""
        names = (field.name for field in fields(self))
        return {name for name in names if getattr(self, name) not in (None, False)}


_SERVERS = frozenset({"postgresql", "mysql", "oracle"})
_APPLIES_TO = {
    "schema": frozenset({"postgresql"}),
    "pgbouncer": frozenset({"postgresql"}),
    "password_source": _SERVERS,
    "pool_size": _SERVERS,
    "max_overflow": _SERVERS,
    "pool_recycle_seconds": _SERVERS,
    "pool_pre_ping": _SERVERS,
    "pool_timeout_seconds": _SERVERS,
    # Oracle's driver takes TLS from its connect descriptor: bring your own engine.
    "ssl_mode": frozenset({"postgresql", "mysql"}),
    "ssl_ca_certs": frozenset({"postgresql", "mysql"}),
    "ssl_certfile": frozenset({"postgresql", "mysql"}),
    "ssl_keyfile": frozenset({"postgresql", "mysql"}),
}
"""Option to the dialects that have it; elsewhere it would be accepted in vain."""


def check_options(options: ConnectionOptions, dialect: str) -> None:
    """Check that the options apply to the dialect and fit together.

    Raises:
        ConfigurationError: One does not.
    """
    for name in sorted(options.given()):
        if dialect not in _APPLIES_TO.get(name, (dialect,)):
            raise ConfigurationError(f"`{name}` does not apply to dialect {dialect}")
    if options.ssl_mode is not None:
        check_choice("ssl_mode", options.ssl_mode, SSL_MODES)
    if options.ssl_keyfile and not options.ssl_certfile:
        raise ConfigurationError("`ssl_keyfile` needs `ssl_certfile`")
    files = (options.ssl_ca_certs, options.ssl_certfile)
    if options.ssl_mode == "disable" and any(files):
        raise ConfigurationError("the ssl_ files contradict `ssl_mode: disable`")


def get_db_url(
    dialect: str = "sqlite",
    host: str | None = None,
    port: int | str | None = None,
    db: str | None = "rasa.db",
    username: str | None = None,
    password: str | None = None,
    login_db: str | None = None,
    query: Mapping[str, Any] | None = None,
) -> URL:
    """Return the URL that Rasa's options stand for (`SQLTrackerStore.get_db_url`).

    Args:
        dialect: Name of the database, with or without a driver after a `+`.
        host: Host name, `host:port`, directory of a unix socket, or a whole URL, which
            is taken as it is.
        port: Port, in place of the usual one; one that `host` names goes first.
        db: Name of the database, or the SQLite file.
        username: Name to log in with.
        password: Password to log in with.
        login_db: Database to connect to first, in order to create `db`.
        query: Options for the driver.

    Raises:
        ConfigurationError: The URL or the port is not one; the text quotes neither.
    """
    if host and "://" in host:
        try:
            return make_url(host)
        except (ArgumentError, ValueError):
            raise ConfigurationError(
                "the URL in `host` is not valid: write "
                "dialect://username:password@host:port/db, with special characters "
                "percent-encoded"
            ) from None
    if host:
        host, port = _split_host(host, port)
    return URL.create(
        dialect,
        username=username or None,
        password=password,
        host=host or None,
        port=_check_port(port),
        database=login_db or db or None,
        query={key: _query_value(value) for key, value in (query or {}).items()},
    )


def _split_host(host: str, port: int | str | None) -> tuple[str, int | str | None]:
    if host.startswith("/"):
        return host, port
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname or host, parts.port or port
    except ValueError:
        raise ConfigurationError("the port in `host` must be a number") from None


def _check_port(port: int | str | None) -> int | None:
    if port is None or port == "":
        return None
    try:
        return int(port)
    except (TypeError, ValueError):
        raise ConfigurationError(f"`port` must be a number, not {port!r}") from None


def _query_value(value: Any) -> Any:
    return list(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def plain_dialect(url: URL) -> str:
    """Return `postgresql`, `mysql`, ... for a URL with or without a driver.

    Raises:
        ConfigurationError: There is no such dialect.
    """
    name = url.drivername.lower().partition("+")[0]
    name = {"postgres": "postgresql", "mariadb": "mysql"}.get(name, name)
    if name not in _TIMEOUT_ARGUMENTS:
        raise ConfigurationError(
            f"unknown dialect {name!r}: it must be one of "
            f"{', '.join(sorted(_ASYNC_DRIVERS))}"
        )
    return name


def async_url(url: URL) -> URL:
    """Return the URL with our asyncio driver in place of the one that it names."""
    return url.set(drivername=_ASYNC_DRIVERS[plain_dialect(url)])


def take_driver_options(url: URL) -> tuple[URL, dict[str, Any]]:
    """Split options that we have ourselves, such as `sslmode`, off the URL's query.

    Returns:
        The URL without them, and their values by our names.

    Raises:
        ConfigurationError: The driver does not know an option.
    """
    try:
        rest, ours = split_query(plain_dialect(url), url.query)
        check_sqlite_uri(plain_dialect(url), url.database, rest)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return url.set(query=rest), ours


def check_driver(url: URL) -> None:
    """Check that the driver of the URL is installed.

    Raises:
        MissingExtraError: It is not; the text says what to install.
    """
    driver = DRIVERS[plain_dialect(url)]
    if driver is not None and importlib.util.find_spec(driver.module) is None:
        raise MissingExtraError(
            f"dialect {plain_dialect(url)} needs the package '{driver.module}': "
            f"pip install 'tracker-store-async[{driver.extra}]'"
        )


def make_engine(
    url: URL, options: ConnectionOptions, tls: ssl.SSLContext | None
) -> AsyncEngine:
    """Return an engine that has not connected yet.

    Args:
        url: Where to connect, with an asyncio driver.
        options: Pool, timeouts and the rest.
        tls: What `make_tls_context` returned for these options.

    Raises:
        MissingExtraError: The driver is not installed.
        ConfigurationError: The driver does not know an option in the URL's query.
    """
    check_driver(url)
    dialect = plain_dialect(url)
    # What we say goes before what the query says.
    given = driver_arguments(dialect, url.query)
    connect_args = given | _connect_args(dialect, options, tls)
    arguments: dict[str, Any] = {"connect_args": connect_args}
    url = url.difference_update_query(taken_from_query(dialect))
    if dialect == "sqlite":
        # One connection writes and one reads for as long as the store is open: there
        # is nothing to pool. (A database in memory gets SQLAlchemy's StaticPool.)
        if is_file(url):
            arguments["poolclass"] = NullPool
    else:
        arguments |= _pool_arguments(options)
    if dialect == "mysql":
        url = url.update_query_dict({"charset": url.query.get("charset", "utf8mb4")})
        # MySQL's own level locks the gaps between keys, so that writers of different
        # conversations wait for each other, or deadlock.
        arguments["connect_args"]["init_command"] = (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        )
        # Every transaction of ours is ended before its connection is given back: the
        # pool's own ROLLBACK would be one more round trip.
        arguments["pool_reset_on_return"] = None
    try:
        engine = create_async_engine(url, hide_parameters=True, **arguments)
    except (TypeError, ArgumentError, InvalidRequestError) as error:
        raise ConfigurationError(
            f"the {dialect} driver refuses an option: {error}"
        ) from None
    if dialect == "postgresql":
        # SQLAlchemy teaches each new connection to decode JSON columns, which we do
        # not have: two round trips, which PgBouncer may send to two servers.
        sync_dialect: Any = engine.sync_engine.dialect
        sync_dialect.setup_asyncpg_json_codec = _no_codec
        sync_dialect.setup_asyncpg_jsonb_codec = _no_codec
    return engine


async def _no_codec(connection: Any) -> None:
    """Leave the connection as it is."""


_KEEP_PLANS = "SET plan_cache_mode = force_generic_plan; SET jit = off"
"""Has PostgreSQL plan a statement once. Otherwise it may find its general plan dearer
than one for the very values, and plan again at each use: reading 10 events then takes
0.20 ms instead of 0.10.
"""


_BOUND_LOCKS = (
    "SELECT CASE WHEN current_setting('lock_timeout') = '0'"
    " THEN set_config('lock_timeout', '{milliseconds}', false) END"
)
"""Has PostgreSQL give up on a lock when the caller does. A bound that the role or the
database has already stays."""


def is_file(url: URL) -> bool:
    """Return whether an SQLite URL names a file, not a database in memory."""
    database = url.database or ":memory:"
    return database != ":memory:" and url.query.get("mode") != "memory"


def _pool_arguments(options: ConnectionOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "pool_timeout": options.pool_timeout_seconds or 30.0,
        "pool_pre_ping": options.pool_pre_ping,
        "pool_size": options.pool_size or 20,
        "max_overflow": options.max_overflow or 0,
        # The last one returned first: under light load the others grow old and are
        # recycled, and the server keeps few sessions warm.
        "pool_use_lifo": True,
    }
    if options.pool_recycle_seconds is not None:
        arguments["pool_recycle"] = options.pool_recycle_seconds
    return arguments


def _connect_args(
    dialect: str, options: ConnectionOptions, tls: ssl.SSLContext | None
) -> dict[str, Any]:
    name = _TIMEOUT_ARGUMENTS[dialect]
    arguments: dict[str, Any] = {name: options.connect_timeout_seconds or 10.0}
    if dialect == "mysql":
        arguments["async_creator_fn"] = connect_mysql
        arguments["lock_seconds"] = math.ceil(command_seconds(options))
    if dialect == "postgresql":
        arguments["async_creator_fn"] = connect_postgresql
        arguments["setup"] = None if options.pgbouncer else _setup(options)
    if options.password_source is not None:
        arguments["password_source"] = options.password_source
        arguments.setdefault("async_creator_fn", connect_oracle)
    if tls is not None:
        arguments["ssl"] = tls
        arguments["shows_certificate"] = options.ssl_certfile is not None
    elif options.ssl_mode == "disable" and dialect == "postgresql":
        arguments["ssl"] = False  # asyncpg would try TLS first
    if dialect == "postgresql" and options.pgbouncer:
        # Behind PgBouncer the next transaction may run on another server connection,
        # which does not know the statements that were prepared on this one. Nameless
        # ones live until the next: asyncpg sends no Sync between the steps of one
        # statement, so PgBouncer does not switch there, and none is left behind.
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,
        }
    return arguments


def _setup(options: ConnectionOptions) -> str:
    milliseconds = math.ceil(command_seconds(options) * 1000)
    return f"{_KEEP_PLANS}; {_BOUND_LOCKS.format(milliseconds=milliseconds)}"


def command_seconds(options: ConnectionOptions) -> float:
    """Return the longest time that one operation may take."""
    return options.command_timeout_seconds or DEFAULT_COMMAND_TIMEOUT_SECONDS


def make_tls_context(options: ConnectionOptions) -> ssl.SSLContext | None:
    """Return what TLS has to prove, or None to leave that to the driver.

    It reads certificate files: run it in a thread.

    Raises:
        ConfigurationError: A certificate or key file cannot be used.
    """
    mode = options.ssl_mode
    if options.ssl_ca_certs and mode in (None, "require"):
        # libpq's rule: to require TLS and name a CA is to have it checked.
        mode = "verify-full" if mode is None else "verify-ca"
    if mode in (None, "disable"):
        return None
    try:
        context = ssl.create_default_context(cafile=options.ssl_ca_certs)
        if options.ssl_certfile:
            # An empty password: an encrypted key is refused, not asked for on the
            # terminal.
            context.load_cert_chain(
                options.ssl_certfile, options.ssl_keyfile, password=""
            )
    except OSError as error:
        raise ConfigurationError(
            "a file in ssl_ca_certs, ssl_certfile or ssl_keyfile cannot be used: "
            f"{error.strerror or type(error).__name__}"
        ) from error
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context
