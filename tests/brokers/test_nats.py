"""What NATS alone has: limits of a stream, tokens, and what is not to be read."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress

import pytest

from tests.brokers.kit import batch, message
from tests.conformance.kit import stored as rows_of
from tests.servers.nats import private_nats
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.brokers.nats import NatsEventBroker
from tracker_store_async.events import UserUttered

pytestmark = pytest.mark.backend("nats")


@pytest.fixture
async def jetstream(nats_server):
    """Give JetStream as a test's own client has it, and a name to use once."""
    client = await nats_server.connect()
    jetstream, name = client.jetstream(), f"tracker_store_test_{uuid.uuid4().hex[:12]}"
    yield jetstream, name
    await jetstream.delete_stream(name)
    await client.close()


def broker_for(server, name, **options):
    return NatsEventBroker(
        f"nats://{server.host}:{server.port}", stream=name, subject=name, **options
    )


async def stored(jetstream, name):
    state = (await jetstream.stream_info(name)).state
    numbers = range(state.first_seq, state.last_seq + 1) if state.messages else ()
    found = [await jetstream.get_msg(name, number) for number in numbers]
    return [each.headers["Nats-Msg-Id"] for each in found]


def one_too_large(first=0):
    """Return a save whose second event does not fit; the third one would."""
    large = message("alice", first + 1, text="x" * 3000)
    return [message("alice", first), large, message("alice", first + 2)]


async def test_a_full_stream_takes_nothing_behind_what_it_refused(
    nats_server, jetstream
):
    from nats.js import api

    raw, name = jetstream
    await raw.add_stream(
        name=name, subjects=[name], max_bytes=2500, discard=api.DiscardPolicy.NEW
    )
    broker = broker_for(nats_server, name)
    with pytest.raises(errors.BrokerRefusedError, match="may be full"):
        await broker.publish_many(one_too_large())
    assert await stored(raw, name) == ["alice-0"]
    assert broker.overtaken == 0
    await broker.publish_many([message("alice", n) for n in range(3)])
    assert await stored(raw, name) == ["alice-0", "alice-1", "alice-2"]
    await broker.close()


async def test_a_save_that_was_refused_in_part_and_repeated_is_the_stores_log(
    nats_server, jetstream
):
    from nats.js import api

    raw, name = jetstream
    limit = {"max_bytes": 3000, "discard": api.DiscardPolicy.NEW}
    await raw.add_stream(name=name, subjects=[name], **limit)
    broker = broker_for(nats_server, name)
    async with InMemoryTrackerStore(event_broker=broker) as store:
        tracker = await store.get_or_create_tracker("alice")
        for text in ("small", "x" * 3000, "small again"):
            tracker.update(UserUttered(text))
        with pytest.raises(errors.PublishError):
            await store.save(tracker)
        assert len(await rows_of(store, "alice")) == 1  # action_listen
        layout = (await raw.stream_info(name)).config
        layout.max_bytes = 1_000_000
        await raw.update_stream(layout)
        await store.save(tracker)
        log = [message_id for message_id, _ in await rows_of(store, "alice")]
    await broker.close()
    assert len(log) == 4
    assert list(dict.fromkeys(await stored(raw, name))) == log


async def test_an_event_larger_than_the_stream_takes_is_refused_with_its_save(
    nats_server, jetstream
):
    raw, name = jetstream
    await raw.add_stream(name=name, subjects=[name], max_msg_size=1000)
    broker = broker_for(nats_server, name)
    with pytest.raises(errors.BrokerRefusedError, match="max_msg_size"):
        await broker.publish_many(one_too_large())
    assert await stored(raw, name) == []
    await broker.close()


@pytest.mark.parametrize("in_one_batch", [False, True])
async def test_what_follows_a_refused_event(nats_server, jetstream, in_one_batch):
    """The limit came after the broker had connected: it cannot know of it."""
    raw, name = jetstream
    options = {"confirm_each_event": False} if in_one_batch else {}
    broker = broker_for(nats_server, name, **options)
    await broker.publish(message("alice", 0))
    layout = (await raw.stream_info(name)).config
    layout.max_msg_size = 1000
    await raw.update_stream(layout)
    with pytest.raises(errors.BrokerRefusedError):
        await broker.publish_many([*one_too_large(1), message("bob", 0)])
    assert broker.overtaken == (1 if in_one_batch else 0)
    with pytest.raises(errors.BrokerRefusedError):
        await broker.publish_many(one_too_large(4))
    assert broker.overtaken == (1 if in_one_batch else 0)
    await broker.close()
    found = await stored(raw, name)
    if in_one_batch:
        assert found == ["alice-0", "alice-1", "alice-3", "bob-0", "alice-4"]
    else:
        assert found == ["alice-0", "alice-1", "bob-0", "alice-4"]


@pytest.mark.parametrize("token", ["wr0ng", None])
async def test_a_token_that_is_refused(token):
    with private_nats(token="s3cret") as private:
        url = f"nats://127.0.0.1:{private.server.port}"
        broker = NatsEventBroker(url, token=token, timeout_seconds=3)
        with pytest.raises(errors.BrokerAccessError, match="refused") as raised:
            await broker.open()
        assert "wr0ng" not in str(raised.value) + repr(broker)
        good = NatsEventBroker(url, token="s3cret", timeout_seconds=3)
        await good.publish_many(batch("alice", 0))
        assert "s3cret" not in repr(good)
        await good.close()
        await broker.close()


@pytest.mark.parametrize("available", [True, False])
async def test_nothing_secret_is_said_before_tls(available):
    """Of a client that is to use TLS, a server without it hears no login."""
    heard = bytearray()
    greeting = {"server_id": "x", "version": "2.9.10", "max_payload": 1048576}
    greeting |= {"tls_available": True} if available else {}

    async def serve(reader, writer):
        writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
        heard.extend(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        broker = NatsEventBroker(
            f"nats://127.0.0.1:{port}",
            username="me",
            password="s3cret",
            use_ssl=True,
            timeout_seconds=2,
            connection_attempts=1,
        )
        with pytest.raises(errors.PublishError, match=None if available else "no TLS"):
            await broker.open()
        await broker.close()
    assert b"s3cret" not in heard
    assert b"CONNECT" not in heard
    assert bytes(heard[:1]) == (b"\x16" if available else b"")  # a TLS handshake


@pytest.mark.parametrize("greets", [True, False])
async def test_a_handshake_that_fails_leaves_no_connection_open(greets):
    """Whether the server talks nonsense, or nothing at all."""
    closed = asyncio.Event()

    async def serve(reader, writer):
        if greets:
            writer.write(b'INFO {"tls_required": true, "version": "2.9.10"}\r\n')
            await reader.read(4096)
            writer.write(b"this is no handshake\r\n")
        with suppress(OSError):
            while await reader.read(4096):
                pass
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"nats://127.0.0.1:{port}"
        broker = NatsEventBroker(url, timeout_seconds=0.5, connection_attempts=1)
        kind = errors.BrokerAccessError if greets else errors.BrokerUnavailableError
        with pytest.raises(kind):
            await broker.open()
        await asyncio.wait_for(closed.wait(), 2)
        await broker.close()


RESTRICTED = """
authorization {
  users: [{
    user: me, password: s3cret
    permissions: { publish: ["rasa_core_events", "$JS.API.STREAM.NAMES"] }
  }]
}
"""


async def test_rights_that_are_missing_are_said_in_time():
    with private_nats(settings=RESTRICTED) as private:
        broker = NatsEventBroker(
            f"nats://127.0.0.1:{private.server.port}",
            username="me",
            password="s3cret",
            timeout_seconds=1,
        )
        with pytest.raises(errors.BrokerAccessError, match="does not let this user"):
            await broker.open()
        await broker.close()


UNPUBLISHED = """
authorization {
  users: [{
    user: me, password: s3cret
    permissions: { publish: { deny: ["rasa_core_events"] } }
  }]
}
"""


async def test_a_right_to_publish_that_is_missing_is_said_at_once():
    with private_nats(settings=UNPUBLISHED) as private:
        broker = NatsEventBroker(
            f"nats://127.0.0.1:{private.server.port}",
            username="me",
            password="s3cret",
            timeout_seconds=5,
        )
        await broker.open()
        for _ in range(2):
            async with asyncio.timeout(1):
                with pytest.raises(errors.BrokerAccessError, match="does not let"):
                    await broker.publish(message("alice", 0))
        assert broker.connections == 1  # kept for when the right is granted
        await broker.close()


async def test_a_stream_that_was_deleted_is_created_again(nats_server, jetstream):
    jetstream, name = jetstream
    broker = broker_for(nats_server, name)
    await broker.publish(message("alice", 0))
    await jetstream.delete_stream(name)
    await broker.publish_many([message("alice", 1), message("alice", 2)])
    assert await stored(jetstream, name) == ["alice-1", "alice-2"]
    await broker.close()


async def test_a_stream_that_answers_nobody_counts_as_away(
    nats_server, jetstream, monkeypatch
):
    jetstream, name = jetstream
    broker = broker_for(nats_server, name, timeout_seconds=2)
    await broker.publish(message("alice", 0))
    await jetstream.delete_stream(name)

    async def find_nothing(self, link):
        """As where a stream has no leader."""

    with monkeypatch.context() as patched:
        patched.setattr(NatsEventBroker, "_find_or_create_stream", find_nothing)
        with pytest.raises(errors.BrokerUnavailableError, match="takes the subject"):
            await broker.publish(message("alice", 1))
    assert broker.connections == 2
    await broker.publish(message("alice", 1))
    assert await stored(jetstream, name) == ["alice-1"]
    await broker.close()
