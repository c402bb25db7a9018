"""Erasing whole conversations: one, or all of a user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.keeping.pages import each_conversation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tracker_store_async.rows import ConversationSummary
    from tracker_store_async.store import TrackerStore


async def delete_user(
    store: TrackerStore, user_id: str, *, dry_run: bool = False
) -> AsyncIterator[tuple[str, bool]]:
    """Erase every conversation of a user, found by the index of users.

    Args:
        store: The store.
        user_id: The user.
        dry_run: Erase nothing, and yield what would be erased.

    Yields:
        Each sender id, and whether there was anything.

    Raises:
        InvalidInputError: The user id is not one that can be stored.
        TrackerStoreError: The store cannot be used.
    """

    async def work(summary: ConversationSummary) -> bool:
        return dry_run or await store.delete(summary.sender_id)

    async for summary, done in each_conversation(store, work, user_id=user_id):
        yield summary.sender_id, done
