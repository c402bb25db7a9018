"""For consumers of a broker: drop what was delivered before."""

from __future__ import annotations

from collections import OrderedDict

from tracker_store_async.errors import ConfigurationError

DEFAULT_CAPACITY = 100_000
"""Message ids that are remembered: some 15 MB."""


class RepeatFilter:
    """Tells a message that is seen for the first time from a repeat.

    Delivery is at least once: after a failure the same event is published again, under
    the same message id. ::

        repeats = RepeatFilter()
        async for message in queue:
            if repeats.is_new(message.message_id):
                handle(message)

    It forgets the ids that it met longest ago. Repeats follow a failure closely, so it
    is enough that it remembers as many as are published during an outage. A consumer
    that restarts, or that must never handle an event twice, keeps the ids beside what
    it writes, under a unique key.

    Args:
        capacity: Most ids that it remembers.

    Attributes:
        repeats: Number of repeats met so far.

    Raises:
        ConfigurationError: `capacity` is not positive.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ConfigurationError("capacity must be 1 or more message ids")
        self._capacity = capacity
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.repeats = 0

    def is_new(self, message_id: str) -> bool:
        """Return whether the id was not met before, and remember it.

        Args:
            message_id: The id from the header or property of the message.
        """
        if message_id in self._seen:
            self._seen.move_to_end(message_id)
            self.repeats += 1
            return False
        self._seen[message_id] = None
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
        return True

    def __len__(self) -> int:
        """Return the number of ids that are remembered."""
        return len(self._seen)
