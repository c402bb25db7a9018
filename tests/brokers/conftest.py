"""The fixtures of the suite: a channel of every broker in turn."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.brokers.channels import BROKERS, Broker
from tests.brokers.wire_channels import kafka_channel, nats_channel, rabbitmq_channels
from tests.servers import ServerMissingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.brokers.channels import Channel

_rabbitmq, _rabbitmq_with_tls = rabbitmq_channels()
BROKERS |= {
    "rabbitmq": Broker(_rabbitmq, tls=_rabbitmq_with_tls),
    "nats": Broker(nats_channel(), tls=nats_channel(tls=True)),
    # compatible with Kafka; faults in test_kafka.py, for it sends clients past a proxy
    "noida-db": Broker(kafka_channel("noida-db"), has_server=False),
}

WITH_SERVER = [name for name, broker in BROKERS.items() if broker.has_server]
WITH_TLS = [name for name, broker in BROKERS.items() if broker.tls is not None]
WITH_USE_SSL = ["redis", "rabbitmq", "nats"]
"""Those whose TLS is turned on by `use_ssl`, in place of the databases' `ssl_mode`."""


@pytest.fixture(scope="session")
def channel_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Channel]]:
    """Give the channel of a broker, made at its first use."""
    made: dict[tuple[str, bool], Channel] = {}
    with ExitStack() as stack:

        def get(name: str, *, tls: bool = False) -> Channel:
            if (name, tls) not in made:
                start = BROKERS[name].tls if tls else BROKERS[name].channel
                assert start is not None
                try:
                    channel = start(tmp_path_factory.mktemp(name))
                    made[name, tls] = stack.enter_context(channel)
                except ServerMissingError as error:
                    _leave_out(name, error)
            return made[name, tls]

        yield get


def _leave_out(name: str, error: ServerMissingError) -> None:
    """Skip, or fail where the server is required."""
    required = os.environ.get("TRACKER_STORE_REQUIRE", "")
    if required.strip() == "all" or name in required.split(","):
        pytest.fail(f"{error.name} is required: {error}", pytrace=False)
    pytest.skip(f"{error.name}: {error}")


@pytest.fixture(params=list(BROKERS))
async def channel(
    request: pytest.FixtureRequest, channel_of: Callable[..., Channel]
) -> AsyncIterator[Channel]:
    """Give an empty channel; its brokers are closed at the end."""
    channel = channel_of(request.param)
    channel.renew()
    yield channel
    await channel.close()


@pytest.fixture(params=WITH_SERVER)
async def served(
    request: pytest.FixtureRequest, channel_of: Callable[..., Channel]
) -> AsyncIterator[Channel]:
    """Give an empty channel with a server, which is there again at the end."""
    channel = channel_of(request.param)
    channel.renew()
    yield channel
    await channel.close()


@pytest.fixture(params=WITH_TLS)
async def encrypted(
    request: pytest.FixtureRequest, channel_of: Callable[..., Channel]
) -> AsyncIterator[Channel]:
    """Give an empty channel whose port takes only TLS connections."""
    channel = channel_of(request.param, tls=True)
    channel.renew()
    yield channel
    await channel.close()


@pytest.fixture(params=WITH_USE_SSL)
async def wire(
    request: pytest.FixtureRequest, channel_of: Callable[..., Channel]
) -> AsyncIterator[Channel]:
    """Give an empty channel whose port takes no TLS connections."""
    channel = channel_of(request.param)
    yield channel
    await channel.close()


@pytest.fixture(params=WITH_USE_SSL)
async def encrypted_wire(
    request: pytest.FixtureRequest, channel_of: Callable[..., Channel]
) -> AsyncIterator[Channel]:
    """Give an empty channel whose port takes only TLS connections."""
    channel = channel_of(request.param, tls=True)
    yield channel
    await channel.close()
