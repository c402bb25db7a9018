"""Conversations that Rasa itself wrote, to be stored, resumed and shown.

`rasa_conversations.json` holds the event rows as Rasa 3.6.21's SQL tracker store wrote
them, one a line. The messages were generated; no real person is in them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from tracker_store_async.store import TrackerStore

RESUMED_ID = "user-0001"
"""The conversation that the demo goes on with: a table was wanted, at no time yet."""


def load_rasa_conversations() -> dict[str, list[dict[str, Any]]]:
    """Return the events of each bundled conversation, as Rasa's JSON, by sender id."""
    path = files(__package__) / "rasa_conversations.json"
    conversations: dict[str, list[dict[str, Any]]] = json.loads(
        path.read_text(encoding="utf-8")
    )["conversations"]
    return conversations


async def store_rasa_conversations(store: TrackerStore) -> dict[str, int]:
    """Store the bundled conversations that are not stored yet.

    Args:
        store: Where to.

    Returns:
        Number of events of each of them, by sender id.
    """
    counts = {}
    for sender_id, events in load_rasa_conversations().items():
        counts[sender_id] = len(events)
        if not await store.exists(sender_id):
            tracker = DialogueStateTracker.from_dict(
                sender_id, events, store.domain.slots
            )
            await store.save(tracker)
    return counts
