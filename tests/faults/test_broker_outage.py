"""RabbitMQ is killed while 64 conversations save, and nothing is lost."""

from __future__ import annotations

import pytest

from benchmarks.broker_outage import outage
from tests.servers.rabbitmq import private_rabbitmq


@pytest.mark.backend("rabbitmq")
async def test_nothing_is_lost_when_rabbitmq_is_killed() -> None:
    with private_rabbitmq() as private:
        report = await outage(private, conversations=64, seconds=3)
    print(report)
    assert report.lost == 0
    assert report.disordered == 0
    assert report.connections > 1
    assert report.saved_after_outage > 64
    assert report.saved > 64 * 4
