"""Publishing that never fails a save: what the broker does not take is sent later.

Within a conversation the order holds: an event joins the backlog as long as an earlier
one of its conversation waits there. Other conversations are not held up.

A conversation whose event the broker refuses waits, longer and longer, as with the
outbox (`relay.py`); the others go on. Where nothing at all can be published the broker
is away, and everybody waits.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tracker_store_async import errors
from tracker_store_async.backlog import Backlog, BatchSize, set_within
from tracker_store_async.broker_handle import (
    ACCESS_ERRORS,
    STOP_SECONDS,
    cancelled,
    is_outage,
    reason_of,
)
from tracker_store_async.locks import LoopLock
from tracker_store_async.redaction import fields, get_logger
from tracker_store_async.relay_holds import Holds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventMessage
    from tracker_store_async.broker_handle import BrokerHandle

logger = get_logger(__name__)

BACKLOG_LIMIT = 10_000
"""Most events that `best_effort` keeps; beyond it the oldest are dropped, counted."""

FLUSH_BATCH = 100
"""Most events of a backlog that are sent together; fewer after a failure, since a slow
broker may need all of its `timeout_seconds` for some of them."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
"""Pauses between two attempts to reach a broker that is away, while nobody saves."""

SHORTEST_RETRY_SECONDS = 0.02
"""Shortest pause between two attempts, however many save."""

FAILURES_OF_AN_OUTAGE = 3
"""Conversations that fail one after the other until the broker counts as away."""

DRAIN_SECONDS = 10.0
"""Longest time that closing a store spends on its backlog."""


class BestEffort:
    """Publishes, or keeps what the broker does not take and sends it when it does.

    A save whose conversation has nothing in the backlog publishes as ever, and waits.
    One that has waits until all of that is sent, for the broker's `timeout_seconds` at
    most. While the broker is away, or not open yet, no save waits for it.

    Args:
        handle: The broker.

    Attributes:
        backlog: What the broker has not taken yet.
        dropped: Number of events that the full backlog had to drop.
        is_away: Whether the broker failed and has taken nothing since.
    """

    def __init__(self, handle: BrokerHandle) -> None:
        self.backlog = Backlog()
        self.dropped = 0
        self.is_away = False
        self._handle = handle
        self._holds = Holds(BACKLOG_LIMIT)
        self._suspected: set[str] = set()
        self._has_sent = False  # whether anything got through in this round
        self._may_be_back = True  # whether the last failure was an outage
        self._end: float | None = None  # when closing stops sending
        self._is_outage_told = False
        self._is_stopped = False
        self._is_drained = False  # so that nobody sends what comes now
        self._is_replaced = False
        self._heir: BestEffort | None = None
        self._batches = BatchSize(FLUSH_BATCH)
        self._leave_alone_until = 0.0
        self._turn = LoopLock()
        self._wanted = asyncio.Event()
        self._opened = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._former: list[asyncio.Task[None]] = []
        handle.when_open(self._note_open)

    @property
    def held_count(self) -> int:
        """Number of conversations that wait since an event of theirs is refused."""
        return self._holds.refused_count

    def start(self) -> None:
        """Begin to send what an earlier use of the store has left."""
        self._is_stopped = self._is_drained = False
        if self.backlog:
            self._wake()

    async def publish(self, sender_id: str, messages: list[EventMessage]) -> None:
        """Publish events, or keep them.

        Args:
            sender_id: The conversation.
            messages: Its events, in order.

        Raises:
            Exception: The broker failed and, meanwhile, another one took its place
                whose store does not keep events.
        """
        if self.is_away or not self._handle.is_open:
            self.keep(messages)
        elif self.backlog.has_some_of(sender_id):
            await self._queue(sender_id, messages)
        else:
            await self._send_or_keep(sender_id, messages)

    async def _queue(self, sender_id: str, messages: list[EventMessage]) -> None:
        """Keep events behind those that wait; wait with them, if they are sent now."""
        self.keep(messages)
        if sender_id in self._holds:
            return
        try:
            await self.backlog.until_sent(sender_id, self._handle.timeout_seconds)
        except asyncio.CancelledError:
            # The save is given up: whoever repeats it publishes them again, in order.
            self._keeper().backlog.discard(messages)
            raise

    async def _send_or_keep(self, sender_id: str, messages: list[EventMessage]) -> None:
        started = time.monotonic()
        try:
            await self._handle.send(messages)
        except asyncio.CancelledError:
            # The save is given up, so nobody would send these again in order.
            raise
        except Exception as error:
            if self._is_replaced and self._heir is None:
                raise
            if isinstance(error, errors.BrokerRefusedError):
                self.keep(messages)  # and find out at once which of them it is
            else:
                self.keep(messages, wake=False)
                self._note_outage(error, started)
        else:
            self._note_sent(messages)

    # -- what is kept ------------------------------------------------------------------

    def _keeper(self) -> BestEffort:
        """Return who has the backlog now: a later broker may have got it."""
        return self if self._heir is None else self._heir._keeper()

    def keep(self, messages: Sequence[EventMessage], *, wake: bool = True) -> None:
        """Let messages wait; the oldest of all are dropped beyond `BACKLOG_LIMIT`.

        Args:
            messages: The messages.
            wake: Whether to try at once to send them.
        """
        if (keeper := self._keeper()) is not self:
            keeper.keep(messages)
            return
        oldest = self.backlog.add(messages, BACKLOG_LIMIT)
        if oldest:
            self.dropped += len(oldest)
            self._forget_holds(oldest)
            logger.error(
                "The backlog of unpublished events is full: dropped the %d oldest "
                "(%d so far). They are stored, but no consumer will see them.",
                len(oldest),
                self.dropped,
                extra=fields("backlog_full", dropped_events=self.dropped),
            )
        if self._is_drained:  # a save was under way while the store was closed
            self._tell_left()
        self._wake(at_once=wake)

    def _forget_holds(self, gone: Sequence[EventMessage]) -> None:
        ids = {message.sender_id for message in gone}
        ended = {each for each in ids if not self.backlog.has_some_of(each)}
        self._holds.drop(ended)
        self._suspected -= ended

    def hand_over(self, heir: BestEffort | None) -> None:
        """Leave the backlog to the one who publishes from now on.

        Args:
            heir: It, or None; then nothing may wait.
        """
        self._is_replaced, self._heir = True, heir
        sending = cancelled(self._sending)
        opening = self._handle.let_go()
        if heir is not None:
            heir._is_stopped, heir._is_drained = self._is_stopped, self._is_drained
            heir._former += [task for task in (sending, opening) if task is not None]
            heir._former += self._former
            if self.backlog:
                heir.keep(list(self.backlog))
        self.backlog.discard(list(self.backlog))

    # -- sending what is kept ----------------------------------------------------------

    def _wake(self, *, at_once: bool = True) -> None:
        """Have the backlog sent: soon, or when its pause is over."""
        if self._is_stopped:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # called from no loop: the next save sends it
            return
        task = self._sending
        if task is None or task.done() or task.get_loop() is not loop:
            self._wanted, self._opened = asyncio.Event(), asyncio.Event()
            self._sending = loop.create_task(self._send_in_background())
        if at_once:
            self._wanted.set()

    async def _send_in_background(self) -> None:
        """Send the backlog as soon as the broker takes it, although nobody saves."""
        pause = FIRST_RETRY_SECONDS
        self._batches = BatchSize(FLUSH_BATCH)
        while self.backlog:
            if self.is_away:
                await set_within(self._wanted, pause)
                left_seconds = self._leave_alone_until - time.monotonic()
                await set_within(self._opened, left_seconds)
                if not self._wanted.is_set():
                    pause = min(2 * pause, LONGEST_RETRY_SECONDS)
            elif not self.backlog.next_batch(1, self._holds.waiting()):
                await set_within(self._wanted, self._holds.pause_seconds())
            self._wanted.clear()
            self._opened.clear()
            await self.flush()
            if self._has_sent or not self.is_away:
                pause = FIRST_RETRY_SECONDS

    async def flush(self) -> None:
        """Send the backlog, but for those who are held, until the broker fails."""
        async with self._turn:
            self._has_sent = False
            while not self._is_over() and (batch := self._next_batch()):
                if not await self._send_batch(batch):
                    return

    def _is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def _next_batch(self) -> list[EventMessage]:
        """Return what is sent next; whoever may have been refused comes last."""
        held = self._holds.waiting()
        size, apart = self._batches.size, {*held, *self._suspected}
        batch = self.backlog.next_batch(size, apart)
        return batch or self.backlog.next_batch(size, held)

    async def _send_batch(self, batch: list[EventMessage]) -> bool:
        """Send messages together; return whether to go on with others."""
        started = time.monotonic()
        try:
            await self._handle.send(batch)
        except Exception as error:  # noqa: BLE001  any failure of a foreign broker
            if is_outage(error):
                # who has sent something is slow rather than away
                self._batches.note_failure(len(batch), is_slow=self._has_sent)
                return not self._is_away_for(batch, error, started)
        else:
            self._batches.note_success(len(batch))
            self._note_sent(batch)
            return True
        return await self._send_one_by_one(batch)

    async def _send_one_by_one(self, batch: list[EventMessage]) -> bool:
        """Find out whose event it is, and get the others through.

        Returns:
            Whether to go on; else the broker is away.
        """
        failed: set[str] = set()
        failures = 0  # in a row, that do not say whether the broker is there
        last_error: Exception | None = None
        for message in batch:
            if message.sender_id in failed or not self.backlog.has(message):
                continue
            started = time.monotonic()
            try:
                await self._handle.send([message])
            except Exception as error:  # noqa: BLE001  any failure of a foreign broker
                last_error = error
                failed.add(message.sender_id)
                if is_outage(error):
                    if self._is_away_for([message], error, started):
                        return False
                    continue
                failures += self._is_unclear(message, error)
                if failures == FAILURES_OF_AN_OUTAGE:
                    self._note_outage(error, started)
                    return False
            else:
                failures = 0
                self._note_sent([message])
        if failures and last_error is not None and not self._has_sent:
            self._note_outage(last_error, started)
            return False
        return True

    def _is_away_for(
        self, batch: list[EventMessage], error: Exception, started: float
    ) -> bool:
        """Return whether a failure that says so is an outage.

        An event that cuts the connection says so, too. So a conversation that fails
        alone comes last the next time, and is held if all others have got through.
        """
        firsts = {message.sender_id: message for message in reversed(batch)}
        if self._has_sent and firsts.keys() <= self._suspected:
            for message in firsts.values():
                self._hold(message, error)
            return False
        if len(firsts) == 1:
            self._suspected |= firsts.keys()
        self._note_outage(error, started)
        return True

    def _is_unclear(self, message: EventMessage, error: Exception) -> bool:
        """Let a conversation wait; return whether the broker may be away all the same.

        An error that says nothing may mean so, unless others have got through.
        """
        if isinstance(error, errors.BrokerRefusedError):
            self._note_answer()  # whoever refuses an event is there
            self._hold(message, error)
            return False
        if message.sender_id in self._holds:
            self._hold(message, error)
            return False
        if self._has_sent:
            self._hold(message, error)
        else:
            self._suspected.add(message.sender_id)
        return True

    def _hold(self, message: EventMessage, error: Exception) -> None:
        """Let a conversation wait for its refused event, longer each time."""
        seconds = self._holds.add(message.sender_id, counts=True)
        self._suspected.discard(message.sender_id)
        self.backlog.let_go([message.sender_id])
        logger.warning(
            "Event %s at position %d of conversation %r could not be published (%s): "
            "what follows it there waits for it, and it is tried again in %g s at the "
            "earliest.",
            message.message_id,
            message.position,
            message.sender_id,
            type(error).__name__,
            seconds,
            extra=fields("event_refused", sender_id=message.sender_id),
        )

    # -- whether the broker is there ---------------------------------------------------

    def _note_open(self) -> None:
        """Send at once what was kept while the broker was being opened."""
        self._note_answer()
        if self.backlog:
            self._wake()
            self._opened.set()

    def _note_outage(self, error: Exception, started: float) -> None:
        """Leave the broker alone for as long as the failure took; tell the log once.

        Else every conversation would wait in turn for a broker that is down.
        """
        closed = isinstance(error, (*ACCESS_ERRORS, errors.BrokerClosedError))
        self._may_be_back = is_outage(error) and not closed
        now = time.monotonic()
        pause = max(SHORTEST_RETRY_SECONDS, now - started)
        self._leave_alone_until = now + pause
        self.is_away = True
        self.backlog.let_go()
        if self._is_outage_told:
            return
        self._is_outage_told = True
        logger.warning(
            "The event broker %s failed (%s): events wait in the backlog until it is "
            "back; there are %d so far.",
            self._handle.name,
            reason_of(error),
            len(self.backlog),
            extra=fields("broker_failed", backlog_events=len(self.backlog)),
        )

    def _note_answer(self) -> None:
        self.is_away = False

    def _note_sent(self, messages: Sequence[EventMessage]) -> None:
        self._note_answer()
        self._has_sent = True
        self.backlog.discard(messages)
        through = {message.sender_id for message in messages}
        self._holds.drop(through)
        self._suspected -= through
        if self._is_outage_told and not self.backlog:
            self._is_outage_told = False
            logger.warning(
                "The event broker %s is back: nothing waits in the backlog any more.",
                self._handle.name,
                extra=fields("broker_back", dropped_events=self.dropped),
            )

    # -- the end -----------------------------------------------------------------------

    async def drain(self) -> None:
        """Send what is left of the backlog, and say in the log what could not be.

        It takes some `DRAIN_SECONDS` at most, and says so even if it is cancelled.
        """
        self._is_stopped = True
        try:
            await self._end_sending()
            if self.backlog:
                self._holds = Holds(BACKLOG_LIMIT, first_seconds=DRAIN_SECONDS)
                self._suspected.clear()
                self._batches = BatchSize(FLUSH_BATCH)
                self._end = time.monotonic() + DRAIN_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await self._flush_before_the_end()
        finally:
            self._end = None
            self._holds = Holds(BACKLOG_LIMIT)
            self.backlog.let_go()
            # Opened again meanwhile, it sends the rest after all.
            self._is_drained = self._is_stopped
            if self.backlog:
                self._tell_left()

    async def _flush_before_the_end(self) -> None:
        """Send the backlog, and again as long as the broker is away but may be back.

        A broker may take a cancellation for a failure of its own, so that neither the
        time limit nor whoever cancels the closing would get through to this.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        pause = SHORTEST_RETRY_SECONDS
        await self.flush()
        while self.is_away and self._may_be_back and self._is_stopped and self.backlog:
            if self._is_over() or (task and task.cancelling() > before):
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, FIRST_RETRY_SECONDS)
            await self.flush()

    async def _end_sending(self) -> None:
        tasks = [cancelled(self._sending), *self._former]
        loop = asyncio.get_running_loop()
        ours = {task for task in tasks if task is not None and task.get_loop() is loop}
        self._sending, self._former = None, []
        if ours:  # a foreign broker may not let itself be cancelled
            await asyncio.wait(ours, timeout=STOP_SECONDS)

    def _tell_left(self) -> None:
        logger.error(
            "%d events that are stored were never published: the event broker "
            "%s did not come back before the store was closed, or refuses them.",
            len(self.backlog),
            self._handle.name,
            extra=fields("backlog_lost", backlog_events=len(self.backlog)),
        )
