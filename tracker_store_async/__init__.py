"""Conversation history for assistants and agents, as an append-only event log.

Importing the package imports no driver: every public name is loaded when it is first
used. Start with :class:`TrackerStore` in `store.py`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker_store_async import errors as errors
    from tracker_store_async import events as events
    from tracker_store_async.backends.dynamo import (
        DynamoTrackerStore as DynamoTrackerStore,
    )
    from tracker_store_async.backends.memory import (
        InMemoryTrackerStore as InMemoryTrackerStore,
    )
    from tracker_store_async.backends.mongo import (
        MongoTrackerStore as MongoTrackerStore,
    )
    from tracker_store_async.backends.redis import (
        RedisTrackerStore as RedisTrackerStore,
    )
    from tracker_store_async.backends.sql import SQLTrackerStore as SQLTrackerStore
    from tracker_store_async.broker import EventBroker as EventBroker
    from tracker_store_async.broker import EventMessage as EventMessage
    from tracker_store_async.broker_factory import (
        create_event_broker as create_event_broker,
    )
    from tracker_store_async.config import AvailableEndpoints as AvailableEndpoints
    from tracker_store_async.config import EndpointConfig as EndpointConfig
    from tracker_store_async.consuming import RepeatFilter as RepeatFilter
    from tracker_store_async.domain import Domain as Domain
    from tracker_store_async.factory import (
        create_tracker_store as create_tracker_store,
    )
    from tracker_store_async.factory import load_tracker_store as load_tracker_store
    from tracker_store_async.rows import ConversationSummary as ConversationSummary
    from tracker_store_async.rows import Health as Health
    from tracker_store_async.serialization import (
        SerializedTrackerAsDict as SerializedTrackerAsDict,
    )
    from tracker_store_async.serialization import (
        SerializedTrackerAsText as SerializedTrackerAsText,
    )
    from tracker_store_async.serialization import (
        SerializedTrackerRepresentation as SerializedTrackerRepresentation,
    )
    from tracker_store_async.store import TrackerStore as TrackerStore
    from tracker_store_async.sync import SyncTrackerStore as SyncTrackerStore
    from tracker_store_async.tracker import (
        DialogueStateTracker as DialogueStateTracker,
    )
    from tracker_store_async.tracker import EventVerbosity as EventVerbosity
    from tracker_store_async.wrappers.awaitable import (
        AwaitableTrackerStore as AwaitableTrackerStore,
    )
    from tracker_store_async.wrappers.cached import (
        CachedTrackerStore as CachedTrackerStore,
    )
    from tracker_store_async.wrappers.failsafe import (
        FailSafeTrackerStore as FailSafeTrackerStore,
    )
    from tracker_store_async.wrappers.retrying import (
        RetryingTrackerStore as RetryingTrackerStore,
    )

_MODULES = {
    "AvailableEndpoints": "config",
    "AwaitableTrackerStore": "wrappers.awaitable",
    "CachedTrackerStore": "wrappers.cached",
    "ConversationSummary": "rows",
    "DialogueStateTracker": "tracker",
    "Domain": "domain",
    "DynamoTrackerStore": "backends.dynamo",
    "EndpointConfig": "config",
    "EventBroker": "broker",
    "EventMessage": "broker",
    "EventVerbosity": "tracker",
    "FailSafeTrackerStore": "wrappers.failsafe",
    "Health": "rows",
    "InMemoryTrackerStore": "backends.memory",
    "MongoTrackerStore": "backends.mongo",
    "RedisTrackerStore": "backends.redis",
    "RepeatFilter": "consuming",
    "RetryingTrackerStore": "wrappers.retrying",
    "SQLTrackerStore": "backends.sql",
    "SerializedTrackerAsDict": "serialization",
    "SerializedTrackerAsText": "serialization",
    "SerializedTrackerRepresentation": "serialization",
    "SyncTrackerStore": "sync",
    "TrackerStore": "store",
    "create_event_broker": "broker_factory",
    "create_tracker_store": "factory",
    "load_tracker_store": "factory",
}

__all__ = ["__version__", "errors", "events", *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
