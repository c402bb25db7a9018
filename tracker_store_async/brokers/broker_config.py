"""The keys that every event broker has."""

from __future__ import annotations

from typing import ClassVar

from tracker_store_async.options import OnPublishError  # noqa: TC001 - pydantic reads it
from tracker_store_async.settings import Seconds, Section


class BrokerConfig(Section):
    """The keys that every event broker has.

    Attributes:
        timeout_seconds: Longest time that one publish takes.
        on_publish_error: What a save does when this broker fails, whatever the store
            says; None leaves it to the store.
    """

    other_keys: ClassVar = ("strict",)

    timeout_seconds: Seconds = 10.0
    on_publish_error: OnPublishError | None = None
