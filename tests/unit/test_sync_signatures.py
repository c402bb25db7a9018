"""Every public method of a tracker store is there, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

from tracker_store_async.store import TrackerStore
from tracker_store_async.sync import SyncTrackerStore

LOCAL = {"create", "init_tracker", "deserialise_tracker"}
"""Methods that wait for nothing and so have no `timeout_seconds`."""


def is_property(name):
    return isinstance(inspect.getattr_static(TrackerStore, name), property)


PUBLIC = [name for name in dir(TrackerStore) if not name.startswith("_")]
PROPERTIES = [name for name in PUBLIC if is_property(name)]
METHODS = [name for name in PUBLIC if callable(getattr(TrackerStore, name))]


def test_what_is_compared():
    assert {"save", "retrieve", "conversations", "health", "open", *LOCAL} <= {*METHODS}
    assert PROPERTIES == ["domain", "event_broker", "max_event_history"]


def sync_annotation(annotation):
    return annotation.replace("AsyncIterator", "Iterator")


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_the_same(name):
    theirs = inspect.signature(getattr(TrackerStore, name))
    ours = inspect.signature(getattr(SyncTrackerStore, name))
    parameters = dict(ours.parameters)
    timeout = parameters.pop("timeout_seconds", None)
    assert (timeout is None) is (name in LOCAL)
    if timeout is not None:
        assert timeout.kind is inspect.Parameter.KEYWORD_ONLY
        assert timeout.default is None
        assert timeout.annotation == "float | None"
    if name == "create":
        assert list(parameters) == list(theirs.parameters)
        return
    assert list(parameters.values()) == list(theirs.parameters.values())
    assert ours.return_annotation == sync_annotation(theirs.return_annotation)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_has_to_be_awaited(name):
    method = getattr(SyncTrackerStore, name)
    assert not inspect.iscoroutinefunction(method)
    assert not inspect.isasyncgenfunction(method)


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_can_be_read_and_set(name):
    found = inspect.getattr_static(SyncTrackerStore, name)
    assert isinstance(found, property)
    assert found.fset is not None
