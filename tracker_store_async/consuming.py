"""For consumers of a broker: drop what was delivered before."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_CAPACITY = 100_000
"""Message ids that are remembered: some 15 MB."""


class RepeatFilter:
    """Tells a message that is seen for the first time from a repeat.

    Delivery is at least once: after a failure the same event is published again, under
    the same message id. ::

        repeats = RepeatFilter()
        async for message in queue:
            with repeats.handling(message.message_id) as is_new:
                if is_new:
                    await handle(message)
            await message.ack()

    An id counts as seen once its message is handled. Where `handle` raises, the message
    is not acknowledged, and what the broker delivers again is new again.

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
        self._in_hand: set[str] = set()
        self.repeats = 0

    @contextmanager
    def handling(self, message_id: str) -> Iterator[bool]:
        """Handle a message within; yield whether it is new.

        The id is remembered once the block ends without an error. While another task
        is at the same message, it is a repeat: should that task fail, the broker has
        its delivery to give again.

        Args:
            message_id: The id from the header or property of the message.
        """
        if message_id in self._in_hand or message_id in self._seen:
            self._note_repeat(message_id)
            yield False
            return
        self._in_hand.add(message_id)
        try:
            yield True
            self._remember(message_id)
        finally:
            self._in_hand.discard(message_id)

    def is_new(self, message_id: str) -> bool:
        """Return whether the id was not met before, and remember it at once.

        Where what follows may fail, use `handling`, or `forget` it then: else the
        message is taken for a repeat when the broker delivers it again.

        Args:
            message_id: The id from the header or property of the message.
        """
        if message_id in self._in_hand or message_id in self._seen:
            self._note_repeat(message_id)
            return False
        self._remember(message_id)
        return True

    def forget(self, message_id: str) -> None:
        """Take an id for new when it comes next; one that was not met is none."""
        self._seen.pop(message_id, None)

    def _note_repeat(self, message_id: str) -> None:
        self.repeats += 1
        if message_id in self._seen:
            self._seen.move_to_end(message_id)

    def _remember(self, message_id: str) -> None:
        self._seen[message_id] = None
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def __len__(self) -> int:
        """Return the number of ids that are remembered."""
        return len(self._seen)
