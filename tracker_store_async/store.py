"""The `TrackerStore` Protocol: the one thing to understand. Read this file first.

A conversation is a log: its events stand at positions 0, 1, 2 ... and its *version* is
their number. Everything here follows from that:

- `save` publishes the tracker's unsaved events, then appends them if the stored version
  is still the one that the tracker was loaded with. It reads nothing.
- `retrieve` reads the latest session, `retrieve_full_tracker` everything.
- A backend fills the primitives at the end of the class and nothing else. It is handed
  encoded rows and knows nothing of trackers, events or brokers.

::

    save:     TrackerStore.save -> broker.publish(each unsaved event, in order, awaited)
                                -> _append(rows, expected version) -> storage
    retrieve: TrackerStore.retrieve -> _read(from the latest session) -> decode
                                    -> DialogueStateTracker
"""

from __future__ import annotations

import time
from abc import abstractmethod
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

from tracker_store_async import errors
from tracker_store_async.domain import Domain
from tracker_store_async.events import ActionExecuted
from tracker_store_async.lifecycle import Lifecycle
from tracker_store_async.loading import TrackerLoader
from tracker_store_async.locks import LoopLock
from tracker_store_async.observation import observed
from tracker_store_async.options import (
    ON_CONFLICT_POLICIES,
    ON_PUBLISH_ERROR_POLICIES,
    check_choice,
    check_max_event_history,
    check_page,
    check_record_exp,
    check_time,
)
from tracker_store_async.publishing import Publisher
from tracker_store_async.rows import Health, Listing, Read, Upkeep
from tracker_store_async.saving import Saver
from tracker_store_async.saving_many import all_of, one_by_one, save_many
from tracker_store_async.serialization import (
    check_sender_id,
    check_tracker,
    deserialise_dialogue,
)
from tracker_store_async.tracker import DialogueStateTracker
from tracker_store_async.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.config import EndpointConfig
    from tracker_store_async.observation import Observer
    from tracker_store_async.options import OnConflict, OnPublishError
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        NewRow,
        Rewrite,
        StoredConversation,
    )
    from tracker_store_async.slots import Slot


class TrackerStore(Lifecycle, Protocol):
    """Stores conversations as append-only logs, with Rasa's names, awaited throughout.

    The constructor does no I/O: the first use, `open()` or `async with` connects. From
    then on the store belongs to the event loop it was opened on.

    Args:
        domain: Gives new trackers their slots. None accepts every slot.
        event_broker: Gets every event before it is stored, or None. It is opened in the
            background.
        max_event_history: Most events that `retrieve` reads and holds, or None for the
            whole latest session. The state is right all the same.
        on_conflict: What a save does when somebody else appended since the tracker was
            loaded: `rebase` appends after theirs, `raise` raises `ConcurrentSaveError`.
        on_publish_error: What a save does when the broker fails: `raise` stores nothing
            and raises `PublishError`, `best_effort` stores and sends the events later.
        record_exp: Seconds after its latest save when a conversation expires, or None.

    Attributes:
        event_broker: The broker, or None.
        owns_broker: Whether `close()` closes the broker too; the factory sets it.
        conflict_count: Number of conflicts with other writers met so far.

    Raises:
        ConfigurationError: An option has a value that it cannot have, or the event
            broker is none.
    """

    backend_name: str
    on_conflict: OnConflict
    record_exp: float | None
    conflict_count: int
    _domain: Domain | None
    _max_event_history: int | None
    _on_publish_error: OnPublishError
    outbox: bool = False  # whether messages are stored first; see `relay.py`
    _stores_message_bodies: bool = True  # False where the stored event is enough
    _tells_logs_apart: bool = True  # whether `created_at` names one log for good
    _creates_layout: bool = True  # False for those who only look
    _renews_credentials: bool = False  # whether they are asked for anew
    _lazy_events: bool = True  # False decodes and applies everything at once
    _keeps_columns: bool = False  # whether a row's columns are stored beside its text
    _seals: bool = False  # whether what it stores is encrypted at rest
    _upgrades_layout: bool = False  # True where an older layout is to be upgraded
    _observer: Observer | None = None  # who watches, such as `ops.telemetry`
    _loop_turns: Turns
    _loader: TrackerLoader
    _saver: Saver

    def __init__(
        self,
        domain: Domain | None = None,
        event_broker: EventBroker | None = None,
        *,
        max_event_history: int | None = None,
        on_conflict: OnConflict = "rebase",
        on_publish_error: OnPublishError = "raise",
        record_exp: float | None = None,
    ) -> None:
        check_choice("on_conflict", on_conflict, ON_CONFLICT_POLICIES)
        check_choice("on_publish_error", on_publish_error, ON_PUBLISH_ERROR_POLICIES)
        self._domain = domain
        self._loop_turns = Turns()
        self._loader = TrackerLoader(self)
        self._saver = Saver(self)
        self._on_publish_error = on_publish_error
        self.event_broker = event_broker
        self.max_event_history = max_event_history
        self.on_conflict = on_conflict
        self.record_exp = check_record_exp(record_exp)
        self.owns_broker = False
        self._relay = None
        self.conflict_count = 0
        self._loop = None
        self._closed = False
        self._opening = LoopLock()

    # -- configuration -----------------------------------------------------------------

    @staticmethod
    def create(
        obj: TrackerStore | EndpointConfig | None,
        domain: Domain | None = None,
        event_broker: EventBroker | None = None,
    ) -> TrackerStore:
        """Return the store that an endpoint configuration describes (Rasa's factory).

        Args:
            obj: A store, which is returned as it is, or the configuration; None gives
                an in-memory store.
            domain: The domain of the new store.
            event_broker: The broker of the new store.

        Raises:
            ConfigurationError: The configuration is wrong; the text says where.
        """
        from tracker_store_async.factory import create_tracker_store

        if is_tracker_store(obj):
            return obj
        config = cast("EndpointConfig | None", obj)
        return create_tracker_store(config, domain, event_broker)

    @property
    def domain(self) -> Domain:
        """The domain; an empty one if none was given (then every slot is accepted)."""
        return self._domain if self._domain is not None else Domain.empty()

    @domain.setter
    def domain(self, domain: Domain | None) -> None:
        self._domain = domain

    @property
    def event_broker(self) -> EventBroker | None:
        """The broker that gets every event before it is stored, or None.

        Another one may be set: it gets what `best_effort` has kept for the one before.
        Without one that keeps it, as well, setting it raises `ConfigurationError`.
        """
        return None if self._publisher is None else self._publisher.broker

    @event_broker.setter
    def event_broker(self, event_broker: EventBroker | None) -> None:
        publisher = (
            None
            if event_broker is None
            else Publisher(event_broker, self._on_publish_error)
        )
        if (former := getattr(self, "_publisher", None)) is not None:
            former.hand_over(publisher)
        self._publisher = publisher

    @property
    def max_event_history(self) -> int | None:
        """Most events that `retrieve` reads and holds, or None for no bound."""
        return self._max_event_history

    @max_event_history.setter
    def max_event_history(self, max_event_history: int | None) -> None:
        self._max_event_history = check_max_event_history(max_event_history)

    # -- trackers ----------------------------------------------------------------------

    def init_tracker(self, sender_id: str) -> DialogueStateTracker:
        """Return a new, empty tracker that is not stored yet.

        Raises:
            InvalidSenderIdError: No backend could store this sender id.
        """
        return self._new_tracker(
            check_sender_id(sender_id), max_event_history=self.max_event_history
        )

    def _new_tracker(
        self, sender_id: str, *, max_event_history: int | None = None
    ) -> DialogueStateTracker:
        return DialogueStateTracker(sender_id, self._slots(), max_event_history)

    def _slots(self) -> Iterable[Slot] | None:
        """Return the slots that new trackers get; None for all."""
        return None if self._domain is None else self._domain.slots

    async def get_or_create_tracker(
        self,
        sender_id: str,
        max_event_history: int | None = None,
        append_action_listen: bool = True,
    ) -> DialogueStateTracker:
        """Return the tracker of the latest session, or create the conversation.

        When several callers create one conversation at once, one of them does and all
        get the same.

        Args:
            sender_id: The conversation.
            max_event_history: Most events to read and hold, in place of the store's
                own bound. (Rasa changes the store's bound for good; we do not.)
            append_action_listen: Whether a new conversation starts with a stored
                `action_listen`. Without it, nothing is stored until `save`.
        """
        last = check_max_event_history(max_event_history) or self.max_event_history
        loading = self._load(sender_id, start=None, last=last)
        tracker = await observed(self, "retrieve", loading, sender_id)
        if tracker is None:
            tracker = await self._create(sender_id, last, append_action_listen)
        return tracker

    async def get_or_create_full_tracker(
        self, sender_id: str, append_action_listen: bool = True
    ) -> DialogueStateTracker:
        """Return the tracker of the whole conversation, or create the conversation.

        Args:
            sender_id: The conversation.
            append_action_listen: Whether a new conversation starts with a stored
                `action_listen`.
        """
        tracker = await self.retrieve_full_tracker(sender_id)
        if tracker is None:
            tracker = await self._create(sender_id, None, append_action_listen)
        return tracker

    async def create_tracker(
        self, sender_id: str, append_action_listen: bool = True
    ) -> DialogueStateTracker:
        """Create a conversation and return its tracker.

        A conversation that exists is returned as it is stored.

        Args:
            sender_id: The conversation.
            append_action_listen: Whether it starts with a stored `action_listen`.
                Without it, nothing is stored until `save`.
        """
        # It looks first: else an action that is never stored would be published.
        return await self.get_or_create_tracker(sender_id, None, append_action_listen)

    async def _create(
        self, sender_id: str, last: int | None, append_action_listen: bool
    ) -> DialogueStateTracker:
        await self._ensure_open()
        tracker = self._new_tracker(check_sender_id(sender_id), max_event_history=last)
        if not append_action_listen:
            return tracker
        cursor = tracker._log
        cursor.version, cursor.store, cursor.sender_id = 0, self, sender_id
        tracker.update(ActionExecuted("action_listen"))
        try:
            creating = self._saver.save(tracker, rebase=False)
            await observed(self, "save", creating, sender_id)
        except errors.ConcurrentSaveError:
            stored = await self._load(sender_id, start=None, last=last)
            if stored is not None:
                return stored
            await self._saver.save(tracker, rebase=True)
        return tracker

    async def save(self, tracker: DialogueStateTracker) -> None:
        """Publish the tracker's unsaved events, then append them, all or nothing.

        Nothing is read: the tracker knows the version it was loaded with. (A tracker
        built by hand is compared once with the latest stored session.) Saving the same
        tracker again after an error, a timeout or a cancellation is safe: what had
        landed is recognised by its ids. Afterwards the tracker can be used on.

        Args:
            tracker: The tracker; it is brought up to date if another writer appended.

        Raises:
            InvalidInputError: The sender id or an event cannot be stored; nothing was
                published or written.
            PublishError: The broker did not confirm an event; nothing was written.
            ConcurrentSaveError: Another writer appended and `on_conflict` is `raise`.
            StoreUnavailableError: The storage cannot be reached; the append may have
                landed, and saving again is safe.
        """
        if self._loop is not get_running_loop():
            await self._ensure_open()
        saving = self._saver.save(tracker, rebase=self.on_conflict == "rebase")
        await observed(self, "save", saving, getattr(tracker, "sender_id", None))

    async def save_many(self, trackers: Iterable[DialogueStateTracker]) -> None:
        """Save several trackers, each all or nothing, in batches.

        A batch takes one transaction on SQL, one round trip on Redis (to each node of a
        cluster) and one bulk write on MongoDB. DynamoDB, Oracle and legacy stores get
        some appends at a time. The events of each tracker are published before, as
        `save` does it. Two trackers of one conversation are saved one after the other,
        in the order given.

        Raises:
            InvalidInputError: One of them is no tracker, or has an id that cannot be
                stored; none was saved.
            SaveManyError: Some were not saved, the others were; it names them.
        """
        todo = [check_tracker(tracker) for tracker in trackers]
        if todo:
            await self._ensure_open()
        saving = save_many(self, todo, rebase=self.on_conflict == "rebase")
        await observed(self, "save_many", saving)

    async def retrieve(
        self,
        sender_id: str,
        *,
        since: DialogueStateTracker | None = None,
        validate: bool = False,
    ) -> DialogueStateTracker | None:
        """Return the tracker of the latest session, or None.

        A session starts at the `session_started` event, or at the
        `action_session_start` action right before it where there is one.

        The events stay as they are stored until they are touched: by index, by
        iteration, or by what looks at them, such as `applied_events`. Each is decoded
        once. So is the state of a session of up to 128 events, such as its slots.

        Args:
            sender_id: The conversation.
            since: A tracker of it that this store gave or saved earlier. It is brought
                up to date and returned: it is then what this method would return, with
                its own `max_event_history`, or that of `retrieve_full_tracker` if it
                came from there. Only what was appended since is read, unless the
                conversation was deleted, has expired or was cut meanwhile. Its events
                are other objects afterwards. If nothing is stored any more, None is
                returned and the tracker stays as it is.
            validate: Whether every event is decoded now rather than when touched.

        Raises:
            InvalidInputError: `since` has unsaved events, was never loaded or saved, or
                is of another conversation or store.
            InvalidSenderIdError: No backend could store this sender id.
            CorruptEventError: A stored event is not a JSON object. It may be raised
                later, when the event is touched, without `validate`.
            StoreUnavailableError: The storage cannot be reached.
        """
        loading = self._loader.latest(sender_id, since)
        tracker = await observed(self, "retrieve", loading, sender_id)
        return await self._loader.checked(tracker) if validate else tracker

    async def retrieve_full_tracker(
        self, sender_id: str, *, validate: bool = False
    ) -> DialogueStateTracker | None:
        """Return the tracker of all sessions, or None; it raises what `retrieve` does.

        Args:
            sender_id: The conversation.
            validate: Whether every event is decoded now rather than when touched.
        """
        loading = self._load(sender_id, start=0, last=None)
        tracker = await observed(self, "retrieve", loading, sender_id)
        return await self._loader.checked(tracker) if validate else tracker

    async def exists(self, sender_id: str) -> bool:
        """Return whether anything is stored for the conversation."""
        return await self._fetch(sender_id, start=None, last=0) is not None

    async def delete(self, sender_id: str, before_position: int | None = None) -> bool:
        """Erase a conversation, or its events before a position.

        Only earlier sessions can be cut off, so that nothing of what is erased lives on
        in the state of the latest one. Positions and version stay as they are.

        Args:
            sender_id: The conversation.
            before_position: Erase the events at positions below this one; None erases
                the whole conversation.

        Returns:
            Whether there was anything to erase.

        Raises:
            InvalidInputError: `before_position` lies within the latest session, or is
                not an int.
        """
        check_sender_id(sender_id)
        await self._ensure_open()
        if before_position is not None:
            if type(before_position) is not int:
                raise errors.InvalidInputError("before_position must be an int or None")
            header = await self._fetch(sender_id, start=None, last=0)
            if header is None:
                return False
            if not 0 <= before_position <= header.session_start:
                raise errors.InvalidInputError(
                    f"conversation {sender_id!r} can be cut at positions 0 to "
                    f"{header.session_start}, where its latest session starts, not at "
                    f"{before_position}: delete the whole conversation instead"
                )
        deleting = self._delete(sender_id, before_position, self._now())
        return await observed(self, "delete", deleting, sender_id)

    async def keys(self) -> Iterable[str]:
        """Return the sender ids of all conversations.

        It holds all of them in memory: `conversations()` does not.
        """
        return [summary.sender_id async for summary in self.conversations()]

    async def conversations(
        self,
        *,
        user_id: str | None = None,
        updated_from: float | None = None,
        updated_before: float | None = None,
        cursor: str | None = None,
        page_size: int = 500,
    ) -> AsyncIterator[ConversationSummary]:
        """List conversations in constant memory, each once, while others write.

        Args:
            user_id: Only the conversations of this user.
            updated_from: Only those updated at this time or later (s since the epoch).
            updated_before: Only those updated before this time (s since the epoch).
            cursor: Go on after the conversation whose summary had this `cursor`.
            page_size: Conversations to fetch in one round trip.

        Raises:
            InvalidInputError: `page_size` is not positive, `cursor` is not a cursor, or
                a filter is of the wrong kind.
        """
        check_page(page_size, cursor, user_id)
        first = check_time("updated_from", updated_from)
        before = check_time("updated_before", updated_before)
        await self._ensure_open()
        while True:
            page = await self._list(
                Listing(
                    now=self._now(),
                    limit=page_size,
                    after=cursor,
                    user_id=user_id,
                    updated_from=first,
                    updated_before=before,
                )
            )
            for summary in page:
                yield summary
            if len(page) < page_size:
                return
            cursor = page[-1].cursor

    async def stream_events(self, tracker: DialogueStateTracker) -> None:
        """Publish the tracker's unsaved events; `save` will not publish them again.

        Raises:
            InvalidInputError: The sender id or an event cannot be stored.
            PublishError: The broker did not confirm an event.
            ConcurrentSaveError: A tracker built by hand does not hold what is stored
                and `on_conflict` is `raise`.
        """
        await self._ensure_open()
        async with self._saver.turn(tracker):
            await self._saver.prepare(tracker, rebase=self.on_conflict == "rebase")
            if tracker._log.pending:
                batch = await self._saver.encode(tracker)  # or it is not sent
                await self._saver.publish(tracker, batch.rows)

    def deserialise_tracker(
        self, sender_id: str, serialised_tracker: str | bytes | Mapping[str, Any]
    ) -> DialogueStateTracker:
        """Return the tracker that a `SerializedTracker...` class has serialised.

        Args:
            sender_id: The conversation.
            serialised_tracker: JSON text, its UTF-8 bytes, or the dict.

        Raises:
            TrackerDeserialisationError: It is not JSON, or not a serialised tracker.
        """
        tracker = self.init_tracker(sender_id)
        tracker.recreate_from_dialogue(deserialise_dialogue(serialised_tracker))
        return tracker

    async def health(self) -> Health:
        """Return whether the storage answers, how fast, and what it is.

        It raises nothing that says the storage is in trouble: the answer says so.
        """
        started = time.perf_counter()
        try:
            await self._ensure_open()
            return await self._with_publishing(await self._health())
        except (errors.StoreUnavailableError, errors.StoreAccessError) as error:
            elapsed = time.perf_counter() - started
            return Health(self.backend_name, False, elapsed, error=str(error))

    # -- shared steps ------------------------------------------------------------------

    def _now(self) -> float:
        """Return the time that stamps and expires conversations, in s since 1970."""
        return time.time()

    async def _fetch(
        self, sender_id: str, *, start: int | None, last: int | None, ids: bool = True
    ) -> StoredConversation | None:
        check_sender_id(sender_id)
        if self._loop is not get_running_loop():
            await self._ensure_open()
        reading = self._read(Read(sender_id, self._now(), start, last, ids=ids))
        return await observed(self, "read", reading, sender_id)

    def _load(
        self, sender_id: str, *, start: int | None, last: int | None
    ) -> Coroutine[Any, Any, DialogueStateTracker | None]:
        return self._loader.load(sender_id, start=start, last=last)

    # -- primitives: what a backend fills ----------------------------------------------

    def _pool_use(self) -> dict[str, int]:
        """Return how many connections the pool has, by kind; empty without a pool."""
        return {}

    def _check_size(
        self, sender_id: str, rows: Sequence[NewRow], snapshot: str
    ) -> None:
        """Refuse what this backend could never store, before it is published.

        A backend without a limit of its own leaves this as it is.

        Raises:
            InvalidInputError: An event, the save or the state is too large.
        """
        return

    @abstractmethod
    async def _append(self, append: Append) -> bool:
        """Store all rows if the stored version is the expected one.

        Returns:
            True once everything is durably stored; False if the version differs, and
            then nothing was changed.

        Raises:
            StoreUnavailableError: No answer; it may have been stored.
        """

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        """Do what `_append` does for several conversations, each all or nothing.

        A backend that can send them together overrides this.

        Args:
            appends: The appends, each of another conversation.

        Returns:
            What `_append` would have returned or raised for each, in order.
        """
        return await one_by_one(self._append, appends)

    async def _read_many(
        self, reads: Sequence[Read]
    ) -> list[StoredConversation | None]:
        """Do several reads, each as `_read` does it; some raise for all.

        A backend that can ask for them together overrides this.
        """
        return all_of(await one_by_one(self._read, reads))

    @abstractmethod
    async def _read(self, read: Read) -> StoredConversation | None:
        """Return a consistent header and run of rows, or None if nothing is stored."""

    @abstractmethod
    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation, or its rows before a position up to `session_start`.

        With `version` a whole conversation is erased only if it has that version.

        Returns:
            Whether there was anything to erase. A position beyond `session_start`
            erases nothing: the caller's check may be out of date. A conversation that
            has expired by `now` is erased too but counts as nothing.
        """

    @abstractmethod
    async def _rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content in the place of what is stored, if it is as expected.

        What was there before, Rasa's own copy of it included, is nowhere any more once
        this returns: in no row, bucket, part, index or state.

        Returns:
            True once everything is durably stored; False if the log is another one, or
            holds other positions, and then nothing was changed.
        """

    @abstractmethod
    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page; a page shorter than the limit is the last."""

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        """Report on the storage; with `apply`, first do what makes it take less.

        Nothing that is read or written changes by it. A backend that has nothing to say
        leaves this as it is.
        """
        return Upkeep(notes=["nothing is known of how this store keeps its data"])

    @abstractmethod
    async def _health(self) -> Health:
        """Ask the storage how it is."""


def is_tracker_store(obj: object) -> TypeGuard[TrackerStore]:
    """Whether an object explicitly implements :class:`TrackerStore`.

    Looking at method names would not do: a store with sync methods has the same ones.
    """
    return TrackerStore in type(obj).__mro__
