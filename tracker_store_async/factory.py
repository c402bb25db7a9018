"""From a `tracker_store` section to the store, with the broker of the same file.

Rasa's rules (`rasa/core/tracker_store.py`) with one difference: what cannot be
understood is an error, and never an in-memory store. Nothing here connects to anything.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from tracker_store_async import registry, secrets_manager
from tracker_store_async.broker_factory import create_event_broker
from tracker_store_async.config import (
    EVENT_BROKER,
    TRACKER_STORE,
    EndpointConfig,
    read_endpoint_config,
)
from tracker_store_async.construction import call_with_settings, parameter_names
from tracker_store_async.domain import Domain
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.redaction import get_logger
from tracker_store_async.relay import publish_seconds_of
from tracker_store_async.secrets_manager import SecretLogin, take_login
from tracker_store_async.sections import (
    as_config,
    builtin_class,
    name_of,
    naming,
    need_driver,
    refuse_abstract,
    refuse_coroutine,
    split_settings,
    type_name_of,
)
from tracker_store_async.settings import Count, StoreConfig, parse_settings
from tracker_store_async.store import TrackerStore, is_tracker_store
from tracker_store_async.wrapping import take_wrapping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tracker_store_async.broker import EventBroker

logger = get_logger(__name__)


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
    config = as_config(endpoint_config, TRACKER_STORE)
    type_name = type_name_of(config, TRACKER_STORE)
    settings, strict = split_settings(config, TRACKER_STORE)
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
    need_driver(config, name, TRACKER_STORE)
    store_class = builtin_class(name, registration, registry.STORES, TRACKER_STORE)
    arguments = config.store_kwargs()
    if login is not None:
        need_driver(login.config, login.config.type, secrets_manager.SECTION)
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


def _build_third_party_store(
    found: Callable[..., Any],
    settings: dict[str, Any],
    domain: Domain | None,
    event_broker: EventBroker | None,
    *,
    strict: bool,
) -> TrackerStore:
    refuse_abstract(found, TRACKER_STORE)
    wrapper_options: dict[str, Any] = {}
    # A function gets its keys as they are: only what it returns tells its kind.
    if inspect.isclass(found) and TrackerStore in found.__mro__:
        settings |= _coerce(StoreConfig, settings)
    elif inspect.isclass(found):
        wrapper_options = _take_wrapper_options(found, settings)
        domain = domain or Domain.empty()  # Rasa's stores are always given one
    given = {"host": _host(settings), "domain": domain, "event_broker": event_broker}
    keys = {key: value for key, value in settings.items() if key not in ("host", "url")}
    with naming(found, TRACKER_STORE):
        where, others = TRACKER_STORE, StoreConfig.other_keys
        store = call_with_settings(
            found, keys, given, where=where, strict=strict, others=others
        )
    refuse_coroutine(store, found, TRACKER_STORE)
    return store if is_tracker_store(store) else _wrap(store, found, wrapper_options)


def _wrap(store: Any, found: Any, options: Mapping[str, Any]) -> TrackerStore:
    from tracker_store_async.wrappers.awaitable import AwaitableTrackerStore

    try:
        return AwaitableTrackerStore(store, **options)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{TRACKER_STORE}: {name_of(found)} returns no store: {error}"
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
