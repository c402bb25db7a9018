"""The process of the demo that is killed while it works on an answer.

It reports on standard output what it does, a JSON object a line. Over the last message
of each user it thinks for ever, with the turn in memory and not stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import TYPE_CHECKING

from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.demo.assistant import (
    RestaurantAssistant,
    load_domain,
    think_briefly,
)
from tracker_store_async.demo.script import BEFORE_THE_STOP, booking
from tracker_store_async.errors import TrackerStoreError

if TYPE_CHECKING:
    from collections.abc import Sequence


def report(**fields: str) -> None:
    """Tell the parent process; it ends us, so nothing may wait in a buffer."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def run(db: str, start_seconds: float, sender_ids: Sequence[str]) -> None:
    """Serve all users at once, until killed.

    Args:
        db: Path of the SQLite file.
        start_seconds: When the first user begins, in seconds since the epoch.
        sender_ids: The users.
    """
    async with SQLTrackerStore(load_domain(), dialect="sqlite", db=db) as store:
        await asyncio.gather(
            *(
                _serve(store, sender_id, index, start_seconds)
                for index, sender_id in enumerate(sender_ids)
            )
        )


async def _serve(
    store: SQLTrackerStore, sender_id: str, index: int, start_seconds: float
) -> None:
    messages = booking(sender_id, index, start_seconds)[: BEFORE_THE_STOP + 1]
    last = messages.pop()
    assistant = RestaurantAssistant(store)
    for message in messages:
        await _typing(index)
        report(sender_id=sender_id, user=message.text)
        reply = await assistant.answer(sender_id, message.text, message.at_seconds)
        report(sender_id=sender_id, bot=reply)
    report(sender_id=sender_id, user=last.text)
    stuck = RestaurantAssistant(store, think=_think_for_ever)
    await stuck.answer(sender_id, last.text, last.at_seconds)


async def _typing(index: int) -> None:
    """Let users write at different speeds, so that their turns interleave."""
    await asyncio.sleep(0.01 + 0.013 * (index % 3))


async def _think_for_ever(sender_id: str, reply: str) -> None:
    await think_briefly(sender_id, reply)
    report(sender_id=sender_id, thinking=reply)
    await asyncio.Event().wait()


def _end_with_parent() -> None:
    """End once standard input is closed: the parent is gone before it could kill us."""
    # Not sys.stdin: its lock would be in the way if the main thread ends first.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        asyncio.run(run(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
    except TrackerStoreError as error:
        report(error=str(error))
