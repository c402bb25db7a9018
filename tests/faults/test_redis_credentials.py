"""Passwords of Redis that change while a store is open."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import private_redis
from tests.sql_databases import append, ids, read
from tracker_store_async import RedisTrackerStore, create_tracker_store, errors
from tracker_store_async.wrappers.retrying import RetryingTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.redis import PrivateRedis

pytest.importorskip("redis", reason="the extra redis is not installed")

from tracker_store_async.backends.redis import client, kept

pytestmark = pytest.mark.backend("redis")

USER = "rotating"


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateRedis]:
    with private_redis() as server:
        yield server


class Account:
    """An ACL user whose password can be changed."""

    def __init__(self, private: PrivateRedis) -> None:
        self.server = private.server
        with self.server.client() as client:
            client.flushall()
        self.set_password("first")

    def set_password(self, password: str) -> None:
        """Change the password; connections that are open stay so."""
        with self.server.client() as client:
            rights = ("on", "resetpass", f">{password}", "~*", "+@all")
            client.execute_command("ACL", "SETUSER", USER, *rights)

    def end_sessions(self) -> None:
        """End the connections of the user."""
        with self.server.client() as client:
            client.execute_command("CLIENT", "KILL", "USER", USER)

    @property
    def address(self) -> dict[str, Any]:
        """Where the server is, and who logs in."""
        return {"host": self.server.host, "port": self.server.port, "username": USER}


@pytest.fixture
def account(private: PrivateRedis) -> Account:
    return Account(private)


async def begin_anew(account: Account, store: Any) -> None:
    """End the connections; the next command may be the one that notices."""
    account.end_sessions()
    await notice(store)


async def notice(store: Any) -> None:
    """Let one command find its connection ended."""
    try:
        await store._read(read())
    except errors.StoreUnavailableError:
        return


class Secret:
    """A source of the password that counts how often it is asked."""

    def __init__(self, current: str) -> None:
        self.current = current
        self.asked: list[str] = []

    def sync(self) -> str:
        self.asked.append(self.current)
        return self.current

    async def awaited(self) -> str:
        await asyncio.sleep(0)
        return self.sync()


@pytest.mark.parametrize("kind", ["sync", "awaited"])
async def test_a_function_is_asked_for_each_connection(
    account: Account, kind: str
) -> None:
    secret = Secret("first")
    source = getattr(secret, kind)
    async with RedisTrackerStore(**account.address, password=source) as store:
        assert await store._append(append(0))
        connections = len(secret.asked)
        account.set_password("second")
        secret.current = "second"
        assert await store._append(append(3))  # over the connection that is open
        assert len(secret.asked) == connections
        # more at once than there are connections: new ones log in with the new one
        await asyncio.gather(*(store._read(read()) for _ in range(10)))
        assert set(secret.asked[connections:]) == {"second"}
        await begin_anew(account, store)
        assert await store._append(append(6))
        assert len(ids(await store._read(read()))) == 9


async def test_a_file_is_read_again(account: Account, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    section = {"type": "redis", **account.address, "password_file": str(file)}
    async with create_tracker_store(section) as store:
        assert await store._append(append(0))
        account.set_password("second")
        file.write_text("second")
        await begin_anew(account, store)
        assert len(ids(await store._read(read()))) == 3


async def test_a_provider_may_change_the_user_as_well(account: Account) -> None:
    from redis.credentials import CredentialProvider

    class Provider(CredentialProvider):
        login = (USER, "first")

        def get_credentials(self) -> tuple[str, str]:
            return self.login

    provider = Provider()
    address = {key: account.address[key] for key in ("host", "port")}
    async with RedisTrackerStore(**address, credential_provider=provider) as store:
        assert await store._append(append(0))
        with account.server.client() as client:
            client.execute_command(
                *("ACL", "SETUSER", "heir", "on", ">other", "~*", "+@all")
            )
            client.execute_command("ACL", "DELUSER", USER)  # ends its connections
        provider.login = ("heir", "other")
        await notice(store)
        assert len(ids(await store._read(read()))) == 3


async def test_a_source_that_fails_for_a_while_costs_no_connection(
    account: Account, tmp_path: Path
) -> None:
    """redis-py would keep a connection that never logged in, and use it."""
    file = tmp_path / "password"
    file.write_text("first")
    address = account.address
    async with RedisTrackerStore(**address, password_file=str(file)) as store:
        assert await store._append(append(0))
        file.unlink()
        await begin_anew(account, store)
        with pytest.raises(errors.StoreAccessError, match="does not exist"):
            await store._read(read())
        file.write_text("first")
        assert len(ids(await store._read(read()))) == 3
        with account.server.client() as client:
            users = [each["user"] for each in client.client_list()]
        assert users.count("default") == 1  # who asks: no other works without a login


async def test_a_login_that_is_cut_off_costs_no_connection(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py would keep a connection that never logged in, and use it."""
    for module in (kept, client):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    asked, may_answer = asyncio.Event(), asyncio.Event()
    may_answer.set()

    async def password() -> str:
        asked.set()
        await may_answer.wait()
        return "first"

    async with RedisTrackerStore(
        **account.address, password=password, max_connections=1
    ) as store:
        assert await store._append(append(0))
        commands, read_now = store._opened.commands, store._read
        send = commands.send
        for ask in (lambda: send("GET", "nothing"), lambda: read_now(read())):
            await commands.client.connection_pool.disconnect()
            asked.clear()
            may_answer.clear()
            asking = asyncio.ensure_future(ask())
            await asked.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            may_answer.set()
            assert await send("ACL", "WHOAMI") == USER.encode()
            assert await commands.send_all([("ACL", "WHOAMI")]) == [USER.encode()]


async def test_retries_survive_the_moment_between(
    account: Account, tmp_path: Path
) -> None:
    """The server has the new password already, the file not yet."""
    file = tmp_path / "password"
    file.write_text("first")
    inner = RedisTrackerStore(**account.address, password_file=str(file))
    retrying = RetryingTrackerStore(inner, attempts=100, budget_seconds=20)
    async with retrying as store:
        assert await store._append(append(0))
        account.set_password("second")
        await begin_anew(account, inner)
        with pytest.raises(errors.StoreAccessError):
            await inner._read(read())
        reading = asyncio.create_task(store._read(read()))
        await asyncio.sleep(0.05)
        file.write_text("second")
        assert len(ids(await reading)) == 3


async def test_a_secret_is_told_to_nobody(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> str:
        raise RuntimeError("s3cret")

    def wrong() -> str:
        return "s3cret"

    caplog.set_level(logging.DEBUG)
    for source in (failing, wrong):
        store = RedisTrackerStore(**account.address, password=source)
        with pytest.raises(errors.StoreAccessError) as caught:
            await store.open()
        assert "s3cret" not in told(caught.value) + repr(store)
        assert "s3cret" not in repr(store._options)
        await store.close()
    assert "s3cret" not in caplog.text


def told(error: BaseException | None) -> str:
    """Return what an error and all that it is chained to would print."""
    texts = []
    while error is not None:
        texts.append(f"{error!s} {error!r}")
        error = error.__cause__ or error.__context__
    return " ".join(texts)


def test_a_password_is_given_once() -> None:
    from redis.credentials import UsernamePasswordCredentialProvider

    with pytest.raises(errors.ConfigurationError, match="keep one"):
        RedisTrackerStore(password="p", password_file="/f")
    with pytest.raises(errors.ConfigurationError, match="keep one"):
        RedisTrackerStore(sentinel_password="p", sentinel_password_file="/f")
    with pytest.raises(errors.ConfigurationError, match="keep one"):
        RedisTrackerStore(
            password="p", credential_provider=UsernamePasswordCredentialProvider()
        )
    with pytest.raises(errors.ConfigurationError, match="a function"):
        RedisTrackerStore(password=5)  # type: ignore[arg-type]
    for name in ("password", "sentinel_password"):
        section = {"type": "redis", name: "p", f"{name}_file": "/f"}
        with pytest.raises(errors.ConfigurationError, match="keep one"):
            create_tracker_store(section)
