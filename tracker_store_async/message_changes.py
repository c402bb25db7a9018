"""What the events of a turn change on its message: entities and featurisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.applied import kind_of

if TYPE_CHECKING:
    from tracker_store_async.events import Event, UserUttered

_LISTEN = "action_listen"


class MessageChanges:
    """As much of a state as the events that change a message look at.

    Args:
        listens: Whether the bot is waiting for a message.
    """

    def __init__(self, *, listens: bool) -> None:
        self.latest_message: Any = None
        self.latest_action_name = _LISTEN if listens else None

    def follow(self, event: Event, *, is_new: bool) -> None:
        """Take one more event into account.

        Args:
            event: The event.
            is_new: Whether it makes its change now, or has made it before.
        """
        kind = kind_of(event)
        if kind == "user":
            self.latest_message = event
        elif kind == "action":
            self.latest_action_name = _LISTEN if listens_after(event) else None
        elif kind == "restart" or kind == "session":
            self.latest_message = self.latest_action_name = None
        elif is_new and kind in ("entities", "featurisation"):
            event.apply_to(self)  # type: ignore[arg-type]


def listens_after(action: Any) -> bool:
    """Whether the bot waits for a message after this action."""
    return bool((action.action_name or action.action_text) == _LISTEN)


def message_key(message: UserUttered | None) -> tuple[Any, ...] | None:
    """Return what tells a message from others; None if there is none."""
    if message is None:
        return None
    return (
        message.timestamp,
        message.text,
        message.message_id,
        message.input_channel,
    )
