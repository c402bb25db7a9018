"""What travels to a broker: Rasa's body, and ours beside it in headers.

A consumer of Rasa's events reads the body and finds what it knows. What it needs to
drop repeats and to see the order (`message_id`, `position`) never touches the body.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker_store_async.broker import EventMessage

MESSAGE_ID = "message_id"
POSITION = "position"
TYPE = "type"
ENVIRONMENT = "RASA_ENVIRONMENT"
"""Header, and environment variable, that says which deployment an event comes from."""


def encode_body(message: EventMessage) -> bytes:
    """Return the body as JSON in ASCII, with Rasa's keys in Rasa's order."""
    return message.encoded()


def environment() -> str | None:
    """Return `RASA_ENVIRONMENT`, or None where it is not set."""
    return os.environ.get(ENVIRONMENT) or None


def headers_of(
    message: EventMessage, environment_not_set: str | None = None
) -> dict[str, str]:
    """Return the headers: message id, position, type and, if set, the environment.

    Args:
        message: The message.
        environment_not_set: What stands for an environment that is not set.
    """
    headers = {
        MESSAGE_ID: message.message_id,
        POSITION: str(message.position),
        TYPE: message.type_name,
    }
    if name := os.environ.get(ENVIRONMENT, environment_not_set):
        headers[ENVIRONMENT] = name
    return headers
