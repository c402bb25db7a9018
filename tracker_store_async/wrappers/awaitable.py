"""`AwaitableTrackerStore`: a store with Rasa's methods, sync or async, awaited."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from tracker_store_async import errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.config import EndpointConfig
from tracker_store_async.domain import Domain
from tracker_store_async.options import check_choice
from tracker_store_async.redaction import get_logger
from tracker_store_async.rows import (
    Append,
    ConversationSummary,
    Health,
    Listing,
    Read,
    Rewrite,
    StoredConversation,
)
from tracker_store_async.store import TrackerStore, is_tracker_store
from tracker_store_async.wrappers.legacy_broker import LegacyBroker
from tracker_store_async.wrappers.legacy_calls import ConversationTurns, LegacyCalls
from tracker_store_async.wrappers.legacy_store import (
    check_legacy_store,
    full_retrieval,
    take_over,
    takes_nothing,
)
from tracker_store_async.wrappers.legacy_trackers import (
    LegacyLog,
    RecentIds,
    find_saved,
    read_log,
    tracker_to_save,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker_store_async.options import OnConflict, OnPublishError
    from tracker_store_async.slots import Slot
    from tracker_store_async.wrappers.legacy_calls import Turn

logger = get_logger(__name__)

SaveScope: TypeAlias = Literal["auto", "all_events", "latest_session"]
SAVE_SCOPES: tuple[str, ...] = get_args(SaveScope)

PAUSES_SECONDS = (0.0, 0.05, 0.25, 1.0)
"""Pauses before each look whether a save can be read back: some storages lag."""

PROBE_SENDER_ID = "tracker-store-health-probe"
"""A conversation that does not exist; `health()` asks for it."""


class AwaitableTrackerStore(TrackerStore):
    """Wraps a legacy store: one with Rasa's `save`, `retrieve` and `keys`.

    Sync methods run in threads of a bounded pool and never on the loop, so the legacy
    store must be safe in threads, or be given `max_workers=1`. Async ones are awaited.
    It is given one conversation at a time, and returns trackers of ours, of Rasa, or of
    any class whose `events` have `as_dict()`, or serialised ones. Where it has `open`
    and `close` without arguments, these are passed on.

    Publishing, `max_event_history` and conflicts are handled here, once: the legacy
    store's own `event_broker` and `max_event_history` are taken over and set to None
    there.

    What a legacy store cannot give, and so neither can this:

    - No conditional write. Tasks that save one conversation through one wrapper lose
      nothing; two processes, or two wrappers, can still overwrite each other's events.
    - No ids. What this process wrote lately is remembered, so that a save which is
      repeated after a lost answer is recognised, here and not in another process
      (unless the events themselves carry an `event_id`).
    - A save costs the whole history: the conversation is read, saved, and read back to
      see that it grew by what was saved.
    - No `user_id`, no `record_exp`, no deleting of a part. Times are those of the first
      and the latest event. Listing reads every conversation that it names.

    Args:
        tracker_store: The legacy store.
        max_workers: Most threads, and so most sync calls at a time.
        max_event_history: Most events that `retrieve` holds; by default the legacy
            store's own bound.
        on_conflict: What a save does about another writer's events.
        on_publish_error: What a save does when the broker fails.
        record_exp: Refused, since it could not be honoured.
        save_scope: What the legacy `save` expects of the tracker it is given:
            `all_events`, or `latest_session` if it appends what goes beyond the latest
            stored session, as Rasa's SQL and MongoDB stores do; these are recognised.

    Raises:
        ConfigurationError: It is no legacy store, or an option cannot be had.
    """

    backend_name = "awaitable"
    _tells_logs_apart = False  # a legacy store does not say when a log began

    def __init__(
        self,
        tracker_store: Any,
        *,
        max_workers: int = 8,
        max_event_history: int | None = None,
        on_conflict: OnConflict = "rebase",
        on_publish_error: OnPublishError = "raise",
        record_exp: float | None = None,
        save_scope: SaveScope = "auto",
    ) -> None:
        check_legacy_store(tracker_store)
        check_choice("save_scope", save_scope, SAVE_SCOPES)
        if record_exp is not None:
            raise errors.ConfigurationError(
                "a legacy tracker store cannot let conversations expire: leave out "
                "record_exp, or configure the legacy store itself to do so"
            )
        self._legacy = tracker_store
        self._calls = LegacyCalls(max_workers)
        if save_scope == "auto":
            # The method by which Rasa's SQL and MongoDB stores find what is new.
            appends = callable(getattr(tracker_store, "_additional_events", None))
            save_scope = "latest_session" if appends else "all_events"
        self._save_scope = save_scope
        self._retrieve_all = full_retrieval(tracker_store)
        self._turns = ConversationTurns()
        self._recent = RecentIds()
        self._warned_of_user_id = False
        self._converted_domain: tuple[Any, Domain | None] = (None, None)
        broker = take_over(tracker_store, "event_broker")
        if broker is not None and EventBroker not in type(broker).__mro__:
            broker = LegacyBroker(broker, self._calls)
        bound = take_over(tracker_store, "max_event_history")
        super().__init__(
            None,
            broker,
            max_event_history=bound if max_event_history is None else max_event_history,
            on_conflict=on_conflict,
            on_publish_error=on_publish_error,
        )

    @staticmethod
    def create(
        obj: Any,
        domain: Domain | None = None,
        event_broker: EventBroker | None = None,
    ) -> TrackerStore:
        """Return a legacy store wrapped, or what a configuration describes.

        Args:
            obj: A legacy store; a configuration; or one of our stores, which needs no
                wrapping and is returned as it is.
            domain: Replaces the legacy store's domain, unless None.
            event_broker: Replaces the legacy store's broker, unless None.

        Raises:
            ConfigurationError: It is none of these.
        """
        if is_tracker_store(obj) or isinstance(obj, EndpointConfig):
            return TrackerStore.create(obj, domain, event_broker)
        store = AwaitableTrackerStore(obj)
        if domain is not None:
            store.domain = domain
        if event_broker is not None:
            store.event_broker = event_broker
        return store

    @property
    def domain(self) -> Domain:
        """The legacy store's domain; an empty one if it has none."""
        theirs = getattr(self._legacy, "domain", None)
        if isinstance(theirs, Domain):
            return theirs
        return self._legacy_domain() or Domain.empty()

    @domain.setter
    def domain(self, domain: Domain | None) -> None:
        self._legacy.domain = domain or Domain.empty()

    async def keys(self) -> Iterable[str]:
        """Return the sender ids of all conversations, as the legacy store has them."""
        await self._ensure_open()
        return await self._keys()

    # -- primitives --------------------------------------------------------------------

    async def _open(self) -> None:
        await self._pass_on("open")

    async def _close(self) -> None:
        try:
            await self._pass_on("close")
        finally:
            await self._calls.close()

    async def _append(self, append: Append) -> bool:
        sender_id, rows = append.sender_id, append.rows
        if append.origin is not None:
            raise errors.ConfigurationError(
                f"{type(self._legacy).__name__} is a legacy tracker store: it keeps "
                "neither ids nor times, so nothing can be copied into it exactly"
            )
        self._warn_of_user_id(append)
        async with self._turns.turn(sender_id) as turn:
            log = await self._read_log(sender_id, turn)
            if len(log.texts) != append.expected_version:
                return False
            tracker = await self._tracker_to_save(append, log, turn)
            # Before the save: it may land although it fails.
            self._recent.remember(sender_id, append.expected_version, rows)
            await self._calls.call(self._legacy.save, tracker, turn=turn)
            return await self._is_saved(append, turn)

    async def _tracker_to_save(
        self, append: Append, log: LegacyLog, turn: Turn
    ) -> object:
        sender_id, known = append.sender_id, log
        if self._save_scope == "latest_session" and log.texts:
            known = await self._calls.call(
                self._legacy.retrieve, sender_id, then=read_log, turn=turn
            )
        init_tracker = getattr(self._legacy, "init_tracker", None)
        if known.tracker_class is None and callable(init_tracker):
            new = await self._calls.call(init_tracker, sender_id, turn=turn)
            known.tracker_class = type(new)
        empty = self._new_tracker(sender_id)
        return await self._calls.run(lambda: tracker_to_save(known, append.rows, empty))

    async def _is_saved(self, append: Append, turn: Turn) -> bool:
        """Read back: the legacy store must have grown by exactly what was saved.

        Returns:
            False if another process's events came first; the save then finds its own.

        Raises:
            StoreDataError: It has not, and the conversation may be damaged.
        """
        before, rows = append.expected_version, append.rows
        count, position = before, None
        for pause_seconds in PAUSES_SECONDS:
            await asyncio.sleep(pause_seconds)
            count, position = await self._calls.call(
                self._retrieve_all,
                append.sender_id,
                then=lambda found: find_saved(read_log(found), before, rows),
                turn=turn,
            )
            if count != before:
                break
        if position == before:
            return True
        if position is not None:
            self._recent.remember(append.sender_id, position, rows)
            return False
        raise errors.StoreDataError(
            f"{type(self._legacy).__name__}.save was given {len(rows)} new events for "
            f"the {before} of conversation {append.sender_id!r}, and now has {count}: "
            "the legacy tracker store drops, merges or repeats events. If its save "
            "expects the latest session alone, set save_scope='latest_session'"
        )

    async def _read(self, read: Read) -> StoredConversation | None:
        async with self._turns.turn(read.sender_id) as turn:
            log = await self._read_log(read.sender_id, turn)
        version = len(log.texts)
        if not version:
            return None
        start = log.session_start if read.start is None else read.start
        first = min(max(start, 0), version)
        if read.last is not None:
            first = max(first, version - read.last)
        texts = (
            log.texts[first:] if read.limit is None else log.texts[first:][: read.limit]
        )
        ids = self._recent.ids(read.sender_id, log, first)
        snapshot = None
        if read.last and first > start:
            empty = self._new_tracker(read.sender_id)
            snapshot = await self._calls.run(lambda: log.snapshot(empty))
        return StoredConversation(
            version=version,
            session_start=log.session_start,
            snapshot=snapshot,
            created_at=log.time_of(0, read.now),
            updated_at=log.time_of(-1, read.now),
            first_position=first,
            rows=list(zip(ids, texts, strict=read.limit is None)),
        )

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        delete = getattr(self._legacy, "delete", None)
        if before is not None or not callable(delete):
            what = "a part of a conversation" if before is not None else "conversations"
            raise errors.ConfigurationError(
                f"{type(self._legacy).__name__} is a legacy tracker store that cannot "
                f"delete {what}: give it a method delete(sender_id), which erases a "
                "whole conversation, or move to another store"
            )
        async with self._turns.turn(sender_id) as turn:
            log = await self._read_log(sender_id, turn)
            if version not in (None, len(log.texts)):
                return False
            if log.tracker_class is not None or log.texts:
                await self._calls.call(delete, sender_id, turn=turn)
            self._recent.forget(sender_id)
        return bool(log.texts)

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        raise errors.ConfigurationError(
            f"{type(self._legacy).__name__} is a legacy tracker store that cannot "
            "change what it has stored: move the conversations to another store first"
        )

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        if listing.user_id is not None:
            raise errors.ConfigurationError(
                "a legacy tracker store does not know which user a conversation "
                "belongs to: list without user_id"
            )
        page: list[ConversationSummary] = []
        after, size = listing.after, max(1, min(listing.limit, self._calls.max_workers))
        ids = [key for key in await self._keys() if after is None or key > after]
        heapq.heapify(ids)
        while ids and len(page) < listing.limit:
            chunk = [heapq.heappop(ids) for _ in range(min(size, len(ids)))]
            found = await asyncio.gather(*(self._summarise(i, listing) for i in chunk))
            page += [summary for summary in found if summary is not None]
        return page[: listing.limit]

    async def _health(self) -> Health:
        started = time.perf_counter()
        await self._calls.call(self._legacy.retrieve, PROBE_SENDER_ID)
        return Health(
            self.backend_name,
            True,
            time.perf_counter() - started,
            details={
                "legacy_store": type(self._legacy).__name__,
                "max_workers": self._calls.max_workers,
            },
        )

    # -- the legacy store --------------------------------------------------------------

    async def _read_log(self, sender_id: str, turn: Turn) -> LegacyLog:
        log: LegacyLog = await self._calls.call(
            self._retrieve_all, sender_id, then=read_log, turn=turn
        )
        return log

    async def _keys(self) -> list[str]:
        found: list[Any] = await self._calls.call(self._legacy.keys, then=list)
        texts = [key.decode() if isinstance(key, bytes) else str(key) for key in found]
        prefix = getattr(self._legacy, "key_prefix", None)
        if isinstance(prefix, str):  # Rasa's Redis store leaves it on
            texts = [key.removeprefix(prefix) for key in texts]
        return texts

    async def _summarise(
        self, sender_id: str, listing: Listing
    ) -> ConversationSummary | None:
        stored = await self._read(Read(sender_id, listing.now, last=0))
        if stored is None:
            return None
        updated_from, updated_before = listing.updated_from, listing.updated_before
        if updated_from is not None and stored.updated_at < updated_from:
            return None
        if updated_before is not None and stored.updated_at >= updated_before:
            return None
        return ConversationSummary(
            sender_id=sender_id,
            version=stored.version,
            created_at=stored.created_at,
            updated_at=stored.updated_at,
            user_id=None,
            cursor=sender_id,
        )

    async def _pass_on(self, name: str) -> None:
        method = getattr(self._legacy, name, None)
        if callable(method) and takes_nothing(method):
            await self._calls.call(method)

    def _legacy_domain(self) -> Domain | None:
        """Return the legacy store's domain as one of ours; None if it has none.

        Rasa gives a store without a domain an empty one, which would refuse each slot.
        """
        theirs = getattr(self._legacy, "domain", None)
        converted_from, converted = self._converted_domain
        if theirs is not converted_from:
            converted = theirs
            if theirs is not None and not isinstance(theirs, Domain):
                converted = Domain.from_dict(theirs.as_dict())
            if converted is not None and converted.is_empty():
                converted = None
            self._converted_domain = (theirs, converted)
        return converted

    def _slots(self) -> Iterable[Slot] | None:
        self._domain = self._legacy_domain()
        return super()._slots()

    def _warn_of_user_id(self, append: Append) -> None:
        if append.user_id is not None and not self._warned_of_user_id:
            self._warned_of_user_id = True
            logger.warning(
                "%s is a legacy tracker store and cannot store the user_id of its "
                "conversations.",
                type(self._legacy).__name__,
            )
