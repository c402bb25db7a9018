"""Tokens for RDS and ElastiCache: what AWS expects, fresh, and told to nobody."""

from __future__ import annotations

import asyncio
import datetime
import logging
import secrets
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("botocore")
pytest.importorskip("asyncpg")
pytest.importorskip("asyncmy")
pytest.importorskip("redis")

import botocore.auth
import botocore.session

from tests import canaries
from tests.servers import fresh_database
from tests.sql_databases import append, ids, read
from tracker_store_async import SQLTrackerStore, create_tracker_store, errors
from tracker_store_async.aws import LIFE_SECONDS, ElastiCacheToken, RdsToken
from tracker_store_async.credentials import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "chats.abc123.eu-west-1.rds.amazonaws.com"
KEY, SECRET, SESSION = "AKIDEXAMPLE", f"{canaries.SECRET}/key", "s3ssion+token=="
VARIABLES = (
    *("IAM_CLOUD_PROVIDER", "RDS_SQL_DB_AWS_IAM_ENABLED", "SQL_TRACKER_STORE_SSL_MODE"),
    *("ELASTICACHE_REDIS_AWS_IAM_ENABLED", "AWS_ELASTICACHE_CLUSTER_NAME"),
    *("SQL_TRACKER_STORE_SSL_ROOT_CERTIFICATE", "AWS_PROFILE", "AWS_REGION"),
)


@pytest.fixture(autouse=True)
def _fake_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


class Time(datetime.datetime):
    """A clock that botocore looks at."""

    offset = datetime.timedelta()
    began = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)

    @classmethod
    def utcnow(cls) -> Any:
        return (cls.began + cls.offset).replace(tzinfo=None)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return cls.began + cls.offset


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Time]:
    """Have botocore sign at a time that is moved by hand."""
    Time.offset = datetime.timedelta()
    if hasattr(botocore.auth, "get_current_datetime"):
        monkeypatch.setattr(
            botocore.auth, "get_current_datetime", lambda *_, **__: Time.utcnow()
        )
    else:
        monkeypatch.setattr(botocore.auth.datetime, "datetime", Time)
    return Time


def query_of(token: str) -> dict[str, str]:
    """Return what a token says."""
    assert "://" not in token
    return {k: v[0] for k, v in parse_qs(urlsplit(f"//{token}").query).items()}


def test_a_token_for_rds_is_what_botocore_makes(clock: type[Time]) -> None:
    client = botocore.session.Session().create_client("rds")
    expected = client.generate_db_auth_token(HOST, 5432, "assistant")
    assert RdsToken(HOST, 5432, "assistant")() == expected
    assert query_of(expected)["X-Amz-Date"] == "20260131T120000Z"


def test_a_token_for_elasticache() -> None:
    token = ElastiCacheToken("Chats", "assistant", "us-east-2")()
    assert token.startswith("chats/?Action=connect&User=assistant&X-Amz-Algorithm=")
    said = query_of(token)
    scope = said["X-Amz-Credential"].split("/")
    assert scope[0] == KEY
    assert scope[2:] == ["us-east-2", "elasticache", "aws4_request"]
    assert said["X-Amz-Expires"] == str(LIFE_SECONDS) == "900"
    assert said["X-Amz-Security-Token"] == SESSION
    assert len(said["X-Amz-Signature"]) == 64
    serverless = query_of(ElastiCacheToken("chats", "a", serverless=True)())
    assert serverless["ResourceType"] == "ServerlessCache"


@pytest.mark.parametrize(
    "source", [RdsToken(HOST, 5432, "assistant"), ElastiCacheToken("chats", "a")]
)
def test_who_asks_later_gets_a_new_one(source: Any, clock: type[Time]) -> None:
    made = []
    for minutes in (0, 14, 28):
        clock.offset = datetime.timedelta(minutes=minutes)
        made.append(query_of(source())["X-Amz-Date"])
    assert made == ["20260131T120000Z", "20260131T121400Z", "20260131T122800Z"]


def test_nothing_of_it_is_shown() -> None:
    for source in (RdsToken(HOST, 5432, "us"), ElastiCacheToken("chats", "us")):
        token = source()
        shown = repr(source)
        assert "us" in shown
        for secret in (SECRET, SESSION, token, query_of(token)["X-Amz-Signature"]):
            assert secret not in shown


async def test_what_is_lacking_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(errors.StoreAccessError, match="AWS_DEFAULT_REGION"):
        await ask(RdsToken(HOST, 5432, "us"), "password")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.StoreAccessError, match="no AWS credentials"):
        await ask(RdsToken(HOST, 5432, "us", "eu-west-1"), "password")


async def test_aws_that_cannot_be_reached_is_an_outage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in Kubernetes, where each process asks AWS for the credentials of its role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    (tmp_path / "jwt").write_text(SECRET)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/assistant")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(errors.StoreUnavailableError, match="Endpoint") as caught:
        await ask(RdsToken(HOST, 5432, "us"), "password")
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert SECRET not in str(caught.value)


# -- in endpoints.yml ------------------------------------------------------------------

SQL = {
    "type": "sql",
    "dialect": "postgresql",
    "host": HOST,
    "db": "chats",
    "username": "assistant",
}
REDIS = {"type": "redis", "host": "chats.abc.cache.amazonaws.com", "username": "a"}


def password_of(store: Any) -> Any:
    if isinstance(store, SQLTrackerStore):
        return store._connector.options.password_source
    return store._options.password


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"use_ssl": True, "aws_iam": True}, f"{HOST}:5432"),
        ({"ssl_mode": "verify-full", "aws_iam": {}, "port": 6000}, f"{HOST}:6000"),
        ({"use_ssl": True, "dialect": "mysql", "aws_iam": True}, f"{HOST}:3306"),
        ({"use_ssl": True, "aws_iam": {"host": "db", "port": 1}}, "db:1"),
    ],
)
def test_a_section_for_rds(keys: Any, place: str) -> None:
    source = password_of(create_tracker_store({**SQL, **keys}))
    token = source()
    assert token.startswith(f"{place}/?Action=connect&DBUser=assistant")
    assert "eu-west-1" in token


def test_a_section_for_elasticache() -> None:
    section = {**REDIS, "use_ssl": True, "aws_iam": {"cache": "chats", "region": "r-1"}}
    source = password_of(create_tracker_store(section))
    token = source()
    assert token.startswith("chats/?Action=connect&User=a&")
    assert "r-1" in token


def test_rasas_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IAM_CLOUD_PROVIDER", "aws")
    monkeypatch.setenv("RDS_SQL_DB_AWS_IAM_ENABLED", "true")
    monkeypatch.setenv("ELASTICACHE_REDIS_AWS_IAM_ENABLED", "true")
    with pytest.raises(errors.ConfigurationError, match="needs TLS"):
        create_tracker_store(SQL)
    monkeypatch.setenv("SQL_TRACKER_STORE_SSL_MODE", "prefer")
    with pytest.raises(errors.ConfigurationError, match="SQL_TRACKER_STORE_SSL_MODE"):
        create_tracker_store(SQL)
    monkeypatch.setenv("SQL_TRACKER_STORE_SSL_MODE", "verify-full")
    monkeypatch.setenv("SQL_TRACKER_STORE_SSL_ROOT_CERTIFICATE", "/rds.pem")
    store: Any = create_tracker_store(SQL)
    assert isinstance(password_of(store), RdsToken)
    assert store._connector.options.ssl_mode == "verify-full"
    assert store._connector.options.ssl_ca_certs == "/rds.pem"
    own = create_tracker_store({**SQL, "password": "p"})
    assert password_of(own) is None
    assert create_tracker_store({"type": "sql", "db": ":memory:"})
    with pytest.raises(errors.ConfigurationError, match="AWS_ELASTICACHE_CLUSTER_NAME"):
        create_tracker_store({**REDIS, "use_ssl": True})
    monkeypatch.setenv("AWS_ELASTICACHE_CLUSTER_NAME", "chats")
    cached = create_tracker_store({**REDIS, "host": "rediss://h:1"})
    assert isinstance(password_of(cached), ElastiCacheToken)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({**SQL, "aws_iam": True}, "needs TLS"),
        ({**SQL, "aws_iam": True, "use_ssl": False}, "needs TLS"),
        ({**SQL, "aws_iam": True, "use_ssl": True, "password": "p"}, "keep one"),
        ({**SQL, "aws_iam": True, "use_ssl": True, "username": None}, "'username'"),
        ({**SQL, "aws_iam": {"regoin": "x"}, "use_ssl": True}, "regoin"),
        ({"type": "sql", "aws_iam": True}, "does not apply"),
        ({**REDIS, "aws_iam": {"cache": "c"}}, "needs TLS"),
        ({**REDIS, "aws_iam": {}, "use_ssl": True}, "cache"),
        (
            {**REDIS, "aws_iam": {"cache": "c"}, "use_ssl": True, "password": "p"},
            "keep one",
        ),
        (
            {**REDIS, "aws_iam": {"cache": "c"}, "use_ssl": True, "username": None},
            "'username'",
        ),
    ],
)
def test_a_section_that_does_not_fit(section: Any, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        create_tracker_store(section)


# -- connecting ------------------------------------------------------------------------


class Watched(RdsToken):
    """Notes in which thread each token is signed.

    Args:
        accept: Has the server take a token for the password, and no other.
    """

    def __init__(self, accept: Callable[[str], None]) -> None:
        super().__init__(HOST, 5432, "assistant")
        self.accept = accept
        self.tokens: list[str] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self) -> str:
        self.threads.add(threading.current_thread())
        self.tokens.append(super().__call__())
        self.accept(self.tokens[-1])
        return self.tokens[-1]


@contextmanager
def role(server: Any) -> Iterator[str]:
    """Give PostgreSQL a role with a name of its own, and drop it."""
    name = f"tracker_store_test_{secrets.token_hex(6)}"
    server.execute(f"CREATE ROLE {name} LOGIN SUPERUSER", "postgres")
    try:
        yield name
    finally:
        server.execute(f"DROP ROLE {name}", "postgres")


async def test_each_connection_gets_one_of_its_own(
    postgresql_server: Any, clock: type[Time], caplog: pytest.LogCaptureFixture
) -> None:
    # botocore's own logger shows what it signs at DEBUG, as the documentation says
    caplog.set_level(logging.DEBUG, "tracker_store_async")
    with (
        role(postgresql_server) as username,
        fresh_database(postgresql_server) as database,
    ):
        source = Watched(
            lambda token: postgresql_server.execute(
                f"ALTER ROLE {username} PASSWORD '{token}'", "postgres"
            )
        )
        store = SQLTrackerStore(
            dialect="postgresql",
            host=postgresql_server.host,
            port=postgresql_server.port,
            db=database,
            username=username,
            password=source,
        )
        async with store:
            assert await store._append(append(0))
            assert len(set(source.tokens)) == 1
            clock.offset = datetime.timedelta(minutes=16)  # the first has expired
            postgresql_server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{database}' AND pid <> pg_backend_pid()",
                "postgres",
            )
            for _ in range(3):
                try:
                    assert len(ids(await store._read(read()))) == 3
                    break
                except errors.StoreUnavailableError:
                    await asyncio.sleep(0.01)
        assert len(set(source.tokens)) == 2
    assert threading.main_thread() not in source.threads
    shown = caplog.text + repr(store) + repr(store._connector.options)
    for token in source.tokens:
        assert token not in shown
        assert query_of(token)["X-Amz-Signature"] not in shown
