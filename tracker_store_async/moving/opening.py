"""Which stores a move is between, opened so that a source stays as it is.

A source creates nothing, upgrades nothing and publishes nothing; what Rasa wrote is
read in place. A target is opened as an application would. Neither has a fail-safe: what
cannot be written must be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.config import TRACKER_STORE
from tracker_store_async.config import read_endpoint_config as read_section
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.inspection.opening import creates_nothing, without_fail_safe
from tracker_store_async.wrappers.base import innermost

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async.config import EndpointConfig
    from tracker_store_async.store import TrackerStore


def read_config(path: Path) -> EndpointConfig:
    """Return the `tracker_store` section of an endpoints file.

    Raises:
        ConfigurationError: The file is wrong, or has none.
    """
    config = read_section(path, TRACKER_STORE)
    if config is None:
        raise ConfigurationError(f"{path}: has no {TRACKER_STORE} section")
    return config


def source_store(config: EndpointConfig) -> TrackerStore:
    """Return a store to read from; opening it changes nothing that is stored.

    Args:
        config: Its section.

    Raises:
        ConfigurationError: It is wrong.
    """
    settings = config.as_dict()
    creates_nothing(settings)
    return as_source(without_fail_safe(settings))


def as_source(store: TrackerStore) -> TrackerStore:
    """Have a store that is not open yet change nothing when it opens.

    Neither tables nor indexes nor versions are created, and an SQL database that Rasa
    wrote and nobody has upgraded is read in place.

    Args:
        store: The store.

    Returns:
        The store.

    Raises:
        ConfigurationError: It is open already.
    """
    backend = innermost(store)
    if backend._loop is not None:
        raise ConfigurationError("as_source() is for a store that is not open yet")
    backend._creates_layout = False
    if hasattr(backend, "_reads_rasa_layout"):
        backend._reads_rasa_layout = True
    return store


def target_store(config: EndpointConfig) -> TrackerStore:
    """Return a store to write to, without a fail-safe.

    Args:
        config: Its section.

    Raises:
        ConfigurationError: It is wrong.
    """
    return without_fail_safe(config.as_dict())
