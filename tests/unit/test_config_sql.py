"""The keys of the SQL tracker store."""

from pathlib import Path

import pytest

from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql.config import SQLConfig
from tracker_store_async.config import read_endpoint_config
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import parse_settings

DATA = Path(__file__).parent.parent / "data" / "endpoints"
VARIABLES = (
    "POSTGRESQL_SCHEMA",
    "SQL_POOL_SIZE",
    "SQL_MAX_OVERFLOW",
    "POSTGRESQL_POOL_SIZE",
    "POSTGRESQL_MAX_OVERFLOW",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DB_USER", "rasa")
    monkeypatch.setenv("DB_PASSWORD", "s3cr3t")


def parse(**settings) -> SQLConfig:
    return parse_settings(SQLConfig, settings, where="tracker_store", type_name="sql")


def load(name: str) -> SQLConfig:
    settings = read_endpoint_config(DATA / name, "tracker_store").as_dict()
    assert settings.pop("type").lower() == "sql"
    return parse(**settings)


def kwargs(**settings):
    return parse(**settings).store_kwargs()


def problem(**settings):
    with pytest.raises(ConfigurationError) as raised:
        parse(**settings)
    return str(raised.value)


class TestFiles:
    def test_deployment_example(self):
        assert load("postgresql.yml").store_kwargs() == {
            "dialect": "postgresql",
            "host": "postgres.example.com",
            "port": 5432,
            "db": "rasa_conversations",
            "username": "rasa",
            "password": "s3cr3t",
            "pool_size": 50,
            "max_overflow": 100,
            "query": {},
            "pgbouncer": False,
            "auto_upgrade": False,
            "create_tables": True,
            "outbox": False,
            "on_conflict": "rebase",
            "on_publish_error": "raise",
        }

    def test_rasas_documented_example(self):
        """Its `query` is a placeholder, which psycopg2 refuses as well."""
        with pytest.raises(ConfigurationError) as raised:
            load("rasa_sql.yml")
        assert str(raised.value).startswith(
            "tracker_store: 'driver' in 'query' is not an option of asyncpg; it has: "
        )

    def test_rasas_documented_example_without_its_placeholder(self):
        section = read_endpoint_config(DATA / "rasa_sql.yml", "tracker_store")
        settings = section.as_dict() | {"query": None}
        del settings["type"]
        config = parse(**settings)
        assert (config.dialect, config.db, config.host) == ("postgresql", "rasa", None)
        assert config.username is config.password is config.login_db is None

    def test_rasas_keys_all_at_once(self):
        config = load("rasa_sql_keys.yml")
        assert (config.dialect, config.db, config.host) == ("postgresql", "rasa", None)
        assert config.username is config.password is config.login_db is None

    def test_rasa_on_oracle(self):
        config = load("rasa_oracle.yml")
        assert (config.dialect, config.db) == ("oracle", "")
        assert config.query == {"service_name": "tracker"}

    def test_sqlite(self):
        assert load("rasa_sqlite.yml").store_kwargs() == {
            "dialect": "sqlite",
            "db": "conversations.db",
            "query": {},
            "pgbouncer": False,
            "auto_upgrade": False,
            "create_tables": True,
            "outbox": False,
            "on_conflict": "rebase",
            "on_publish_error": "raise",
        }

    def test_full_rasa_file(self, monkeypatch):
        monkeypatch.setenv("DB_HOST", "db.example.com")
        monkeypatch.setenv("DB_PORT", "5433")
        config = load("rasa_full.yml")
        assert (config.host, config.port) == ("db.example.com", 5433)
        assert config.login_db == "postgres"
        assert config.ssl_mode == "require"
        assert config.query == {"application_name": "assistant"}


def test_nothing_given_is_rasas_default():
    config = parse()
    assert (config.dialect, config.db, config.host) == ("sqlite", "rasa.db", None)
    assert (config.auto_upgrade, config.create_tables) == (False, True)


class TestDialect:
    @pytest.mark.parametrize(
        ("written", "name", "driver"),
        [
            ("PostgreSQL", "postgresql", ("asyncpg", "postgresql")),
            ("postgres", "postgresql", ("asyncpg", "postgresql")),
            ("postgresql+psycopg2", "postgresql", ("asyncpg", "postgresql")),
            ("mysql+pymysql", "mysql", ("asyncmy", "mysql")),
            ("mariadb", "mariadb", ("asyncmy", "mysql")),
            ("oracle+cx_oracle", "oracle", ("oracledb", "oracle")),
            ("sqlite+aiosqlite", "sqlite", None),
        ],
    )
    def test_known(self, written, name, driver):
        config = parse(dialect=written)
        assert (config.dialect, config.required_driver()) == (name, driver)

    def test_unknown(self):
        assert problem(dialect="postgrsql") == (
            "tracker_store: unknown dialect; did you mean 'postgresql'?"
        )
        assert "must be one of sqlite, postgresql" in problem(dialect="db2")
        assert "unknown driver" in problem(dialect="postgresql+nodriver")
        assert "'dialect' must be text" in problem(dialect=["sqlite"])


class TestHost:
    def test_port_in_the_host(self):
        config = parse(dialect="postgresql", url="db.example.com:5433")
        assert (config.host, config.port) == ("db.example.com", 5433)

    @pytest.mark.parametrize(
        "host", ["[::1]:5433", "[::1]", "::1", "postgresql://[::1]:5433/rasa.db"]
    )
    def test_ipv6_address_reaches_the_driver_whole(self, host):
        config = parse(dialect="postgresql", url=host, port="5433")
        assert (config.host, config.port) == ("[::1]", 5433)
        url = SQLTrackerStore.get_db_url(host=config.host, port=config.port)
        assert (url.host, url.port) == ("::1", 5433)

    def test_socket_directory(self):
        config = parse(dialect="postgresql", host="/var/run/postgresql")
        assert config.host == "/var/run/postgresql"

    def test_whole_url(self):
        config = parse(
            url="postgresql+asyncpg://u:p%40ss@h:1/d?sslmode=verify-full&host=a&host=b"
        )
        assert (config.dialect, config.host, config.port) == ("postgresql", "h", 1)
        assert (config.db, config.username) == ("d", "u")
        assert config.password.get_secret_value() == "p@ss"
        assert config.ssl_mode == "verify-full"
        assert config.query == {"host": ("a", "b")}

    def test_url_and_keys_add_up(self):
        config = parse(
            url="postgresql://h/d?role=a",
            dialect="postgres",
            username="u",
            password="p",
            query={"work_mem": 2, "synchronous_commit": True, "port": [3, "4"]},
        )
        assert (config.host, config.db, config.username) == ("h", "d", "u")
        assert config.query == {
            "role": "a",
            "work_mem": "2",
            "synchronous_commit": "true",
            "port": ("3", "4"),
        }

    @pytest.mark.parametrize(
        "key", [{"db": "e"}, {"dialect": "sqlite"}, {"port": 2}, {"username": "v"}]
    )
    def test_url_and_keys_that_contradict_each_other(self, key):
        text = problem(url="postgresql://u@h:1/d", **key)
        assert text.startswith(f"tracker_store: '{next(iter(key))}' differs from")

    @pytest.mark.parametrize(
        ("url", "db"),
        [
            ("sqlite:///a.db", "a.db"),
            ("sqlite:////x/a.db", "/x/a.db"),
            ("sqlite://", ":memory:"),
        ],
    )
    def test_sqlite_url(self, url, db):
        config = parse(url=url)
        assert (config.dialect, config.db, config.host) == ("sqlite", db, None)

    @pytest.mark.parametrize(
        "host", ["user@h", "h/d", "h?a=b", "h:port", ":5432", "://", "db2://h/d"]
    )
    def test_what_is_no_host(self, host):
        assert problem(dialect="postgresql", host=host).startswith("tracker_store: ")


class TestEnvironment:
    def test_defaults_of_rasa(self):
        config = parse(dialect="postgresql")
        assert (config.pool_size, config.max_overflow) == (50, 100)
        assert config.schema_name is None

    def test_rasas_variables(self, monkeypatch):
        monkeypatch.setenv("POSTGRESQL_SCHEMA", "chats")
        monkeypatch.setenv("SQL_POOL_SIZE", "7")
        monkeypatch.setenv("SQL_MAX_OVERFLOW", "0")
        found = kwargs(dialect="postgresql")
        assert (found["schema"], found["pool_size"], found["max_overflow"]) == (
            "chats",
            7,
            0,
        )

    def test_their_other_names(self, monkeypatch):
        monkeypatch.setenv("POSTGRESQL_POOL_SIZE", "8")
        monkeypatch.setenv("POSTGRESQL_MAX_OVERFLOW", "9")
        config = parse(dialect="postgresql")
        assert (config.pool_size, config.max_overflow) == (8, 9)
        monkeypatch.setenv("SQL_POOL_SIZE", "7")
        assert parse(dialect="postgresql").pool_size == 7

    def test_a_key_wins_over_the_environment(self, monkeypatch):
        monkeypatch.setenv("POSTGRESQL_SCHEMA", "chats")
        monkeypatch.setenv("SQL_POOL_SIZE", "7")
        found = kwargs(dialect="postgresql", schema="mine", pool_size="3")
        assert (found["schema"], found["pool_size"]) == ("mine", 3)

    def test_they_are_for_postgresql_only(self, monkeypatch):
        monkeypatch.setenv("POSTGRESQL_SCHEMA", "chats")
        monkeypatch.setenv("SQL_POOL_SIZE", "7")
        for dialect in ("sqlite", "mysql", "oracle"):
            config = parse(dialect=dialect)
            assert config.schema_name is config.pool_size is None

    def test_wrong_variable_is_named(self, monkeypatch):
        monkeypatch.setenv("SQL_POOL_SIZE", "many")
        assert problem(dialect="postgresql") == (
            "tracker_store: the environment variable SQL_POOL_SIZE must be a whole "
            "number"
        )
        monkeypatch.setenv("SQL_POOL_SIZE", "")
        assert parse(dialect="postgresql").pool_size == 50


class TestTls:
    @pytest.mark.parametrize(
        ("settings", "mode"),
        [
            ({}, None),
            ({"use_ssl": "true"}, "verify-full"),
            ({"use_ssl": True, "ssl_check_hostname": "false"}, "verify-ca"),
            ({"use_ssl": "false"}, "disable"),
            ({"ssl_mode": "require"}, "require"),
            ({"ssl_ca_certs": "ca.crt"}, "verify-full"),
            ({"ssl_root_cert": "ca.crt", "ssl_mode": "require"}, "verify-ca"),
            ({"ssl_ca_certs": "ca.crt", "ssl_mode": "verify-ca"}, "verify-ca"),
            ({"query": {"sslmode": "prefer"}}, None),
            ({"query": {"sslmode": "require", "sslrootcert": "ca"}}, "verify-ca"),
        ],
    )
    def test_mode(self, settings, mode):
        assert parse(dialect="postgresql", **settings).ssl_mode == mode

    def test_libpq_names_in_the_query(self):
        config = parse(
            dialect="postgresql",
            query={
                "sslmode": "verify-full",
                "sslrootcert": "ca.crt",
                "sslcert": "c.crt",
                "sslkey": "c.key",
                "connect_timeout": "5",
            },
        )
        assert (config.ssl_ca_certs, config.ssl_certfile, config.ssl_keyfile) == (
            "ca.crt",
            "c.crt",
            "c.key",
        )
        assert config.connect_timeout_seconds == 5
        assert config.query == {}

    def test_pymysql_names_in_the_query(self):
        config = parse(
            dialect="mysql", query={"ssl_ca": "ca.crt", "charset": "utf8mb4"}
        )
        assert (config.ssl_mode, config.ssl_ca_certs) == ("verify-full", "ca.crt")
        assert config.query == {"charset": "utf8mb4"}

    @pytest.mark.parametrize(
        "settings",
        [
            {"ssl_mode": "on"},
            {"use_ssl": "yes please"},
            {"use_ssl": True, "ssl_mode": "require"},
            {"ssl_check_hostname": False},
            {"ssl_check_hostname": False, "use_ssl": False},
            {"ssl_keyfile": "c.key"},
            {"use_ssl": False, "ssl_ca_certs": "ca.crt"},
            {"ssl_mode": "require", "query": {"sslmode": "disable"}},
        ],
    )
    def test_contradictions(self, settings):
        assert "ssl" in problem(dialect="postgresql", **settings)


@pytest.mark.parametrize(
    ("dialect", "settings"),
    [
        ("sqlite", {"host": "h"}),
        ("sqlite", {"port": 1}),
        ("sqlite", {"username": "u"}),
        ("sqlite", {"password": "p"}),
        ("sqlite", {"use_ssl": True}),
        ("sqlite", {"pool_size": 5}),
        ("sqlite", {"max_overflow": 5}),
        ("sqlite", {"pool_pre_ping": True}),
        ("sqlite", {"login_db": "d"}),
        ("sqlite", {"pgbouncer": True}),
        ("mysql", {"schema": "s"}),
        ("mariadb", {"login_db": "d"}),
        ("oracle", {"pgbouncer": "true"}),
        ("oracle", {"use_ssl": "true"}),
    ],
)
def test_key_that_a_dialect_does_not_have_is_refused(dialect, settings):
    key = next(iter(settings)).replace("use_ssl", "ssl_mode")
    assert problem(dialect=dialect, **settings) == (
        f"tracker_store: '{key}' does not apply to dialect {dialect}"
    )


def test_pool_and_time_limits():
    found = kwargs(
        dialect="postgresql",
        pool_size="5",
        max_overflow=0,
        pool_recycle="1800",
        pool_pre_ping="true",
        pool_timeout=5,
        connect_timeout_seconds="2.5",
        command_timeout=30,
        pgbouncer="yes",
        auto_upgrade="true",
        create_tables="false",
    )
    assert (
        found
        | {
            "pool_size": 5,
            "max_overflow": 0,
            "pool_recycle_seconds": 1800.0,
            "pool_pre_ping": True,
            "pool_timeout_seconds": 5.0,
            "connect_timeout_seconds": 2.5,
            "command_timeout_seconds": 30.0,
            "pgbouncer": True,
            "auto_upgrade": True,
            "create_tables": False,
        }
        == found
    )


def test_typo():
    with pytest.raises(ConfigurationError) as raised:
        load("typo.yml")
    assert str(raised.value) == (
        "tracker_store: unknown key 'pasword' for type sql; did you mean 'password'?"
    )


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("drivername", "dialect"),
        ("driver", "dialect"),
        ("database", "db"),
        ("user", "username"),
        ("passwd", "password"),
    ],
)
def test_name_that_others_use(written, key):
    assert problem(**{written: "x"}) == (
        f"tracker_store: unknown key '{written}' for type sql; did you mean '{key}'?"
    )


def test_repr_shows_no_password():
    config = parse(
        url="postgresql://u:s3cr3t@h/d?user=s3cr3t", query={"password": "s3cr3t"}
    )
    assert "s3cr3t" not in repr(config) + str(config)
    assert "query={'user': '***', 'password': '***'}" in repr(config)
