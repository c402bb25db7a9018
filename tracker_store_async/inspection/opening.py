"""Opening a store to look at it: neither a file nor a table nor a version is made."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from tracker_store_async.config import EndpointConfig
from tracker_store_async.errors import TrackerStoreError
from tracker_store_async.factory import create_tracker_store
from tracker_store_async.wrappers.base import innermost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tracker_store_async.backends.sql import SQLTrackerStore
    from tracker_store_async.domain import Domain
    from tracker_store_async.inspection.targets import Target
    from tracker_store_async.store import TrackerStore

NOT_CREATED = "not created"
"""How `SQLTrackerStore.schema_state` begins where there are no tables."""


class NotFoundError(TrackerStoreError):
    """What the command line names does not exist."""


def reading_store(
    target: Target, domain: Domain | None = None, **overrides: Any
) -> TrackerStore:
    """Return the store, so that it creates nothing: without its broker and fail-safe.

    Args:
        target: The store.
        domain: Its domain, or None.
        overrides: Keys of an SQL store that are set for this command alone.
    """
    settings = target.config.as_dict()
    if creates_nothing(settings):
        settings |= overrides
    store = without_fail_safe(settings, domain)
    store._creates_layout = False
    return store


def creates_nothing(settings: dict[str, Any]) -> bool:
    """Have the keys of an SQL store create and upgrade nothing; False for others."""
    if str(settings.get("type")).strip().lower() != "sql":
        return False
    settings |= {"create_tables": False, "auto_upgrade": False}
    settings.pop("login_db", None)
    return True


def without_fail_safe(
    settings: dict[str, Any], domain: Domain | None = None
) -> TrackerStore:
    """Return the store of these keys, its fail-safe checked and left out.

    That would claim a journal, replay what it finds there, and hide that the storage is
    away.
    """
    store = create_tracker_store(EndpointConfig(**settings), domain)
    if settings.get("fail_safe"):
        others = {key: value for key, value in settings.items() if key != "fail_safe"}
        store = create_tracker_store(EndpointConfig(**others), domain)
    return store


def check_file(target: Target) -> None:
    """Check that the SQLite file is there, where the command line names one.

    A file that an endpoints file names may come later; this one may be a typo.

    Raises:
        NotFoundError: There is no such file.
    """
    if target.file is None or target.file.is_file():
        return
    name = repr(str(target.file))
    if target.file.is_dir():
        raise NotFoundError(f"{name} is a directory, not a SQLite file")
    raise NotFoundError(f"there is no SQLite file {name}")


def existing_store(
    target: Target, domain: Domain | None = None, **overrides: Any
) -> TrackerStore:
    """Return the store to look at; where it is a SQLite file, that is there.

    Args:
        target: The store.
        domain: Its domain, or None.
        overrides: Keys of an SQL store that are set for this command alone.

    Raises:
        NotFoundError: There is no such file.
        StoreUnavailableError: There is no folder that it could be in.
    """
    store = reading_store(target, domain, **overrides)
    check_it_exists(store, target)
    return store


def check_it_exists(store: TrackerStore, target: Target) -> None:
    """Check that a store that is a SQLite file is there, whoever names the file.

    Raises:
        NotFoundError: There is no such file.
        StoreUnavailableError: There is no folder that it could be in.
    """
    check_file(target)
    connector = getattr(innermost(store), "_connector", None)
    if connector is not None and connector.is_absent():
        connector.check_folder()
        raise NotFoundError(
            f"nothing is stored in {target.label}: its SQLite file does not exist yet"
        )


async def check_it_has_tables(store: TrackerStore, target: Target) -> None:
    """Check that an SQL store has its tables, before it is opened to look at them.

    Raises:
        NotFoundError: There are none.
        TrackerStoreError: The store cannot be reached.
    """
    if hasattr(store, "schema_state"):
        state = await cast("SQLTrackerStore", store).schema_state()
        if state.startswith(NOT_CREATED):
            raise NotFoundError(
                f"nothing is stored in {target.label}: there are no tables yet"
            )


@asynccontextmanager
async def opened(
    target: Target, domain: Domain | None = None, **overrides: Any
) -> AsyncIterator[TrackerStore]:
    """Open a store that exists, and close it; nothing is created.

    Args:
        target: The store.
        domain: Its domain, or None.
        overrides: Keys of an SQL store that are set for this command alone.

    Raises:
        NotFoundError: There is no such store.
        TrackerStoreError: It cannot be used.
    """
    store = existing_store(target, domain, **overrides)
    await check_it_has_tables(store, target)
    async with store:
        yield store


def may_create_tables(target: Target) -> bool:
    """Whether the store as it is configured creates them; the option may be text."""
    store = innermost(create_tracker_store(target.config))
    return bool(getattr(store, "_create_tables", True))
