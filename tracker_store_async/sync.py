"""`SyncTrackerStore`: every method of a tracker store, without `await`.

The store runs on a private event loop in a thread of its own, so that code which is not
async, in as many threads as it likes, shares one store with its pool of connections::

    with SyncTrackerStore(InMemoryTrackerStore()) as store:
        tracker = store.get_or_create_tracker("alice")
        tracker.update(UserUttered("hi"))
        store.save(tracker)
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from tracker_store_async.options import check_page, check_time
from tracker_store_async.store import TrackerStore
from tracker_store_async.sync_lifecycle import SyncLifecycle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.config import EndpointConfig
    from tracker_store_async.domain import Domain
    from tracker_store_async.rows import ConversationSummary, Health
    from tracker_store_async.tracker import DialogueStateTracker


class SyncTrackerStore(SyncLifecycle):
    """Calls a :class:`~tracker_store_async.store.TrackerStore` from sync code.

    Every method is the store's own and raises what that raises, and besides:

    - `CallTimeoutError` after `timeout_seconds` (it limits one call; without it, the
      facade's own limit counts, and `math.inf` lifts that). The call is cancelled
      inside the loop, and the error is raised once that has settled. Whether a save has
      landed is not known then; saving the same tracker again is safe.
    - `StoreClosedError` after `close()`, or if `close()` cut the call off.
    - `WrongLoopError` from within the facade's own loop (such as an event broker), and
      in a process forked after the first use: make a new one there.

    Any number of threads may call at once; a tracker belongs to one thread at a time. A
    call from a coroutine of another event loop works and blocks that loop, so await the
    async store there. Ctrl-C, or any exception that a signal handler raises, cancels
    the call that it interrupts.

    The thread starts at first use. Close the facade, or use it as a context manager:
    one that is collected unclosed gives a `ResourceWarning`, and one that is still open
    when the interpreter exits is closed then.

    Args:
        store: The store, which must not be open on another loop, or a function that
            makes it, called once inside the private loop at first use. Nothing is
            connected before.
        timeout_seconds: Limit of every call that is not given one, or None for no
            limit.

    Raises:
        ConfigurationError: `store` is neither, or `timeout_seconds` is not positive.
    """

    # -- configuration -----------------------------------------------------------------

    @staticmethod
    def create(
        obj: SyncTrackerStore | TrackerStore | EndpointConfig | None,
        domain: Domain | None = None,
        event_broker: EventBroker | None = None,
    ) -> SyncTrackerStore:
        """Return the facade of the store that an endpoint configuration describes.

        Args:
            obj: A facade, which is returned as it is, a store, or the configuration;
                None gives an in-memory store.
            domain: The domain of the new store.
            event_broker: The broker of the new store.

        Raises:
            ConfigurationError: The configuration is wrong; the text says where.
        """
        if isinstance(obj, SyncTrackerStore):
            return obj
        return SyncTrackerStore(TrackerStore.create(obj, domain, event_broker))

    @property
    def domain(self) -> Domain:
        """The domain; an empty one if none was given (then every slot is accepted)."""
        return self._store().domain

    @domain.setter
    def domain(self, domain: Domain | None) -> None:
        self._store().domain = domain

    @property
    def event_broker(self) -> EventBroker | None:
        """The broker that gets every event before it is stored, or None."""
        return self._store().event_broker

    @event_broker.setter
    def event_broker(self, event_broker: EventBroker | None) -> None:
        self._change(lambda store: setattr(store, "event_broker", event_broker))

    @property
    def max_event_history(self) -> int | None:
        """Most events that `retrieve` reads and holds, or None for no bound."""
        return self._store().max_event_history

    @max_event_history.setter
    def max_event_history(self, max_event_history: int | None) -> None:
        self._store().max_event_history = max_event_history

    # -- trackers ----------------------------------------------------------------------

    def init_tracker(self, sender_id: str) -> DialogueStateTracker:
        """Return a new, empty tracker; see `TrackerStore.init_tracker`."""
        return self._store().init_tracker(sender_id)

    def get_or_create_tracker(
        self,
        sender_id: str,
        max_event_history: int | None = None,
        append_action_listen: bool = True,
        *,
        timeout_seconds: float | None = None,
    ) -> DialogueStateTracker:
        """Return the latest session's tracker, or create the conversation.

        See `TrackerStore.get_or_create_tracker`.
        """
        return self._call(
            lambda store: store.get_or_create_tracker(
                sender_id, max_event_history, append_action_listen
            ),
            timeout_seconds,
        )

    def get_or_create_full_tracker(
        self,
        sender_id: str,
        append_action_listen: bool = True,
        *,
        timeout_seconds: float | None = None,
    ) -> DialogueStateTracker:
        """Return the tracker of all sessions, or create the conversation.

        See `TrackerStore.get_or_create_full_tracker`.
        """
        return self._call(
            lambda store: store.get_or_create_full_tracker(
                sender_id, append_action_listen
            ),
            timeout_seconds,
        )

    def create_tracker(
        self,
        sender_id: str,
        append_action_listen: bool = True,
        *,
        timeout_seconds: float | None = None,
    ) -> DialogueStateTracker:
        """Create a conversation; see `TrackerStore.create_tracker`."""
        return self._call(
            lambda store: store.create_tracker(sender_id, append_action_listen),
            timeout_seconds,
        )

    def save(
        self, tracker: DialogueStateTracker, *, timeout_seconds: float | None = None
    ) -> None:
        """Publish and append the tracker's unsaved events; see `TrackerStore.save`."""
        self._call(lambda store: store.save(tracker), timeout_seconds)

    def save_many(
        self,
        trackers: Iterable[DialogueStateTracker],
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        """Save several trackers, some at a time; see `TrackerStore.save_many`."""
        todo = list(trackers)  # here: a generator may itself call the facade
        self._call(lambda store: store.save_many(todo), timeout_seconds)

    def retrieve(
        self,
        sender_id: str,
        *,
        since: DialogueStateTracker | None = None,
        validate: bool = False,
        timeout_seconds: float | None = None,
    ) -> DialogueStateTracker | None:
        """Return the latest session's tracker or None; see `TrackerStore.retrieve`."""
        return self._call(
            lambda store: store.retrieve(sender_id, since=since, validate=validate),
            timeout_seconds,
        )

    def retrieve_full_tracker(
        self,
        sender_id: str,
        *,
        validate: bool = False,
        timeout_seconds: float | None = None,
    ) -> DialogueStateTracker | None:
        """Return the tracker of all sessions, or None.

        See `TrackerStore.retrieve_full_tracker`.
        """
        return self._call(
            lambda store: store.retrieve_full_tracker(sender_id, validate=validate),
            timeout_seconds,
        )

    def exists(self, sender_id: str, *, timeout_seconds: float | None = None) -> bool:
        """Return whether anything is stored for it; see `TrackerStore.exists`."""
        return self._call(lambda store: store.exists(sender_id), timeout_seconds)

    def delete(
        self,
        sender_id: str,
        before_position: int | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; see `TrackerStore.delete`."""
        return self._call(
            lambda store: store.delete(sender_id, before_position), timeout_seconds
        )

    def keys(self, *, timeout_seconds: float | None = None) -> Iterable[str]:
        """Return all sender ids; see `TrackerStore.keys`."""
        return self._call(lambda store: store.keys(), timeout_seconds)

    def conversations(
        self,
        *,
        user_id: str | None = None,
        updated_from: float | None = None,
        updated_before: float | None = None,
        cursor: str | None = None,
        page_size: int = 500,
        timeout_seconds: float | None = None,
    ) -> Iterator[ConversationSummary]:
        """List conversations in constant memory; see `TrackerStore.conversations`.

        The facade is called once for each page, and `timeout_seconds` limits each of
        those calls. In between nothing is held open.
        """
        # Here and not in the generator, which would say it at its first step only.
        check_page(page_size, cursor, user_id)
        check_time("updated_from", updated_from)
        check_time("updated_before", updated_before)
        self._limit(timeout_seconds)

        filters = {
            "user_id": user_id,
            "updated_from": updated_from,
            "updated_before": updated_before,
        }
        return self._pages(filters, cursor, page_size, timeout_seconds)

    def _pages(
        self,
        filters: dict[str, Any],
        cursor: str | None,
        page_size: int,
        timeout_seconds: float | None,
    ) -> Iterator[ConversationSummary]:
        async def fetch_page(store: TrackerStore) -> list[ConversationSummary]:
            listing = store.conversations(**filters, cursor=cursor, page_size=page_size)
            page: list[ConversationSummary] = []
            generator = cast("AsyncGenerator[ConversationSummary, None]", listing)
            async with aclosing(generator):
                async for summary in generator:
                    page.append(summary)
                    if len(page) == page_size:
                        break
            return page

        while True:
            page = self._call(fetch_page, timeout_seconds)
            yield from page
            if len(page) < page_size:
                return
            cursor = page[-1].cursor

    def stream_events(
        self, tracker: DialogueStateTracker, *, timeout_seconds: float | None = None
    ) -> None:
        """Publish the tracker's unsaved events; see `TrackerStore.stream_events`."""
        self._call(lambda store: store.stream_events(tracker), timeout_seconds)

    def deserialise_tracker(
        self, sender_id: str, serialised_tracker: str | bytes | Mapping[str, Any]
    ) -> DialogueStateTracker:
        """Return the tracker that was serialised.

        See `TrackerStore.deserialise_tracker`.
        """
        return self._store().deserialise_tracker(sender_id, serialised_tracker)

    def health(self, *, timeout_seconds: float | None = None) -> Health:
        """Return whether the storage answers; see `TrackerStore.health`."""
        return self._call(lambda store: store.health(), timeout_seconds)
