"""Redis that is cut off, killed, resharded and failed over, with TLS and with users."""

from __future__ import annotations

import asyncio
import subprocess
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import add, has, said, turn, user
from tests.faults.proxy import FaultProxy
from tests.servers import ServerMissingError, private_cluster, private_redis
from tests.servers.process import ServerProcess, find_program, free_port, work_directory
from tests.servers.redis import find_binary
from tests.sql_databases import NOW, append, ids, read
from tracker_store_async import RedisTrackerStore, errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.backend("redis")
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateRedis]:
    with private_redis() as server:
        yield server


@pytest.fixture(scope="module")
def secure() -> Iterator[PrivateRedis]:
    try:
        # the programs of packages know no TLS
        with private_redis(binary=find_program("redis-server"), tls=True) as server:
            yield server
    except ServerMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def empty(private: PrivateRedis) -> None:
    with private.server.client() as client:
        client.flushall()


def store_on(private: PrivateRedis, **options: Any) -> RedisTrackerStore:
    server = private.server
    given = {"host": server.host, "port": server.port, "command_timeout_seconds": 10.0}
    return RedisTrackerStore(**{**given, **options})


@asynccontextmanager
async def proxied(
    private: PrivateRedis, **options: Any
) -> AsyncIterator[tuple[RedisTrackerStore, FaultProxy]]:
    """Yield a store behind a proxy, and three stored events."""
    server = private.server
    async with (
        FaultProxy(server.host, server.port) as proxy,
        store_on(private, host=proxy.host, port=proxy.port, **options) as store,
    ):
        assert await store._append(append(0))
        yield store, proxy


async def landed(store: RedisTrackerStore) -> int:
    """Return how many events are stored; the rows must be whole."""
    found = await store._read(read())
    assert found is not None
    assert ids(found) == [f"id-{number}" for number in range(found.version)]
    return found.version


async def read_until_it_fails(store: RedisTrackerStore) -> None:
    for _ in range(3):  # the first answers may be within the budget
        await store._read(read())


# -- connections that break ------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize(("when", "version"), [("before", 3), ("after", 6)])
async def test_cut_around_the_append(
    private: PrivateRedis, how: Any, when: Any, version: int
) -> None:
    async with proxied(private) as (store, proxy):
        proxy.cut_request(b"id-4", when=when, how=how)
        with pytest.raises(errors.StoreUnavailableError):
            await store._append(append(3))
        assert proxy.struck.is_set()
        assert await landed(store) == version
        assert await store._append(append(3)) is (version == 3)
        assert await landed(store) == 6


async def test_cut_within_the_answer_to_a_read(private: PrivateRedis) -> None:
    async with proxied(private) as (store, proxy):
        for size_bytes in (1, 7, 40, 100):
            proxy.cut_reply_after(size_bytes)
            with pytest.raises(errors.StoreUnavailableError):
                await read_until_it_fails(store)
            assert await landed(store) == 3


async def test_a_server_that_says_nothing_costs_a_bounded_time(
    private: PrivateRedis,
) -> None:
    async with proxied(private, command_timeout_seconds=0.5) as (store, proxy):
        proxy.freeze()
        started = time.monotonic()
        with pytest.raises(errors.StoreTimeoutError):
            await store._append(append(3))
        assert time.monotonic() - started < 5
        proxy.unfreeze()
        assert await landed(store) in (3, 6)


async def test_an_idle_connection_that_was_closed_is_replaced(
    private: PrivateRedis,
) -> None:
    async with proxied(private) as (store, proxy):
        proxy.cut("close")
        await asyncio.sleep(0)
        for _ in range(3):
            try:
                assert await landed(store) == 3
                break
            except errors.StoreUnavailableError:
                continue
        else:
            pytest.fail("the connection was never replaced")


async def test_cancelled_commands_leave_the_answers_to_their_own(
    private: PrivateRedis,
) -> None:
    names = [f"user-{n}" for n in range(8)]
    async with store_on(private, max_connections=3) as store:
        for name in names:
            await add(store, name, user(name))

        async def look(name: str) -> None:
            assert said(await has(store, name)) == [name]

        for steps in range(12):
            tasks = [asyncio.create_task(look(name)) for name in names * 3]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for outcome in outcomes:
                assert outcome is None or isinstance(outcome, asyncio.CancelledError)
            await asyncio.gather(*(look(name) for name in names))


# -- servers that end ------------------------------------------------------------------


async def test_what_was_acknowledged_survives_a_kill(private: PrivateRedis) -> None:
    async with store_on(private) as store:
        assert await store._append(append(0))
        private.process.kill()
        with pytest.raises(errors.StoreUnavailableError):
            await store._append(append(3))
        assert not (await store.health()).reachable
        private.process.start()
        assert await landed(store) == 3
        assert await store._append(append(3))
        assert (await store.health()).reachable


async def test_scripts_that_were_forgotten_are_sent_again(
    private: PrivateRedis,
) -> None:
    async with store_on(private) as store:
        assert await store._append(append(0))
        with private.server.client() as client:
            client.script_flush()
        assert await landed(store) == 3
        assert await store._append(append(3))
        assert await landed(store) == 6


# -- users and TLS ---------------------------------------------------------------------


async def test_a_user_of_its_own(private: PrivateRedis) -> None:
    with private.server.client() as client:
        client.acl_setuser(
            "assistant",
            enabled=True,
            passwords=["+sesame"],
            keys=["*"],
            categories=["+@all", "-@dangerous"],
            commands=["+info"],
        )
    login = {"username": "assistant", "password": "sesame"}
    async with store_on(private, **login) as store:
        await add(store, "alice", *turn())
        assert list(await store.keys()) == ["alice"]
        assert (await store.health()).reachable
        assert await store.delete("alice")


async def test_a_wrong_password_is_refused_in_one_sentence(
    private: PrivateRedis,
) -> None:
    store = store_on(private, username="nobody", password="open sesame")
    with pytest.raises(errors.StoreAccessError) as caught:
        await store.open()
    assert "sesame" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_an_unknown_host_is_named(private: PrivateRedis) -> None:
    store = RedisTrackerStore(host="no-such-host.invalid", connect_timeout_seconds=3)
    with pytest.raises(errors.StoreUnavailableError, match=r"no-such-host\.invalid"):
        await store.open()


def tls_options(secure: PrivateRedis, **options: Any) -> dict[str, Any]:
    files = secure.certificates
    assert files is not None
    return {
        "use_ssl": True,
        "ssl_ca_certs": str(files.ca),
        "ssl_certfile": str(files.client_certificate),
        "ssl_keyfile": str(files.client_key),
        **options,
    }


async def test_tls_with_a_client_certificate(secure: PrivateRedis) -> None:
    async with store_on(secure, **tls_options(secure)) as store:
        await store.delete("alice")
        await add(store, "alice", *turn())
        assert said(await has(store, "alice")) == ["hi"]


async def test_another_authority_is_refused(secure: PrivateRedis) -> None:
    files = secure.certificates
    assert files is not None
    wrong: dict[str, Any] = {"ssl_ca_certs": str(files.wrong_ca)}
    of_client = {
        "ssl_certfile": str(files.wrong_client_certificate),
        "ssl_keyfile": str(files.wrong_client_key),
    }
    for options in (wrong, of_client, dict.fromkeys(of_client)):
        store = store_on(secure, **tls_options(secure, **options))
        # With TLS 1.3 the server hangs up later, and its reason may be lost with that.
        refusal = "TLS|reset by peer" if options is of_client else "TLS"
        with pytest.raises(errors.StoreUnavailableError, match=refusal):
            await store.open()


async def test_another_host_name_is_refused(secure: PrivateRedis) -> None:
    proxy = FaultProxy(secure.server.host, secure.server.port)
    proxy.host = "127.0.0.2"  # not in the server's certificate
    async with proxy:
        there = {"host": proxy.host, "port": proxy.port}
        with pytest.raises(errors.StoreUnavailableError, match="TLS"):
            await store_on(secure, **tls_options(secure), **there).open()
        options = tls_options(secure, ssl_check_hostname=False)
        async with store_on(secure, **options, **there) as store:
            assert (await store.health()).reachable


async def test_the_two_must_agree_on_tls(
    secure: PrivateRedis, private: PrivateRedis
) -> None:
    plain = store_on(secure, connect_timeout_seconds=1, command_timeout_seconds=1)
    for store in (
        plain,
        store_on(private, connect_timeout_seconds=1, **tls_options(secure)),
    ):
        with pytest.raises(errors.StoreUnavailableError) as caught:
            await store.open()
        assert "\n" not in str(caught.value)


# -- a cluster that is resharded -------------------------------------------------------


async def test_a_reshard_while_writing(private: PrivateRedis) -> None:
    cli = find_program("redis-cli")
    if cli is None:
        pytest.skip("resharding needs redis-cli: install redis-tools")
    with private_cluster() as nodes:
        server = nodes[0].server
        store = RedisTrackerStore(
            host=server.host, port=server.port, deployment_mode="cluster"
        )
        names = [f"user-{n}" for n in range(24)]
        counts = dict.fromkeys(names, 0)
        moving = asyncio.Event()
        async with store:
            writers = [
                asyncio.create_task(write_until(store, name, counts, moving))
                for name in names
            ]
            for source, target in ((0, 1), (1, 2), (2, 0)):
                await asyncio.to_thread(reshard, cli, nodes, source, target)
            moving.set()
            await asyncio.gather(*writers)
            for name in names:
                texts = said(await store.retrieve_full_tracker(name))
                assert texts == [str(n) for n in range(counts[name])]
            assert sorted(await store.keys()) == sorted(names)
    assert min(counts.values()) > 3


async def write_until(
    store: RedisTrackerStore, name: str, counts: dict[str, int], end: asyncio.Event
) -> None:
    """Save one event after another; repeat what the move has interrupted."""
    while not end.is_set():
        tracker = await again(lambda: store.get_or_create_tracker(name, None, False))
        tracker.update(user(str(counts[name])))
        await again(lambda: store.save(tracker))  # noqa: B023
        counts[name] += 1


async def again(call: Any) -> Any:
    """Call until the storage is there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except errors.StoreUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def reshard(cli: str, nodes: list[PrivateRedis], source: int, target: int) -> None:
    """Move a part of the slots from one node to another."""
    numbers = []
    for node in (nodes[source], nodes[target]):
        with node.server.client() as client:
            numbers.append(client.execute_command("CLUSTER", "MYID").decode())
    subprocess.run(
        [
            *(cli, "--cluster", "reshard", f"127.0.0.1:{nodes[0].server.port}"),
            *("--cluster-from", numbers[0], "--cluster-to", numbers[1]),
            *("--cluster-slots", "1500", "--cluster-yes"),
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE_SECONDS * 2,
    )


# -- sentinels that fail over ----------------------------------------------------------


@contextmanager
def watched() -> Iterator[tuple[PrivateRedis, PrivateRedis, list[str]]]:
    """Yield a master, its replica, and the addresses of three sentinels."""
    binary = find_binary()
    assert binary is not None
    with ExitStack() as stack:
        master = stack.enter_context(private_redis(binary=binary))
        replica_of = ("--replicaof", f"127.0.0.1 {master.server.port}")
        replica = stack.enter_context(private_redis(binary=binary, settings=replica_of))
        ports = [free_port() for _ in range(3)]
        for port in ports:
            stack.enter_context(sentinel(binary, port, master.server.port))
        wait_for_watch(ports, master.server.port)
        yield master, replica, [f"127.0.0.1:{port}" for port in ports]


@contextmanager
def sentinel(binary: str, port: int, master_port: int) -> Iterator[None]:
    """Run one sentinel."""
    import redis

    with work_directory(None) as directory:
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master_port} 2\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 3000\n"
        )

        def check() -> None:
            with redis.Redis(port=port) as client:
                client.ping()

        command = [binary, str(config), "--sentinel"]
        process = ServerProcess(command, directory, None, check)
        process.start()
        try:
            yield
        finally:
            process.stop()


def wait_for_watch(ports: list[int], master_port: int) -> None:
    """Wait until the sentinels know the replica and each other."""
    import redis

    deadline = time.monotonic() + PATIENCE_SECONDS
    for port in ports:
        with redis.Redis(port=port) as client:
            while True:
                told = client.execute_command("SENTINEL", "MASTER", "mymaster")
                if isinstance(told, list):
                    told = dict(zip(told[::2], told[1::2], strict=True))
                known = {str(key).strip("b'"): value for key, value in told.items()}
                others = int(known["num-other-sentinels"])
                if others == len(ports) - 1 and int(known["num-slaves"]) == 1:
                    break
                assert time.monotonic() < deadline, known
                time.sleep(0.05)


async def test_a_failover_while_writing(private: PrivateRedis) -> None:
    with watched() as (master, _, endpoints):
        store = RedisTrackerStore(
            deployment_mode="sentinel",
            endpoints=endpoints,
            connect_timeout_seconds=2,
            command_timeout_seconds=5,
        )
        names = [f"user-{n}" for n in range(16)]
        async with store:
            for name in names:
                await add(store, name, user("before"))
            with master.server.client() as client:
                assert client.wait(1, 10_000) == 1  # the replica has them
            over = asyncio.Event()
            saving = [
                asyncio.create_task(write_through(store, name, over)) for name in names
            ]
            await asyncio.sleep(0.1)
            master.process.kill()
            await again(lambda: add(store, "after", user("after")))
            over.set()
            await asyncio.gather(*saving)
            for name in names:
                texts = said(await store.retrieve_full_tracker(name))
                assert texts[0] == "before"
                # what followed the failover is there, and nothing twice
                assert texts[-1] == "last"
                assert len(set(texts)) == len(texts)


async def write_through(
    store: RedisTrackerStore, name: str, over: asyncio.Event
) -> None:
    """Save one event after another until the failover is over, and once more."""
    number = 0
    while not over.is_set():
        await save_one(store, name, str(number))
        number += 1
    await save_one(store, name, "last")


async def save_one(store: RedisTrackerStore, name: str, text: str) -> None:
    tracker = await again(lambda: store.get_or_create_tracker(name, None, False))
    tracker.update(user(text))
    await again(lambda: store.save(tracker))


def test_the_clock_of_the_requests_is_past() -> None:
    """The appends above carry times long ago: nothing may expire by the server's."""
    assert time.time() > NOW
