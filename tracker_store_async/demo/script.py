"""What the users of the demo say, and when."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

NAMES = ("ada", "ben", "chloé")

BEFORE_THE_STOP = 2
"""Messages of each user that the first process answers; it dies over the next one."""

_BOOKINGS = (
    ("Thai, please", "We are four", "At 7 pm", "Outside, please"),
    ("Italian, if you have it", "for two", "19:30", "inside"),
    ("Something Indian 🍛", "three of us", "8 pm", "outside!"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of one user.

    Attributes:
        sender_id: The user's conversation.
        text: What the user writes.
        at_seconds: When, in seconds since the epoch.
    """

    sender_id: str
    text: str
    at_seconds: float


def name_of(index: int) -> str:
    """Return the name of user number `index`, from 0."""
    return NAMES[index] if index < len(NAMES) else f"user-{index + 1}"


def booking(sender_id: str, index: int, start_seconds: float) -> list[Message]:
    """Return the messages with which user number `index` books a table.

    Args:
        sender_id: The user's conversation.
        index: Number of the user, from 0.
        start_seconds: When the first user begins, in seconds since the epoch.
    """
    texts = ("Hi, I need a table", *_BOOKINGS[index % len(_BOOKINGS)])
    times = count(start_seconds + 7 * index, 25)
    return [
        Message(sender_id, text, at) for text, at in zip(texts, times, strict=False)
    ]
