"""From an `event_broker` section to the broker.

Rasa's rules (`rasa/core/brokers/broker.py`). Nothing here connects to anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tracker_store_async import registry
from tracker_store_async.broker import EventBroker
from tracker_store_async.brokers.broker_config import BrokerConfig
from tracker_store_async.config import EVENT_BROKER, EndpointConfig
from tracker_store_async.construction import call_with_settings, parameter_names
from tracker_store_async.errors import ConfigurationError
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
from tracker_store_async.settings import Section, parse_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_BROKER_TYPE = "pika"
"""What Rasa takes an event broker without a type for."""


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
    config = as_config(endpoint_config, EVENT_BROKER)
    if config.type is None:
        config = EndpointConfig(**{**config.as_dict(), "type": DEFAULT_BROKER_TYPE})
    type_name = type_name_of(config, EVENT_BROKER)
    builtin = registry.find_builtin(type_name, registry.BROKERS)
    if builtin is not None:
        return _build_builtin_broker(*builtin, config)
    found = registry.load_third_party(
        type_name, registry.BROKERS, registry.BROKER_ENTRY_POINTS, EVENT_BROKER
    )
    return _build_broker(found, type_name, config)


def _build_builtin_broker(
    name: str, registration: registry.Registration, config: EndpointConfig
) -> EventBroker:
    settings, strict = split_settings(config, EVENT_BROKER)
    if registration.target is None or registration.config is None:
        found = builtin_class(name, registration, registry.BROKERS, EVENT_BROKER)
        return _build_broker(found, name, config)
    model = registry.load_builtin(registration.config, name, None, EVENT_BROKER)
    keys: Section = parse_settings(
        model, settings, where=EVENT_BROKER, type_name=name, strict=strict
    )
    need_driver(keys, name, EVENT_BROKER)
    found = builtin_class(name, registration, registry.BROKERS, EVENT_BROKER)
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
    refuse_abstract(found, EVENT_BROKER)
    settings, strict = split_settings(config, EVENT_BROKER)
    common = _take_common_keys(found, settings, type_name)
    from_endpoint_config = getattr(found, "from_endpoint_config", None)
    with naming(found, EVENT_BROKER):
        if from_endpoint_config is not None:
            broker = from_endpoint_config(config)
        else:
            where, keys = EVENT_BROKER, settings
            others = [*BrokerConfig.model_fields, *BrokerConfig.other_keys]
            broker = call_with_settings(
                found, keys, {}, where=where, strict=strict, others=others
            )
    refuse_coroutine(broker, found, EVENT_BROKER)
    # Method names prove nothing: those of Rasa's brokers are the same.
    if EventBroker not in type(broker).__mro__:
        raise ConfigurationError(
            f"{EVENT_BROKER}: {name_of(found)} must be a subclass of "
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
