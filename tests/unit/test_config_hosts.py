"""Hosts that hold a login, since the scheme of a URL was forgotten."""

import pytest

pytest.importorskip("aio_pika")
pytest.importorskip("motor")
pytest.importorskip("redis")

from tracker_store_async import MongoTrackerStore, RedisTrackerStore
from tracker_store_async.backends.mongo_config import MongoConfig
from tracker_store_async.backends.redis_config import RedisConfig
from tracker_store_async.backends.sql.config import SQLConfig
from tracker_store_async.brokers.pika import PikaEventBroker
from tracker_store_async.brokers.pika_config import PikaConfig
from tracker_store_async.brokers.redis import RedisEventBroker
from tracker_store_async.brokers.redis_config import RedisBrokerConfig
from tracker_store_async.config import EndpointConfig
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import parse_settings


def config(model):
    """Return what makes a configuration of a URL."""
    return lambda url: parse_settings(model, {"url": url}, where="x", type_name="y")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda url: EndpointConfig(url=url), id="section"),
        pytest.param(config(RedisConfig), id="redis"),
        pytest.param(config(MongoConfig), id="mongod"),
        pytest.param(config(SQLConfig), id="sql"),
        pytest.param(config(PikaConfig), id="pika"),
        pytest.param(config(RedisBrokerConfig), id="redis-broker"),
        pytest.param(lambda url: RedisTrackerStore(host=url), id="redis-store"),
        pytest.param(lambda url: RedisTrackerStore(host=f"redis://{url}"), id="a-url"),
        pytest.param(lambda url: MongoTrackerStore(host=url), id="mongo-store"),
        pytest.param(lambda url: PikaEventBroker(host=url), id="pika-broker"),
        pytest.param(lambda url: RedisEventBroker(host=url), id="redis-streams"),
    ],
)
def test_a_url_without_its_scheme_shows_no_password(make):
    """It was taken for a host, which every error and log line names."""
    try:
        made = make("user:hunter2@host:6379")
        shown = f"{made!r} {getattr(made, '_where', '')}"
    except ConfigurationError as error:
        shown = str(error)
    assert "hunter2" not in shown
