"""`WrapperTrackerStore`: the base of what wraps a store, below `save`.

A wrapper is a store of its own: its `save`, `retrieve` and all other shared bodies work
on its own primitives, and these call the primitives of the wrapped store::

    caller -> wrapper.save -> broker.publish (once) -> wrapper._append
                                                    -> wrapped._append -> storage

`save` is never forwarded, so an event is published once however many wrappers there
are. Everything that a store is configured with stays with the wrapped store, and is
read and set there through the wrapper. A subclass overrides primitives, and calls
`super()` for what it leaves to the wrapped store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.loading import TrackerLoader
from tracker_store_async.locks import LoopLock
from tracker_store_async.saving import Saver
from tracker_store_async.saving_many import one_by_one
from tracker_store_async.store import TrackerStore, is_tracker_store
from tracker_store_async.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tracker_store_async.relay import Outbox
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Health,
        Listing,
        NewRow,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )
    from tracker_store_async.side_database import SideTable
    from tracker_store_async.slots import Slot
    from tracker_store_async.tracker import DialogueStateTracker


def forwarded(name: str) -> Any:
    """Return a property that reads and sets an attribute of the wrapped store.

    Args:
        name: The attribute.
    """

    def read(wrapper: WrapperTrackerStore) -> Any:
        return getattr(wrapper._wrapped, name)

    def write(wrapper: WrapperTrackerStore, value: Any) -> None:
        setattr(wrapper._wrapped, name, value)

    return property(read, write, doc=f"The wrapped store's `{name}`.")


def innermost(store: TrackerStore) -> TrackerStore:
    """Return the store within all wrappers: the backend."""
    while isinstance(store, WrapperTrackerStore):
        store = store._wrapped
    return store


class WrapperTrackerStore(TrackerStore):
    """Wraps a store and changes nothing.

    It owns the store that it wraps: opening and closing it, or using it as a context
    manager, does the same to the wrapped store, and to the broker in its place. Public
    attributes that only the wrapped store has are found through it too.

    Args:
        wrapped: The store. It must not be open on another event loop.

    Raises:
        ConfigurationError: It is not a `TrackerStore`.
    """

    _wrapped: TrackerStore

    # What a store is configured with, and what it counts.
    backend_name = forwarded("backend_name")
    domain = forwarded("domain")
    event_broker = forwarded("event_broker")
    max_event_history = forwarded("max_event_history")
    on_conflict = forwarded("on_conflict")
    record_exp = forwarded("record_exp")
    conflict_count = forwarded("conflict_count")
    _domain = forwarded("_domain")
    _max_event_history = forwarded("_max_event_history")
    _on_publish_error = forwarded("_on_publish_error")
    _publisher = forwarded("_publisher")
    _tells_logs_apart = forwarded("_tells_logs_apart")
    _creates_layout = forwarded("_creates_layout")
    _upgrades_layout = forwarded("_upgrades_layout")
    _lazy_events = forwarded("_lazy_events")
    _keeps_columns = forwarded("_keeps_columns")
    _seals = forwarded("_seals")
    _renews_credentials = forwarded("_renews_credentials")
    _observer = forwarded("_observer")
    outbox = forwarded("outbox")
    _stores_message_bodies = forwarded("_stores_message_bodies")

    _carries_outbox = False
    """Whether every append reaches the wrapped store whole: then it may have an outbox.

    Its relay is run by the outermost store, who has the broker."""

    def __init__(self, wrapped: TrackerStore) -> None:
        # Not the Protocol's own: it would set the options of the wrapped store anew.
        check_wrapped(wrapped, type(self).__name__, carries_outbox=self._carries_outbox)
        self._wrapped = wrapped
        self._relay = None
        self._loop_turns = Turns()
        self._loader = TrackerLoader(self)
        self._saver = Saver(self)
        self._loop = None
        self._closed = False
        self._opening = LoopLock()
        # One of them opens and closes the broker, and it is the one that is used.
        self.owns_broker = wrapped.owns_broker
        wrapped.owns_broker, wrapped._is_wrapped = False, True

    def __getattr__(self, name: str) -> Any:
        """Return what only the wrapped store has, such as `serialise_tracker`."""
        if name.startswith("_"):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )
        return getattr(self._wrapped, name)

    @property
    def upgrade_schema(self) -> Callable[[], Awaitable[None]]:
        """The wrapped store's method, where it has one, and then the wrapper's table.

        What is kept in another database is created there with the layout.
        """
        upgrade = self._wrapped.upgrade_schema  # type: ignore[attr-defined]

        async def upgrade_all() -> None:
            await upgrade()
            table = self._side_table()
            if table is not None:
                await table.create()

        return upgrade_all

    def _side_table(self) -> SideTable | None:
        """Return the table that the wrapper keeps in a database of its own, or None."""
        return None

    def _now(self) -> float:
        return self._wrapped._now()

    def _new_tracker(
        self, sender_id: str, *, max_event_history: int | None = None
    ) -> DialogueStateTracker:
        return self._wrapped._new_tracker(
            sender_id, max_event_history=max_event_history
        )

    def _slots(self) -> Iterable[Slot] | None:
        return self._wrapped._slots()

    def _pool_use(self) -> dict[str, int]:
        return self._wrapped._pool_use()

    def _check_size(
        self, sender_id: str, rows: Sequence[NewRow], snapshot: str
    ) -> None:
        self._wrapped._check_size(sender_id, rows, snapshot)

    def _open_outbox(self) -> Outbox | None:
        return self._wrapped._open_outbox()

    # -- primitives --------------------------------------------------------------------

    async def _open(self) -> None:
        await self._wrapped.open()

    async def _close(self) -> None:
        await self._wrapped.close()

    async def _append(self, append: Append) -> bool:
        await self._wrapped._ensure_open()
        return await self._wrapped._append(append)

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        if self._appends_otherwise_than(WrapperTrackerStore):
            return await one_by_one(self._append, appends)
        return await self._forward_many(appends)

    def _appends_otherwise_than(self, wrapper: type[WrapperTrackerStore]) -> bool:
        """Whether a subclass of a wrapper overrides `_append`, and so a batch, too."""
        return type(self)._append is not wrapper._append

    async def _forward_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        """Have the wrapped store append; an error of its own is that of each."""
        if not appends:
            return []
        try:
            await self._wrapped._ensure_open()
            return await self._wrapped._append_many(appends)
        except Exception as error:  # noqa: BLE001  it is handed over
            return [error] * len(appends)

    async def _read(self, read: Read) -> StoredConversation | None:
        await self._wrapped._ensure_open()
        return await self._wrapped._read(read)

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        await self._wrapped._ensure_open()
        if version is None:  # so a store may do without what prune alone asks for
            return await self._wrapped._delete(sender_id, before, now)
        return await self._wrapped._delete(sender_id, before, now, version)

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        await self._wrapped._ensure_open()
        return await self._wrapped._rewrite(rewrite)

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        await self._wrapped._ensure_open()
        return await self._wrapped._list(listing)

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        await self._wrapped._ensure_open()
        return await self._wrapped._upkeep(apply=apply)

    async def _health(self) -> Health:
        await self._wrapped._ensure_open()
        return await self._wrapped._health()


def side_tables(store: TrackerStore) -> list[SideTable]:
    """Return the tables that wrappers keep in other databases, the outermost first."""
    found: list[SideTable] = []
    while isinstance(store, WrapperTrackerStore):
        table = store._side_table()
        if table is not None:
            found.append(table)
        store = store._wrapped
    return found


def check_wrapped(store: object, wrapper: str, *, carries_outbox: bool = False) -> None:
    """Check that an object is a store that can be wrapped.

    Args:
        store: The object.
        wrapper: Name of the wrapper's class, for the error.
        carries_outbox: Whether the store may have an outbox.

    Raises:
        ConfigurationError: It is not.
    """
    if not is_tracker_store(store):
        raise ConfigurationError(
            f"{wrapper} wraps a TrackerStore, not {type(store).__name__}: a store with "
            "Rasa's methods is wrapped in AwaitableTrackerStore first"
        )
    if store.outbox and not carries_outbox:
        raise ConfigurationError(
            f"{wrapper} cannot wrap a store that has an outbox, since what it keeps "
            "elsewhere would not get into it: use one of the two "
            "(RetryingTrackerStore, AuditedTrackerStore and CachedTrackerStore go "
            "with an outbox)"
        )
