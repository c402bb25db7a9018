"""What the command line says of a store and its layout: check it, show it, upgrade it.

Only `upgrade_schema` changes anything.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from typing import TYPE_CHECKING, NamedTuple, cast

from rich.text import Text

from tracker_store_async import __version__, registry
from tracker_store_async.errors import (
    SchemaError,
    SchemaTooNewError,
    SchemaUpgradeRequiredError,
)
from tracker_store_async.factory import create_tracker_store
from tracker_store_async.inspection.opening import (
    NOT_CREATED,
    check_file,
    may_create_tables,
    reading_store,
)
from tracker_store_async.inspection.terminal import (
    duration,
    json_text,
    print_line,
    printable,
)
from tracker_store_async.wrappers.base import (
    WrapperTrackerStore,
    innermost,
    side_tables,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tracker_store_async.backends.sql import SQLTrackerStore
    from tracker_store_async.inspection.targets import Target
    from tracker_store_async.rows import Health
    from tracker_store_async.store import TrackerStore

CURRENT = "current"
"""How `SQLTrackerStore.schema_state` begins where the store can be used."""


async def check_store(console: Console, target: Target) -> bool:
    """Connect, print what there is, and return whether the store can be used.

    Raises:
        TrackerStoreError: The store cannot be reached, or not as it is configured.
    """
    check_file(target)
    store = reading_store(target)
    _check_journal(target)
    rows = {"store": target.label, "package": f"tracker_store_async {__version__}"}
    rows["package"] += f", Python {platform.python_version()}"
    usable = True
    if hasattr(store, "schema_state"):
        started = time.perf_counter()
        state = await cast("SQLTrackerStore", store).schema_state()
        rows["connected"] = f"in {duration(time.perf_counter() - started)}"
        rows["layout"], usable = _judge(state, target)
    if usable and not rows.get("layout", "").startswith(NOT_CREATED):
        async with store:
            await store.health()  # the first one warms up what the second measures
            health = await store.health()
        usable = health.reachable
        if "layout" not in rows and usable:
            rows["layout"] = _layout_of(health, target)
        rows |= _health_rows(health)
        if hasattr(store, "schema_state"):
            rows["driver"] += f", SQLAlchemy {importlib.metadata.version('sqlalchemy')}"
    _print_rows(console, rows)
    return usable


def _check_journal(target: Target) -> None:
    """Check where a fail-safe would keep an outage: `reading_store` has none."""
    from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore

    store = create_tracker_store(target.config)
    while isinstance(store, WrapperTrackerStore):
        if isinstance(store, FailSafeTrackerStore):
            store.check_journal()
        store = store._wrapped


def _judge(state: str, target: Target) -> tuple[str, bool]:
    """Return what to say about a layout, and whether the store can be used with it."""
    if state.startswith(CURRENT):
        return state, True
    if state.startswith(NOT_CREATED):
        if not may_create_tables(target):
            return f"{state}, and create_tables is false", False
        return f"{state}: the first use of the store creates it", True
    if "upgrade" in state:
        return f"{state}: tracker-store schema upgrade {target.option}".rstrip(), False
    return state, False


def _layout_of(health: Health, target: Target) -> str:
    """Return what to say about a layout that is no SQL database's; may be nothing."""
    if health.schema_version is not None:
        return f"{CURRENT} ({health.schema_version})"
    is_builtin = registry.find_builtin(str(target.config.type), registry.STORES)
    if is_builtin is None or health.backend == "in_memory":
        return ""
    return _judge(NOT_CREATED, target)[0]


def _health_rows(health: Health) -> dict[str, str]:
    details = dict(health.details)
    driver = str(details.pop("driver", ""))
    server = " ".join(filter(None, [health.backend, health.server_version]))
    rows = {"server": server, "driver": _versions(driver)}
    for name, value in details.items():
        if name != "schema" and value not in ({}, None):
            rows[name] = json_text(value)
    rows["latency"] = duration(health.latency_seconds)
    if health.error:
        rows["problem"] = health.error
    return rows


def _versions(driver: str) -> str:
    """Return the driver and its version, where it is the name of a distribution."""
    try:
        return f"{driver} {importlib.metadata.version(driver)}" if driver else ""
    except importlib.metadata.PackageNotFoundError:
        return driver


def _print_rows(console: Console, rows: dict[str, str]) -> None:
    width = max(11, *(len(name) + 2 for name in rows))
    for name, value in rows.items():
        if value:
            line = Text.assemble((name.ljust(width), "dim"), printable(value))
            console.print(line, soft_wrap=True)


async def show_schema(console: Console, target: Target) -> bool:
    """Print the state of the layout, and return whether it can be used.

    Raises:
        TrackerStoreError: The store cannot be reached.
    """
    check_file(target)
    store = reading_store(target)
    text, usable = _judge(await layout_state(store), target)
    rows = {"store": target.label, "layout": text}
    for each in await _kept_beside(store):
        rows[each.name], can_be_used = each.judged(target)
        usable = usable and can_be_used
    _print_rows(console, rows)
    return usable


class _Beside(NamedTuple):
    """What has tables beside the layout: an outbox, an audit trail, data keys."""

    name: str
    is_there: bool
    place: str = ""

    def judged(self, target: Target) -> tuple[str, bool]:
        """Return what to say of it, and whether the store can be used with it."""
        if self.is_there:
            return f"created{self.place}", True
        if not self.place and not may_create_tables(target):
            return f"{NOT_CREATED}, and create_tables is false", False
        created = "the first use of the store creates it"
        return f"{NOT_CREATED}{self.place}: {created}", True


async def _kept_beside(store: TrackerStore) -> list[_Beside]:
    """Return what the configuration has beside the layout; nothing is created."""
    inner, found = innermost(store), []
    if inner.outbox and hasattr(inner, "outbox_is_there"):
        is_there = await cast("SQLTrackerStore", inner).outbox_is_there()
        found.append(_Beside("outbox", is_there))
    for table in side_tables(store):
        is_there = await table.is_there()
        found.append(_Beside(table.name, is_there, f" in {table.place}"))
    return found


async def layout_state(store: TrackerStore) -> str:
    """Return what layout a store that is not open has, in the words of `schema_state`.

    Raises:
        TrackerStoreError: The store cannot be reached.
    """
    if hasattr(store, "schema_state"):
        return await cast("SQLTrackerStore", store).schema_state()
    store = innermost(store)  # what wraps it would create tables of its own
    try:
        async with store:
            version = (await store.health()).schema_version
    except (SchemaTooNewError, SchemaUpgradeRequiredError) as error:
        return str(error).partition(": run ")[0]  # the command for it is told anyway
    if store.backend_name == "in_memory":
        raise SchemaError("a store of type in_memory has no layout to show or upgrade")
    return NOT_CREATED if version is None else f"{CURRENT} ({version})"


async def print_schema_sql(target: Target) -> None:
    """Print the statements that create what is missing; nothing is changed.

    Those for other databases follow a comment that names the database.

    Raises:
        SchemaError: The store has none, or they cannot be written down.
        TrackerStoreError: The store cannot be reached.
    """
    check_file(target)
    store = reading_store(target)
    inner, others, lines = innermost(store), side_tables(store), []
    if hasattr(inner, "schema_sql"):
        statements = await cast("SQLTrackerStore", inner).schema_sql()
        lines = [f"{statement};" for statement in statements]
    elif not others:
        raise SchemaError(f"a store of type {store.backend_name} has no statements")
    for table in others:
        if not await table.is_there():
            lines.append(printable(f"-- {table.name}, in {table.place}:"))
            lines += [f"{statement};" for statement in table.statements()]
    for line in lines or ["-- the layout is current: there is nothing to do"]:
        print_line(line)


async def upgrade_schema(console: Console, target: Target) -> None:
    """Upgrade the layout, or create it, and print what it was and is.

    What the configuration has beside it, such as an outbox, is created as well.

    Raises:
        SchemaError: It cannot be upgraded.
        TrackerStoreError: The store cannot be reached.
    """
    check_file(target)
    store = reading_store(target)
    before, beside = await layout_state(store), await _kept_beside(store)
    if hasattr(store, "upgrade_schema"):
        await cast("SQLTrackerStore", store).upgrade_schema()
    else:
        upgraded = reading_store(target)
        upgraded._creates_layout = upgraded._upgrades_layout = True
        async with upgraded:
            pass
    rows = {"store": target.label, "before": before, "now": await layout_state(store)}
    for each in beside:
        rows[each.name] = f"{'was there' if each.is_there else 'created'}{each.place}"
    _print_rows(console, rows)
