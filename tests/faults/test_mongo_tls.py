"""TLS, logins and addresses of MongoDB that do not fit: one clear sentence each."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import ServerMissingError, private_mongo
from tests.sql_databases import append, ids, read
from tests.unit.test_access import try_mongodb
from tracker_store_async import MongoTrackerStore
from tracker_store_async.errors import (
    ConfigurationError,
    StoreAccessError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import PrivateMongo

pytestmark = pytest.mark.backend("mongo")

each_driver = pytest.mark.parametrize("driver", ["motor", "pymongo"])


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateMongo]:
    yield from started_with(tls=True)


@pytest.fixture(scope="module")
def guarded() -> Iterator[PrivateMongo]:
    yield from started_with(auth=True)


def started_with(**options: bool) -> Iterator[PrivateMongo]:
    """Yield a server of our own; a MongoDB elsewhere would not do."""
    try:
        with private_mongo(**options) as started:
            yield started
    except ServerMissingError as error:
        pytest.skip(str(error))


def store_on(private: PrivateMongo, **options: Any) -> MongoTrackerStore:
    server = private.server
    given = {
        "host": f"mongodb://{server.host}:{server.port}",
        "connect_timeout_seconds": 1.0,
    }
    return MongoTrackerStore(**{**given, **options})


async def refused(store: MongoTrackerStore) -> str:
    """Return why it cannot be opened; it must be known soon."""
    started = time.monotonic()
    with pytest.raises((StoreUnavailableError, StoreAccessError)) as caught:
        await store.open()
    assert time.monotonic() - started < 5
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "Topology" not in sentence
    assert len(sentence) < 400
    assert not (await store.health()).reachable
    return sentence


@each_driver
async def test_right_authority(private: PrivateMongo, driver: Any) -> None:
    assert private.certificates is not None
    ca = str(private.certificates.ca)
    async with store_on(private, driver=driver, tls=True, tls_ca_file=ca) as store:
        await store._delete(append(0).sender_id, None, 0.0)
        assert await store._append(append(0))
        assert len(ids(await store._read(read()))) == 3


@each_driver
async def test_wrong_authority(private: PrivateMongo, driver: Any) -> None:
    assert private.certificates is not None
    ca = str(private.certificates.wrong_ca)
    sentence = await refused(store_on(private, driver=driver, tls=True, tls_ca_file=ca))
    assert "do not agree on TLS: check tls and the tls_ files" in sentence


@each_driver
async def test_another_host_name(private: PrivateMongo, driver: Any) -> None:
    assert private.certificates is not None
    options: dict[str, Any] = {"driver": driver, "tls": True}
    options["tls_ca_file"] = str(private.certificates.ca)
    # the same address, by a name that the server's certificate does not hold
    options["host"] = f"mongodb://127.1:{private.server.port}"
    sentence = await refused(store_on(private, **options))
    # A busy machine may run out of time before it knows why.
    assert "do not agree on TLS" in sentence or "whether tls is as" in sentence
    options |= {"tls_allow_invalid_hostnames": True, "connect_timeout_seconds": 5}
    # The server shakes one hand at a time, also that of a client that is going away.
    for attempt in range(4):
        try:
            async with store_on(private, **options) as store:
                assert (await store.health()).reachable
            return
        except StoreUnavailableError:
            if attempt == 3:
                raise
            gc.collect()


@each_driver
async def test_certificate_of_a_client(private: PrivateMongo, driver: Any) -> None:
    files = private.certificates
    assert files is not None
    options = {"driver": driver, "tls": True, "tls_ca_file": str(files.ca)}
    own: dict[str, Any] = {"tls_certificate_key_file": str(files.client_pair)}
    async with store_on(private, **options, **own, connect_timeout_seconds=20) as store:
        assert (await store.health()).reachable
    own = {"tls_certificate_key_file": str(files.wrong_client_pair)}
    sentence = await refused(store_on(private, **options, **own))
    assert "do not agree on TLS" in sentence or "whether tls is as" in sentence


@each_driver
async def test_server_that_wants_tls(private: PrivateMongo, driver: Any) -> None:
    sentence = await refused(store_on(private, driver=driver))
    assert "cannot be reached" in sentence
    assert "whether tls is as the server wants it" in sentence


@each_driver
async def test_server_without_tls(guarded: PrivateMongo, driver: Any) -> None:
    sentence = await refused(store_on(guarded, driver=driver, tls=True))
    # A server may also wait in silence for something that it understands.
    assert "do not agree on TLS" in sentence or "whether tls is as" in sentence


async def test_file_that_is_not_there(private: PrivateMongo, tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    with pytest.raises((ConfigurationError, StoreUnavailableError)) as caught:
        await store_on(private, tls=True, tls_ca_file=missing).open()
    assert "tls_" in str(caught.value)


@each_driver
async def test_login(guarded: PrivateMongo, driver: Any) -> None:
    server = guarded.server
    login = {"username": server.username, "password": server.password}
    for options in (login, {"host": server.url()}):
        async with store_on(guarded, driver=driver, **options) as store:
            assert server.password not in repr(store)
            await store._delete(append(0).sender_id, None, 0.0)
            assert await store._append(append(0))


@each_driver
@pytest.mark.parametrize(
    "wrong", [{"password": "sesame open"}, {"auth_source": "rasa"}, {"username": "eve"}]
)
async def test_wrong_login(
    guarded: PrivateMongo, driver: Any, wrong: dict[str, str]
) -> None:
    server = guarded.server
    login = {"username": server.username, "password": server.password}
    sentence = await refused(store_on(guarded, driver=driver, **(login | wrong)))
    assert "refused the credentials" in sentence
    assert "check username, password and auth_source" in sentence
    assert "sesame" not in sentence
    assert server.password not in sentence


@each_driver
async def test_no_login(guarded: PrivateMongo, driver: Any) -> None:
    assert "refused the credentials" in await refused(store_on(guarded, driver=driver))


@each_driver
async def test_unknown_host(guarded: PrivateMongo, driver: Any) -> None:
    host = "mongodb://eve:sesame@nobody.invalid:27017/x"
    sentence = await refused(store_on(guarded, driver=driver, host=host))
    assert sentence.startswith("mongodb at nobody.invalid:27017/rasa cannot be reached")
    assert "sesame" not in sentence


@pytest.mark.parametrize(
    "host",
    [
        "mongodb://eve:ses@me@h",
        "mongodb://eve:sesame@h:port",
        "mongodb://h/?tls=sesame",
        "mongodb://",
    ],
)
async def test_url_that_is_none(guarded: PrivateMongo, host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await store_on(guarded, host=host).open()
    assert "`host` must be a MongoDB URL" in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_the_roles_of_the_documentation(
    guarded: PrivateMongo, tmp_path: Path
) -> None:
    await try_mongodb(guarded.server, tmp_path)
