"""What is sent together: of each conversation one event, unless told otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.kit import batch, ids, message
from tracker_store_async import errors
from tracker_store_async.brokers.connected import ConnectedBroker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventMessage


class Wire(ConnectedBroker[object, "EventMessage"]):
    """A server that notes what is sent together, and confirms what it is told to."""

    def __init__(self, *, confirm_each_event: bool = True, **options: Any) -> None:
        super().__init__(
            "a server", "here", confirm_each_event=confirm_each_event, **options
        )
        self.sent: list[list[str]] = []
        self.confirms: list[int] = []  # how many of each sending, in place of all
        self.is_silent = False  # once it has confirmed these

    async def _connect(self) -> object:
        return object()

    async def _disconnect(self, link: object) -> None:
        pass

    def _is_alive(self, link: object) -> bool:
        return True

    def _prepare(self, message: EventMessage) -> EventMessage:
        return message

    async def _send(self, link: object, batch: Sequence[EventMessage]) -> int:
        self.sent.append(ids(batch))
        if self.confirms:
            return self.confirms.pop(0)
        if self.is_silent:
            await asyncio.Event().wait()
        return len(batch)

    def _explain(self, error: Exception) -> errors.PublishError:
        return errors.BrokerUnavailableError(str(error))


async def test_an_event_waits_for_the_one_before_it_in_its_conversation() -> None:
    broker = Wire()
    await broker.publish_many([*batch("alice", 0, 3), *batch("bob", 0, 2)])
    assert broker.sent == [["alice-0", "bob-0"], ["alice-1", "bob-1"], ["alice-2"]]


async def test_what_a_lost_connection_left_comes_before_what_follows_it() -> None:
    broker = Wire()
    broker.confirms = [1]  # alice's, and not bob's
    await broker.publish_many([*batch("alice", 0, 2), *batch("bob", 0, 2)])
    assert broker.sent == [["alice-0", "bob-0"], ["bob-0", "alice-1"], ["bob-1"]]
    assert (broker.repeats, broker.connections) == (1, 2)


async def test_all_of_it_at_once_where_asked_for() -> None:
    broker = Wire(confirm_each_event=False)
    events = [message("alice", 0), message("bob", 0), message("alice", 1)]
    await broker.publish_many(events)
    assert broker.sent == [ids(events)]


async def test_too_late_says_how_much_was_confirmed() -> None:
    broker = Wire(timeout_seconds=0.05, retry_delay_in_seconds=0.01)
    broker.confirms = [1]
    broker.is_silent = True
    with pytest.raises(errors.BrokerUnavailableError, match="1 of 3 events within"):
        await broker.publish_many(batch("alice", 0, 3))


async def test_close_waits_for_a_goodbye_that_a_publish_left_behind() -> None:
    class Polite(Wire):
        calls = 0
        said_goodbye = False

        async def _disconnect(self, link: object) -> None:
            self.calls += 1
            if self.calls == 1:  # later calls find it closing already
                await asyncio.sleep(0.01)
                self.said_goodbye = True

    broker = Polite(timeout_seconds=0.01)
    broker.is_silent = True
    with pytest.raises(errors.BrokerUnavailableError):
        await broker.publish_many(batch("alice", 0, 1))
    await broker.close()
    assert broker.said_goodbye
    assert asyncio.all_tasks() == {asyncio.current_task()}
