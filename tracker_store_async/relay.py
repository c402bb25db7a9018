"""The outbox: events stored with the conversation, published in order afterwards.

For those who would rather have an event published late than one that was published and
never stored. The messages of a save are stored in the transaction of its append; a
relay publishes them, waits until the broker has confirmed them, and removes them. After
a crash they are published again: at least once, as ever.

A conversation whose event the broker refuses waits, longer and longer; the others go
on. Where nothing at all can be published the broker is away, and everybody waits.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from abc import abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tracker_store_async.broker import EventMessage
from tracker_store_async.errors import BrokerRefusedError, ConfigurationError
from tracker_store_async.redaction import get_logger
from tracker_store_async.relay_holds import MOST_HOLDS, Holds, Passage
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.rows import OutboxItem

logger = get_logger(__name__)

LEASE_SECONDS = 30.0
"""How long one relay has the outbox to itself, from its latest asking on."""

LONGEST_LEASE_SECONDS = 300.0
"""What is leased for longer was leased before the database's clock was set back."""

PUBLISH_SECONDS = LEASE_SECONDS / 2
"""Longest time that one publish may take: another relay must not begin meanwhile. A
broker that may take longer makes for longer leases."""

MARGIN_SECONDS = 5.0
"""What has to be left of a lease, beside a publish, before anything is published."""

LONGEST_PUBLISH_SECONDS = LONGEST_LEASE_SECONDS / 2 - MARGIN_SECONDS
"""Longest `timeout_seconds` of a broker that a relay can wait for."""

BATCH = 200
POLL_SECONDS = 1.0
"""Pause after which a relay looks for what other processes have left."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
DRAIN_SECONDS = 5.0
"""Longest time that closing a store spends on its outbox; the rest stays stored."""

FAILURES_OF_AN_OUTAGE = 3
"""Conversations that fail one after the other until the broker counts as away."""

MOST_COUNTED = 10_000
"""Number up to which what waits is counted."""

COUNT_SECONDS = 5.0
"""How old what is known of the number that waits may be, while somebody asks for it."""

TOO_MANY_REFUSED = f"events of {MOST_HOLDS} conversations and more are refused"
"""As a queue does that is full for all."""

ASKED_SECONDS = 120.0
"""How long after somebody asked for that number it is kept up to date."""


class Outbox(Protocol):
    """What a backend that has an outbox provides."""

    @abstractmethod
    async def lease(self, owner: str, seconds: float) -> bool:
        """Return whether the outbox belongs to this relay alone for so long.

        The clock is the database's: those of the processes may differ.
        """

    @abstractmethod
    async def release(self, owner: str) -> None:
        """Let another relay have it at once."""

    @abstractmethod
    async def read(
        self, limit: int, leave_out: Collection[str] = (), after: Any = None
    ) -> Sequence[OutboxItem]:
        """Return what waits longest, each conversation's in order and without a gap.

        Args:
            limit: Most items.
            leave_out: Sender ids that are passed over.
            after: Place of an item: up to there everything is passed over, and with it
                all else of the conversations that have something there.
        """

    @abstractmethod
    async def remove(self, items: Sequence[OutboxItem]) -> None:
        """Remove what is published: of each conversation the items read first."""

    @abstractmethod
    async def count(self, limit: int) -> int:
        """Return how much waits, in the backend's own unit, or the limit if more."""


class _LeaseLostError(Exception):
    """Another relay has the outbox by now."""


class _NoEventError(Exception):
    """What is stored is no event."""


class _OutageError(Exception):
    """Nothing can be published; the reason is the name of an error's class."""


class Relay:
    """Publishes what stands in the outbox; one relay at a time, over all processes.

    It opens the broker when there is something to publish, so that a store can be
    opened while the broker is down. An event that is refused is never left out: it and
    what follows it in its conversation are kept, and tried again from time to time.

    Args:
        outbox: Where the messages are.
        broker: Gets them.
        watch: Gets every publish that is to be awaited, and returns it watched.

    Raises:
        ConfigurationError: The broker does not go with an outbox.

    Attributes:
        published_count: Number of events that the broker confirmed to this relay.
        failure_count: Number of times that it did not confirm a publish.
    """

    def __init__(
        self,
        outbox: Outbox,
        broker: EventBroker,
        watch: Callable[[Awaitable[None]], Awaitable[None]] | None = None,
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._watch = watch
        self._publish_seconds = publish_seconds_of(broker)
        self._lease_seconds = 2 * self._publish_seconds
        self._owner = uuid.uuid4().hex
        self._is_open = False
        self._is_out = False  # whether nothing could be published of late
        self._mine_until = 0.0
        self._holds = Holds()
        self._passage = Passage()
        self.published_count = 0
        self.failure_count = 0
        self._waiting_count: int | None = None
        self._asked_at = self._counted_at = -math.inf
        self._is_wanted = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def held_count(self) -> int:
        """Number of conversations that wait since an event of theirs is refused."""
        return self._holds.refused_count

    def waiting_count(self) -> int | None:
        """Return how much waited at the latest count, for a gauge; None before it.

        It is counted every few seconds, for as long as somebody goes on asking. The
        thread does not matter.
        """
        self._asked_at = time.monotonic()
        return self._waiting_count

    def wake(self) -> None:
        """Say that there is something to publish."""
        self._is_wanted.set()

    async def metrics(self) -> dict[str, Any]:
        """Return what health reports of the outbox.

        Returns:
            `waiting` (events, with MongoDB conversations; at most 10,000 are counted),
            and of this process: `published`, `failures`, `held_conversations` and
            `broker_is_away`.
        """
        return {
            "waiting": await self._count(),
            "published": self.published_count,
            "failures": self.failure_count,
            "held_conversations": self.held_count,
            "broker_is_away": self._is_out,
        }

    async def _count(self) -> int:
        self._waiting_count = await self._outbox.count(MOST_COUNTED)
        self._counted_at = time.monotonic()
        return self._waiting_count

    async def _count_if_asked(self) -> None:
        now = time.monotonic()
        is_asked = now - self._asked_at < ASKED_SECONDS
        if is_asked and now - self._counted_at >= COUNT_SECONDS:
            try:
                await self._count()
            except Exception as error:  # noqa: BLE001  the storage may be away
                self._waiting_count = None
                logger.debug("The outbox could not be counted (%s).", _reason(error))

    async def stop(self) -> None:
        """Publish what is there, in a bounded time, and let another relay go on."""
        self._task.cancel()
        await asyncio.wait({self._task})
        for step in (self._publish_all, partial(self._outbox.release, self._owner)):
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await step()
            except Exception as error:  # noqa: BLE001  what is left is stored
                logger.warning(
                    "The outbox may still hold events, which the next relay will "
                    "publish (%s).",
                    _reason(error),
                )

    async def _run(self) -> None:
        pause = 0.0
        while True:
            self._is_wanted.clear()
            await self._count_if_asked()
            before = self.published_count
            try:
                await self._publish_all()
                pause = 0.0
            except Exception as error:  # noqa: BLE001  it goes on whatever happens
                pause = 0.0 if self.published_count > before else pause
                pause = max(FIRST_PAUSE_SECONDS, 2 * pause)
                pause = min(pause, LONGEST_PAUSE_SECONDS)
                logger.warning(
                    "The outbox could not be published (%s): it is tried again in "
                    "%g s. Its events are stored.",
                    _reason(error),
                    pause,
                )
                # A save may show that it is not everybody's trouble; not each of them.
                await asyncio.sleep(min(pause, POLL_SECONDS))
                await self._until_wanted(pause - POLL_SECONDS)
            else:
                await self._until_wanted(POLL_SECONDS)

    async def _until_wanted(self, seconds: float) -> None:
        """Wait so long at most: other processes may have left something."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._is_wanted.wait()

    # -- one round ---------------------------------------------------------------------

    async def _publish_all(self) -> None:
        """Publish until nothing is left that may be published now."""
        try:
            while found := await self._next():
                await self._open_broker()
                before = self.published_count
                if self._is_out:
                    await self._one_by_one(self._holds.oldest_first(found))
                else:
                    await self._publish_batch(found)
                self._note_page(found, self.published_count - before)
        except _LeaseLostError:
            return

    def _note_page(self, found: Sequence[OutboxItem], published: int) -> None:
        """Pass by those in front where more are refused than can be held by name.

        For each that is held then, another one would come back at once.
        """
        passage, was_none = self._passage, self._passage.passed is None
        got_on = passage.note(
            found[-1],
            got_through=bool(published),
            passes_by=self._holds.is_full and published < len(found),
        )
        if not got_on:
            raise _OutageError(TOO_MANY_REFUSED)
        if was_none and passage.passed is not None:
            logger.warning(
                "The outbox goes on behind those in front (%s): these are tried again "
                "some at a time.",
                TOO_MANY_REFUSED,
            )

    async def _next(self) -> Sequence[OutboxItem]:
        """Return the next items, if they are this relay's to publish."""
        held = self._holds.waiting()
        if not self._has_lease():
            # Who has nothing to publish leaves the lease alone, and writes nothing.
            if not await self._outbox.read(1, () if self._is_out else held):
                return ()
            await self._renew()
        found = await self._read(held)
        if not found and held and self._is_out:
            # All have failed, since the broker is away: is it still?
            return await self._outbox.read(BATCH)
        return found

    async def _read(self, held: Collection[str]) -> Sequence[OutboxItem]:
        passage = self._passage
        for is_sweep in passage.turns():
            after = passage.swept if is_sweep else passage.passed
            if found := await self._outbox.read(BATCH, held, after):
                passage.begin(is_sweep=is_sweep)
                return found
            if after is None and not self._is_out:
                self._holds.keep_only(held)  # the others were erased
            if is_sweep:
                passage.end_sweep(is_full=self._holds.is_full)
        return ()

    def _has_lease(self) -> bool:
        left = self._mine_until - time.monotonic()
        return left > self._publish_seconds + MARGIN_SECONDS

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        if not await self._outbox.lease(self._owner, self._lease_seconds):
            self._mine_until = 0.0
            raise _LeaseLostError
        self._mine_until = asked_at + self._lease_seconds

    async def _open_broker(self) -> None:
        if not self._is_open:
            async with asyncio.timeout(self._publish_seconds):
                await self._broker.open()
            self._is_open = True

    async def _publish_batch(self, found: Sequence[OutboxItem]) -> None:
        """Publish all at once; where that fails find out whose event it is."""
        known = {item.sender_id for item in found if item.sender_id in self._holds}
        usual = [item for item in found if item.sender_id not in known]
        if usual:
            try:
                await self._publish(usual)
            except _LeaseLostError:
                raise
            except Exception:  # noqa: BLE001  any failure of a foreign broker
                self.failure_count += 1
                known = {item.sender_id for item in found}
        await self._one_by_one([item for item in found if item.sender_id in known])

    async def _one_by_one(self, found: Sequence[OutboxItem]) -> None:
        """Publish single events, so that those before a refused one get through.

        Raises:
            _OutageError: Nothing gets through: the broker is away.
        """
        failed: set[str] = set()
        fresh_failures = 0  # in a row, of those who had no trouble before
        reason = "no answer"
        for item in found:
            if item.sender_id in failed:
                continue
            is_fresh = item.sender_id not in self._holds
            try:
                await self._publish([item])
            except _LeaseLostError:
                raise
            except Exception as error:  # noqa: BLE001  any failure of a foreign broker
                reason = _reason(error)
                failed.add(item.sender_id)
                if not self._note_failure(item, error):
                    continue
                fresh_failures += is_fresh
                if self._is_out or fresh_failures == FAILURES_OF_AN_OUTAGE:
                    break
            else:
                fresh_failures = 0
        self._is_out = self._is_out or bool(fresh_failures)
        if self._is_out:
            raise _OutageError(reason)

    def _note_failure(self, item: OutboxItem, error: Exception) -> bool:
        """Let a conversation wait; return whether the broker may be away."""
        self.failure_count += 1
        if isinstance(error, BrokerRefusedError):
            self._note_answer()  # whoever refuses an event is there
        is_refusal = isinstance(error, (BrokerRefusedError, _NoEventError))
        self._hold(item, error, counts=is_refusal or not self._is_out)
        return not is_refusal

    def _note_answer(self) -> None:
        if self._is_out:
            self._is_out = False
            self._holds.end_outage()

    def _hold(self, item: OutboxItem, error: Exception, *, counts: bool) -> None:
        seconds = self._holds.add(item.sender_id, counts=counts)
        logger.warning(
            "Event %s at position %d of conversation %r could not be published (%s): "
            "what follows it there waits for it, and it is tried again in %g s at the "
            "earliest.",
            item.entry.message_id,
            item.entry.position,
            item.sender_id,
            _reason(error),
            seconds,
        )

    async def _publish(self, items: Sequence[OutboxItem]) -> None:
        messages = [_message_of(item) for item in items]
        if not self._has_lease():
            await self._renew()
        async with asyncio.timeout(self._publish_seconds):
            publishing: Awaitable[None] = self._broker.publish_many(messages)
            await (publishing if self._watch is None else self._watch(publishing))
        self.published_count += len(items)
        self._note_answer()
        await settled(self._outbox.remove(items))
        self._holds.drop({item.sender_id for item in items})


def publish_seconds_of(broker: EventBroker) -> float:
    """Return how long a relay waits for one publish: as long as the broker does.

    Args:
        broker: Its `timeout_seconds` counts, if it has any.

    Raises:
        ConfigurationError: The broker does not go with an outbox.
    """
    if getattr(broker, "drops_unpublished", False):
        raise ConfigurationError(
            "event_broker: 'raise_on_failure: false' with "
            "'should_keep_unpublished_messages: false' drops what RabbitMQ does not "
            "confirm, and 'outbox: true' of the tracker_store would take it for "
            "published: leave both keys out (the outbox keeps the events), or leave "
            "'outbox' out"
        )
    said = getattr(broker, "timeout_seconds", None)
    seconds = float(said) if isinstance(said, int | float) else 0.0
    if seconds > LONGEST_PUBLISH_SECONDS:
        raise ConfigurationError(
            f"event_broker.timeout_seconds: {seconds:g} s are more than an outbox "
            f"('outbox: true') can wait for one publish: make it "
            f"{LONGEST_PUBLISH_SECONDS:g} or less"
        )
    return max(PUBLISH_SECONDS, seconds + MARGIN_SECONDS)


def _message_of(item: OutboxItem) -> EventMessage:
    """Return the message of an item.

    Raises:
        _NoEventError: What is stored is no event, or is missing.
    """
    try:
        body = {"sender_id": item.sender_id, **json.loads(item.entry.body)}
    except (TypeError, ValueError):
        raise _NoEventError from None
    if item.user_id is not None:
        body.setdefault("user_id", item.user_id)
    entry = item.entry
    return EventMessage(entry.message_id, item.sender_id, entry.position, body)


def _reason(error: Exception) -> str:
    """Say what went wrong, without a text that may quote a message."""
    return str(error) if isinstance(error, _OutageError) else type(error).__name__
