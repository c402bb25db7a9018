"""Where the sessions of a conversation start: one rule for every backend.

A session starts at a `session_started` event, or at the `action_session_start` action
right before it where there is one. (Rasa's stores disagree with each other here.)
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tracker_store_async.cursor import is_session_action, is_session_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.events import Event


def session_starts(events: Sequence[Event]) -> list[int]:
    """Return the places where a session starts, in ascending order.

    Args:
        events: Events without a gap, oldest first. What stands before the first start
            belongs to a session that started earlier, or to none.
    """
    return [
        index - 1 if index and is_session_action(events[index - 1]) else index
        for index, event in enumerate(events)
        if is_session_start(event)
    ]


def split_sessions(events: Iterable[Event]) -> list[list[Event]]:
    """Return the events of each session; the first part may have no start."""
    held = list(events)
    bounds = sorted({0, *session_starts(held), len(held)})
    return [held[start:end] for start, end in pairwise(bounds)]
