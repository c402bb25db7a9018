"""Every key of the brokers behind a wire is in their documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracker_store_async.brokers.kafka_config import KafkaConfig
from tracker_store_async.brokers.nats_config import NatsConfig
from tracker_store_async.brokers.pika_config import PikaConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "brokers-rabbitmq-kafka-nats.md").read_text()


@pytest.mark.parametrize(
    ("heading", "config"),
    [("pika", PikaConfig), ("kafka", KafkaConfig), ("nats", NatsConfig)],
)
def test_every_key_is_documented(heading, config):
    common, _, rest = TEXT.partition("\n## ")
    (section,) = [
        part for part in rest.split("\n## ") if part.startswith(f"`{heading}`")
    ]
    for key in (*config.model_fields, *config.aliases):
        assert f"`{key}`" in section or f"`{key}`" in common, key
