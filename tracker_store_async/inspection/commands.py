"""What the command line does with a store: show, list, check and upgrade it.

Only `upgrade_schema` changes anything. Everything else opens a store so that neither
a file nor a database nor a table is created, and no layout upgraded.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rich.text import Text

from tracker_store_async import __version__, registry
from tracker_store_async.config import EndpointConfig
from tracker_store_async.domain import Domain
from tracker_store_async.errors import (
    SchemaError,
    SchemaTooNewError,
    SchemaUpgradeRequiredError,
    TrackerStoreError,
)
from tracker_store_async.factory import create_tracker_store
from tracker_store_async.inspection.listing import summary_json, write_table
from tracker_store_async.inspection.terminal import duration, json_text, printable
from tracker_store_async.inspection.timeline import write_conversation
from tracker_store_async.tracker import EventVerbosity
from tracker_store_async.wrappers.base import (
    WrapperTrackerStore,
    innermost,
    side_tables,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from rich.console import Console

    from tracker_store_async.backends.sql import SQLTrackerStore
    from tracker_store_async.inspection.targets import Target
    from tracker_store_async.rows import ConversationSummary, Health
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

NOT_CREATED = "not created"
"""How `SQLTrackerStore.schema_state` begins where there are no tables."""

CURRENT = "current"
"""How it begins where the store can be used."""

_WRITING_KEYS = {"create_tables": False, "auto_upgrade": False}
_CREATING_KEYS = ("login_db",)


class NotFoundError(TrackerStoreError):
    """What the command line names does not exist."""


# -- opening ---------------------------------------------------------------------------


def reading_store(
    target: Target, domain: Domain | None = None, **overrides: Any
) -> TrackerStore:
    """Return the store, so that it creates nothing: without its broker and fail-safe.

    A fail-safe would claim a journal, replay what it finds there, and hide that the
    storage is away.
    """
    settings = target.config.as_dict()
    if _is_sql(settings):
        settings |= _WRITING_KEYS
        for key in _CREATING_KEYS:
            settings.pop(key, None)
        settings |= overrides
    store = create_tracker_store(EndpointConfig(**settings), domain)
    if settings.get("fail_safe"):  # its keys are checked by now
        del settings["fail_safe"]
        store = create_tracker_store(EndpointConfig(**settings), domain)
    store._creates_layout = False
    return store


def _is_sql(settings: dict[str, Any]) -> bool:
    return str(settings.get("type")).strip().lower() == "sql"


def _check_file(target: Target) -> None:
    """Check that the SQLite file is there, where the command line names one.

    A file that an endpoints file names may come later; this one may be a typo.
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
    _check_file(target)
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


def _may_create_tables(target: Target) -> bool:
    """Whether the store as it is configured creates them; the option may be text."""
    store = innermost(create_tracker_store(target.config))
    return bool(getattr(store, "_create_tables", True))


# -- conversations ---------------------------------------------------------------------


async def load_conversation(
    target: Target,
    sender_id: str,
    *,
    all_sessions: bool,
    last: int | None,
    domain_path: Path | None,
) -> DialogueStateTracker:
    """Return one conversation.

    Args:
        target: The store.
        sender_id: The conversation.
        all_sessions: Whether to go back beyond the latest session.
        last: Most events that are wanted, or None for all.
        domain_path: The domain that gives the tracker its slots, or None.

    Raises:
        NotFoundError: There is no such conversation, or no such store.
        TrackerStoreError: The store cannot be used.
    """
    domain = None if domain_path is None else Domain.load(domain_path)
    async with opened(target, domain) as store:
        if not all_sessions:
            store.max_event_history = last
        retrieve = store.retrieve_full_tracker if all_sessions else store.retrieve
        tracker = await retrieve(sender_id)
    if tracker is None:
        raise NotFoundError(f"there is no conversation {sender_id!r} in {target.label}")
    return tracker


def print_conversation(
    console: Console,
    tracker: DialogueStateTracker,
    *,
    last: int | None,
    as_json: bool,
    complete: bool,
) -> None:
    """Print a conversation.

    Args:
        console: Where to print, unless it is JSON.
        tracker: The conversation.
        last: Most events to print, or None for all.
        as_json: Whether to print Rasa's JSON of the tracker.
        complete: Whether to print every event, and values at any length.
    """
    if not as_json:
        write_conversation(console, tracker, last=last, complete=complete)
        return
    state = tracker.current_state(EventVerbosity.ALL)
    if last is not None:
        state["events"] = state["events"][-last:]
    _print_line(json_text(state, indent=2))


async def list_store(
    console: Console,
    target: Target,
    *,
    limit: int,
    user_id: str | None,
    cursor: str | None,
    as_json: bool,
) -> None:
    """Print a line for each conversation.

    Args:
        console: Where to print.
        target: The store.
        limit: Most conversations to print; 0 is all.
        user_id: Only the conversations of this user.
        cursor: Go on after this one.
        as_json: Whether to print JSON.

    Raises:
        TrackerStoreError: The store cannot be used.
    """
    async with opened(target) as store:
        # One more than is shown, to know whether there are more.
        size = min(limit + 1, 500) if limit else 500
        summaries = store.conversations(user_id=user_id, cursor=cursor, page_size=size)
        async with aclosing(cast("AsyncGenerator[ConversationSummary]", summaries)):
            if as_json:
                async for summary in _take(summaries, limit):
                    _print_line(summary_json(summary))
                return
            last = await write_table(console, _take(summaries, limit))
            has_more = bool(limit) and await anext(summaries, None) is not None
    note = ""
    if last is None:
        note = f"no conversations in {target.label}"
    elif has_more:
        cursor = shlex.quote(printable(last.cursor))
        note = f"there are more: --limit 0 shows all, --after {cursor} the next ones"
    if note:
        console.print(Text(note, "dim"), soft_wrap=True)


async def _take(
    summaries: AsyncIterator[ConversationSummary], limit: int
) -> AsyncIterator[ConversationSummary]:
    """Yield the first `limit` ones, or all for 0, and read no further."""
    count = 0
    async for summary in summaries:
        yield summary
        count += 1
        if count == limit:
            return


async def print_keys(target: Target) -> None:
    """Print the sender id of every conversation, in constant memory.

    Raises:
        TrackerStoreError: The store cannot be used.
    """
    async with opened(target) as store:
        summaries = store.conversations()
        async with aclosing(cast("AsyncGenerator[ConversationSummary]", summaries)):
            async for summary in summaries:
                _print_line(printable(summary.sender_id))


def _print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


# -- health and layout -----------------------------------------------------------------


async def check_store(console: Console, target: Target) -> bool:
    """Connect, print what there is, and return whether the store can be used.

    Raises:
        TrackerStoreError: The store cannot be reached, or not as it is configured.
    """
    _check_file(target)
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
        if not _may_create_tables(target):
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
    _check_file(target)
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
        if not self.place and not _may_create_tables(target):
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
    _check_file(target)
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
        _print_line(line)


async def upgrade_schema(console: Console, target: Target) -> None:
    """Upgrade the layout, or create it, and print what it was and is.

    What the configuration has beside it, such as an outbox, is created as well.

    Raises:
        SchemaError: It cannot be upgraded.
        TrackerStoreError: The store cannot be reached.
    """
    _check_file(target)
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
