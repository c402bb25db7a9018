"""The keys of the SQL tracker store in `endpoints.yml`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tracker_store_async.aws_config import USUAL_PORTS, RdsIamKey, fill_rds
from tracker_store_async.backends.sql.config_query import check_sqlite_uri, split_query
from tracker_store_async.backends.sql.config_url import (
    DRIVERS,
    normalise_dialect,
    url_parts,
)
from tracker_store_async.backends.sql.environment import (
    pool_from_environment,
    schema_from_environment,
)
from tracker_store_async.settings import (
    Count,
    Name,
    Port,
    RequiredDriver,
    Seconds,
    Secret,
    StoreConfig,
    Text,
    merge_url_parts,
    reject_true_and_false,
)

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]

DEFAULT_POOL_SIZE = 50
DEFAULT_MAX_OVERFLOW = 100
"""What Rasa gives PostgreSQL (`rasa/core/tracker_store.py`)."""

_POOL_DEFAULTS = {
    "pool_size": DEFAULT_POOL_SIZE,
    "max_overflow": DEFAULT_MAX_OVERFLOW,
}

Overflow = Annotated[int, Field(ge=0), BeforeValidator(reject_true_and_false)]


class SQLConfig(StoreConfig):
    """Rasa's keys (`SQLTrackerStore` of 3.6.21) and those of the pool and of TLS.

    `host`, or `url`, is a host name, `host:port`, or a whole database URL, whose parts
    become the keys of their own. With PostgreSQL, three keys that are not given are
    taken from Rasa's environment variables: `schema` from `POSTGRESQL_SCHEMA`,
    `pool_size` from `SQL_POOL_SIZE` and `max_overflow` from `SQL_MAX_OVERFLOW`.

    Attributes:
        dialect: `postgresql`, `sqlite`, `mysql`, `mariadb` or `oracle`. A driver after
            a `+` is dropped: each dialect has its own asyncio driver here.
        host: Host name; None with SQLite.
        port: Port; None is the dialect's usual one.
        db: Name of the database; with SQLite the path of the file; with Oracle the SID,
            or empty where `query` has a `service_name` or `host` is a TNS name.
        username: Name to log in with.
        password: Password to log in with.
        password_file: File that holds the password; it is read again for each new
            connection, so that a rotated secret is survived.
        aws_iam: Log in to RDS with tokens of AWS's IAM, in place of a password.
        login_db: Database to connect to first, to create `db` (PostgreSQL only).
        query: Further options for the driver; see `config_query.py`.
        schema_name: Schema of the tables, `schema` in the file (PostgreSQL only).
        pool_size: Connections that are kept open.
        max_overflow: Connections that may be opened beyond `pool_size`.
        pool_recycle_seconds: Age at which a connection is replaced.
        pool_pre_ping: Whether a connection is tried out before each use.
        pool_timeout_seconds: Longest wait for a free connection.
        connect_timeout_seconds: Longest time to connect.
        command_timeout_seconds: Longest time that one statement may take.
        ssl_mode: What TLS has to prove, by PostgreSQL's names.
        ssl_ca_certs: File with the certificates that the server is checked against;
            None takes the system's.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key.
        pgbouncer: Whether PgBouncer stands before the server (PostgreSQL only).
        auto_upgrade: Whether an older or Rasa's own layout is upgraded on opening.
        create_tables: Whether missing tables are created on opening.
        outbox: Whether messages are stored with each save and published afterwards.

    Two shorthands stand for `ssl_mode`: `use_ssl: true` for `verify-full`, with
    `ssl_check_hostname: false` for `verify-ca`, and `use_ssl: false` for `disable`.
    """

    shorthands: ClassVar = ("use_ssl", "ssl_check_hostname")
    aliases: ClassVar = {
        "url": "host",
        "schema": "schema_name",
        "pool_recycle": "pool_recycle_seconds",
        "pool_timeout": "pool_timeout_seconds",
        "connect_timeout": "connect_timeout_seconds",
        "command_timeout": "command_timeout_seconds",
        "ssl_root_cert": "ssl_ca_certs",
        "ssl_cafile": "ssl_ca_certs",
    }

    documented_names: ClassVar = {"schema_name": "schema"}

    hints: ClassVar = {
        "drivername": "dialect",
        "driver": "dialect",
        "database": "db",
        "passwd": "password",
    }

    dialect: Literal["sqlite", "postgresql", "mysql", "mariadb", "oracle"] = "sqlite"
    host: Name | None = None
    port: Port | None = None
    db: Text = "rasa.db"
    username: Name | None = None
    password: Secret | None = None
    password_file: Name | None = None
    aws_iam: RdsIamKey = None
    login_db: Name | None = None
    query: dict[str, Any] = Field(default_factory=dict)
    schema_name: Name | None = None
    pool_size: Count | None = None
    max_overflow: Overflow | None = None
    pool_recycle_seconds: Seconds | None = None
    pool_pre_ping: bool | None = None
    pool_timeout_seconds: Seconds | None = None
    connect_timeout_seconds: Seconds | None = None
    command_timeout_seconds: Seconds | None = None
    ssl_mode: SslMode | None = None
    ssl_ca_certs: Name | None = None
    ssl_certfile: Name | None = None
    ssl_keyfile: Name | None = None
    pgbouncer: bool = False
    auto_upgrade: bool = False
    create_tables: bool = True
    outbox: bool = False

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = _take_url_apart(values)
        values["dialect"] = normalise_dialect(values.get("dialect", "sqlite"))
        values = _take_query_apart(values)
        _resolve_tls(values)
        if values["dialect"] == "oracle":
            _resolve_service(values)
        if values["dialect"] in USUAL_PORTS:
            fill_rds(values)
        if values["dialect"] == "postgresql":
            _fill_from_environment(values)
        return values

    @field_validator("db")
    @classmethod
    def _is_named(cls, db: str, info: ValidationInfo) -> str:
        if not db and info.data.get("dialect") != "oracle":
            raise ValueError("must not be empty")
        return db

    @model_validator(mode="after")
    def _keys_fit_dialect(self) -> Self:
        for keys, dialects in _FITTING:
            if self.dialect in dialects:
                continue
            for key in keys & self.model_fields_set:
                if getattr(self, key) not in (None, False):
                    written = self.documented_names.get(key, key)
                    raise ValueError(
                        f"'{written}' does not apply to dialect {self.dialect}"
                    )
        return self

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("'password' and 'password_file' say the same; keep one")
        return self

    @model_validator(mode="after")
    def _iam_is_whole(self) -> Self:
        if self.aws_iam is None:
            return self
        if self.password is not None or self.password_file is not None:
            raise ValueError("'aws_iam' stands for the password; keep one")
        if not self.host or not self.username:
            raise ValueError("'aws_iam' needs 'host' and 'username'")
        if self.ssl_mode in (None, "disable"):
            raise ValueError(
                "'aws_iam' sends a token as the password, which needs TLS: set "
                "'use_ssl: true', and 'ssl_ca_certs' to the certificates of RDS"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.ssl_ca_certs, self.ssl_certfile, self.ssl_keyfile)
        if self.ssl_mode == "disable" and any(files):
            raise ValueError("the ssl_ files contradict TLS being switched off")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("'ssl_keyfile' needs 'ssl_certfile'")
        return self

    def required_driver(self) -> RequiredDriver | None:
        """Return the asyncio driver of the dialect and the extra that installs it."""
        return DRIVERS[self.dialect]

    def store_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of `SQLTrackerStore`."""
        kwargs = super().store_kwargs()
        if "schema_name" in kwargs:
            kwargs["schema"] = kwargs.pop("schema_name")
        if kwargs.pop("aws_iam", None) is not None and self.aws_iam is not None:
            port = self.port or USUAL_PORTS[self.dialect]
            kwargs["password"] = self.aws_iam.token(
                self.host or "", port, self.username or ""
            )
        return kwargs


_SERVERS = frozenset({"postgresql", "mysql", "mariadb", "oracle"})
_TLS = frozenset({"ssl_mode", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_POOL = frozenset(
    {
        "pool_size",
        "max_overflow",
        "pool_recycle_seconds",
        "pool_pre_ping",
        "pool_timeout_seconds",
    }
)
_FITTING = (
    (frozenset({"host", "port", "username", "password", "password_file"}), _SERVERS),
    (_POOL, _SERVERS),
    (frozenset({"aws_iam"}), frozenset(USUAL_PORTS)),
    # Oracle's driver takes TLS from its connect descriptor: bring your own engine.
    (_TLS, _SERVERS - {"oracle"}),
    (frozenset({"login_db", "schema_name", "pgbouncer"}), frozenset({"postgresql"})),
)
"""Keys to the dialects that have them; elsewhere they would be accepted in vain."""


def _take_url_apart(values: dict[str, Any]) -> dict[str, Any]:
    rest = dict(values)
    host = rest.pop("host", None)
    if not isinstance(host, str):
        return dict(values)
    if host == "":  # Rasa's documented way to name no host
        return rest
    parts = url_parts(host)
    if "dialect" in rest and "dialect" in parts:
        rest["dialect"] = normalise_dialect(rest["dialect"])
    own_query, query = rest.pop("query", None), parts.pop("query", None)
    rest = merge_url_parts(rest, parts)
    if own_query is not None or query is not None:
        rest["query"] = own_query if query is None else {**query, **(own_query or {})}
    return rest


def _take_query_apart(values: dict[str, Any]) -> dict[str, Any]:
    query = values.get("query")
    if not isinstance(query, dict):
        return values
    rest, keys = split_query(values["dialect"], query)
    check_sqlite_uri(values["dialect"], values.get("db"), rest)
    return merge_url_parts({**values, "query": rest}, keys)


def _resolve_service(values: dict[str, Any]) -> None:
    query = values.get("query")
    if isinstance(query, dict) and query.get("service_name"):
        if values.get("db"):
            raise ValueError(
                "'db' is an Oracle SID, and 'query' has a 'service_name': keep one"
            )
        values["db"] = ""


def _resolve_tls(values: dict[str, Any]) -> None:
    use_ssl = _flag(values, "use_ssl")
    check_hostname = _flag(values, "ssl_check_hostname")
    if check_hostname is not None and not use_ssl:
        raise ValueError("'ssl_check_hostname' needs 'use_ssl: true'")
    if use_ssl is not None and values.get("ssl_mode") is not None:
        raise ValueError("'use_ssl' and 'ssl_mode' say the same; keep one")
    if use_ssl is not None:
        checked = "verify-ca" if check_hostname is False else "verify-full"
        values["ssl_mode"] = checked if use_ssl else "disable"
    if values.get("ssl_ca_certs") is not None:
        # libpq's rule: to require TLS and name a CA is to have it checked.
        mode = values.get("ssl_mode") or "verify-full"
        values["ssl_mode"] = "verify-ca" if mode == "require" else mode


def _flag(values: dict[str, Any], key: str) -> bool | None:
    value = values.pop(key, None)
    try:
        return None if value is None else TypeAdapter(bool).validate_python(value)
    except ValidationError:
        raise ValueError(f"'{key}' must be true or false") from None


def _fill_from_environment(values: dict[str, Any]) -> None:
    for key, default in _POOL_DEFAULTS.items():
        if values.get(key) is None:
            found = pool_from_environment(key)
            values[key] = default if found is None else found
    if values.get("schema_name") is None:
        values["schema_name"] = schema_from_environment()
