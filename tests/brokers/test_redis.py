"""What Redis alone has: rights of a user, keys of another type, a bounded length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.kit import batch, ids, message, seen
from tracker_store_async import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.brokers.channels import Channel, RedisChannel


@pytest.fixture
async def channel(channel_of: Callable[..., Channel]) -> AsyncIterator[Any]:
    """Give an empty stream of a private Redis."""
    channel = channel_of("redis")
    channel.renew()
    yield channel
    await channel.close()


@pytest.fixture
def raw(channel: RedisChannel) -> Iterator[Any]:
    """Give a sync client."""
    client: Any = channel._private.raw()
    yield client
    client.close()


async def test_the_rights_that_are_asked_for_are_enough(
    channel: RedisChannel, raw: Any
) -> None:
    raw.acl_setuser("writer", True, passwords=["+pw"], commands=["+eval", "+xadd"])
    raw.execute_command("ACL", "SETUSER", "writer", f"~{channel.name}")
    broker = channel.broker(username="writer", password="pw")
    await broker.publish_many(batch("alice", 0))
    assert seen(await channel.read(), "alice") == ids(batch("alice", 0))
    raw.acl_deluser("writer")


async def test_rights_that_are_missing_are_said(
    channel: RedisChannel, raw: Any
) -> None:
    raw.acl_setuser("reader", True, passwords=["+s3cret"], commands=["+xread"])
    broker = channel.broker(username="reader", password="s3cret", timeout_seconds=2)
    with pytest.raises(errors.BrokerAccessError, match="EVAL and XADD") as raised:
        await broker.publish(message("alice", 0, text="what was said"))
    assert "s3cret" not in str(raised.value)
    assert "what was said" not in str(raised.value)
    raw.acl_deluser("reader")


async def test_a_key_of_another_type_is_said(channel: RedisChannel, raw: Any) -> None:
    raw.set(channel.name, "a text")
    with pytest.raises(errors.BrokerRefusedError, match="something else than a stream"):
        await channel.broker().publish(message("alice", 0))
    assert raw.get(channel.name) == b"a text"


async def test_the_oldest_go_first_beyond_the_length(
    channel: RedisChannel, raw: Any
) -> None:
    broker = channel.broker(max_length=100)
    await broker.publish_many(batch("alice", 0, 1000))
    kept = seen(await channel.read(), "alice")
    assert 100 <= len(kept) <= 300  # Redis drops whole nodes of 100
    assert kept == ids(batch("alice", 0, 1000))[-len(kept) :]
