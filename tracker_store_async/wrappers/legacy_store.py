"""What a legacy store can do: its methods looked at, its settings taken over."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.redaction import get_logger
from tracker_store_async.store import is_tracker_store

if TYPE_CHECKING:
    from collections.abc import Callable

logger = get_logger(__name__)


def check_legacy_store(store: Any) -> None:
    """Check that an object has Rasa's methods.

    Raises:
        ConfigurationError: It has not, or is one of our stores.
    """
    if is_tracker_store(store):
        raise errors.ConfigurationError(
            f"{type(store).__name__} is a TrackerStore already: use it as it is"
        )
    for name in ("save", "retrieve", "keys"):
        if isinstance(store, type) or not callable(getattr(store, name, None)):
            raise errors.ConfigurationError(
                f"{_describe(store)} is no legacy tracker store: it needs to be an "
                f"object with the methods save, retrieve and keys, and has no {name}"
            )


def _describe(store: Any) -> str:
    if isinstance(store, type):
        return f"the class {store.__name__}"
    return f"an object of type {type(store).__name__}"


def full_retrieval(store: Any) -> Callable[..., Any]:
    """Return the method that retrieves all sessions, or `retrieve` if there is none.

    Rasa's inherited `retrieve_full_tracker` awaits `self.retrieve`, which fails where a
    subclass made that sync: then the latter is all that such a store has.
    """
    retrieve: Callable[..., Any] = store.retrieve
    retrieve_all: Any = getattr(store, "retrieve_full_tracker", None)
    if not callable(retrieve_all):
        return retrieve
    is_async = inspect.iscoroutinefunction
    if is_async(retrieve_all) and not is_async(retrieve):
        for owner in type(store).__mro__:
            if "retrieve_full_tracker" in vars(owner):
                break
            if "retrieve" in vars(owner):
                return retrieve
    full: Callable[..., Any] = retrieve_all
    return full


def take_over(store: Any, name: str) -> Any:
    """Return an attribute of the legacy store and leave None in its place.

    Raises:
        ConfigurationError: It cannot be set: it would take effect twice.
    """
    value = getattr(store, name, None)
    if value is None:
        return None
    try:
        setattr(store, name, None)
    except AttributeError:
        logger.debug("%s has a fixed %s", type(store).__name__, name)
    if getattr(store, name) is not None:
        raise errors.ConfigurationError(
            f"the attribute {name} of {type(store).__name__} cannot be set to None, so "
            "it would take effect twice: make the legacy store without it"
        )
    return value


def takes_nothing(method: Callable[..., Any]) -> bool:
    """Whether a method can be called without an argument."""
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):
        return False
    return True
