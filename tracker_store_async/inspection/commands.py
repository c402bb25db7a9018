"""What the command line shows of conversations: one, a list of them, their ids."""

from __future__ import annotations

import shlex
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from rich.text import Text

from tracker_store_async.domain import Domain
from tracker_store_async.inspection.listing import summary_json, write_table
from tracker_store_async.inspection.opening import NotFoundError, opened
from tracker_store_async.inspection.terminal import json_text, print_line, printable
from tracker_store_async.inspection.timeline import write_conversation
from tracker_store_async.tracker import EventVerbosity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from rich.console import Console

    from tracker_store_async.inspection.targets import Target
    from tracker_store_async.rows import ConversationSummary
    from tracker_store_async.tracker import DialogueStateTracker


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
    print_line(json_text(state, indent=2))


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
                    print_line(summary_json(summary))
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
                print_line(printable(summary.sender_id))
