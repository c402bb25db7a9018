"""How large a message RabbitMQ takes: it tells by closing the channel."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from tracker_store_async import errors
from tracker_store_async.brokers.connected import CAREFUL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST = re.compile(r"larger than .*max size (\d+)")


class SizeLimit:
    """What RabbitMQ takes at most, once a message was larger; known for a minute.

    Without it such a message would be sent again over each new connection, and end it.

    Args:
        where: The server, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._bytes = 0
        self._until = 0.0

    def learn(self, reason: object) -> None:
        """Note the limit, if that is why the channel was closed.

        Args:
            reason: What the channel was closed with.
        """
        found = _LARGEST.search(str(reason))
        if found is not None:
            self._bytes = int(found[1])
            self._until = time.monotonic() + CAREFUL_SECONDS

    def check(self, bodies: Iterable[bytes]) -> None:
        """Check that messages are not known to be too large.

        Raises:
            BrokerRefusedError: One is.
        """
        if time.monotonic() > self._until:
            return
        largest = max(map(len, bodies))
        if largest > self._bytes:
            raise errors.BrokerRefusedError(
                f"an event of {largest} bytes is larger than {self._where} takes "
                f"({self._bytes} bytes): raise max_message_size there"
            )
