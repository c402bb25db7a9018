"""What the target has and the source has not: found, and erased if told so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.errors import (
    ConfigurationError,
    InvalidInputError,
    StoreDataError,
    TrackerDeserialisationError,
)
from tracker_store_async.moving.batches import batches_of
from tracker_store_async.moving.reports import Silent
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tracker_store_async.moving.reports import Progress
    from tracker_store_async.rows import ConversationSummary, StoredConversation
    from tracker_store_async.store import TrackerStore

AT_ONCE = 200
"""Conversations that are asked for together."""

UNREADABLE = (InvalidInputError, TrackerDeserialisationError, StoreDataError)
"""Errors of a conversation that is there, but cannot be read."""


async def check_has_some(source: TrackerStore) -> None:
    """Refuse a source without any conversation.

    Raises:
        ConfigurationError: It has none: by a wrong name, everything would be erased.
    """
    async for _ in source.conversations(page_size=1):
        return
    raise ConfigurationError(
        "the source has no conversation, so everything in the target would be erased: "
        "check the source, or erase the target yourself"
    )


async def missing_in(
    source: TrackerStore, target: TrackerStore, *, progress: Progress | None = None
) -> AsyncIterator[ConversationSummary]:
    """List what the target has and the source has not, in constant memory.

    That is a conversation that was erased in the source, or has expired there, and one
    of the same id that was begun again, or rewritten, since it was copied. One that
    cannot be read counts as there.

    Args:
        source: Is only read.
        target: Is only read.
        progress: Is told how many conversations of the target were looked at.

    Raises:
        ConfigurationError: The source has no conversation at all.
        StoreUnavailableError: A storage cannot be reached.
    """
    progress = progress or Silent()
    await check_has_some(source)
    async for batch in batches_of(target.conversations(), AT_ONCE):
        found = await _headers(source, batch.summaries)
        for summary, is_there in zip(batch.summaries, found, strict=True):
            if not is_there:
                yield summary
        progress.advance(len(batch.summaries), 0)


async def erased_in(
    source: TrackerStore, target: TrackerStore
) -> AsyncIterator[ConversationSummary]:
    """Erase in the target what the source has not, and yield what was erased.

    What somebody adds to in the target meanwhile is left alone. It may be cut off
    anywhere and be run again.

    Args:
        source: Is only read.
        target: Where from.

    Raises:
        ConfigurationError: The source has no conversation at all.
        StoreUnavailableError: A storage cannot be reached.
    """
    async for summary in missing_in(source, target):
        name, version = summary.sender_id, summary.version
        if await target._delete(name, None, target._now(), version):
            yield summary


async def _headers(
    source: TrackerStore, summaries: Sequence[ConversationSummary]
) -> list[bool]:
    """Return of each whether the source has the same log."""
    reads = [Read(each.sender_id, source._now(), last=0) for each in summaries]
    try:
        found = await source._read_many(reads)
    except UNREADABLE:  # which one, is found out by asking for each alone
        return [
            await _has(source, read, each)
            for read, each in zip(reads, summaries, strict=True)
        ]
    return [_is_same(*each) for each in zip(summaries, found, strict=True)]


async def _has(source: TrackerStore, read: Read, summary: ConversationSummary) -> bool:
    try:
        return _is_same(summary, await source._read(read))
    except UNREADABLE:
        return True


def _is_same(summary: ConversationSummary, found: StoredConversation | None) -> bool:
    return found is not None and found.created_at == summary.created_at
