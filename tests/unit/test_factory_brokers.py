"""From configuration to event brokers."""

import asyncio
import textwrap

import pytest

from tracker_store_async.broker import EventBroker, EventMessage
from tracker_store_async.broker_factory import create_event_broker
from tracker_store_async.broker_handle import BrokerHandle
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.config import EndpointConfig
from tracker_store_async.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    UnknownStoreTypeError,
)

BROKERS = """
    import asyncio

    from tracker_store_async.broker import EventBroker

    class Plain(EventBroker):
        def __init__(self, url=None, topic="events"):
            self.url, self.topic = url, topic

        async def publish(self, message):
            pass

    class Configured(Plain):
        @classmethod
        def from_endpoint_config(cls, config):
            return cls(config.url, config.kwargs["queue"])

    class ConfiguredLater(Plain):
        @classmethod
        async def from_endpoint_config(cls, config):
            return cls(config.url)

    class HiddenLater(Plain):
        @classmethod
        def from_endpoint_config(cls, config):
            return ConfiguredLater.from_endpoint_config(config)

    class Patient(Plain):
        def __init__(self, timeout_seconds=99.0, on_publish_error=None, **others):
            self.timeout_seconds, self.others = timeout_seconds, others
            self.given = on_publish_error

    class Stuck(EventBroker):
        async def publish(self, message):
            await asyncio.Event().wait()

    class StuckAndConfigured(Stuck):
        @classmethod
        def from_endpoint_config(cls, config):
            broker = cls()
            broker.given = config.kwargs
            return broker

    def file(path, **keys):
        from tracker_store_async.brokers.file import FileEventBroker
        return FileEventBroker(path, timeout_seconds=77.0, **keys)

    class RasaLike:
        def publish(self, event):
            pass

    class HalfDone(EventBroker):
        pass
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    (tmp_path / "other_brokers.py").write_text(textwrap.dedent(BROKERS))
    metadata = tmp_path / "other_brokers-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: other-brokers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[tracker_store_async.brokers]\nplain = other_brokers:Plain\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def problem(error_class=ConfigurationError, **config):
    with pytest.raises(error_class) as raised:
        create_event_broker(config)
    return str(raised.value)


def test_no_configuration_is_no_broker():
    assert create_event_broker(None) is None


async def test_recording_broker():
    broker = create_event_broker(EndpointConfig(type="Recording"))
    assert type(broker) is RecordingBroker
    messages = [EventMessage(str(n), "alice", n, {"event": "user"}) for n in range(3)]
    await broker.publish_many(messages)
    assert broker.messages == messages
    assert broker.is_ready()


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"type": "file"}, "<FileEventBroker to rasa_event.log>"),
        ({"type": "file", "path": "e.log"}, "<FileEventBroker to e.log>"),
        ({"type": "file", "url": "e.log", "fsync": False}, "to e.log>"),
        ({"type": "SQL"}, "the event table at sqlite database events.db>"),
        (
            {
                "type": "sql",
                "dialect": "postgresql+psycopg2",
                "url": "db:5433",
                "db": "rasa",
                "username": "me",
                "password": 7,
            },
            "the event table at postgresql at db:5433/rasa>",
        ),
        ({"type": "sql", "url": "mysql://me:secret@db/rasa"}, "at mysql at db/rasa>"),
        ({"type": "redis", "url": "rediss://me:secret@r:7/3"}, "to Redis at r:7>"),
    ],
)
def test_a_section_makes_the_broker(config, shown):
    for word, driver in {"postgresql": "asyncpg", "mysql": "asyncmy"}.items():
        if word in shown:
            pytest.importorskip(driver, reason=f"the extra {word} is not installed")
    if config["type"] == "redis":
        pytest.importorskip("redis", reason="the extra redis is not installed")
    broker = create_event_broker(config | {"timeout_seconds": 3})
    assert repr(broker).endswith(shown)
    assert broker.timeout_seconds == 3
    assert broker.on_publish_error is None


def test_what_a_save_does_about_a_broker_may_stand_with_it():
    broker = create_event_broker({"type": "file", "on_publish_error": "best_effort"})
    assert broker.on_publish_error == "best_effort"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "file", "pth": "x"}, "unknown key 'pth' for type file; did you"),
        ({"type": "file", "url": "x", "path": "x"}, "'url' and 'path' mean the same"),
        ({"type": "file", "timeout_seconds": 0}, "timeout_seconds: must be greater"),
        ({"type": "sql", "ssl_mode": "some"}, "event_broker.ssl_mode: must be"),
        ({"type": "sql", "port": "x"}, "event_broker.port: must be a whole number"),
        ({"type": "redis", "url": "http://x"}, "must begin with redis://"),
        ({"type": "redis", "ssl_cafile": "x"}, "the ssl_ files need 'use_ssl: true'"),
        ({"type": "redis", "max_length": 0}, "max_length: must be greater"),
        ({"type": "redis", "on_publish_error": "x"}, "on_publish_error: must be"),
    ],
)
def test_a_wrong_key_is_named(config, words):
    text = problem(**config)
    assert text.startswith("event_broker")
    assert words in text


def test_no_password_is_shown():
    pytest.importorskip("redis", reason="the extra redis is not installed")
    broker = create_event_broker({"type": "redis", "url": "redis://:hush@r"})
    assert "hush" not in repr(broker)
    assert "hush" not in problem(type="redis", url="redis://:hush@r:port")


def test_section_without_a_type_is_rasas_default():
    pytest.importorskip("aio_pika")
    broker = create_event_broker({"url": "localhost"})
    assert repr(broker) == "<PikaEventBroker to RabbitMQ at localhost:5672>"


def test_dotted_path_and_entry_point():
    broker = create_event_broker({"type": "other_brokers.Plain", "url": "u"})
    assert (broker.url, broker.topic) == ("u", "events")
    assert EventBroker in type(broker).__mro__
    assert create_event_broker({"type": "plain", "topic": "t"}).topic == "t"


def test_from_endpoint_config():
    config = {"type": "other_brokers.Configured", "url": "u", "queue": "q"}
    broker = create_event_broker(config)
    assert (broker.url, broker.topic) == ("u", "q")


MESSAGE = EventMessage("id", "alice", 0, {"event": "user"})


@pytest.mark.parametrize("type_name", ["other_brokers.Plain", "plain", "recording"])
def test_what_a_save_does_may_stand_with_any_broker(type_name):
    section = {"type": type_name, "on_publish_error": "best_effort"}
    assert create_event_broker(section).on_publish_error == "best_effort"
    words = "event_broker.on_publish_error: must be"
    assert words in problem(type=type_name, on_publish_error="drop")
    assert "event_broker.timeout_seconds: must" in problem(
        type=type_name, timeout_seconds=-1
    )


@pytest.mark.parametrize("name", ["Stuck", "StuckAndConfigured"])
async def test_a_class_that_knows_no_time_limit_has_one(name):
    section = {"type": f"other_brokers.{name}", "timeout_seconds": 0.01}
    broker = create_event_broker(section)
    with pytest.raises(BrokerUnavailableError, match=f"{name} .* within 0.01 s"):
        async with asyncio.timeout(5):
            await BrokerHandle(broker).send([MESSAGE])
    assert type(broker).__name__ == name
    if name == "StuckAndConfigured":
        assert broker.given == {"timeout_seconds": 0.01}


@pytest.mark.parametrize(
    ("section", "seconds"),
    [
        ({"type": "other_brokers.Stuck"}, 10.0),
        ({"type": "other_brokers.Patient"}, 99.0),
        ({"type": "other_brokers.Patient", "timeout_seconds": "5"}, 5.0),
        ({"type": "other_brokers.file", "path": "e.log"}, 77.0),
        ({"type": "other_brokers.file", "path": "e.log", "timeout_seconds": 5}, 5.0),
    ],
)
def test_the_time_limit_of_a_class_of_ones_own(section, seconds):
    assert create_event_broker(section).timeout_seconds == seconds


def test_a_class_gets_the_keys_that_it_has_parameters_for():
    section = {"type": "other_brokers.Patient", "on_publish_error": "raise", "x": 1}
    broker = create_event_broker(section)
    assert (broker.given, broker.on_publish_error) == ("raise", "raise")
    assert broker.others == {"x": 1}


@pytest.mark.parametrize("name", ["ConfiguredLater", "HiddenLater"])
def test_async_from_endpoint_config(name):
    text = problem(type=f"other_brokers.{name}")
    assert f"other_brokers.{name} is made by an async function, and" in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "recoding"}, "unknown type 'recoding'; did you mean 'recording'?"),
        ({"type": "no_such.Broker"}, "No module named 'no_such'"),
        ({"type": "other_brokers.Plan"}, "did you mean 'Plain'?"),
    ],
)
def test_unknown_type(config, words):
    text = problem(UnknownStoreTypeError, **config)
    assert text.startswith("event_broker: ")
    assert words in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "recording", "topic": "x"}, "unknown key 'topic'"),
        ({"type": "other_brokers.Plain", "topik": "x"}, "did you mean 'topic'?"),
        ({"type": "other_brokers.Plain", "timeout": 5}, "'timeout_seconds'?"),
        ({"type": "other_brokers.RasaLike"}, "must be a subclass of"),
        ({"type": "other_brokers.HalfDone"}, "does not implement publish"),
        ({"type": 7}, "event_broker.type: must be text"),
    ],
)
def test_wrong_section(config, words):
    assert words in problem(**config)
