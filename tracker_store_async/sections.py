"""What stores and brokers have in common when they are made from a section.

A section of an endpoints file names a type and its keys; the type may be somebody
else's class or function, which gets a clear error if nothing can be made with it.
"""

from __future__ import annotations

import importlib.util
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tracker_store_async import registry
from tracker_store_async.config import EndpointConfig, section_config
from tracker_store_async.errors import ConfigurationError, TrackerStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracker_store_async.settings import Section


def as_config(
    section: EndpointConfig | Mapping[str, Any], where: str
) -> EndpointConfig:
    """Return a section that may be a plain mapping.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(section, EndpointConfig):
        return section
    return section_config(where, section)


def type_name_of(config: EndpointConfig, where: str) -> str:
    """Return the type that a section names, without spaces around it.

    Raises:
        ConfigurationError: It names none.
    """
    if config.type is None:
        raise ConfigurationError(
            f"{where}: has no 'type'; write 'type: in_memory' to keep conversations in "
            f"memory, or one of {', '.join(registry.STORES)}"
        )
    if not isinstance(config.type, str) or not config.type.strip():
        raise ConfigurationError(f"{where}.type: must be text")
    return config.type.strip()


def split_settings(config: EndpointConfig, where: str) -> tuple[dict[str, Any], bool]:
    """Return the keys but `type`, and whether unknown ones are errors.

    Raises:
        ConfigurationError: `strict` is neither true nor false.
    """
    settings = config.as_dict()
    settings.pop("type", None)
    strict = settings.pop("strict", True)
    try:
        return settings, TypeAdapter(bool).validate_python(strict)
    except ValidationError:
        raise ConfigurationError(f"{where}.strict: must be true or false") from None


def need_driver(config: Section, name: str, where: str) -> None:
    """Check that the driver of a built-in type is installed, without importing it.

    Raises:
        MissingExtraError: It is not; the text says how to.
    """
    driver = config.required_driver()
    if driver is not None and importlib.util.find_spec(driver.module) is None:
        what = f"{where}: type {name}"
        raise registry.missing_extra(what, driver.module, driver.extra)


def builtin_class(
    name: str,
    registration: registry.Registration,
    registrations: Mapping[str, registry.Registration],
    where: str,
) -> Any:
    """Return the class of a built-in type.

    Raises:
        ConfigurationError: This version has none.
        MissingExtraError: Its driver is not installed; the text says how to.
    """
    if registration.target is None:
        built = ", ".join(key for key, entry in registrations.items() if entry.target)
        raise ConfigurationError(
            f"{where}: type {name} is not part of this version yet; it has: {built}"
        )
    return registry.load_builtin(registration.target, name, registration.extra, where)


# -- what somebody else wrote ----------------------------------------------------------


def name_of(found: Any) -> str:
    """Return the dotted name of a class or function, or of an object's class."""
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}.{named.__qualname__}"


@contextmanager
def naming(found: Any, where: str) -> Iterator[None]:
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
            f"{where}: {name_of(found)} cannot be made: it raises "
            f"{type(error).__name__}"
        ) from error


def refuse_abstract(found: Any, where: str) -> None:
    """Refuse a class of which there can be no object.

    Raises:
        ConfigurationError: It says what the class does not implement.
    """
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigurationError(
            f"{where}: {name_of(found)} does not implement {lacking}"
        )


def refuse_coroutine(made: Any, found: Any, where: str) -> None:
    """Refuse what an async function made.

    Raises:
        ConfigurationError: Nobody can await it here.
    """
    if inspect.iscoroutine(made):
        made.close()  # else Python warns that it was never awaited
        raise ConfigurationError(
            f"{where}: {name_of(found)} is made by an async function, and "
            "configuration is read without a loop; await it yourself and hand over "
            "what it returns"
        )
