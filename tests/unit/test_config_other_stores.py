"""The keys of the Redis, MongoDB and DynamoDB tracker stores."""

import inspect
from pathlib import Path

import pytest

from tracker_store_async import DynamoTrackerStore
from tracker_store_async.backends.dynamo_config import DynamoConfig
from tracker_store_async.backends.mongo_config import MongoConfig
from tracker_store_async.backends.redis_config import RedisConfig
from tracker_store_async.config import read_endpoint_config
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import parse_settings

DATA = Path(__file__).parent.parent / "data" / "endpoints"
COMMON = {"on_conflict": "rebase", "on_publish_error": "raise"}
MONGO = COMMON | {
    "driver": "motor",
    "write_concern": "majority",
    "journal": True,
    "delete_rasa_data": False,
    "outbox": False,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "s3cr3t")
    monkeypatch.setenv("DB_USER", "rasa")
    monkeypatch.setenv("DB_PASSWORD", "s3cr3t")


def parse(model, **settings):
    return parse_settings(model, settings, where="tracker_store", type_name="it")


def load(model, name):
    settings = read_endpoint_config(DATA / name, "tracker_store").as_dict()
    settings.pop("type")
    return parse(model, **settings)


def problem(model, **settings):
    with pytest.raises(ConfigurationError) as raised:
        parse(model, **settings)
    return str(raised.value)


class TestRedis:
    def test_deployment_example(self):
        found = load(RedisConfig, "redis.yml").store_kwargs()
        assert found == COMMON | {
            "host": "localhost",
            "port": 6379,
            "db": 0,
            "password": "s3cr3t",
            "record_exp": 86400.0,
            "use_ssl": False,
            "deployment_mode": "standalone",
            "endpoints": (),
            "sentinel_service": "mymaster",
            "ssl_check_hostname": True,
            "delete_rasa_data": False,
        }

    def test_every_key_of_rasa(self):
        found = load(RedisConfig, "rasa_redis.yml").store_kwargs()
        assert found == COMMON | {
            "host": "redis.example.com",
            "port": 6380,
            "db": 2,
            "username": "rasa",
            "password": "s3cr3t",
            "record_exp": 3600.0,
            "key_prefix": "alphanumeric1",
            "use_ssl": True,
            "ssl_keyfile": "/tls/client.key",
            "ssl_certfile": "/tls/client.crt",
            "ssl_ca_certs": "/tls/ca.crt",
            "deployment_mode": "standalone",
            "endpoints": (),
            "sentinel_service": "mymaster",
            "ssl_check_hostname": True,
            "delete_rasa_data": False,
        }

    @pytest.mark.parametrize("host", ["::1", "[::1]", "[::1]:6379", "redis://[::1]"])
    def test_ipv6_address(self, host):
        config = parse(RedisConfig, host=host)
        assert (config.host, config.port) == ("::1", 6379)

    def test_sentinel(self):
        config = load(RedisConfig, "rasa_redis_sentinel.yml")
        assert config.deployment_mode == "sentinel"
        assert config.endpoints == ("sentinel-1:26379", "sentinel-2:26379")
        assert config.sentinel_service == "conversations"

    def test_cluster(self):
        config = parse(
            RedisConfig,
            deployment_mode="Cluster",
            endpoints="a:1, [::1]:2",
            use_ssl="false",
        )
        assert config.deployment_mode == "cluster"
        assert config.endpoints == ("a:1", "[::1]:2")
        config = parse(
            RedisConfig,
            deployment_mode="cluster",
            endpoints=[{"host": "a", "port": "1"}],
        )
        assert config.endpoints == ("a:1",)
        assert parse(RedisConfig, deployment_mode="standard").deployment_mode == (
            "standalone"
        )

    def test_url(self):
        config = parse(
            RedisConfig, url="rediss://u:p%40ss@h:1/3", use_ssl="yes", db="3"
        )
        assert (config.host, config.port, config.db) == ("h", 1, 3)
        assert (config.username, config.use_ssl) == ("u", True)
        assert config.password.get_secret_value() == "p@ss"
        config = parse(RedisConfig, url="h:1")
        assert (config.host, config.port, config.use_ssl) == ("h", 1, False)
        config = parse(RedisConfig, url="unix:///run/redis.sock", db=1)
        assert (config.unix_socket_path, config.db) == ("/run/redis.sock", 1)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"url": "rediss://h", "use_ssl": "false"}, "'use_ssl' differs"),
            ({"url": "redis://h/1", "db": 2}, "'db' differs"),
            ({"url": "redis://:a@h", "password": "b"}, "'password' differs"),
            ({"url": "http://h"}, "must begin with redis://"),
            ({"url": "redis://h/x"}, "must be the number of the database"),
            ({"url": "redis://h:x"}, "its port must be a number"),
            ({"url": "redis://h?ssl=1"}, "options after '?'"),
            ({"key_prefix": "my-bot"}, "key_prefix: must be letters and digits only"),
            ({"db": -1}, "tracker_store.db: must be greater than or equal to 0"),
            ({"db": "zero"}, "tracker_store.db: must be a whole number"),
            ({"deployment_mode": "sentinel"}, "needs 'endpoints'"),
            ({"endpoints": ["a:1"]}, "needs deployment_mode cluster or sentinel"),
            ({"sentinel_service": "x"}, "needs deployment_mode sentinel"),
            ({"deployment_mode": "cluster", "db": 1}, "has only db 0"),
            ({"deployment_mode": "ring"}, "tracker_store.deployment_mode: must be"),
            ({"deployment_mode": 1}, "tracker_store.deployment_mode: must be"),
            ({"deployment_mode": "cluster", "endpoints": ["a"]}, "of 'host:port'"),
            ({"deployment_mode": "cluster", "endpoints": {"a": 1}}, "of 'host:port'"),
            ({"deployment_mode": "cluster", "url": "unix:///s"}, "unix socket needs"),
            ({"ssl_ca_certs": "ca.crt"}, "need 'use_ssl: true'"),
            ({"use_ssl": True, "ssl_keyfile": "k"}, "needs 'ssl_certfile'"),
            ({"max_connections": 0}, "must be greater than or equal to 1"),
            ({"command_timeout_seconds": 0}, "must be greater than 0"),
            ({"delete_rasa_data": "maybe"}, "must be true or false"),
            ({"key_prefx": "a"}, "did you mean 'key_prefix'?"),
        ],
    )
    def test_wrong(self, settings, words):
        assert words in problem(RedisConfig, **settings)


class TestMongo:
    def test_every_key_of_rasa(self):
        assert load(MongoConfig, "rasa_mongod.yml").store_kwargs() == MONGO | {
            "host": "mongodb://mongo:27017/?tls=true",
            "db": "conversations",
            "username": "rasa",
            "password": "s3cr3t",
            "auth_source": "admin",
            "collection": "trackers",
        }

    def test_defaults_of_rasa(self):
        assert parse(MongoConfig).store_kwargs() == MONGO | {
            "host": "mongodb://localhost:27017",
            "db": "rasa",
            "auth_source": "admin",
            "collection": "conversations",
        }

    def test_every_key_of_ours(self):
        keys = {
            "driver": "pymongo",
            "tls": True,
            "tls_ca_file": "/tls/ca.pem",
            "tls_certificate_key_file": "/tls/client.pem",
            "tls_certificate_key_file_password": "s3cr3t",
            "tls_allow_invalid_hostnames": True,
            "pool_size": 7,
            "pool_timeout_seconds": 1.5,
            "connect_timeout_seconds": 2.0,
            "command_timeout_seconds": 3.0,
            "write_concern": 2,
            "journal": False,
            "delete_rasa_data": True,
            "record_exp": 60.0,
            "max_event_history": 5,
        }
        found = parse(MongoConfig, **keys)
        assert found.store_kwargs().items() >= keys.items()
        assert found.required_driver() == ("pymongo", "mongo")
        assert "s3cr3t" not in repr(found)
        assert parse(MongoConfig, use_ssl="yes").tls is True

    def test_credentials_in_the_url(self):
        config = parse(MongoConfig, url="mongodb+srv://u:p%40@h/")
        assert config.username == "u"
        assert config.password.get_secret_value() == "p@"

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"url": "http://h"}, "tracker_store.url: must begin with mongodb://"),
            ({"url": "mongodb://u:a@h", "password": "b"}, "'password' differs"),
            ({"password": "a"}, "without 'username'"),
            ({"db": ""}, "tracker_store.db: must not be empty"),
            ({"driver": "asyncio"}, "tracker_store.driver: "),
            ({"write_concern": 0}, "tracker_store.write_concern"),
            ({"tls": False, "tls_ca_file": "x"}, "TLS being switched off"),
            ({"tls_certificate_key_file_password": "x"}, "needs"),
            ({"authsource": "x"}, "did you mean 'auth_source'?"),
        ],
    )
    def test_wrong(self, settings, words):
        assert words in problem(MongoConfig, **settings)


class TestDynamo:
    def test_every_key_of_rasa(self):
        assert load(DynamoConfig, "rasa_dynamo.yml").store_kwargs() == COMMON | {
            "table_name": "rasa",
            "region": "eu-central-1",
        }

    def test_defaults_of_rasa(self):
        config = parse(DynamoConfig)
        assert (config.table_name, config.region) == ("states", "us-east-1")

    def test_every_key_of_ours(self):
        given = {
            "table_name": "rasa",
            "region_name": "eu-central-1",
            "events_table_name": "log",
            "endpoint_url": "https://dynamo.example.com",
            "aws_access_key_id": "AKIA",
            "aws_secret_access_key": "s3cr3t",
            "aws_session_token": "t0ken",
            "ssl_ca_certs": "ca.pem",
            "billing_mode": "PROVISIONED",
            "read_capacity_units": "7",
            "write_capacity_units": 8,
            "create_table": "false",
            "read_rasa_data": False,
            "delete_rasa_data": True,
            "connect_timeout": 1,
            "command_timeout": 2,
            "retry_budget": 0,
            "max_pool_connections": 9,
        }
        config = parse(DynamoConfig, **given)
        assert "s3cr3t" not in repr(config)
        assert "t0ken" not in repr(config)
        kwargs = config.store_kwargs()
        assert kwargs["aws_secret_access_key"] == "s3cr3t"
        assert kwargs["region"] == "eu-central-1"
        assert (kwargs["read_capacity_units"], kwargs["create_table"]) == (7, False)
        assert kwargs["retry_budget_seconds"] == 0
        named = inspect.signature(DynamoTrackerStore).parameters
        assert set(kwargs) <= set(named)
        missing = set(named) - set(DynamoConfig.model_fields)
        assert missing == {
            *("domain", "event_broker", "session", "client", "credentials")
        }
        store = DynamoTrackerStore(**kwargs)
        assert "s3cr3t" not in repr(store)
        assert repr(store) == (
            "<DynamoTrackerStore: dynamo table log at https://dynamo.example.com>"
        )

    def test_the_missing_extra_is_named(self):
        assert parse(DynamoConfig).required_driver() == ("aioboto3", "dynamo")

    def test_local_endpoint(self):
        config = parse(DynamoConfig, url="http://localhost:8000")
        assert config.endpoint_url == "http://localhost:8000"

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"url": "localhost:8000"}, "tracker_store.url: must begin with http://"),
            ({"table_name": "a b c"}, "tracker_store.table_name: "),
            ({"table_name": "ab"}, "tracker_store.table_name: "),
            ({"tablename": "states"}, "did you mean 'table_name'?"),
            ({"aws_access_key_id": "a"}, "'aws_secret_access_key' go together"),
            ({"aws_session_token": "a"}, "needs 'aws_access_key_id'"),
            (
                {
                    "profile": "p",
                    "aws_access_key_id": "a",
                    "aws_secret_access_key": "b",
                },
                "contradict each other",
            ),
            ({"read_capacity_units": 5}, "need 'billing_mode: PROVISIONED'"),
            ({"billing_mode": "FREE"}, "tracker_store.billing_mode: "),
            ({"events_table_name": "states"}, "must differ from 'table_name'"),
            ({"retry_budget_seconds": -1}, "tracker_store.retry_budget_seconds: "),
        ],
    )
    def test_wrong(self, settings, words):
        assert words in problem(DynamoConfig, **settings)
