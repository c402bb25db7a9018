"""From `event_broker` sections to the brokers for RabbitMQ, Kafka and NATS."""

from __future__ import annotations

import pytest

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.factory import create_event_broker

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
    assert (broker.on_publish_error, broker._drops) == (policy, drops)


def test_a_rabbitmq_url_says_it_all():
    url = "amqps://b%40t:p%2Fw@rabbit/v?cacertfile=ca.pem&verify=verify_none"
    broker = create_event_broker({"type": "rabbitmq", "url": url})
    assert broker._server == ("rabbit", 5671, "v")
    assert broker._login == ("b@t", "p/w")
    assert broker._use_ssl
    assert broker._ssl_files[0] == "ca.pem"
    assert not broker._ssl_verify


def test_rasas_environment_variables_switch_tls_on(monkeypatch):
    monkeypatch.setenv("RABBITMQ_SSL_CLIENT_CERTIFICATE", "cert.pem")
    monkeypatch.setenv("RABBITMQ_SSL_CLIENT_KEY", "key.pem")
    broker = create_event_broker({"type": "pika", "url": "rabbit"})
    assert broker._use_ssl
    assert broker._ssl_files == (None, "cert.pem", "key.pem")


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
