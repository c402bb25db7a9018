"""The place where somebody can watch a store: nothing but an attribute unless used.

`ops.telemetry` watches by means of OpenTelemetry. Nothing here imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from tracker_store_async.rows import Append
    from tracker_store_async.store import TrackerStore

T = TypeVar("T")


class Observer(Protocol):
    """Watches the operations of stores."""

    async def watch(
        self,
        operation: str,
        store: TrackerStore,
        work: Awaitable[T],
        sender_id: str | None,
        requests: Sequence[Append],
    ) -> T:
        """Return what an operation returns, and note how it went.

        Args:
            operation: `open`, `save`, `save_many`, `retrieve`, `append`, `read`,
                `delete`, `publish` or `replay`.
            store: The store.
            work: The operation, which has not begun.
            sender_id: The conversation, if it is one.
            requests: What is appended, if it is an append. The result is whether it
                landed, or a list of that or of an error for each.
        """

    def count(self, what: str, store: TrackerStore, number: int = 1) -> None:
        """Note a `conflict`, a `retry`, or of a fail-safe that its breaker has
        `opened` or `closed`, or how many events it has `replayed`."""


def noted(store: TrackerStore, what: str, number: int = 1) -> None:
    """Tell who watches a store that something happened.

    Args:
        store: The store.
        what: What happened; see `Observer.count`.
        number: How often.
    """
    observer: Any = store._observer
    if observer is not None:
        observer.count(what, store, number)


def observed(
    store: TrackerStore,
    operation: str,
    work: Awaitable[T],
    sender_id: str | None = None,
    requests: Sequence[Append] = (),
) -> Awaitable[T]:
    """Return an operation to await, watched if somebody watches the store.

    Args:
        store: The store.
        operation: Its name.
        work: The operation, which has not begun.
        sender_id: The conversation.
        requests: What is appended.
    """
    observer: Any = store._observer
    if observer is None:
        return work
    watched: Awaitable[T] = observer.watch(operation, store, work, sender_id, requests)
    return watched
