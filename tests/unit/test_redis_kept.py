"""Redis connections that stay at hand, and reads of long conversations."""

from __future__ import annotations

import asyncio
import inspect
import random
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from benchmarks.roundtrips import counting_proxy
from tests.sql_databases import NOW, SENDER, append, ids, read, rows
from tracker_store_async import RedisTrackerStore, errors
from tracker_store_async.packed_rows import in_place, packed
from tracker_store_async.rows import BytesRows, Read, Rewrite
from tracker_store_async.turns import TURNS_SECONDS_PER_PASS

pytest.importorskip("redis", reason="the extra redis is not installed")

from redis.asyncio import Connection
from redis.exceptions import RedisError

from tracker_store_async.backends.redis import kept
from tracker_store_async.backends.redis.client import (
    MOST_LONG_ANSWERS,
    SMALL_BYTES,
    Connector,
)
from tracker_store_async.backends.redis.kept import encoded
from tracker_store_async.backends.redis.reading import (
    LAST_ROWS,
    LONG_ROWS,
    MOST_LENGTHS,
    ROWS_BY_SCRIPT,
    ROWS_TO_GROW,
    Lengths,
)
from tracker_store_async.backends.redis.scripts import READ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tracker_store_async.rows import StoredConversation

MANY = ROWS_BY_SCRIPT + 1


@pytest.mark.parametrize(
    "command",
    [
        ("GET", b"\xff key"),
        ("EVALSHA", "a" * 40, 1, b"key", "", "Grüße", 12, b"x" * 7000),
        ("LRANGE", b"rows", 0, -1),
    ],
)
def test_a_command_is_encoded_as_redis_py_does(command: tuple[Any, ...]) -> None:
    assert encoded(command) == b"".join(Connection().pack_command(*command))


def test_the_beginning_of_a_script_call_is_encoded_once() -> None:
    whole = encoded(("EVALSHA", READ.sha, 1, b"key"))
    assert encoded((1, b"key"), head=READ.head, given=2) == whole


@pytest.mark.parametrize(
    "options",
    [{}, {"deployment_mode": "sentinel", "endpoints": ["127.0.0.1:26379"]}],
)
def test_the_version_of_redis_py_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    asked: list[str] = []

    def version(name: str) -> str:
        asked.append(name)
        return "1.2.3"

    monkeypatch.setattr("importlib.metadata.version", version)
    store = RedisTrackerStore(**options)
    client: Any = Connector(store._options).connect()[0]
    before = len(asked)
    for _ in range(3):
        client.connection_pool.make_connection()
    assert len(asked) == before


@asynccontextmanager
async def opened(server: Any, **options: Any) -> AsyncIterator[RedisTrackerStore]:
    """Yield a store with a prefix of its own, and remove what it has stored."""
    prefix = f"test{uuid4().hex[:12]}"
    address = {
        "host": server.host,
        "port": server.port,
        "username": server.username or None,
        "password": server.password or None,
    }
    try:
        async with RedisTrackerStore(key_prefix=prefix, **address | options) as store:
            yield store
    finally:
        with server.client() as client:
            for key in client.scan_iter(match=f"*{prefix}*", count=1000):
                client.delete(key)


async def said(store: RedisTrackerStore, *commands: tuple[Any, ...]) -> list[Any]:
    return await store._opened.commands.send_all(commands)


async def test_a_connection_stays_at_hand(redis_server: Any) -> None:
    async with opened(redis_server) as store:
        first = await said(store, ("CLIENT", "ID"))
        await store._read(read())
        assert await said(store, ("CLIENT", "ID"), ("ECHO", "a")) == [*first, b"a"]


async def test_an_error_of_the_server_leaves_the_connection_in_step(
    redis_server: Any,
) -> None:
    async with opened(redis_server) as store:
        first = await said(store, ("CLIENT", "ID"))
        with pytest.raises(Exception, match="unknown command"):
            await said(store, ("NONSENSE",), ("ECHO", "a"))
        assert await said(store, ("CLIENT", "ID")) == first


async def test_a_cancelled_caller_waits_for_the_answer(redis_server: Any) -> None:
    async with opened(redis_server, max_connections=1) as store:
        [first] = await said(store, ("CLIENT", "ID"))
        waiting = asyncio.ensure_future(said(store, ("BLPOP", "nothing", "0.05")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await said(store, ("ECHO", "mine")) == [b"mine"]
        assert await said(store, ("CLIENT", "ID")) == [first]


async def test_a_connection_whose_answer_does_not_come_is_closed(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SETTLE_SECONDS", 0.01)
    async with opened(redis_server, max_connections=1) as store:
        [first] = await said(store, ("CLIENT", "ID"))
        waiting = asyncio.ensure_future(said(store, ("BLPOP", "nothing", "5")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await said(store, ("ECHO", "mine")) == [b"mine"]
        assert await said(store, ("CLIENT", "ID")) != [first]


async def test_kept_connections_are_no_more_than_there_may_be(
    redis_server: Any,
) -> None:
    async with opened(redis_server, max_connections=2) as store:
        commands = store._opened.commands
        for _ in range(3):
            await asyncio.gather(
                *(store._read(read()) for _ in range(5)),
                *(commands.send("GET", "nothing") for _ in range(5)),
            )
        assert commands.pool_use() == {"size": 2, "checked_out": 0}


async def test_a_connection_that_nobody_waits_for_is_counted(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(redis_server, max_connections=1) as store:
        commands, pool = store._opened.commands, store._opened.commands.client
        connect, may_connect = pool.connection_pool.get_connection, asyncio.Event()

        async def connect_later() -> Any:
            connection = await connect()
            await may_connect.wait()
            return connection

        for ask in (
            lambda: said(store, ("ECHO", "a")),
            lambda: commands.send_all([("ECHO", "x" * SMALL_BYTES), ("ECHO", "a")]),
            lambda: commands.send("ECHO", "a"),
        ):
            monkeypatch.setattr(pool.connection_pool, "get_connection", connect_later)
            await pool.connection_pool.disconnect()
            first = asyncio.ensure_future(said(store, ("ECHO", "b")))
            for _ in range(2):
                for _ in range(4):
                    await asyncio.sleep(0)
                first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            monkeypatch.setattr(pool.connection_pool, "get_connection", connect)
            second = asyncio.ensure_future(ask())
            for _ in range(4):
                await asyncio.sleep(0)
            may_connect.set()
            assert (await second)[-1:] in ([b"a"], b"a")
            may_connect.clear()


async def test_nobody_connects_after_the_store_was_closed(redis_server: Any) -> None:
    async with opened(redis_server, max_connections=1) as store:
        commands = store._opened.commands
        first = asyncio.ensure_future(said(store, ("BLPOP", "nothing", "5")))
        second = asyncio.ensure_future(said(store, ("ECHO", "a")))
        third = asyncio.ensure_future(commands.send("ECHO", "a"))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(RedisError):
            await first
        for waiting in (second, third):
            with pytest.raises(errors.StoreClosedError):
                await waiting
        assert commands._kept is not None
        assert not commands._kept._idle


async def test_work_that_gets_no_connection_is_not_left_behind(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(redis_server, max_connections=1) as store:
        commands = store._opened.commands

        async def away() -> None:
            raise ConnectionRefusedError

        async def work() -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(commands._kept, "spare", away)
        waiting = work()
        with pytest.raises(ConnectionRefusedError):
            await commands._whole(waiting)
        assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED


def test_a_store_whose_loop_has_ended_can_be_closed(redis_server: Any) -> None:
    script = f"""
import asyncio
from tracker_store_async import RedisTrackerStore
store = RedisTrackerStore(host={redis_server.host!r}, port={redis_server.port})
asyncio.run(store.exists("nobody"))
asyncio.run(store.close())
"""
    # in another process: what cannot be told goodbye is warned of
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_connection_that_opens_late_does_not_outlive_its_store(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch, cancels: int
) -> None:
    async with opened(redis_server, max_connections=4) as store:
        commands = store._opened.commands
        assert commands._kept is not None
        may_connect, made = asyncio.Event(), []
        connect = Connection.connect

        async def late(self: Connection) -> None:
            await may_connect.wait()
            await connect(self)
            made.append(self)

        monkeypatch.setattr(Connection, "connect", late)
        reads = [asyncio.ensure_future(store._read(read(last=1))) for _ in range(4)]
        for _ in range(cancels):
            await asyncio.sleep(0.01)
            for each in reads:
                each.cancel()
        await store.close()
        may_connect.set()
        await asyncio.wait(reads)
        async with asyncio.timeout(5):
            while commands._kept._left or any(each.is_connected for each in made):
                await asyncio.sleep(0.01)
        assert made
        assert not commands._kept._idle


# -- long conversations ----------------------------------------------------------------


async def test_a_long_read_takes_two_round_trips(redis_server: Any) -> None:
    url = f"redis://{redis_server.host}:{redis_server.port}"
    async with (
        counting_proxy(url) as (proxied, proxy),
        opened(redis_server, host="127.0.0.1", port=urlsplit(proxied).port) as store,
    ):
        assert await store._append(append(0, MANY))
        await store._read(read(last=1))  # the server knows the scripts from now on
        trips = [proxy.round_trips]
        for last in (ROWS_BY_SCRIPT, MANY, 0):
            await store._read(read(last=last))
            trips.append(proxy.round_trips)
    assert [after - before for before, after in pairwise(trips)] == [1, 2, 1]


def before_the_rows(
    store: RedisTrackerStore, change: Callable[[], Awaitable[Any]]
) -> list[int]:
    """Have something happen between the header and the rows of a read, once."""
    commands = store._opened.commands
    send_all, calls = commands.send_all, []

    async def send_all_later(sent: Any, **options: Any) -> list[Any]:
        calls.append(len(sent))
        if len(calls) == 1:
            await change()
        return await send_all(sent, **options)

    commands.send_all = send_all_later  # type: ignore[method-assign]
    return calls


WAYS = pytest.mark.parametrize("way", ["script", "transaction"])


def long_read(store: RedisTrackerStore, way: str) -> Read:
    """Return a read that takes two round trips, by a way of reading."""
    reader = store._opened._reader
    reader._has_transactions, reader.lengths = way == "transaction", Lengths()
    return read(start=None if way == "transaction" else 0)


async def test_few_connections_are_opened_in_one_pass_of_the_loop(
    redis_server: Any,
) -> None:
    opened_in: list[int] = []
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    async with opened(redis_server) as store:
        pool = store._opened.commands.client.connection_pool
        get_connection = pool.get_connection

        async def noted() -> Any:
            opened_in.append(passes)
            return await get_connection()

        pool.get_connection = noted
        counting = asyncio.ensure_future(count())
        await asyncio.gather(*(store._read(read()) for _ in range(40)))
        counting.cancel()
    most = TURNS_SECONDS_PER_PASS / kept.OPENING_SECONDS + 1
    assert len(opened_in) > 3 * most
    assert max(Counter(opened_in).values()) <= most


@pytest.mark.parametrize(
    ("asked", "is_long"),
    [
        ({"start": None}, True),
        ({"start": 0}, True),
        ({"last": LONG_ROWS}, True),
        ({"start": 1000, "limit": LONG_ROWS}, True),
        ({"last": 0}, False),
        ({"last": LONG_ROWS - 1}, False),
        ({"start": 1000}, False),
        ({"start": 1000, "limit": 10}, False),
    ],
)
async def test_few_long_answers_come_at_a_time(
    redis_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    is_long: bool,
) -> None:
    under_way, most = 0, 0
    ask = kept.KeptConnections.ask

    async def counted(self: kept.KeptConnections, *arguments: Any) -> list[Any]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await ask(self, *arguments)
        finally:
            under_way -= 1

    count, readers = 1000 + LONG_ROWS, 2 * MOST_LONG_ANSWERS
    async with opened(redis_server) as store:
        assert await store._append(append(0, count))
        await store._read(read())  # so long it is
        monkeypatch.setattr(kept.KeptConnections, "ask", counted)
        reading = [store._read(read(**asked)) for _ in range(readers)]
        found = await asyncio.gather(*reading)
        assert all(each is not None and each.version == count for each in found)
    assert most == (MOST_LONG_ANSWERS if is_long else readers)


async def test_who_waits_for_a_long_turn_waits_no_longer_than_a_command_may_take(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(self: kept.KeptConnections, *_: Any) -> list[Any]:
        await asyncio.Event().wait()
        return []

    async with opened(redis_server, command_timeout_seconds=1) as store:
        assert await store._append(append(0, LONG_ROWS))
        with monkeypatch.context() as patch:
            patch.setattr(kept.KeptConnections, "ask", ask)
            began = asyncio.get_running_loop().time()
            reading = [store._read(read()) for _ in range(3 * MOST_LONG_ANSWERS)]
            found = await asyncio.gather(*reading, return_exceptions=True)
            took = asyncio.get_running_loop().time() - began
        assert {type(each) for each in found} == {errors.StoreTimeoutError}
        assert took < 2  # one after the other it were 3
        assert await store._read(read()) is not None


@WAYS
async def test_a_long_read_is_of_one_moment(redis_server: Any, way: str) -> None:
    async with opened(redis_server) as store:
        assert await store._append(append(0, MANY))
        calls = before_the_rows(store, lambda: store._append(append(MANY, 3)))
        found = await store._read(long_read(store, way))
        assert calls == [2]
        assert ids(found) == [row.event_id for row in rows(MANY, 0)]
        assert found is not None
        assert found.version == MANY


@WAYS
async def test_a_log_that_begins_anew_meanwhile_is_read_again(
    redis_server: Any, way: str
) -> None:
    async with opened(redis_server) as store:
        assert await store._append(append(0, MANY))

        async def change() -> None:
            await store._delete(SENDER, None, NOW)
            assert await store._append(append(0, MANY + 1, now=NOW + 1))

        calls = before_the_rows(store, change)
        found = await store._read(long_read(store, way))
        assert calls == ([2] if way == "script" else [2, 2])  # it asks the script then
        assert found is not None
        assert found.created_at == NOW + 1
        assert len(found.rows) == found.version == MANY + 1


@WAYS
async def test_a_log_that_is_rewritten_meanwhile_is_read_again(
    redis_server: Any, way: str
) -> None:
    async with opened(redis_server) as store:
        assert await store._append(append(0, MANY))
        new = [row._replace(data='{"event": "other"}') for row in rows(MANY, 0)]

        async def change() -> None:
            assert await store._rewrite(
                Rewrite(
                    sender_id=SENDER,
                    expected_version=MANY,
                    first_position=0,
                    created_at=NOW,
                    rows=new,
                    changed=frozenset(range(MANY)),
                    snapshot="{}",
                    user_id=None,
                    now=NOW,
                )
            )

        before_the_rows(store, change)
        found = await store._read(long_read(store, way))
        assert found is not None
        assert found.created_at > NOW
        assert {bytes(data) for _, data in found.rows} == {b'{"event": "other"}'}


@WAYS
async def test_a_log_that_is_cut_or_deleted_meanwhile_is_read_again(
    redis_server: Any, way: str
) -> None:
    async with opened(redis_server) as store:
        assert await store._append(append(0, MANY, session_start=5))
        before_the_rows(store, lambda: store._delete(SENDER, 5, NOW))
        found = await store._read(long_read(store, way))
        assert found is not None
        assert (found.first_position, len(found.rows)) == (5, MANY - 5)
        assert await store._append(append(MANY, MANY))
        before_the_rows(store, lambda: store._delete(SENDER, None, NOW))
        assert await store._read(long_read(store, way)) is None


# -- reading without a script ----------------------------------------------------------


async def both_ways(
    store: RedisTrackerStore, asked: Read
) -> tuple[StoredConversation | None, StoredConversation | None]:
    """Return what a read finds in a transaction, and by the script."""
    reader, answers = store._opened._reader, []
    asking = reader._read_by_transaction

    async def ask(read: Read) -> Any:
        answers.append(await asking(read))
        return answers[-1]

    reader._read_by_transaction = ask  # type: ignore[method-assign]
    reader._has_transactions = True
    by_transaction = await store._read(asked)
    assert answers[-1] is not None, "the script was asked"
    reader._read_by_transaction = asking  # type: ignore[method-assign]
    reader._has_transactions = False
    return by_transaction, await store._read(asked)


async def test_a_transaction_finds_what_the_script_finds(redis_server: Any) -> None:
    lots = random.Random(1)
    async with opened(redis_server, record_exp=10) as store:
        assert await both_ways(store, read()) == (None, None)
        version = session_start = 0
        for number in range(120):
            count = lots.choice([1, 2, 40, 130])
            session_start = lots.choice([session_start, version])
            more = append(version, count, session_start=session_start)
            assert await store._append(more)
            version += count
            if number % 10 == 9:
                await store._delete(SENDER, lots.randint(0, session_start), NOW)
            asked = Read(
                SENDER,
                NOW,
                start=lots.choice([None, 0, session_start, version, version + 3]),
                last=lots.choice([None, None, 0, 1, 100, 600]),
            )
            if asked.last is None and asked.start is not None:
                asked.limit = lots.choice([None, 1, 50])
            if lots.random() < 0.3:
                store._opened._reader.lengths = Lengths()
            found, expected = await both_ways(store, asked)
            assert found == expected, asked
            assert found is not None
        later = read(now=NOW + 1000)
        expiring = replace(append(version, 1), expires_at=NOW + 500)
        assert await store._append(expiring)
        assert await both_ways(store, later) == (None, None)


async def test_what_lacks_rows_is_said_by_the_script(redis_server: Any) -> None:
    async with opened(redis_server) as store:
        assert await store._append(append(0, 5))
        keys = store._keys.of(SENDER)
        await said(store, ("LPOP", keys.rows))
        for asked in (read(), read(start=None), read(last=1)):
            with pytest.raises(errors.CorruptEventError):
                await store._read(asked)


async def test_the_length_of_a_session_is_remembered(redis_server: Any) -> None:
    url = f"redis://{redis_server.host}:{redis_server.port}"
    async with (
        counting_proxy(url) as (proxied, proxy),
        opened(redis_server, host="127.0.0.1", port=urlsplit(proxied).port) as store,
    ):
        assert await store._append(append(0, MANY))
        trips = []
        for _ in range(3):
            before = proxy.round_trips
            await store._read(read(start=None))
            trips.append(proxy.round_trips - before)
        assert trips == [2, 1, 1]
        before = proxy.round_trips
        assert await store._append(append(MANY, 300))
        await store._read(read(start=None))
        assert proxy.round_trips == before + 2


def test_only_so_many_lengths_are_remembered() -> None:
    lengths = Lengths()
    for number in range(MOST_LENGTHS + 5):
        lengths[str(number)] = number
    assert lengths[str(MOST_LENGTHS + 4)] == MOST_LENGTHS + 4 + ROWS_TO_GROW
    assert lengths["0"] == LAST_ROWS
    assert len(lengths._known) <= MOST_LENGTHS


async def test_who_may_not_begin_a_transaction_reads_by_the_script(
    redis_server: Any,
) -> None:
    name = f"user{uuid4().hex[:8]}"
    with redis_server.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", name, "on", ">secret", "~*", "+@all", "-multi")
        )
    try:
        login = {"username": name, "password": "secret"}
        async with opened(redis_server, **login) as store:
            assert await store._append(append(0, 3))
            for _ in range(2):
                found = await store._read(read(start=None))
                assert ids(found) == [row.event_id for row in rows(3, 0)]
                assert not store._opened._reader._has_transactions
    finally:
        with redis_server.client() as client:
            client.execute_command("ACL", "DELUSER", name)


def test_texts_are_taken_out_of_their_rows_when_they_are_asked_for() -> None:
    taken = 0

    def texts_of(raw: Sequence[bytes]) -> list[bytes]:
        nonlocal taken
        taken += len(raw)
        return [row[1:] for row in raw]

    kept = BytesRows([b"1a", b"2b", b"3c"], lambda row: (None, row), texts_of)
    texts = in_place(kept)
    assert (len(texts), taken) == (3, 0)
    assert (texts[-1], texts[0], taken) == (b"c", b"a", 2)
    assert (list(texts), texts[1:]) == ([b"a", b"b", b"c"], [b"b", b"c"])
    assert packed(kept) == list(texts)
    assert in_place([(None, "x")]) == ["x"]
