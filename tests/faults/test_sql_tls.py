"""TLS with private servers that accept nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.servers import ServerMissingError, private_mariadb, private_postgresql
from tests.sql_databases import append, ids, read
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.errors import StoreAccessError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import PrivateMariaDB, PrivatePostgreSQL


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("postgresql", marks=pytest.mark.backend("postgresql")),
        pytest.param("mysql", marks=pytest.mark.backend("mysql")),
    ],
)
def private(
    request: pytest.FixtureRequest,
) -> Iterator[PrivatePostgreSQL | PrivateMariaDB]:
    start = private_postgresql if request.param == "postgresql" else private_mariadb
    try:
        server = start(tls=True)
        with server as started:
            started.server.create_database("conversations")
            yield started
    except ServerMissingError as error:
        pytest.skip(str(error))


def store_on(
    private: PrivatePostgreSQL | PrivateMariaDB, **options: Any
) -> SQLTrackerStore:
    server = private.server
    given = {
        "dialect": server.driver.replace("asyncpg", "postgresql").replace(
            "asyncmy", "mysql"
        ),
        "host": server.host,
        "port": server.port,
        "db": "conversations",
        "username": server.username,
        "password": server.password,
    }
    return SQLTrackerStore(**{**given, **options})


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full", None])
async def test_right_authority(
    private: PrivatePostgreSQL | PrivateMariaDB, mode: Any
) -> None:
    assert private.certificates is not None
    ca = None if mode == "require" else str(private.certificates.ca)
    async with store_on(private, ssl_mode=mode, ssl_ca_certs=ca) as store:
        await store._delete("tls", None, 0.0)
        assert await store._append(append(0, sender_id="tls"))
        assert len(ids(await store._read(read(sender_id="tls")))) == 3


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full", None])
async def test_wrong_authority_is_refused(
    private: PrivatePostgreSQL | PrivateMariaDB, mode: Any
) -> None:
    assert private.certificates is not None
    ca = str(private.certificates.wrong_ca)
    with pytest.raises(StoreUnavailableError, match="do not agree on TLS"):
        await store_on(private, ssl_mode=mode, ssl_ca_certs=ca).open()


async def test_authorities_of_the_system_do_not_know_it(
    private: PrivatePostgreSQL | PrivateMariaDB,
) -> None:
    with pytest.raises(StoreUnavailableError, match="do not agree on TLS"):
        await store_on(private, ssl_mode="verify-full").open()


async def test_host_name_counts_only_in_verify_full(
    private: PrivatePostgreSQL | PrivateMariaDB,
) -> None:
    assert private.certificates is not None
    ca = str(private.certificates.ca)
    proxy = FaultProxy(private.server.host, private.server.port)
    proxy.host = "127.0.0.2"  # not in the server's certificate
    async with proxy:
        there = {"host": proxy.host, "port": proxy.port, "ssl_ca_certs": ca}
        with pytest.raises(StoreUnavailableError, match="do not agree on TLS"):
            await store_on(private, ssl_mode="verify-full", **there).open()
        async with store_on(private, ssl_mode="verify-ca", **there) as store:
            assert (await store.health()).reachable


async def test_no_tls_is_refused_by_the_server(
    private: PrivatePostgreSQL | PrivateMariaDB,
) -> None:
    with pytest.raises((StoreAccessError, StoreUnavailableError)):
        await store_on(private, ssl_mode="disable").open()


async def test_client_certificate(private: PrivatePostgreSQL | PrivateMariaDB) -> None:
    files = private.certificates
    assert files is not None
    options = {
        "ssl_ca_certs": str(files.ca),
        "ssl_certfile": str(files.client_certificate),
        "ssl_keyfile": str(files.client_key),
    }
    async with store_on(private, **options) as store:
        health = await store.health()
        assert health.reachable
    options["ssl_certfile"] = str(files.wrong_client_certificate)
    options["ssl_keyfile"] = str(files.wrong_client_key)
    with pytest.raises(StoreUnavailableError) as caught:
        await store_on(private, **options).open()
    assert "TLS" in str(caught.value)


async def test_wrong_password(private: PrivatePostgreSQL | PrivateMariaDB) -> None:
    assert private.certificates is not None
    ca = str(private.certificates.ca)
    store = store_on(private, ssl_ca_certs=ca, password="sesame open")
    with pytest.raises(StoreAccessError) as caught:
        await store.open()
    assert "sesame" not in str(caught.value)
    health = await store.health()
    assert not health.reachable


async def test_killed_server_comes_back(
    private: PrivatePostgreSQL | PrivateMariaDB,
) -> None:
    assert private.certificates is not None
    ca = str(private.certificates.ca)
    async with store_on(private, ssl_ca_certs=ca, pool_size=2) as store:
        await store._delete("killed", None, 0.0)
        assert await store._append(append(0, sender_id="killed"))
        private.process.kill()
        with pytest.raises(StoreUnavailableError):
            await store._append(append(3, sender_id="killed"))
        private.process.start()
        if private.server.driver == "asyncmy":
            health = await store.health()
            assert health is not None
        assert len(ids(await store._read(read(sender_id="killed")))) == 3
        assert await store._append(append(3, sender_id="killed"))
