"""The keys of the file event broker in `endpoints.yml`."""

from __future__ import annotations

from typing import ClassVar

from tracker_store_async.brokers.broker_config import BrokerConfig
from tracker_store_async.settings import Name  # noqa: TC001 - pydantic reads it


class FileBrokerConfig(BrokerConfig):
    """Rasa's key (`FileEventBroker` of 3.6.21), and ours.

    Attributes:
        path: File that the events are appended to.
        with_headers: Whether each line also holds the message id, the position, the
            type and `RASA_ENVIRONMENT`, with Rasa's message as its `body`.
        fsync: Whether a publish waits until the lines are on the disk.
    """

    aliases: ClassVar = {"url": "path"}

    path: Name = "rasa_event.log"
    with_headers: bool = False
    fsync: bool = True
