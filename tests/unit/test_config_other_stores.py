"""The keys of the Redis, MongoDB and DynamoDB tracker stores."""

from pathlib import Path

import pytest

from tracker_store_async.backends.dynamo_config import DynamoConfig
from tracker_store_async.backends.mongo_config import MongoConfig
from tracker_store_async.backends.redis_config import RedisConfig
from tracker_store_async.config import read_endpoint_config
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import parse_settings

DATA = Path(__file__).parent.parent / "data" / "endpoints"
COMMON = {"on_conflict": "rebase", "on_publish_error": "raise"}


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
        assert load(MongoConfig, "rasa_mongod.yml").store_kwargs() == COMMON | {
            "host": "mongodb://mongo:27017/?tls=true",
            "db": "conversations",
            "username": "rasa",
            "password": "s3cr3t",
            "auth_source": "admin",
            "collection": "trackers",
        }

    def test_defaults_of_rasa(self):
        assert parse(MongoConfig).store_kwargs() == COMMON | {
            "host": "mongodb://localhost:27017",
            "db": "rasa",
            "auth_source": "admin",
            "collection": "conversations",
        }

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
        ],
    )
    def test_wrong(self, settings, words):
        assert words in problem(DynamoConfig, **settings)
