"""From `event_broker` sections to the brokers for RabbitMQ, Kafka and NATS."""

from __future__ import annotations

import pytest

from tracker_store_async.broker import EventMessage
from tracker_store_async.broker_factory import create_event_broker
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.factory import create_tracker_store

pytest.importorskip("aio_pika")
pytest.importorskip("aiokafka")
pytest.importorskip("nats")

RASA_PIKA = {
    "type": "pika",
    "url": "rabbit.example",
    "username": "bot",
    "password": "geheim",
    "port": 5673,
    "queues": ["one", "two"],
    "should_keep_unpublished_messages": True,
    "raise_on_failure": False,
    "connection_attempts": 7,
    "retry_delay_in_seconds": 1.5,
    "exchange_name": "mine",
}
RASA_KAFKA = {
    "type": "kafka",
    "url": ["one:9093", "two"],
    "topic": "events",
    "client_id": "bot",
    "partition_by_sender": True,
    "security_protocol": "sasl_ssl",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "bot",
    "sasl_password": "geheim",
    "ssl_cafile": "ca.pem",
    "ssl_certfile": "cert.pem",
    "ssl_keyfile": "key.pem",
    "ssl_check_hostname": True,
    "queue_size": 100,
}
NATS = {
    "type": "nats",
    "url": "tls://one:4223,two",
    "stream": "events",
    "subject": "events.rasa",
    "token": "geheim",
    "ssl_cafile": "ca.pem",
    "replicas": 3,
}


def problem(**section):
    with pytest.raises(ConfigurationError) as raised:
        create_event_broker(section)
    assert "geheim" not in str(raised.value)
    return str(raised.value)


def test_every_key_of_rasas_pika():
    broker = create_event_broker(RASA_PIKA)
    assert repr(broker) == "<PikaEventBroker to RabbitMQ at rabbit.example:5673>"
    assert broker.queues == ("one", "two")
    assert broker.exchange_name == "mine"
    assert broker.connection_attempts == 7
    assert broker.retry_delay_in_seconds == 1.5
    assert broker.on_publish_error == "best_effort"
    assert broker._login == ("bot", "geheim")


@pytest.mark.parametrize("name", ["pika", "nats"])
def test_an_event_waits_for_the_one_before_unless_told_otherwise(name):
    assert create_event_broker({"type": name}).confirm_each_event
    section = {"type": name, "confirm_each_event": False}
    assert not create_event_broker(section).confirm_each_event


@pytest.mark.parametrize(
    ("keys", "policy", "drops"),
    [
        ({}, None, False),
        ({"raise_on_failure": True}, "raise", False),
        (
            {"raise_on_failure": True, "should_keep_unpublished_messages": False},
            "raise",
            False,
        ),
        ({"raise_on_failure": False}, "best_effort", False),
        ({"should_keep_unpublished_messages": False}, None, True),
    ],
)
def test_rasas_two_keys_about_failures(keys, policy, drops):
    broker = create_event_broker({"type": "pika", "url": "localhost", **keys})
    assert (broker.on_publish_error, broker.drops_unpublished) == (policy, drops)


def test_a_rabbitmq_url_says_it_all():
    url = "amqps://b%40t:p%2Fw@rabbit/v?cacertfile=ca.pem&verify=verify_none"
    broker = create_event_broker({"type": "rabbitmq", "url": url})
    assert broker._server == ("rabbit", 5671, "v")
    assert broker._login == ("b@t", "p/w")
    assert broker._use_ssl
    assert broker._ssl_files[0] == "ca.pem"
    assert not broker._ssl_verify


KEPT, DROPPED = (
    {"raise_on_failure": False, "should_keep_unpublished_messages": kept}
    for kept in (True, False)
)


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ({"raise_on_failure": True}, "raise"),
        ({"should_keep_unpublished_messages": False}, "raise"),
        (
            {"raise_on_failure": True, "should_keep_unpublished_messages": True},
            "raise",
        ),
        ({"raise_on_failure": False}, "best_effort"),
        ({"should_keep_unpublished_messages": True}, "best_effort"),
        (KEPT, "best_effort"),
    ],
)
def test_rasas_keys_and_ours_may_agree(keys, policy):
    section = {"type": "pika", "on_publish_error": policy, **keys}
    broker = create_event_broker(section)
    assert (broker.on_publish_error, broker.drops_unpublished) == (policy, False)


@pytest.mark.parametrize(
    ("keys", "policy", "named"),
    [
        ({"raise_on_failure": True}, "best_effort", "raise_on_failure: true"),
        ({"raise_on_failure": False}, "raise", "raise_on_failure: false"),
        (KEPT, "raise", "raise_on_failure: false"),
        (DROPPED, "raise", "raise_on_failure: false"),
        (DROPPED, "best_effort", "should_keep_unpublished_messages: false"),
        (
            {"should_keep_unpublished_messages": True},
            "raise",
            "should_keep_unpublished_messages: true",
        ),
        (
            {"should_keep_unpublished_messages": False},
            "best_effort",
            "should_keep_unpublished_messages: false",
        ),
    ],
)
def test_rasas_keys_and_ours_that_contradict_each_other(keys, policy, named):
    text = problem(type="pika", on_publish_error=policy, **keys)
    assert f"'{named}' and 'on_publish_error: {policy}' contradict" in text
    assert "keep one of them" in text


def test_what_drops_events_does_not_go_with_an_outbox(tmp_path):
    broker = create_event_broker({"type": "pika", **DROPPED})
    section = {"type": "sql", "dialect": "sqlite", "db": str(tmp_path / "rasa.db")}
    create_tracker_store(section, event_broker=broker)  # as Rasa does
    with pytest.raises(ConfigurationError) as raised:
        create_tracker_store({**section, "outbox": True}, event_broker=broker)
    for words in ("should_keep_unpublished_messages: false", "outbox: true", "leave"):
        assert words in str(raised.value)


CERTIFICATE, KEY = "RABBITMQ_SSL_CLIENT_CERTIFICATE", "RABBITMQ_SSL_CLIENT_KEY"
BOTH = {CERTIFICATE: "cert.pem", KEY: "key.pem"}


@pytest.fixture
def environment(monkeypatch):
    for name in (CERTIFICATE, KEY, "RABBITMQ_SSL_CA_FILE", "RABBITMQ_SSL_KEY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("variables", "keys", "files"),
    [
        (BOTH, {}, (None, "cert.pem", "key.pem")),
        (BOTH, {"use_ssl": True}, (None, "cert.pem", "key.pem")),
        (BOTH, {"url": "amqps://rabbit"}, (None, "cert.pem", "key.pem")),
        # the file says where the CA is, the variables where the client's files are
        (BOTH, {"ssl_cafile": "ca.pem"}, ("ca.pem", "cert.pem", "key.pem")),
        (BOTH, {"ssl_keyfile": "key.pem"}, (None, "cert.pem", "key.pem")),
        (
            {**BOTH, "RABBITMQ_SSL_CA_FILE": "ca.pem"},
            {},
            ("ca.pem", "cert.pem", "key.pem"),
        ),
        ({CERTIFICATE: "both.pem"}, {"use_ssl": True}, (None, "both.pem", None)),
        ({KEY: "k"}, {"use_ssl": True, "ssl_certfile": "c"}, (None, "c", "k")),
    ],
)
def test_rasas_environment_variables_and_the_keys(environment, variables, keys, files):
    environment(variables)
    broker = create_event_broker({"type": "pika", "url": "rabbit", **keys})
    assert broker._use_ssl
    assert broker._ssl_files == files


@pytest.mark.parametrize(
    ("variables", "keys", "words"),
    [
        (BOTH, {"ssl_certfile": "other.pem"}, ["'ssl_certfile'", CERTIFICATE]),
        (
            {"RABBITMQ_SSL_CA_FILE": "ca.pem"},
            {"url": "amqps://x?cacertfile=other.pem"},
            ["'ssl_cafile'", "RABBITMQ_SSL_CA_FILE"],
        ),
        (BOTH, {"use_ssl": False}, ["use_ssl: true", CERTIFICATE, KEY]),
        (BOTH, {"url": "amqp://rabbit"}, ["amqps://", CERTIFICATE, KEY]),
        ({CERTIFICATE: "c"}, {}, [CERTIFICATE, KEY, "use_ssl: true"]),
        ({KEY: "k"}, {}, [CERTIFICATE, KEY, "use_ssl: true"]),
        ({KEY: "k"}, {"use_ssl": True}, ["needs", "ssl_certfile", CERTIFICATE]),
        ({}, {"ssl_certfile": "c"}, ["use_ssl: true"]),
        ({}, {"use_ssl": True, "ssl_keyfile": "k"}, ["'ssl_keyfile' needs"]),
    ],
)
def test_what_the_environment_and_the_keys_contradict(
    environment, variables, keys, words
):
    environment(variables)
    text = problem(**{"type": "pika", "url": "rabbit", **keys})
    assert text.startswith("event_broker")
    for word in words:
        assert word in text


@pytest.mark.parametrize("name", ["RABBITMQ_SSL_CA_FILE", "RABBITMQ_SSL_KEY_PASSWORD"])
def test_a_variable_that_counts_for_nothing_is_said(environment, name, caplog):
    environment({name: "geheim"})
    assert not create_event_broker({"type": "pika", "url": "rabbit"})._use_ssl
    assert f"{name} is set, but RabbitMQ is used without TLS" in caplog.text
    assert "geheim" not in caplog.text


def test_every_key_of_rasas_kafka():
    broker = create_event_broker(RASA_KAFKA)
    assert repr(broker) == "<KafkaEventBroker to Kafka at one:9093, two:9092>"
    assert (broker.topic, broker.partition_by_sender) == ("events", True)
    assert broker.queue_size == 100
    assert broker._ssl_files == ("ca.pem", "cert.pem", "key.pem")
    assert broker._options["security_protocol"] == "SASL_SSL"
    assert broker._options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert broker._options["sasl_plain_password"] == "geheim"
    assert broker._options["client_id"] == "bot"


def test_no_queue_size_is_no_limit_as_in_rasa():
    assert create_event_broker({**RASA_KAFKA, "queue_size": 0}).queue_size is None
    assert "queue_size: must" in problem(**{**RASA_KAFKA, "queue_size": -1})


@pytest.mark.parametrize(
    ("value", "header"),
    [
        (None, b"RASA_ENVIRONMENT_NOT_SET"),
        ("staging", b"staging"),
        ("", None),
    ],
)
def test_kafka_gets_the_environment_that_rasa_sends(monkeypatch, value, header):
    monkeypatch.delenv("RASA_ENVIRONMENT", raising=False)
    if value is not None:
        monkeypatch.setenv("RASA_ENVIRONMENT", value)
    message = EventMessage("id", "alice", 0, {"event": "user"})
    prepared = create_event_broker(RASA_KAFKA)._prepare(message)
    assert dict(prepared.headers).get("RASA_ENVIRONMENT") == header


def test_every_key_of_nats():
    broker = create_event_broker(NATS)
    assert repr(broker) == "<NatsEventBroker to NATS at one:4223, two:4222>"
    assert broker._use_ssl
    assert broker._login["token"] == "geheim"
    assert (broker.stream, broker.subject) == ("events", "events.rasa")
    assert broker._layout.num_replicas == 3


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"type": "pika", "queue": ["x"]}, "did you mean 'queues'?"),
        ({"type": "pika", "url": "http://x"}, "must begin with amqp://"),
        ({"type": "pika", "url": "amqp://x?a=b"}, "these options after '?'"),
        ({"type": "pika", "ssl_cafile": "x"}, "use_ssl: true"),
        ({"type": "kafka"}, "needs 'sasl_username'"),
        (
            {
                "type": "kafka",
                "security_protocol": "PLAINTEXT",
                "sasl_password": "geheim",
            },
            "need security_protocol",
        ),
        ({"type": "kafka", "sasl_mechanism": "GSSAPI"}, "no key can hold"),
        ({"type": "kafka", "security_protocol": "TLS"}, "security_protocol"),
        ({"type": "nats", "url": "nats://u:geheim@x"}, "as keys, not in the url"),
        ({"type": "nats", "stream": "a.b"}, "must not hold dots"),
        ({"type": "nats", "username": "u"}, "need each other"),
    ],
)
def test_what_is_wrong_is_said(section, words):
    assert words in problem(**section)
