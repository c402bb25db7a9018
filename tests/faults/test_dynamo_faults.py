"""DynamoDB throttles, is cut off, is killed: exactly one copy or a clear error."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from tests.conformance.kit import CancelledAt, add, has, said, user
from tests.dynamo_tables import (
    NOW,
    SENDER,
    Tables,
    answering_proxy,
    append,
    fresh_tables,
    ids,
    read,
)
from tests.faults.proxy import FaultProxy
from tests.servers import ServerMissingError, private_dynamo
from tests.servers.process import free_port
from tests.servers.tls import Certificates
from tracker_store_async import DynamoTrackerStore, errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.dynamo_tables import AnsweringProxy
    from tests.servers import DynamoServer


@pytest.fixture
async def tables(dynamo_server: DynamoServer) -> AsyncIterator[Tables]:
    async with fresh_tables(dynamo_server) as found:
        yield found


@asynccontextmanager
async def answered(
    tables: Tables, **options: Any
) -> AsyncIterator[tuple[DynamoTrackerStore, AnsweringProxy]]:
    async with (
        answering_proxy(tables.server) as proxy,
        tables.store(endpoint_url=proxy.url, **options) as store,
    ):
        assert await store._append(append(0))
        proxy.targets.clear()
        yield store, proxy


@asynccontextmanager
async def proxied(
    tables: Tables, **options: Any
) -> AsyncIterator[tuple[DynamoTrackerStore, FaultProxy]]:
    server = tables.server
    async with FaultProxy(server.host, server.port) as proxy:
        url = f"http://{proxy.host}:{proxy.port}"
        async with tables.store(endpoint_url=url, **options) as store:
            assert await store._append(append(0))
            yield store, proxy


# -- throttling --


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (400, "RequestLimitExceeded"),
        (400, "TransactionInProgressException"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
    ],
)
async def test_it_is_tried_again_within_the_budget(
    tables: Tables, status: int, code: str
) -> None:
    async with answered(tables) as (store, proxy):
        proxy.answer("TransactWriteItems", status, code, times=3)
        assert await store._append(append(3))
        assert proxy.targets == ["TransactWriteItems"] * 4
        proxy.answer("Query", status, code, times=2)
        assert len(ids(await store._read(read()))) == 6


@pytest.mark.parametrize(
    "reason",
    ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"],
)
async def test_a_refused_transaction_is_tried_again(
    tables: Tables, reason: str
) -> None:
    async with answered(tables) as (store, proxy):
        proxy.answer_cancelled("TransactWriteItems", reason, "None", times=2)
        assert await store._append(append(3))
        assert proxy.targets == ["TransactWriteItems"] * 3


async def test_the_budget_ends(tables: Tables) -> None:
    async with answered(tables, retry_budget_seconds=0.3) as (store, proxy):
        code = "ProvisionedThroughputExceededException"
        proxy.answer_always(400, code)
        started = time.perf_counter()
        with pytest.raises(errors.StoreUnavailableError) as raised:
            await store._append(append(3))
        assert 0.05 < time.perf_counter() - started < 5
        assert "retry_budget_seconds" in str(raised.value)
        assert code in str(raised.value)
        assert len(proxy.targets) > 2


async def test_a_wrong_key_is_one_clear_sentence(tables: Tables) -> None:
    async with answering_proxy(tables.server) as proxy:
        message = "The security token included in the request is invalid."
        proxy.answer_always(400, "UnrecognizedClientException", message)
        store = tables.store(
            endpoint_url=proxy.url,
            aws_access_key_id="AKIAXYZZY",
            aws_secret_access_key="xyzzy-secret",
        )
        with pytest.raises(errors.StoreAccessError) as raised:
            await store.open()
        said = str(raised.value)
        assert "refused the credentials" in said
        assert "XYZZY" not in said.upper() + repr(store).upper()
        assert proxy.targets == ["DescribeTable"]  # not tried again
        health = await store.health()
        assert not health.reachable
        await store.close()


# -- connections --


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_around_an_append_leaves_one_copy(
    tables: Tables, when: Any, how: Any
) -> None:
    async with proxied(tables) as (store, proxy):
        proxy.cut_request(b"id-4", when=when, how=how)
        # sent again with the same token, it lands once
        assert await store._append(append(3))
        assert proxy.struck.is_set()
        assert ids(await store._read(read())) == [f"id-{n}" for n in range(6)]
        assert not await store._append(append(3))


async def test_a_cut_within_an_answer(tables: Tables) -> None:
    async with proxied(tables) as (store, proxy):
        for size_bytes in (1, 100, 300, 500):
            proxy.cut_reply_after(size_bytes)
            assert len(ids(await store._read(read()))) == 3


async def test_a_server_that_does_not_answer(tables: Tables) -> None:
    async with proxied(tables, command_timeout_seconds=0.5) as (store, proxy):
        proxy.freeze()
        started = time.perf_counter()
        with pytest.raises(errors.StoreTimeoutError, match="may be done"):
            await store._append(append(3))
        assert time.perf_counter() - started < 5
        proxy.unfreeze()
        proxy.cut()
        await store._append(append(3))
        assert ids(await store._read(read())) == [f"id-{n}" for n in range(6)]


async def test_a_save_whose_answers_are_lost_for_good_is_found(tables: Tables) -> None:
    async with proxied(tables) as (store, proxy):
        tracker = await store.get_or_create_tracker("alice")
        tracker.update(user("mine"))
        proxy.cut_request(b"TransactWriteItems", when="after")
        client = store._opened.client

        async def refuse(*_: Any) -> None:
            await proxy.struck.wait()
            await proxy.refuse()

        refusing = asyncio.create_task(refuse())
        with pytest.raises(errors.StoreUnavailableError):
            await store.save(tracker)
        await refusing
        await proxy.accept()
        await store.save(tracker)
        assert client is store._opened.client
        assert said(await has(store, "alice")) == ["mine"]


async def test_nobody_listens() -> None:
    store = DynamoTrackerStore(
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        aws_access_key_id="a",
        aws_secret_access_key="xyzzy",
    )
    with pytest.raises(errors.StoreUnavailableError, match="cannot be reached"):
        await store.open()
    await store.close()


async def test_an_unknown_host() -> None:
    store = DynamoTrackerStore(
        endpoint_url="http://no-such-host.invalid:8000",
        aws_access_key_id="a",
        aws_secret_access_key="xyzzy",
    )
    with pytest.raises(errors.StoreUnavailableError) as raised:
        await store.open()
    assert "no-such-host.invalid" in str(raised.value)
    assert "cannot be reached" in str(raised.value)
    await store.close()


async def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = DynamoTrackerStore(endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(errors.StoreAccessError, match="wants credentials"):
        await store.open()
    other = DynamoTrackerStore(profile="nobody")
    with pytest.raises(errors.ConfigurationError, match="no profile 'nobody'"):
        await other.open()


async def test_tls(tables: Tables, tmp_path: Path) -> None:
    import ssl

    certificates = Certificates.write(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    server = tables.server
    async with answering_proxy(server) as plain:
        listener = await asyncio.start_server(
            _pump_to(plain.url), "0.0.0.0", 0, ssl=context
        )
        url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
        try:
            right = {"endpoint_url": url, "ssl_ca_certs": str(certificates.ca)}
            async with tables.store(**right) as store:
                assert await store._append(append(0))
            wrong = {"endpoint_url": url, "ssl_ca_certs": str(certificates.wrong_ca)}
            with pytest.raises(errors.StoreUnavailableError, match="agree on TLS"):
                await tables.store(**wrong).open()
            elsewhere = url.replace("localhost", "127.0.0.2")
            with pytest.raises(errors.StoreUnavailableError, match="agree on TLS"):
                await tables.store(**{**right, "endpoint_url": elsewhere}).open()
            with pytest.raises(errors.StoreUnavailableError):
                await tables.store(endpoint_url=url.replace("https", "http")).open()
            with pytest.raises(errors.StoreUnavailableError, match="agree on TLS"):
                await tables.store(
                    endpoint_url=server.endpoint_url.replace("http:", "https:"),
                    ssl_ca_certs=str(certificates.ca),
                ).open()
        finally:
            listener.close()


def _pump_to(url: str) -> Any:
    host, _, port = url.removeprefix("http://").partition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(host, int(port))

        async def pump(source: Any, target: Any) -> None:
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except ConnectionError:
                pass
            finally:
                target.close()

        await asyncio.gather(pump(reader, downstream), pump(upstream, writer))

    return serve


# -- cancellation of what takes several requests --


async def cancelled_everywhere(call: Any, check: Any, *, late: bool) -> int:
    """Make a call again and again, cancelled at each of its suspensions in turn."""
    for n in range(1, 500):
        driven = CancelledAt(call(), n, late=late)

        async def run(driven: CancelledAt = driven) -> None:
            await driven

        task = asyncio.ensure_future(run())
        await asyncio.wait([task])
        await check(task.cancelled())
        if not driven.cancelled:
            return n
    raise AssertionError("the call never completed")


@pytest.mark.parametrize("late", [False, True], ids=["interrupted", "answer lost"])
async def test_a_cancelled_large_save_is_whole_or_nothing(
    tables: Tables, late: bool
) -> None:
    async with tables.store() as store:
        assert await store._append(append(0))
        large = append(3, count=5, size=290_000)

        async def check(was_cancelled: bool) -> None:
            found = ids(await store._read(read()))
            whole = [f"id-{n}" for n in range(8)]
            assert found in ((whole[:3], whole) if was_cancelled else (whole,))
            if len(found) == 8:
                assert await store._delete(SENDER, None, NOW)
                assert await store._append(append(0))

        assert await cancelled_everywhere(
            lambda: store._append(large), check, late=late
        )
        assert await store._append(large)
        assert len(ids(await store._read(read()))) == 8
        assert await store._delete(SENDER, None, NOW)
        assert await tables.items() == []


@pytest.mark.parametrize("late", [False, True], ids=["interrupted", "answer lost"])
async def test_a_cancelled_long_deletion_is_finished(
    tables: Tables, late: bool
) -> None:
    async with tables.store() as store:

        async def fill() -> None:
            assert await store._append(append(0))
            assert await store._append(append(3, count=5, size=290_000))

        async def check(was_cancelled: bool) -> None:
            left = await tables.items()
            assert len(ids(await store._read(read()))) in (0, 8)
            if left:
                assert len(left) == 9  # 2 saves, 5 parts, the register, the head
            else:
                await fill()

        await fill()

        async def delete() -> None:
            await store._delete(SENDER, None, NOW)

        await cancelled_everywhere(delete, check, late=late)


@pytest.mark.backend("dynamo")
async def test_killed_and_started_again() -> None:
    try:
        with private_dynamo(on_disk=True) as private:
            store = DynamoTrackerStore(
                retry_budget_seconds=0.2, **private.server.options()
            )
            await add(store, "alice", user("one"))
            tracker = await has(store, "alice")
            tracker.update(user("two"))
            private.process.kill()
            with pytest.raises(errors.StoreUnavailableError):
                await store.save(tracker)
            private.process.start()
            await store.save(tracker)
            assert said(await has(store, "alice")) == ["one", "two"]
            await store.close()
    except ServerMissingError as error:
        pytest.skip(str(error))


async def test_writers_on_many_stores_lose_nothing(tables: Tables) -> None:
    stores = [tables.store() for _ in range(4)]

    async def write(number: int) -> None:
        for n in range(5):
            await add(stores[number], SENDER, user(f"{number}/{n}"))

    await asyncio.gather(*(write(number) for number in range(4)))
    found = said(await has(stores[0], SENDER))
    assert sorted(map(str, found)) == sorted(
        f"{a}/{b}" for a in range(4) for b in range(5)
    )
    for store in stores:
        await store.close()
