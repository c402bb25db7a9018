"""The keys that every store has, and how whatever is wrong with one is said."""

import logging
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from tracker_store_async.backends.dynamo_config import DynamoConfig
from tracker_store_async.backends.memory_config import InMemoryConfig
from tracker_store_async.backends.mongo_config import MongoConfig
from tracker_store_async.backends.redis_config import RedisConfig
from tracker_store_async.backends.sql.config import SQLConfig
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import (
    Count,
    Port,
    Seconds,
    Secret,
    StoreConfig,
    Text,
    mask_url,
    parse_settings,
)

ALL_CONFIGS = (InMemoryConfig, SQLConfig, RedisConfig, MongoConfig, DynamoConfig)


class Example(StoreConfig):
    aliases: ClassVar = {"url": "host", "timeout": "timeout_seconds"}

    host: Text = "localhost"
    port: Port = 1
    size: Count = 1
    timeout_seconds: Seconds | None = None
    tls: bool = False
    password: Secret | None = None
    options: dict[str, str] = Field(default_factory=dict)


def parse(strict=True, **settings):
    return parse_settings(
        Example, settings, where="tracker_store", type_name="example", strict=strict
    )


def problem(**settings):
    with pytest.raises(ConfigurationError) as raised:
        parse(**settings)
    # A chained pydantic error would bring the values along.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    return str(raised.value)


@pytest.mark.parametrize(
    ("key", "written", "expected"),
    [
        ("tls", "false", False),
        ("tls", "False", False),
        ("tls", "no", False),
        ("tls", "off", False),
        ("tls", "0", False),
        ("tls", 0, False),
        ("tls", "true", True),
        ("tls", "yes", True),
        ("tls", 1, True),
        ("port", "5432", 5432),
        ("port", 5432, 5432),
        ("size", "100", 100),
        ("size", 100.0, 100),
        ("timeout_seconds", "1.5", 1.5),
        ("timeout_seconds", 2, 2.0),
        ("host", 1234, "1234"),
        ("record_exp", "86400", 86400.0),
        ("record_exp", 0, None),
        ("record_exp", "0", None),
        ("record_exp", 0.0, None),
        ("record_exp", "0.0", None),
        ("record_exp", " 00 ", None),
        ("max_event_history", "100", 100),
        ("tls", None, False),
        ("host", None, "localhost"),
        ("on_conflict", "raise", "raise"),
    ],
)
def test_values_are_coerced(key, written, expected):
    value = getattr(parse(**{key: written}), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "written", "reason"),
    [
        ("tls", "yes please", "must be true or false"),
        ("tls", 2, "must be true or false"),
        ("tls", [True], "must be true or false"),
        ("port", "54x32", "must be a whole number"),
        ("port", "", "must be a whole number"),
        ("port", 1.5, "must be a whole number"),
        ("port", 0, "must be greater than or equal to 1"),
        ("port", 65536, "must be less than or equal to 65535"),
        ("port", True, "must be a number"),
        ("size", [1], "must be a whole number"),
        ("timeout_seconds", "soon", "must be a number"),
        ("timeout_seconds", 0, "must be greater than 0"),
        ("timeout_seconds", "nan", "must be a finite number"),
        ("timeout_seconds", "inf", "must be a finite number"),
        ("timeout_seconds", True, "must be a number"),
        ("record_exp", -1, "must be greater than 0"),
        ("record_exp", False, "must be a number"),
        ("max_event_history", 0, "must be greater than or equal to 1"),
        ("host", 1.5, "must be text; put the value in quotes"),
        ("host", True, "must be text; put the value in quotes"),
        ("options", "x", "must hold keys and values"),
        ("on_conflict", "ignore", "must be 'rebase' or 'raise'"),
        ("on_publish_error", "ignore", "must be 'raise' or 'best_effort'"),
    ],
)
def test_wrong_value_names_the_key(key, written, reason):
    expected = f"tracker_store.{key}: {reason}"
    assert problem(**{key: written}) == expected


def test_wrong_value_names_the_key_as_it_was_written():
    assert problem(url=1.5).startswith("tracker_store.url: ")
    assert problem(timeout="soon").startswith("tracker_store.timeout: ")
    assert problem(options={"a": 1.5}).startswith("tracker_store.options.a: ")


def test_every_wrong_value_is_named():
    assert problem(port="x", tls="z") == (
        "tracker_store.port: must be a whole number; "
        "tracker_store.tls: must be true or false"
    )


def test_not_even_pydantics_own_error_shows_the_value():
    with pytest.raises(ValidationError) as raised:
        Example(password=["hunter2"], port="hunter2")
    assert "hunter2" not in str(raised.value)


def test_aliases():
    config = parse(url="h", timeout=3)
    assert (config.host, config.timeout_seconds) == ("h", 3.0)
    assert problem(url="a", host="b") == (
        "tracker_store: 'url' and 'host' mean the same; keep one"
    )
    assert parse(url="a", host=None).host == "a"


def test_typo_names_the_nearest_key():
    assert problem(pasword="x") == (
        "tracker_store: unknown key 'pasword' for type example; "
        "did you mean 'password'?"
    )
    assert "did you mean 'on_conflict'?" in problem(onConflict="raise")
    assert "did you mean 'timeout'?" in problem(timeouts="raise")


def test_key_that_is_like_no_other_lists_the_valid_ones():
    text = problem(zzz=1)
    assert "valid keys: audit, cache, encryption, fail_safe, host, max_event" in text


def test_not_strict_logs_an_unknown_key_and_leaves_it_out(caplog):
    with caplog.at_level(logging.WARNING):
        config = parse(strict=False, pasword="hunter2", port=7)
    assert config.port == 7
    assert config.password is None
    assert "unknown key 'pasword'" in caplog.text
    assert "hunter2" not in caplog.text


def test_not_strict_still_refuses_a_wrong_value():
    with pytest.raises(ConfigurationError, match=r"tracker_store\.port"):
        parse(strict=False, port="x")


def test_store_kwargs_hold_the_secret_and_nothing_that_was_not_given():
    kwargs = parse(password="hunter2", timeout=1).store_kwargs()
    assert kwargs["password"] == "hunter2"
    assert kwargs["timeout_seconds"] == 1.0
    assert "max_event_history" not in kwargs


@pytest.mark.parametrize("model", ALL_CONFIGS)
def test_every_store_has_the_common_keys(model):
    given = {
        "max_event_history": "7",
        "record_exp": "60",
        "on_conflict": "raise",
        "on_publish_error": "best_effort",
    }
    kwargs = parse_settings(model, given, where="x", type_name="y").store_kwargs()
    assert (
        kwargs
        | {
            "max_event_history": 7,
            "record_exp": 60.0,
            "on_conflict": "raise",
            "on_publish_error": "best_effort",
        }
        == kwargs
    )


@pytest.mark.parametrize("model", ALL_CONFIGS)
def test_every_alias_leads_to_a_key(model):
    for alias, field in model.aliases.items():
        assert field in model.model_fields
        assert alias not in model.model_fields


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://:s3cr3t@h:1/0", "redis://***@h:1/0"),
        ("postgresql://u:p@ss/w@h/db?password=x", "postgresql://***@h/db?***"),
        ("mongodb://h/?a=b", "mongodb://h/?***"),
        ("localhost", "localhost"),
        ("user:s3:cr@t@host:1", "***@host:1"),
        ("user@host", "user@host"),
    ],
)
def test_mask_url(url, masked):
    assert mask_url(url) == masked


SECRET = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1
).map(lambda text: f"hunter2{text}")


@given(secret=SECRET, model=st.sampled_from([SQLConfig, RedisConfig, MongoConfig]))
def test_no_error_and_no_repr_holds_the_password(secret, model):
    url = f"{model.__name__}://user:{secret}@host:x/db?password={secret}"
    wrong = [
        {"password": [secret]},
        {"password": secret, "port": secret, "db": {}},
        {"password": secret, "pasword": secret},
        {"url": url},
        {"url": url.replace(model.__name__, "postgresql")},
        {"url": url.replace(model.__name__, "rediss")},
        {"url": url.replace(model.__name__, "mongodb"), "username": "other"},
        {"url": f"redis://:{secret}@host", "password": "other"},
        {"dialect": secret, "deployment_mode": secret, "auth_source": [secret]},
        {"query": {"sslmode": secret}, "endpoints": secret, "collection": [secret]},
    ]
    for settings in wrong:
        assert "hunter2" not in outcome(model, settings)


def outcome(model, settings):
    """Return the text of the error, or the repr of the configuration."""
    try:
        return repr(parse_settings(model, settings, where="x", type_name="y"))
    except ConfigurationError as error:
        return str(error)
