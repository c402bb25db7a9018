"""Reading `endpoints.yml` into `EndpointConfig` and `AvailableEndpoints`."""

from pathlib import Path

import pytest

from tracker_store_async.config import (
    AvailableEndpoints,
    EndpointConfig,
    read_endpoint_config,
)
from tracker_store_async.errors import ConfigurationError

DATA = Path(__file__).parent.parent / "data" / "endpoints"
FULL_ENVIRONMENT = {
    "NLU_URL": "http://nlu",
    "NLU_TOKEN": "nlu-token",
    "MODEL_PASSWORD": "model-password",
    "DB_HOST": "db.example.com",
    "DB_PORT": "5433",
    "DB_USER": "rasa",
    "DB_PASSWORD": "db-password",
    "REDIS_PASSWORD": "redis-password",
    "API_KEY": "api-key",
}


@pytest.fixture
def full_environment(monkeypatch):
    for name, value in FULL_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "endpoints.yml"
        path.write_bytes(text.encode(encoding))
        return path

    return write_file


@pytest.mark.usefixtures("full_environment")
class TestFullFile:
    def test_every_rasa_section_is_there_under_rasas_name(self):
        endpoints = AvailableEndpoints.read_endpoints(DATA / "rasa_full.yml")

        assert endpoints.nlg == EndpointConfig(url="http://localhost:5056/nlg")
        assert endpoints.nlu.token == "nlu-token"
        assert endpoints.action.url == "http://localhost:5055/webhook"
        assert endpoints.model.basic_auth == {
            "username": "model-user",
            "password": "model-password",
        }
        assert endpoints.model.kwargs == {"wait_time_between_pulls": 10}
        assert endpoints.lock_store.type == "redis"
        assert endpoints.event_broker.type == "recording"

    def test_tracker_store_section(self):
        config = AvailableEndpoints.read_endpoints(DATA / "rasa_full.yml").tracker_store

        assert config.type == "SQL"
        assert config.url == "db.example.com:5433"
        assert config.kwargs == {
            "dialect": "postgresql",
            "db": "rasa",
            "username": "rasa",
            "password": "db-password",
            "login_db": "postgres",
            "query": {"sslmode": "require", "application_name": "assistant"},
        }

    def test_sections_of_newer_products_are_kept(self):
        endpoints = AvailableEndpoints.read_endpoints(DATA / "rasa_full.yml")

        assert endpoints.other.keys() == {"model_groups", "vector_store"}
        assert endpoints.other["model_groups"][0]["models"][0]["api_key"] == "api-key"

    def test_no_secret_is_shown(self):
        endpoints = AvailableEndpoints.read_endpoints(DATA / "rasa_full.yml")

        shown = repr(endpoints) + str(endpoints)
        assert "db.example.com" in shown
        for secret in ("nlu-token", "-password", "api-key"):
            assert secret not in shown


def test_one_section_needs_only_its_own_variables(monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "x")
    for name in ("NLU_URL", "DB_HOST"):
        monkeypatch.delenv(name, raising=False)

    config = read_endpoint_config(DATA / "rasa_full.yml", "lock_store")

    assert config == EndpointConfig(
        type="redis", url="localhost", port=6379, password="x", db=1
    )


def test_absent_section_is_none(write):
    assert read_endpoint_config(write("nlg: {url: x}"), "tracker_store") is None
    assert read_endpoint_config(write("# nothing"), "tracker_store") is None
    assert read_endpoint_config("", "tracker_store") is None
    assert read_endpoint_config(None, "tracker_store") is None


@pytest.mark.parametrize("name", ["tracker_store", "event_broker"])
def test_empty_section_of_ours_is_an_error(write, name):
    path = write(f"{name}:\n#  type: redis\n")
    with pytest.raises(ConfigurationError, match=f"^{name}: is empty"):
        read_endpoint_config(path, name)
    assert read_endpoint_config(write("nlu:"), "nlu") is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("tracker-store", "tracker_store"),
        ("tracker_stor", "tracker_store"),
        ("Tracker_Store", "tracker_store"),
        ("trackerstore", "tracker_store"),
        ("event_brokers", "event_broker"),
    ],
)
def test_misspelt_section_is_an_error_and_not_an_in_memory_store(write, given, meant):
    path = write(f"{given}: {{type: redis}}")
    with pytest.raises(ConfigurationError) as raised:
        AvailableEndpoints.read_endpoints(path)
    assert str(raised.value) == f"unknown section '{given}'; did you mean '{meant}'?"


def test_section_that_only_looks_similar_is_left_alone(write):
    text = "vector_store: {type: x}\nlock_store: {type: y}\nchat_store: 1\nbroker: 2"
    endpoints = AvailableEndpoints.read_endpoints(write(text))
    assert endpoints.tracker_store is None


def test_unset_variable_names_its_key(monkeypatch):
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError) as raised:
        read_endpoint_config(DATA / "redis.yml", "tracker_store")
    assert str(raised.value) == (
        "tracker_store.password: the environment variable REDIS_PASSWORD is not set"
    )


class TestFileErrors:
    def test_missing_file(self, tmp_path):
        with pytest.raises(ConfigurationError, match="there is no such endpoints file"):
            read_endpoint_config(tmp_path / "no.yml", "tracker_store")

    def test_directory(self, tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_endpoint_config(tmp_path, "tracker_store")

    def test_not_utf_8(self, write):
        with pytest.raises(ConfigurationError, match="UTF-8"):
            read_endpoint_config(write("nlg: é", "latin-1"), "nlg")

    def test_byte_order_mark_is_no_error(self, write):
        path = write("nlg: {url: é}", "utf-8-sig")
        assert read_endpoint_config(path, "nlg").url == "é"

    @pytest.mark.parametrize("text", ["- a\n- b", "just text", "42"])
    def test_no_sections(self, write, text):
        with pytest.raises(ConfigurationError, match="must hold sections"):
            read_endpoint_config(write(text), "tracker_store")

    @pytest.mark.parametrize("section", ["redis", "[redis]", "{1: x}"])
    def test_section_without_keys(self, write, section):
        path = write(f"tracker_store: {section}")
        with pytest.raises(ConfigurationError, match=r"^tracker_store: must hold keys"):
            read_endpoint_config(path, "tracker_store")

    @pytest.mark.parametrize(
        "line",
        [
            "password: *hunter2",
            "password: &hunter2",
            "password: !hunter2 x",
            "password: %hunter2",
            "password: @hunter2",
            "password: {hunter2",
            "password: 'hunter2",
            "password: hunter2\n  password: hunter2",
            "password: ${A} 'hunter2\n",
            "password: hunter2: x",
        ],
    )
    def test_no_yaml_error_quotes_a_value(self, write, line, monkeypatch):
        monkeypatch.delenv("A", raising=False)
        path = write(f"tracker_store:\n  type: redis\n  {line}\n  x: ]\n")
        with pytest.raises(ConfigurationError) as raised:
            read_endpoint_config(path, "tracker_store")
        assert "hunter2" not in str(raised.value)
        assert "line" in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__

    @pytest.mark.parametrize(
        "value",
        ["2024-13-45", "2024-02-30T00:00:00", "!!int hunter2", "!!bool hunter2"],
    )
    def test_a_value_that_yaml_cannot_make_is_an_error_of_ours(self, write, value):
        path = write(f"tracker_store:\n  type: redis\n  password: {value}\n")
        with pytest.raises(ConfigurationError, match="quotes") as raised:
            read_endpoint_config(path, "tracker_store")
        assert "hunter2" not in str(raised.value)
        assert str(path) in str(raised.value)

    def test_key_given_twice(self, write):
        path = write("tracker_store:\n  password: one\n  password: two\n")
        with pytest.raises(ConfigurationError, match="same key is given twice at line"):
            read_endpoint_config(path, "tracker_store")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("5432", 5432),
        ("0123", "0123"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("+5", "+5"),
        ("-5", -5),
        ("yes", "yes"),
        ("true", True),
        ("1.5", 1.5),
    ],
)
def test_numbers_in_plain_form_are_numbers_and_others_keep_their_text(
    write, written, expected
):
    config = read_endpoint_config(write(f"nlg: {{x: {written}}}"), "nlg")
    assert config.kwargs["x"] == expected
    assert type(config.kwargs["x"]) is type(expected)


class TestEndpointConfig:
    def test_rasas_attributes(self):
        config = EndpointConfig.from_dict(
            {
                "url": "http://x",
                "type": "redis",
                "params": {"a": 1},
                "headers": {"b": "2"},
                "basic_auth": {"username": "u", "password": "p"},
                "token": "t",
                "token_name": "key",
                "cafile": "ca.pem",
                "db": 0,
            }
        )
        assert (config.url, config.type, config.cafile) == (
            "http://x",
            "redis",
            "ca.pem",
        )
        assert (config.params, config.headers) == ({"a": 1}, {"b": "2"})
        assert config.basic_auth == {"username": "u", "password": "p"}
        assert (config.token, config.token_name) == ("t", "key")
        assert config.kwargs == {"db": 0}

    def test_defaults(self):
        config = EndpointConfig()
        assert config.token_name == "token"
        assert (config.params, config.headers, config.basic_auth) == ({}, {}, {})
        assert config.type is config.url is config.token is None

    def test_store_type_is_another_name_of_type(self):
        assert EndpointConfig(store_type="redis").type == "redis"
        assert EndpointConfig(store_type="redis", type="redis").type == "redis"
        with pytest.raises(ConfigurationError, match="'type' and 'store_type' differ"):
            EndpointConfig(store_type="redis", type="sql")

    def test_copy_is_equal_and_separate(self):
        config = EndpointConfig("http://x", cafile="ca", type="sql", db="a", token="t")
        copy = config.copy()
        assert copy == config
        assert (copy.cafile, copy.type) == ("ca", "sql")  # Rasa's copy forgets them
        copy.kwargs["db"] = "b"
        assert config.kwargs == {"db": "a"}
        assert copy != config

    @pytest.mark.parametrize("key", ["type", "url", "token", "db", "headers"])
    def test_configurations_that_differ_in_a_key_are_not_equal(self, key):
        assert EndpointConfig(**{key: {"a": 1}}) != EndpointConfig()
        assert EndpointConfig() != "text"

    def test_repr_shows_no_secret(self):
        config = EndpointConfig(
            "redis://user:s3cr3t@host/0?password=s3cr3t",
            token="s3cr3t",
            basic_auth={"password": "s3cr3t"},
            headers={"Authorization": "s3cr3t"},
            type="redis",
            password="s3cr3t",
        )
        assert "s3cr3t" not in repr(config) + str(config)
        assert "'password'" in repr(config)
        assert "host/0" in repr(config)
