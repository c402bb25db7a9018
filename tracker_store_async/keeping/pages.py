"""Work on many conversations: a bounded number in flight, in the order of the list."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from tracker_store_async.rows import ConversationSummary
    from tracker_store_async.store import TrackerStore

T = TypeVar("T")

PAGE_SIZE = 200
"""Conversations that are listed in one round trip."""

CONCURRENCY = 8
"""Conversations that are worked on at once."""


async def each_conversation(
    store: TrackerStore,
    work: Callable[[ConversationSummary], Awaitable[T]],
    *,
    user_id: str | None = None,
    updated_before: float | None = None,
    after: str | None = None,
    concurrency: int = CONCURRENCY,
) -> AsyncIterator[tuple[ConversationSummary, T]]:
    """Work on each conversation, and yield what came of it in the order of the list.

    An error ends it; what was under way is finished first, so that whoever goes on
    behind the last summary that was yielded misses nothing.

    Args:
        store: The store.
        work: What to do.
        user_id: Only the conversations of this user.
        updated_before: Only those updated before this time.
        after: Go on after this cursor.
        concurrency: Most conversations that are worked on at once.
    """
    found = store.conversations(
        user_id=user_id,
        updated_before=updated_before,
        cursor=after,
        page_size=PAGE_SIZE,
    )
    async with aclosing(cast("AsyncGenerator[ConversationSummary]", found)) as listed:
        batch: list[ConversationSummary] = []
        async for summary in listed:
            batch.append(summary)
            if len(batch) == concurrency:
                for done in await _all(batch, work):
                    yield done
                batch = []
        for done in await _all(batch, work):
            yield done


async def _all(
    batch: list[ConversationSummary],
    work: Callable[[ConversationSummary], Awaitable[T]],
) -> list[tuple[ConversationSummary, T]]:
    results = await asyncio.gather(*map(work, batch), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(zip(batch, cast("list[T]", results), strict=True))
