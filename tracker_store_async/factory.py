"""From configuration to tracker stores and event brokers.

Rasa's rules (`rasa/core/tracker_store.py`, `rasa/core/brokers/broker.py`) with one
difference: what cannot be understood is an error, and never an in-memory store.
Nothing here connects to anything.
"""

from __future__ import annotations

import importlib.util
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from tracker_store_async import registry, secrets_manager
from tracker_store_async.broker import EventBroker
from tracker_store_async.brokers.broker_config import BrokerConfig
from tracker_store_async.config import (
    EVENT_BROKER,
    TRACKER_STORE,
    EndpointConfig,
    read_endpoint_config,
    section_config,
)
from tracker_store_async.construction import call_with_settings, parameter_names
from tracker_store_async.domain import Domain
from tracker_store_async.errors import ConfigurationError, TrackerStoreError
from tracker_store_async.redaction import get_logger
from tracker_store_async.relay import publish_seconds_of
from tracker_store_async.secrets_manager import SecretLogin, take_login
from tracker_store_async.settings import (
    Count,
    Section,
    StoreConfig,
    parse_settings,
)
from tracker_store_async.store import TrackerStore, is_tracker_store
from tracker_store_async.wrapping import take_wrapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

logger = get_logger(__name__)

DEFAULT_BROKER_TYPE = "pika"
"""What Rasa takes an event broker without a type for."""


def load_tracker_store(
    endpoints_path: str | Path, domain: Domain | None = None
) -> TrackerStore:
    """Return the store that an endpoints file describes, with its event broker.

    A file without a `tracker_store` section gives an in-memory store, as in Rasa, and a
    warning in the log. Closing the store closes the broker.

    Args:
        endpoints_path: Path of the file.
        domain: Gives new trackers their slots.

    Raises:
        ConfigurationError: The file or one of the two sections is wrong.
    """
    store_config = read_endpoint_config(endpoints_path, TRACKER_STORE)
    broker_config = read_endpoint_config(endpoints_path, EVENT_BROKER)
    if store_config is None:
        logger.warning(
            "%s has no %s section: conversations are kept in memory only",
            endpoints_path,
            TRACKER_STORE,
        )
    broker = create_event_broker(broker_config)
    store = create_tracker_store(store_config, domain, broker)
    store.owns_broker = broker is not None
    return store


def create_tracker_store(
    endpoint_config: EndpointConfig | Mapping[str, Any] | None = None,
    domain: Domain | None = None,
    event_broker: EventBroker | None = None,
) -> TrackerStore:
    """Return the store that a `tracker_store` section describes.

    Args:
        endpoint_config: The section, also as a plain mapping; None is an in-memory
            store, as in Rasa. `type` is a built-in type, the name of an entry point, or
            the dotted path of a class, which is called with `host` (the url), `domain`,
            `event_broker` and the other keys. A class with Rasa's methods, sync or
            async, is wrapped. `retry` and `fail_safe` wrap a store of any type.
        domain: Gives new trackers their slots.
        event_broker: Gets every event before it is stored.

    Raises:
        UnknownStoreTypeError: The type is unknown or cannot be imported.
        MissingExtraError: The driver is not installed; the text says how to.
        ConfigurationError: A key is unknown, missing or has a wrong value.
    """
    if endpoint_config is None:
        endpoint_config = EndpointConfig(type="in_memory")
    config = _as_config(endpoint_config, TRACKER_STORE)
    type_name = _type_name(config, TRACKER_STORE)
    settings, strict = _settings(config, TRACKER_STORE)
    builtin = registry.find_builtin(type_name, registry.STORES)
    create_inner = _inheriting(settings)
    login = take_login(settings, TRACKER_STORE)
    if builtin is not None:
        name, registration = builtin
        wrapping = take_wrapping(settings, (), where=TRACKER_STORE, strict=strict)
        store = _build_builtin_store(
            name, registration, settings, domain, event_broker, login, strict=strict
        )
        return wrapping.apply(store, create_inner)
    if login is not None:
        raise ConfigurationError(
            f"{TRACKER_STORE}: a secrets manager keeps the login of the types sql, "
            "redis and mongod only"
        )
    found = registry.load_third_party(
        type_name, registry.STORES, registry.STORE_ENTRY_POINTS, TRACKER_STORE
    )
    own = parameter_names(found)
    wrapping = take_wrapping(settings, own, where=TRACKER_STORE, strict=strict)
    store = _build_third_party_store(
        found, settings, domain, event_broker, strict=strict
    )
    return wrapping.apply(store, create_inner)


def create_event_broker(
    endpoint_config: EndpointConfig | Mapping[str, Any] | None,
) -> EventBroker | None:
    """Return the broker that an `event_broker` section describes, or None for None.

    Args:
        endpoint_config: The section, also as a plain mapping. `type` is a built-in
            type, the name of an entry point, or the dotted path of a subclass of
            `EventBroker`. If that has a `from_endpoint_config`, it is called with the
            section (it must not be async), else the class with the section's keys.

    Raises:
        UnknownStoreTypeError: The type is unknown or cannot be imported.
        MissingExtraError: The driver is not installed; the text says how to.
        ConfigurationError: The broker cannot be made from this section.
    """
    if endpoint_config is None:
        return None
    config = _as_config(endpoint_config, EVENT_BROKER)
    if config.type is None:
        config = EndpointConfig(**{**config.as_dict(), "type": DEFAULT_BROKER_TYPE})
    type_name = _type_name(config, EVENT_BROKER)
    builtin = registry.find_builtin(type_name, registry.BROKERS)
    if builtin is not None:
        return _build_builtin_broker(*builtin, config)
    found = registry.load_third_party(
        type_name, registry.BROKERS, registry.BROKER_ENTRY_POINTS, EVENT_BROKER
    )
    return _build_broker(found, type_name, config)


# -- sections --------------------------------------------------------------------------


def _as_config(
    section: EndpointConfig | Mapping[str, Any], where: str
) -> EndpointConfig:
    if isinstance(section, EndpointConfig):
        return section
    return section_config(where, section)


def _type_name(config: EndpointConfig, where: str) -> str:
    if config.type is None:
        raise ConfigurationError(
            f"{where}: has no 'type'; write 'type: in_memory' to keep conversations in "
            f"memory, or one of {', '.join(registry.STORES)}"
        )
    if not isinstance(config.type, str) or not config.type.strip():
        raise ConfigurationError(f"{where}.type: must be text")
    return config.type.strip()


def _settings(config: EndpointConfig, where: str) -> tuple[dict[str, Any], bool]:
    """Return the keys but `type`, and whether unknown ones are errors."""
    settings = config.as_dict()
    settings.pop("type", None)
    strict = settings.pop("strict", True)
    try:
        return settings, TypeAdapter(bool).validate_python(strict)
    except ValidationError:
        raise ConfigurationError(f"{where}.strict: must be true or false") from None


# -- stores ----------------------------------------------------------------------------


def _build_builtin_store(
    name: str,
    registration: registry.Registration,
    settings: dict[str, Any],
    domain: Domain | None,
    event_broker: EventBroker | None,
    login: SecretLogin | None,
    *,
    strict: bool,
) -> TrackerStore:
    assert registration.config is not None  # noqa: S101 - every store has one
    model = registry.load_builtin(registration.config, name, None, TRACKER_STORE)
    _check_outbox(model, name, settings)
    config: StoreConfig = parse_settings(
        model, settings, where=TRACKER_STORE, type_name=name, strict=strict
    )
    _need_driver(config, name, TRACKER_STORE)
    store_class = _builtin_class(name, registration, registry.STORES, TRACKER_STORE)
    arguments = config.store_kwargs()
    if login is not None:
        _need_driver(login.config, login.config.type, secrets_manager.SECTION)
        arguments |= login.arguments()
    store: TrackerStore = store_class(
        domain=domain, event_broker=event_broker, **arguments
    )
    if store.outbox and event_broker is not None:
        publish_seconds_of(event_broker)  # says what does not go together
    return store


def _inheriting(
    settings: Mapping[str, Any],
) -> Callable[[dict[str, Any]], TrackerStore]:
    """Return what makes a fallback, with the secrets manager of the store around it."""

    def create(section: dict[str, Any]) -> TrackerStore:
        return create_tracker_store(secrets_manager.hand_on(section, given))

    given = dict(settings)
    return create


def _check_outbox(
    model: type[StoreConfig], name: str, settings: dict[str, Any]
) -> None:
    """Refuse an outbox where there is none; `false` says what is so anyway."""
    if "outbox" in model.model_fields:
        return
    if settings.pop("outbox", False) is not False:
        raise ConfigurationError(
            f"{TRACKER_STORE}.outbox: type {name} cannot store messages with a save: "
            "take the type sql or mongod, or leave it out to publish before storing"
        )


def _need_driver(config: Section, name: str, where: str) -> None:
    driver = config.required_driver()
    if driver is not None and importlib.util.find_spec(driver.module) is None:
        what = f"{where}: type {name}"
        raise registry.missing_extra(what, driver.module, driver.extra)


def _builtin_class(
    name: str,
    registration: registry.Registration,
    registrations: Mapping[str, registry.Registration],
    where: str,
) -> Any:
    if registration.target is None:
        built = ", ".join(key for key, entry in registrations.items() if entry.target)
        raise ConfigurationError(
            f"{where}: type {name} is not part of this version yet; it has: {built}"
        )
    return registry.load_builtin(registration.target, name, registration.extra, where)


def _build_third_party_store(
    found: Callable[..., Any],
    settings: dict[str, Any],
    domain: Domain | None,
    event_broker: EventBroker | None,
    *,
    strict: bool,
) -> TrackerStore:
    _refuse_abstract(found, TRACKER_STORE)
    wrapper_options: dict[str, Any] = {}
    # A function gets its keys as they are: only what it returns tells its kind.
    if inspect.isclass(found) and TrackerStore in found.__mro__:
        settings |= _coerce(StoreConfig, settings)
    elif inspect.isclass(found):
        wrapper_options = _take_wrapper_options(found, settings)
        domain = domain or Domain.empty()  # Rasa's stores are always given one
    given = {"host": _host(settings), "domain": domain, "event_broker": event_broker}
    keys = {key: value for key, value in settings.items() if key not in ("host", "url")}
    with _naming(found, TRACKER_STORE):
        store = call_with_settings(
            found, keys, given, where=TRACKER_STORE, strict=strict, base=StoreConfig
        )
    _refuse_coroutine(store, found, TRACKER_STORE)
    return store if is_tracker_store(store) else _wrap(store, found, wrapper_options)


def _wrap(store: Any, found: Any, options: Mapping[str, Any]) -> TrackerStore:
    from tracker_store_async.wrappers.awaitable import AwaitableTrackerStore

    try:
        return AwaitableTrackerStore(store, **options)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{TRACKER_STORE}: {_name(found)} returns no store: {error}"
        ) from error


class _WrapperConfig(StoreConfig):
    """The keys that :class:`AwaitableTrackerStore` takes for a store that it wraps."""

    save_scope: Literal["auto", "all_events", "latest_session"] = "auto"
    max_workers: Count = 8


def _take_wrapper_options(found: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Move those keys to the wrapper that the class has no parameter of its own for.

    `record_exp` stays: only the store itself can let conversations expire.
    """
    own = {"record_exp", *parameter_names(found)}
    options = {
        key: settings.pop(key)
        for key in _WrapperConfig.model_fields.keys() - own
        if key in settings
    }
    return _coerce(_WrapperConfig, options)


def _coerce(model: type[StoreConfig], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings that the model knows, with their types coerced."""
    given = {k: v for k, v in settings.items() if k in model.model_fields}
    config = parse_settings(model, given, where=TRACKER_STORE, type_name="TrackerStore")
    return {name: getattr(config, name) for name in given}


def _host(settings: Mapping[str, Any]) -> Any:
    if "host" in settings and "url" in settings:
        raise ConfigurationError(
            f"{TRACKER_STORE}: 'url' and 'host' mean the same; keep one"
        )
    return settings.get("host", settings.get("url"))


# -- brokers ---------------------------------------------------------------------------


def _build_builtin_broker(
    name: str, registration: registry.Registration, config: EndpointConfig
) -> EventBroker:
    settings, strict = _settings(config, EVENT_BROKER)
    if registration.target is None or registration.config is None:
        found = _builtin_class(name, registration, registry.BROKERS, EVENT_BROKER)
        return _build_broker(found, name, config)
    model = registry.load_builtin(registration.config, name, None, EVENT_BROKER)
    keys: Section = parse_settings(
        model, settings, where=EVENT_BROKER, type_name=name, strict=strict
    )
    _need_driver(keys, name, EVENT_BROKER)
    found = _builtin_class(name, registration, registry.BROKERS, EVENT_BROKER)
    arguments = keys.constructor_kwargs()
    on_publish_error = arguments.pop("on_publish_error", None)
    broker: EventBroker = found(**arguments)
    if on_publish_error is not None:
        broker.on_publish_error = on_publish_error
    return broker


def _build_broker(
    found: Callable[..., Any], type_name: str, config: EndpointConfig
) -> EventBroker:
    """Return somebody else's broker; the keys of every broker are seen to here."""
    _refuse_abstract(found, EVENT_BROKER)
    settings, strict = _settings(config, EVENT_BROKER)
    common = _take_common_keys(found, settings, type_name)
    from_endpoint_config = getattr(found, "from_endpoint_config", None)
    with _naming(found, EVENT_BROKER):
        if from_endpoint_config is not None:
            broker = from_endpoint_config(config)
        else:
            where, keys = EVENT_BROKER, settings
            broker = call_with_settings(
                found, keys, {}, where=where, strict=strict, base=BrokerConfig
            )
    _refuse_coroutine(broker, found, EVENT_BROKER)
    # Method names prove nothing: those of Rasa's brokers are the same.
    if EventBroker not in type(broker).__mro__:
        raise ConfigurationError(
            f"{EVENT_BROKER}: {_name(found)} must be a subclass of "
            "tracker_store_async.EventBroker, with an async publish(message)"
        )
    if common.on_publish_error is not None:
        broker.on_publish_error = common.on_publish_error
    given = "timeout_seconds" in common.model_fields_set
    has_own = "timeout_seconds" in parameter_names(found)
    if not has_own and (given or not hasattr(broker, "timeout_seconds")):
        broker.timeout_seconds = common.timeout_seconds
    return cast(EventBroker, broker)


def _take_common_keys(
    found: Callable[..., Any], settings: dict[str, Any], type_name: str
) -> BrokerConfig:
    """Take the keys that every broker has; those with a parameter stay as well."""
    names = BrokerConfig.model_fields.keys() & settings.keys()
    given = {name: settings.pop(name) for name in names}
    common = parse_settings(
        BrokerConfig, given, where=EVENT_BROKER, type_name=type_name
    )
    for name in common.model_fields_set & parameter_names(found):
        settings[name] = getattr(common, name)
    return common


# -- checks ----------------------------------------------------------------------------


def _name(found: Any) -> str:
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}.{named.__qualname__}"


@contextmanager
def _naming(found: Any, where: str) -> Iterator[None]:
    """Say whose class or function raised, but not its words: they may hold anything.

    Raises:
        ConfigurationError: It raised something that is not an error of ours.
    """
    try:
        yield
    except TrackerStoreError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"{where}: {_name(found)} cannot be made: it raises {type(error).__name__}"
        ) from error


def _refuse_abstract(found: Any, where: str) -> None:
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigurationError(
            f"{where}: {_name(found)} does not implement {lacking}"
        )


def _refuse_coroutine(made: Any, found: Any, where: str) -> None:
    if inspect.iscoroutine(made):
        made.close()  # else Python warns that it was never awaited
        raise ConfigurationError(
            f"{where}: {_name(found)} is made by an async function, and configuration "
            "is read without a loop; await it yourself and hand over what it returns"
        )
