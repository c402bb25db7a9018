"""Which store and broker types there are, and where each one lives.

A new backend is one line here. Others bring their own without touching this file: a
distribution names its class, or a function that returns a store, under an entry point
of the group `tracker_store_async.stores`; the name of the entry point is the `type`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import MissingExtraError, UnknownStoreTypeError
from tracker_store_async.settings import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = "tracker_store_async"
DISTRIBUTION = "tracker-store-async"
STORE_ENTRY_POINTS = "tracker_store_async.stores"
BROKER_ENTRY_POINTS = "tracker_store_async.brokers"


@dataclass(frozen=True, slots=True)
class Registration:
    """One built-in type.

    Attributes:
        target: `module:Class`, or None where this version does not have it yet.
        config: `module:Class` of its configuration, or None where it has none.
        extra: The extra that installs its driver, or None.
        aliases: Other names of the type.
    """

    target: str | None
    config: str | None = None
    extra: str | None = None
    aliases: tuple[str, ...] = ()


_BACKENDS = f"{PACKAGE}.backends"
_BROKERS = f"{PACKAGE}.brokers"

STORES: dict[str, Registration] = {
    "in_memory": Registration(
        f"{_BACKENDS}.memory:InMemoryTrackerStore",
        f"{_BACKENDS}.memory_config:InMemoryConfig",
        aliases=("inmemory", "memory"),
    ),
    # The extra of SQL depends on the dialect: its configuration knows.
    "sql": Registration(
        f"{_BACKENDS}.sql:SQLTrackerStore", f"{_BACKENDS}.sql.config:SQLConfig"
    ),
    "redis": Registration(
        f"{_BACKENDS}.redis:RedisTrackerStore",
        f"{_BACKENDS}.redis_config:RedisConfig",
        "redis",
    ),
    "mongod": Registration(
        f"{_BACKENDS}.mongo:MongoTrackerStore",
        f"{_BACKENDS}.mongo_config:MongoConfig",
        "mongo",
        ("mongo", "mongodb"),
    ),
    "dynamo": Registration(
        f"{_BACKENDS}.dynamo:DynamoTrackerStore",
        f"{_BACKENDS}.dynamo_config:DynamoConfig",
        "dynamo",
        ("dynamodb",),
    ),
}

BROKERS: dict[str, Registration] = {
    "recording": Registration(f"{_BROKERS}.recording:RecordingBroker"),
    "pika": Registration(
        f"{_BROKERS}.pika:PikaEventBroker",
        f"{_BROKERS}.pika_config:PikaConfig",
        "pika",
        ("rabbitmq",),
    ),
    "kafka": Registration(
        f"{_BROKERS}.kafka:KafkaEventBroker",
        f"{_BROKERS}.kafka_config:KafkaConfig",
        "kafka",
    ),
    "nats": Registration(
        f"{_BROKERS}.nats:NatsEventBroker", f"{_BROKERS}.nats_config:NatsConfig", "nats"
    ),
    "sql": Registration(
        f"{_BROKERS}.sql:SQLEventBroker", f"{_BROKERS}.sql_config:SQLBrokerConfig"
    ),
    "file": Registration(
        f"{_BROKERS}.file:FileEventBroker", f"{_BROKERS}.file_config:FileBrokerConfig"
    ),
    "redis": Registration(
        f"{_BROKERS}.redis:RedisEventBroker",
        f"{_BROKERS}.redis_config:RedisBrokerConfig",
        "redis",
    ),
}

_HINTS = dict.fromkeys(
    ("postgresql", "postgres", "sqlite", "mysql", "mariadb", "oracle"),
    "write 'type: sql' and name the database as 'dialect'",
)


def find_builtin(
    type_name: str, registrations: Mapping[str, Registration]
) -> tuple[str, Registration] | None:
    """Return name and registration of a built-in type, or None; case is ignored.

    Args:
        type_name: The configured type, or an alias of it.
        registrations: `STORES` or `BROKERS`.
    """
    wanted = type_name.strip().lower().replace("-", "_")
    for name, registration in registrations.items():
        if wanted == name or wanted in registration.aliases:
            return name, registration
    return None


def load_third_party(
    type_name: str, registrations: Mapping[str, Registration], group: str, where: str
) -> Any:
    """Return the class or function behind an entry point or a dotted path.

    Args:
        type_name: Name of an entry point, `package.module.Class`, or
            `package.module:Class`.
        registrations: The built-in types, for the hint at the nearest one.
        group: Group of entry points to look in.
        where: What errors begin with, such as `tracker_store`.

    Raises:
        UnknownStoreTypeError: There is no such type, or it cannot be imported.
    """
    entry_points = importlib.metadata.entry_points(group=group)
    for entry_point in entry_points:
        if entry_point.name == type_name:
            return _load(entry_point, f"{where}: type '{type_name}'")
    if "." in type_name or ":" in type_name:
        return _import(type_name, f"{where}: type '{type_name}'")
    names = {*registrations, *entry_points.names}
    names.update(*(entry.aliases for entry in registrations.values()))
    hint = _HINTS.get(type_name.lower()) or suggest(
        type_name, names, f"known types: {', '.join(sorted(names))}"
    )
    raise UnknownStoreTypeError(f"{where}: unknown type '{type_name}'; {hint}")


def load_builtin(path: str, name: str, extra: str | None, where: str) -> Any:
    """Return the class of a built-in type, or of its configuration.

    Args:
        path: Where it lives, as `module:Class`.
        name: Its type, for errors.
        extra: The extra that installs what its module imports, or None.
        where: What errors begin with.

    Raises:
        MissingExtraError: Its module imports a package that is not installed.
    """
    return load_part(path, extra, f"{where}: type {name}")


def load_part(path: str, extra: str | None, what: str) -> Any:
    """Return the object at `module:name` of this package.

    Args:
        path: Where it lives.
        extra: The extra that installs what its module imports, or None.
        what: What wants it, for errors.

    Raises:
        MissingExtraError: Its module imports a package that is not installed.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if extra is None or missing == PACKAGE:
            raise
        raise missing_extra(what, missing, extra) from error


def missing_extra(what: str, module: str, extra: str) -> MissingExtraError:
    """Return the error that says how to install what something needs."""
    return MissingExtraError(
        f"{what} needs the package '{module}': pip install '{DISTRIBUTION}[{extra}]'"
    )


def _load(entry_point: importlib.metadata.EntryPoint, what: str) -> Any:
    what = f"{what} (entry point {entry_point.value})"
    _import_module(entry_point.module, what)
    try:
        return entry_point.load()
    except AttributeError as error:
        raise UnknownStoreTypeError(f"{what} cannot be imported: {error}") from error


def _import(path: str, what: str) -> Any:
    module_name, name = _split(path, what)
    module = _import_module(module_name, what)
    found = getattr(module, name, None)
    if not callable(found):
        own = vars(module)
        # `dir` also names what a module loads only when it is asked for.
        classes = [key for key in dir(module) if callable(own.get(key, callable))]
        hint = suggest(name, classes, "check the name")
        raise UnknownStoreTypeError(
            f"{what}: module '{module_name}' has no class '{name}'; {hint}"
        )
    return found


def _import_module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnknownStoreTypeError(
            f"{what} cannot be imported: {error}; "
            "its directory or package must be on the Python path"
        ) from error
    except Exception as error:
        # Not its text: that is somebody else's, and may hold anything.
        raise UnknownStoreTypeError(
            f"{what} cannot be imported: its module raises {type(error).__name__}"
        ) from error


def _split(path: str, what: str) -> tuple[str, str]:
    found = re.fullmatch(r"([\w.]*\w)[.:](\w+)", path)
    if found is None or path.startswith("."):
        raise UnknownStoreTypeError(
            f"{what} is not a path to a class; write 'package.module.Class'"
        )
    return found[1], found[2]
