"""From configuration to the built-in stores."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

import tracker_store_async
from tracker_store_async import registry
from tracker_store_async.backends.memory import InMemoryTrackerStore
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.config import EndpointConfig
from tracker_store_async.domain import Domain
from tracker_store_async.errors import (
    ConfigurationError,
    MissingExtraError,
    UnknownStoreTypeError,
)
from tracker_store_async.factory import create_tracker_store, load_tracker_store
from tracker_store_async.settings import Port, RequiredDriver, StoreConfig
from tracker_store_async.store import TrackerStore, is_tracker_store

DATA = Path(__file__).parent.parent / "data" / "endpoints"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("DB_USER", "DB_PASSWORD", "REDIS_PASSWORD"):
        monkeypatch.setenv(name, "s3cr3t")
    for name in ("POSTGRESQL_SCHEMA", "SQL_POOL_SIZE", "SQL_MAX_OVERFLOW"):
        monkeypatch.delenv(name, raising=False)


def problem(config, error_class=ConfigurationError):
    with pytest.raises(error_class) as raised:
        create_tracker_store(config)
    return str(raised.value)


class ExampleConfig(StoreConfig):
    """Configuration of a type that only these tests have."""

    aliases: ClassVar = {"url": "host"}
    host: str = "localhost"
    port: Port = 1
    driver: str | None = None

    def required_driver(self):
        return RequiredDriver(self.driver, "example") if self.driver else None

    def store_kwargs(self):
        return super().store_kwargs() | {"driver": None}


class ExampleStore(InMemoryTrackerStore):
    """Store of a type that only these tests have."""

    def __init__(self, domain, event_broker, *, host, port, driver, **common):
        super().__init__(domain, event_broker, **common)
        self.place = (host, port)


@pytest.fixture
def example(monkeypatch):
    def register(**changes):
        entry = {
            "target": f"{__name__}:ExampleStore",
            "config": f"{__name__}:ExampleConfig",
            "extra": "example",
            "aliases": ("sample",),
        }
        stores = {
            **registry.STORES,
            "example": registry.Registration(**entry | changes),
        }
        monkeypatch.setattr(registry, "STORES", stores)

    register()
    return register


class TestInMemory:
    def test_no_configuration(self):
        domain, broker = Domain.empty(), RecordingBroker()
        store = create_tracker_store(None, domain, broker)
        assert type(store) is InMemoryTrackerStore
        assert store.domain is domain
        assert store.event_broker is broker
        assert type(create_tracker_store()) is InMemoryTrackerStore

    @pytest.mark.parametrize(
        "name", ["in_memory", "InMemory", "memory", "IN-MEMORY", " in_memory "]
    )
    def test_names(self, name):
        store = create_tracker_store(EndpointConfig(type=name))
        assert type(store) is InMemoryTrackerStore
        store = create_tracker_store({"store_type": name})
        assert type(store) is InMemoryTrackerStore

    def test_deployment_example(self):
        store = load_tracker_store(DATA / "in_memory.yml")
        assert type(store) is InMemoryTrackerStore
        assert store.max_event_history == 100
        assert store.event_broker is None

    def test_common_options(self):
        store = create_tracker_store(
            {
                "type": "in_memory",
                "max_event_history": "7",
                "record_exp": "60",
                "on_conflict": "raise",
            }
        )
        assert (store.max_event_history, store.record_exp) == (7, 60.0)
        assert store.on_conflict == "raise"

    def test_rasas_static_factory(self):
        config = EndpointConfig(type="in_memory", max_event_history=3)
        store = TrackerStore.create(config, Domain.empty())
        assert store.max_event_history == 3
        assert TrackerStore.create(store) is store
        assert type(TrackerStore.create(None)) is InMemoryTrackerStore

    def test_both_ways_are_public(self):
        assert tracker_store_async.load_tracker_store is load_tracker_store
        assert tracker_store_async.create_tracker_store is create_tracker_store

    async def test_it_works(self):
        async with load_tracker_store(DATA / "in_memory.yml") as store:
            tracker = await store.get_or_create_tracker("alice")
            await store.save(tracker)
            assert list(await store.keys()) == ["alice"]


class TestBuiltinTypes:
    @pytest.mark.parametrize("name", ["example", "Example", "SAMPLE"])
    @pytest.mark.usefixtures("example")
    def test_configuration_reaches_the_store(self, name):
        broker = RecordingBroker()
        config = EndpointConfig("h", type=name, port="5432", record_exp=9)
        store = create_tracker_store(config, None, broker)
        assert type(store) is ExampleStore
        assert store.place == ("h", 5432)
        assert store.record_exp == 9.0
        assert store.event_broker is broker

    @pytest.mark.usefixtures("example")
    def test_typo_in_a_key(self):
        assert problem({"type": "Sample", "prot": 1}) == (
            "tracker_store: unknown key 'prot' for type example; did you mean 'port'?"
        )

    @pytest.mark.usefixtures("example")
    def test_typo_without_strict(self, caplog):
        config = {"type": "example", "prot": 1, "port": 2, "strict": "false"}
        with caplog.at_level(logging.WARNING):
            assert create_tracker_store(config).place == ("localhost", 2)
        assert "unknown key 'prot'" in caplog.text

    @pytest.mark.usefixtures("example")
    def test_strict_is_true_or_false(self):
        config = {"type": "example", "strict": "perhaps"}
        assert problem(config) == "tracker_store.strict: must be true or false"

    @pytest.mark.usefixtures("example")
    def test_http_keys_of_an_endpoint_are_unknown_keys(self):
        assert "unknown key 'token'" in problem({"type": "example", "token": "x"})
        assert "unknown key 'headers'" in problem(
            {"type": "example", "headers": {"a": "b"}}
        )

    @pytest.mark.usefixtures("example")
    def test_missing_driver(self):
        text = problem({"type": "example", "driver": "no_such_driver"}, ImportError)
        assert text == (
            "tracker_store: type example needs the package 'no_such_driver': "
            "pip install 'tracker-store-async[example]'"
        )

    def test_missing_import_of_the_backend(self, example, tmp_path, monkeypatch):
        (tmp_path / "half_backend.py").write_text("import no_such_driver.deep")
        monkeypatch.syspath_prepend(tmp_path)
        example(target="half_backend:Store")
        text = problem({"type": "example"}, MissingExtraError)
        assert "'no_such_driver': pip install 'tracker-store-async[example]'" in text

    def test_missing_part_of_this_package_is_no_missing_extra(self, example):
        example(target="tracker_store_async.no_such_module:Store")
        with pytest.raises(ModuleNotFoundError) as raised:
            create_tracker_store({"type": "example"})
        assert not isinstance(raised.value, ConfigurationError)

    def test_type_that_is_not_built_yet_is_validated_first(self, example):
        example(target=None)
        assert problem({"type": "example", "port": "x"}) == (
            "tracker_store.port: must be a whole number"
        )
        assert problem({"type": "example", "port": "1"}).startswith(
            "tracker_store: type example is not part of this version yet; it has: in_"
        )


class TestNoStore:
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("reddis", "did you mean 'redis'?"),
            ("InMemroy", "did you mean 'inmemory'?"),
            ("dynamo_db", "did you mean 'dynamodb'?"),
            ("postgresql", "write 'type: sql' and name the database as 'dialect'"),
            ("zzz", "known types: dynamo, dynamodb, in_memory,"),
        ],
    )
    @pytest.mark.parametrize("strict", [True, False])
    def test_unknown_type_is_never_an_in_memory_store(self, name, hint, strict):
        text = problem({"type": name, "strict": strict}, UnknownStoreTypeError)
        assert text.startswith(f"tracker_store: unknown type '{name}'; {hint}")

    def test_section_without_type(self):
        text = problem({"url": "localhost"})
        assert text.startswith("tracker_store: has no 'type'; write 'type: in_memory'")
        assert problem(EndpointConfig()) == text

    @pytest.mark.parametrize("value", [1, "", " ", ["redis"]])
    def test_type_that_is_no_name(self, value):
        assert problem({"type": value}) == "tracker_store.type: must be text"

    def test_what_is_no_configuration(self):
        assert problem("redis").startswith("tracker_store: must hold keys")
        assert problem(["redis"]).startswith("tracker_store: must hold keys")


class TestFiles:
    def test_no_section_is_in_memory_and_logged(self, tmp_path, caplog):
        path = tmp_path / "endpoints.yml"
        path.write_text("nlg: {url: '${UNSET_AND_NOT_NEEDED}'}")
        with caplog.at_level(logging.WARNING):
            store = load_tracker_store(path)
        assert type(store) is InMemoryTrackerStore
        assert "no tracker_store section" in caplog.text

    async def test_broker_section(self, tmp_path):
        path = tmp_path / "endpoints.yml"
        path.write_text(
            "tracker_store: {type: memory}\nevent_broker: {type: recording}"
        )
        domain = Domain.empty()
        store = load_tracker_store(str(path), domain)
        assert store.domain is domain
        assert type(store.event_broker) is RecordingBroker
        assert store.owns_broker
        async with store:
            await store.get_or_create_tracker("alice")
            (message,) = store.event_broker.messages
        assert (message.sender_id, message.type_name) == ("alice", "action")

    def test_no_broker_section(self):
        assert not load_tracker_store(DATA / "in_memory.yml").owns_broker

    def test_redis_deployment_example_is_made(self, monkeypatch):
        pytest.importorskip("redis", reason="the extra redis is not installed")
        monkeypatch.setenv("REDIS_PASSWORD", "s3cr3t")
        store = load_tracker_store(DATA / "redis.yml")
        assert repr(store) == "<RedisTrackerStore: redis at localhost:6379>"
        assert "s3cr3t" not in repr(store._options)
        assert store.record_exp == 86400.0

    @pytest.mark.parametrize(
        ("name", "driver"),
        [("redis", "redis"), ("mongod", "motor"), ("dynamo", "aioboto3")],
    )
    def test_rasas_other_types_are_built(self, name, driver):
        pytest.importorskip(driver, reason=f"the extra of {name} is not installed")
        assert is_tracker_store(load_tracker_store(DATA / f"rasa_{name}.yml"))


class TestRegistry:
    def test_names_and_aliases_are_unique_and_in_lower_case(self):
        for registrations in (registry.STORES, registry.BROKERS):
            names = list(registrations)
            for entry in registrations.values():
                names.extend(entry.aliases)
            assert len(names) == len(set(names))
            assert [name.lower() for name in names] == names

    @pytest.mark.parametrize("name", [n for n in registry.STORES if n != "sql"])
    def test_everything_registered_can_be_loaded(self, name):
        entry = registry.STORES[name]
        model = registry.load_builtin(entry.config, name, None, "x")
        assert issubclass(model, StoreConfig)
        if entry.target is not None:
            store_class = registry.load_builtin(entry.target, name, None, "x")
            assert TrackerStore in store_class.__mro__

    def test_loading_a_configuration_imports_no_driver(self):
        drivers = ["asyncpg", "asyncmy", "oracledb", "redis", "pymongo", "aioboto3"]
        code = (
            "import sys\n"
            "from tracker_store_async.factory import create_tracker_store\n"
            "for name in ('redis', 'mongod', 'dynamo', 'in_memory'):\n"
            "    try: create_tracker_store({'type': name})\n"
            "    except ValueError: pass\n"
            f"print([name for name in {drivers} if name in sys.modules])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "settings", "other"),
    [
        ("redis", {"type": "redis", "host": "h"}, {"db": 1}),
        ("redis", {"type": "redis", "host": "h"}, {"key_prefix": "a"}),
        ("redis", {"type": "redis", "url": "redis://h/1"}, {"url": "redis://h/2"}),
        ("pymongo", {"type": "mongod", "host": "h"}, {"collection": "a"}),
        ("asyncpg", {"dialect": "postgresql", "host": "h"}, {"schema": "a"}),
        ("aioboto3", {"type": "dynamo"}, {"events_table_name": "abc"}),
    ],
)
def test_a_store_says_which_one_it_is(package, settings, other):
    # A move that was cut off, and a backup since the last one, tell stores apart so.
    pytest.importorskip(package)
    stores = [
        create_tracker_store({"type": "sql", **settings, **more})
        for more in ({}, other)
    ]
    assert repr(stores[0]) != repr(stores[1])
