"""`retry` and `fail_safe` in `endpoints.yml`, for a store of any type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker
from tracker_store_async import (
    AwaitableTrackerStore,
    CachedTrackerStore,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    RetryingTrackerStore,
    SQLTrackerStore,
    create_tracker_store,
    errors,
)
from tracker_store_async.factory import load_tracker_store

if TYPE_CHECKING:
    from pathlib import Path


class OwnStore(InMemoryTrackerStore):
    """A third party's store."""

    def __init__(self, host: str | None = None, **options: Any) -> None:
        super().__init__(**options)


class Greedy:
    """A legacy store that has a `retry` of its own."""

    def __init__(self, domain: Any, host: str | None = None, retry: int = 0) -> None:
        self.retry = retry

    def save(self, tracker: Any) -> None:
        """Save nothing."""

    def retrieve(self, sender_id: str) -> None:
        """Find nothing."""

    def keys(self) -> list[str]:
        """List nothing."""
        return []


def test_nothing_is_wrapped_unasked() -> None:
    assert type(create_tracker_store({"type": "in_memory"})) is InMemoryTrackerStore
    off = {"type": "in_memory", "retry": False, "fail_safe": False}
    assert type(create_tracker_store(off)) is InMemoryTrackerStore


@pytest.mark.parametrize(
    ("section", "inner"),
    [
        ({"type": "in_memory"}, InMemoryTrackerStore),
        ({"type": "sql", "dialect": "sqlite", "db": "x.db"}, SQLTrackerStore),
        ({"type": f"{__name__}.OwnStore"}, OwnStore),
        ({"type": "tests.unit.legacy_stores.JSONTextStore"}, AwaitableTrackerStore),
    ],
)
def test_a_store_of_any_type(section: dict[str, Any], inner: type) -> None:
    store = create_tracker_store(
        {
            **section,
            "retry": {"attempts": 5, "budget_seconds": "2.5"},
            "fail_safe": {"timeout_seconds": 1},
        }
    )
    assert isinstance(store, FailSafeTrackerStore)
    retrying = store._wrapped
    assert isinstance(retrying, RetryingTrackerStore)
    assert (retrying._attempts, retrying._budget_seconds) == (5, 2.5)
    assert store._timeout_seconds == 1
    assert type(retrying._wrapped) is inner


def test_true_is_the_defaults() -> None:
    store = create_tracker_store(
        {"type": "in_memory", "retry": True, "fail_safe": True}
    )
    assert isinstance(store, FailSafeTrackerStore)
    assert isinstance(store._wrapped, RetryingTrackerStore)
    assert store._wrapped._attempts == 3


def test_journal_and_fallback(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal.db")
    store = create_tracker_store(
        {"type": "in_memory", "fail_safe": {"journal": journal}}
    )
    assert isinstance(store, FailSafeTrackerStore)
    assert store._journal == journal
    store = create_tracker_store(
        {"type": "in_memory", "fail_safe": {"fallback": {"type": "sql", "db": "x.db"}}}
    )
    assert isinstance(store, FailSafeTrackerStore)
    assert isinstance(store.fallback_tracker_store, SQLTrackerStore)


def test_a_class_with_a_key_of_that_name_keeps_it() -> None:
    store = create_tracker_store({"type": f"{__name__}.Greedy", "retry": 7})
    assert isinstance(store, AwaitableTrackerStore)
    assert store._legacy.retry == 7


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"retry": {"atempts": 3}}, "tracker_store.retry: unknown key 'atempts'.*att"),
        ({"retry": {"attempts": 0}}, "tracker_store.retry.attempts: "),
        ({"retry": {"budget_seconds": "soon"}}, "retry.budget_seconds: must be a num"),
        ({"retry": 3}, "tracker_store.retry: must be true, false, or hold keys"),
        ({"fail_safe": "journal.db"}, "tracker_store.fail_safe: must be true"),
        ({"fail_safe": {"journal": 1.5}}, "fail_safe.journal: must be text"),
        ({"fail_safe": {"fallback": {"type": "x"}}}, "unknown type"),
        (
            {"fail_safe": {"journal": "x.db", "fallback": {"type": "in_memory"}}},
            "give one of them",
        ),
    ],
)
def test_wrong_keys(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        create_tracker_store({"type": "in_memory", **keys})


async def test_from_a_file_with_a_broker_that_it_owns(tmp_path: Path) -> None:
    endpoints = tmp_path / "endpoints.yml"
    endpoints.write_text(
        "tracker_store:\n  type: in_memory\n  fail_safe: true\n"
        "event_broker:\n  type: recording\n"
    )
    async with load_tracker_store(endpoints) as store:
        await store.create_tracker("x")
        assert store.owns_broker
        assert len(store.event_broker.messages) == 1  # type: ignore[union-attr]


def test_the_broker_and_the_domain_are_the_inner_stores() -> None:
    broker = FailingBroker()
    store = create_tracker_store({"type": "in_memory", "retry": True}, None, broker)
    assert store.event_broker is broker


def test_a_cache_is_outermost() -> None:
    section = {"type": "in_memory", "fail_safe": True, "cache": {"max_trackers": "7"}}
    store = create_tracker_store(section)
    assert isinstance(store, CachedTrackerStore)
    assert store.max_trackers == 7
    assert isinstance(store._wrapped, FailSafeTrackerStore)


def test_what_cannot_be_cached_says_so() -> None:
    section = {"type": "tests.unit.legacy_stores.JSONTextStore", "cache": True}
    with pytest.raises(errors.ConfigurationError, match="out of date"):
        create_tracker_store(section)


@pytest.mark.parametrize("key", ["max_tracker", "max_bytes"])
def test_a_wrong_key_of_the_cache_is_named(key: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"cache.*{key}"):
        create_tracker_store({"type": "in_memory", "cache": {key: 0}})


@pytest.mark.parametrize("kind", ["in_memory", "sql"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("retrys", "retry"),
        ("rtery", "retry"),
        ("failsafe", "fail_safe"),
        ("fail-safe", "fail_safe"),
        ("caches", "cache"),
        ("encrypt", "encryption"),
        ("ecnryption", "encryption"),
        ("audits", "audit"),
        ("stict", "strict"),
    ],
)
def test_a_misspelt_key_of_every_store_is_named(
    kind: str, written: str, meant: str
) -> None:
    with pytest.raises(errors.ConfigurationError) as raised:
        create_tracker_store({"type": kind, written: True})
    assert str(raised.value) == (
        f"tracker_store: unknown key '{written}' for type {kind}; "
        f"did you mean '{meant}'?"
    )


def test_all_valid_keys_are_listed_by_their_documented_names() -> None:
    with pytest.raises(errors.ConfigurationError) as raised:
        create_tracker_store({"type": "sql", "zzz": True})
    listed = str(raised.value).partition("valid keys: ")[2].split(", ")
    every = {"strict", "retry", "fail_safe", "cache", "encryption", "audit"}
    assert every < set(listed)
    assert "schema" in listed
    assert "schema_name" not in listed
    assert listed == sorted(listed)
