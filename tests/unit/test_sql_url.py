"""From options to a URL, an engine and TLS; nothing here connects anywhere."""

from __future__ import annotations

import ssl
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from tests.servers.tls import Certificates
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql import engine as engines
from tracker_store_async.backends.sql.engine import (
    ConnectionOptions,
    async_url,
    make_tls_context,
)
from tracker_store_async.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "sqlite:///rasa.db"),
        ({"db": "/var/lib/x.db"}, "sqlite:////var/lib/x.db"),
        ({"db": None}, "sqlite://"),
        (
            {"dialect": "postgresql", "host": "h", "db": "d", "username": "u"},
            "postgresql://u@h/d",
        ),
        (
            {"dialect": "postgresql", "host": "h:5433", "db": "d"},
            "postgresql://h:5433/d",
        ),
        (
            {"dialect": "postgresql", "host": "h:5433", "port": 1, "db": "d"},
            "postgresql://h:5433/d",
        ),
        (
            {"dialect": "postgresql", "host": "h", "port": "5434", "db": "d"},
            "postgresql://h:5434/d",
        ),
        (
            {"dialect": "postgresql", "host": "h", "db": "d", "login_db": "l"},
            "postgresql://h/l",
        ),
        (
            {"dialect": "postgresql", "host": "/run/pg", "db": "d"},
            "postgresql:///run/pg/d",
        ),
        (
            {"dialect": "postgresql", "host": "[::1]:5433", "db": "d"},
            "postgresql://[::1]:5433/d",
        ),
        (
            {"dialect": "mysql", "host": "h", "db": "d", "query": {"a": 1, "b": "x"}},
            "mysql://h/d?a=1&b=x",
        ),
        (
            {"host": "oracle+cx_oracle://u:p%40@h:1521/s", "db": "ignored"},
            "oracle+cx_oracle://u:p%40@h:1521/s",
        ),
    ],
)
def test_url_stands_for_what_rasa_makes_of_it(
    options: dict[str, Any], expected: str
) -> None:
    url = SQLTrackerStore.get_db_url(**options)
    assert isinstance(url, URL)
    assert url.render_as_string(hide_password=False) == expected


def test_url_takes_rasas_arguments_in_rasas_order() -> None:
    url = SQLTrackerStore.get_db_url(
        "postgresql", "h", 5433, "d", "u", "p w", None, {"k": "v"}
    )
    assert (url.drivername, url.host, url.port, url.database) == (
        ("postgresql", "h", 5433, "d")
    )
    assert (url.username, url.password, dict(url.query)) == ("u", "p w", {"k": "v"})


@pytest.mark.parametrize(
    "options",
    [
        {"dialect": "postgresql", "host": "h", "port": "many"},
        {"dialect": "postgresql", "host": "h:many"},
        {"host": "postgresql://u:sesame@h:many/d"},
        {"host": "://"},
    ],
)
def test_url_that_is_wrong_is_refused_without_its_password(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLTrackerStore.get_db_url(**options)
    assert "sesame" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite", "sqlite+aiosqlite"),
        ("postgres", "postgresql+asyncpg"),
        ("postgresql", "postgresql+asyncpg"),
        ("postgresql+psycopg2", "postgresql+asyncpg"),
        ("mysql+pymysql", "mysql+asyncmy"),
        ("mariadb", "mysql+asyncmy"),
        ("oracle+cx_oracle", "oracle+oracledb_async"),
    ],
)
def test_every_driver_is_replaced_by_an_asyncio_driver(
    given: str, expected: str
) -> None:
    assert async_url(URL.create(given)).drivername == expected


def test_unknown_dialect_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match=r"unknown dialect 'mssql'.*postgresql"
    ):
        SQLTrackerStore(dialect="mssql", host="h")


@pytest.mark.parametrize(
    "options",
    [
        {"pool_size": 3},
        {"pool_pre_ping": True},
        {"schema": "s"},
        {"pgbouncer": True},
        {"ssl_mode": "require"},
        {"login_db": "l"},
        {"username": "u"},
        {"host": "somewhere"},
        {"dialect": "mysql", "host": "h", "schema": "s"},
        {"dialect": "mysql", "host": "h", "login_db": "l"},
        {"dialect": "oracle", "host": "h", "ssl_ca_certs": "ca.pem"},
        {"dialect": "postgresql", "host": "h", "ssl_mode": "sometimes"},
        {"dialect": "postgresql", "host": "h", "ssl_keyfile": "k.pem"},
        {
            "dialect": "postgresql",
            "host": "h",
            "ssl_mode": "disable",
            "ssl_ca_certs": "c",
        },
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SQLTrackerStore(**options)


def test_own_engine_takes_no_other_address_or_pool() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    assert SQLTrackerStore(engine=engine).backend_name == "sqlite"
    for options in ({"host": "h"}, {"username": "u"}, {"pool_size": 2}):
        with pytest.raises(ConfigurationError, match="brings its own"):
            SQLTrackerStore(engine=engine, **options)


def test_own_engine_must_be_async() -> None:
    from sqlalchemy import create_engine

    with pytest.raises(ConfigurationError, match="create_async_engine"):
        SQLTrackerStore(engine=create_engine("sqlite://"))  # type: ignore[arg-type]


def test_what_libpq_calls_sslmode_becomes_an_option() -> None:
    store = SQLTrackerStore(
        host="postgresql://h/d?sslmode=verify-ca&sslrootcert=/ca.pem&application_name=x"
    )
    options = store._connector.options
    assert (options.ssl_mode, options.ssl_ca_certs) == ("verify-ca", "/ca.pem")
    assert dict(store._connector._url.query) == {"application_name": "x"}


def test_constructor_starts_nothing_and_imports_no_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("asyncpg", "asyncmy", "oracledb", "aiosqlite"):
        monkeypatch.setitem(sys.modules, name, None)
    threads = threading.active_count()
    for dialect in ("sqlite", "postgresql", "mysql", "oracle"):
        host = None if dialect == "sqlite" else "no.such.host"
        SQLTrackerStore(dialect=dialect, host=host)
    assert threading.active_count() == threads


async def test_missing_driver_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    for dialect, extra in (
        ("postgresql", "postgresql"),
        ("mariadb", "mysql"),
        ("oracle", "oracle"),
    ):
        store = SQLTrackerStore(dialect=dialect, host="h")
        wanted = rf"pip install 'tracker-store-async\[{extra}\]'"
        with pytest.raises(MissingExtraError, match=wanted):
            await store.open()


def test_no_password_in_repr() -> None:
    store = SQLTrackerStore(host="postgresql://user:sesame@h:5433/d")
    assert repr(store) == "<SQLTrackerStore: postgresql at h:5433/d>"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.write(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    ("mode", "with_ca", "verify_mode", "check_hostname"),
    [
        ("require", False, ssl.CERT_NONE, False),
        ("require", True, ssl.CERT_REQUIRED, False),
        ("verify-ca", True, ssl.CERT_REQUIRED, False),
        ("verify-full", False, ssl.CERT_REQUIRED, True),
        (None, True, ssl.CERT_REQUIRED, True),
    ],
)
def test_tls_proves_what_the_mode_says(
    certificates: Certificates,
    mode: Any,
    with_ca: bool,
    verify_mode: ssl.VerifyMode,
    check_hostname: bool,
) -> None:
    ca = str(certificates.ca) if with_ca else None
    context = make_tls_context(ConnectionOptions(ssl_mode=mode, ssl_ca_certs=ca))
    assert context is not None
    assert context.verify_mode is verify_mode
    assert context.check_hostname is check_hostname


@pytest.mark.parametrize("mode", [None, "disable"])
def test_no_tls_unless_asked_for(mode: Any) -> None:
    assert make_tls_context(ConnectionOptions(ssl_mode=mode)) is None


def test_tls_file_that_is_missing_or_no_key_is_named(
    certificates: Certificates, tmp_path: Path
) -> None:
    for options in (
        ConnectionOptions(ssl_ca_certs=str(tmp_path / "none.pem")),
        ConnectionOptions(
            ssl_mode="require",
            ssl_certfile=str(certificates.client_certificate),
            ssl_keyfile=str(certificates.ca),
        ),
    ):
        with pytest.raises(ConfigurationError, match="ssl_ca_certs, ssl_certfile"):
            make_tls_context(options)
