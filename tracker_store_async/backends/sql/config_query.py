"""Options of drivers: what `query` may hold, and what becomes of it.

The names are those of the drivers that Rasa uses, such as libpq's, and of ours. What
our driver cannot do is refused when the configuration is read: otherwise it would come
up at the first connection, or never.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker_store_async.settings import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

_SERVER_SETTINGS = frozenset(
    {
        "application_name",
        "client_min_messages",
        "datestyle",
        "default_transaction_deferrable",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "lock_timeout",
        "log_statement",
        "options",
        "role",
        "search_path",
        "statement_timeout",
        "synchronous_commit",
        "tcp_keepalives_count",
        "tcp_keepalives_idle",
        "tcp_keepalives_interval",
        "temp_buffers",
        "timezone",
        "work_mem",
    }
)
"""Settings of a PostgreSQL session that go into its first message to the server."""

_FALLBACK_NAME = "fallback_application_name"
_LIBPQ_ALONE = frozenset(
    {
        "channel_binding",
        "client_encoding",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "replication",
        "require_auth",
        "requirepeer",
        "service",
        "tcp_user_timeout",
    }
)
_SQLITE_URI = frozenset({"mode", "cache", "immutable", "nolock", "psow", "vfs"})
_SEVERAL = frozenset({"host", "port"})
"""Options that may have several values: servers to try in turn."""


@dataclass(frozen=True, slots=True)
class _Options:
    """What one driver takes.

    Attributes:
        driver: Its name.
        keys: Its options to the keys of ours that say the same.
        texts: Options that it gets as they are.
        numbers: Options that it gets as whole numbers.
    """

    driver: str
    keys: Mapping[str, str] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()

    def knows(self, name: str) -> bool:
        return name in self.keys or name in self.texts or name in self.numbers

    @property
    def names(self) -> list[str]:
        return sorted({*self.keys, *self.texts, *self.numbers})


_ASYNCPG = _Options(
    "asyncpg",
    {
        "sslmode": "ssl_mode",
        "ssl": "ssl_mode",
        "sslrootcert": "ssl_ca_certs",
        "sslcert": "ssl_certfile",
        "sslkey": "ssl_keyfile",
        "connect_timeout": "connect_timeout_seconds",
        "timeout": "connect_timeout_seconds",
    },
    _SERVER_SETTINGS
    | {_FALLBACK_NAME, "host", "port", "user", "password", "passfile"}
    | {"target_session_attrs", "krbsrvname"},
    frozenset(
        {
            "max_cacheable_statement_size",
            "max_cached_statement_lifetime",
            "prepared_statement_cache_size",
            "statement_cache_size",
        }
    ),
)
_ASYNCMY = _Options(
    "asyncmy",
    {
        "ssl_ca": "ssl_ca_certs",
        "ssl_cert": "ssl_certfile",
        "ssl_key": "ssl_keyfile",
        "connect_timeout": "connect_timeout_seconds",
    },
    frozenset(
        {
            "charset",
            "program_name",
            "read_default_file",
            "read_default_group",
            "sql_mode",
            "unix_socket",
            "use_unicode",
        }
    ),
    frozenset({"client_flag", "max_allowed_packet", "read_timeout"}),
)
_DRIVERS = {
    "sqlite": _Options(
        "aiosqlite",
        {"timeout": "connect_timeout_seconds"},
        _SQLITE_URI | {"uri"},
        frozenset({"cached_statements"}),
    ),
    "postgresql": _ASYNCPG,
    "mysql": _ASYNCMY,
    "mariadb": _ASYNCMY,
    "oracle": _Options(
        "oracledb",
        {"tcp_connect_timeout": "connect_timeout_seconds"},
        frozenset(
            {
                "cclass",
                "config_dir",
                "edition",
                "events",
                "mode",
                "purity",
                "service_name",
                "wallet_location",
                "wallet_password",
            }
        ),
        frozenset({"expire_time", "retry_count", "retry_delay", "sdu"})
        | {"stmtcachesize"},
    ),
}

_SESSION_ATTRIBUTES = (
    "any",
    "primary",
    "standby",
    "prefer-standby",
    "read-write",
    "read-only",
)
_SSL_MODES = {"true": "verify-full", "false": "disable"}
"""`ssl` is `sslmode` to asyncpg, and may be a truth value as well."""


def split_query(
    dialect: str, query: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that remain a query, and those that are keys of their own.

    Args:
        dialect: Plain name of the dialect.
        query: Options as a user of Rasa gave them to its driver.

    Raises:
        ValueError: Our driver cannot do what one of them says; it names the option.
    """
    options = _DRIVERS[dialect]
    rest: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    for name, given in query.items():
        if not options.knows(name):
            raise ValueError(_unknown(name, options))
        value = _checked(name, _plain(given), options)
        key = options.keys.get(name)
        if key is None:
            rest[name] = value
        elif key in keys:
            raise ValueError(f"'{name}' in 'query' says what another option says")
        else:
            keys[key] = value
    if keys.get("ssl_mode") in ("prefer", "allow"):
        del keys["ssl_mode"]  # what the driver does unless told otherwise
    _check_sqlite(dialect, rest)
    return rest, keys


def _unknown(name: str, options: _Options) -> str:
    if options is _ASYNCPG and name in _LIBPQ_ALONE:
        return f"'{name}' in 'query' is libpq's, and asyncpg has no such: leave it out"
    hint = suggest(name, options.names, f"it has: {', '.join(options.names)}")
    if name.startswith("ssl"):
        hint = "use the keys ssl_mode, ssl_ca_certs, ssl_certfile and ssl_keyfile"
    return f"'{name}' in 'query' is not an option of {options.driver}; {hint}"


def _checked(name: str, value: Any, options: _Options) -> Any:
    if isinstance(value, tuple) and name not in _SEVERAL:
        raise ValueError(f"'{name}' in 'query' must have one value")
    if name in options.numbers and not value.isdecimal():
        raise ValueError(f"'{name}' in 'query' must be a whole number")
    if name == "target_session_attrs" and value not in _SESSION_ATTRIBUTES:
        choices = ", ".join(_SESSION_ATTRIBUTES)
        raise ValueError(f"'{name}' in 'query' must be one of {choices}")
    if options.keys.get(name) == "ssl_mode":
        return _SSL_MODES.get(value, value)
    if options.keys.get(name) == "connect_timeout_seconds":
        return _seconds(name, value)
    return value


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"'{name}' in 'query' must be a positive number of seconds")
    return seconds


def _check_sqlite(dialect: str, rest: Mapping[str, Any]) -> None:
    in_vain = _SQLITE_URI & rest.keys()
    if dialect == "sqlite" and in_vain and "uri" not in rest:
        raise ValueError(f"'{min(in_vain)}' in 'query' needs 'uri: true' beside it")


def check_sqlite_uri(dialect: str, db: object, rest: Mapping[str, Any]) -> None:
    """Check that an SQLite file that is said to be a URI is one.

    Args:
        dialect: Plain name of the dialect.
        db: The file.
        rest: What `split_query` left.

    Raises:
        ValueError: It is none: SQLite would take the query for part of its name.
    """
    is_uri = str(rest.get("uri", False)).lower() not in ("false", "no", "off", "0")
    if dialect == "sqlite" and is_uri and not str(db or "").startswith("file:"):
        raise ValueError("'uri: true' in 'query' needs a 'db' such as file:rasa.db")


def _plain(value: Any) -> Any:
    """Return text, or a tuple of texts, as SQLAlchemy wants it."""
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def driver_arguments(dialect: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the driver that SQLAlchemy does not make of a query.

    Args:
        dialect: Plain name of the dialect.
        query: What `split_query` left.

    Returns:
        Names to values. `taken_from_query` says which options they stand for.
    """
    numbers = _DRIVERS[dialect].numbers & query.keys()
    arguments: dict[str, Any] = {name: int(query[name]) for name in numbers}
    if dialect == "postgresql":
        settings = {name: query[name] for name in _SERVER_SETTINGS & query.keys()}
        if _FALLBACK_NAME in query:
            settings.setdefault("application_name", query[_FALLBACK_NAME])
        if settings:
            arguments["server_settings"] = settings
    return arguments


def taken_from_query(dialect: str) -> list[str]:
    """Return the options that `driver_arguments` takes over from SQLAlchemy."""
    taken = set(_DRIVERS[dialect].numbers)
    if dialect == "postgresql":
        taken |= {*_SERVER_SETTINGS, _FALLBACK_NAME}
    return sorted(taken)
