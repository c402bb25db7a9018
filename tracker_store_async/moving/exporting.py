"""`export_events`: stored events to an event broker, as `rasa export` sends them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from tracker_store_async.broker import EventMessage
from tracker_store_async.errors import (
    ErasedKeyError,
    InvalidInputError,
    PublishError,
    TrackerDeserialisationError,
)
from tracker_store_async.events import decode_event
from tracker_store_async.moving.backup import Selection, selected
from tracker_store_async.moving.pages import as_text, pages_of
from tracker_store_async.moving.reports import ExportReport, Silent
from tracker_store_async.moving.state import StateFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.moving.reports import Progress
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore

PAGE_EVENTS = 200
"""Most events that are handed to the broker at once."""

_IDS = UUID("5d8b1c2e-6d0c-4f0e-9d3c-6f1f0b4f7a35")
"""Names the ids of events that Rasa stored without one."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    minimum: float | None
    maximum: float | None
    offset_seconds: float

    def body_of(self, sender_id: str, data: str | bytes) -> dict[str, Any] | None:
        """Return the message of an event, or None if it is out of bounds."""
        body = {"sender_id": sender_id, **decode_event(data).as_dict()}
        timestamp: Any = body.get("timestamp")
        is_time = isinstance(timestamp, int | float) and not isinstance(timestamp, bool)
        if self.minimum is not None and not (is_time and timestamp >= self.minimum):
            return None
        if self.maximum is not None and not (is_time and timestamp < self.maximum):
            return None
        if self.offset_seconds and is_time:
            body["timestamp"] = timestamp + self.offset_seconds
        return body


async def export_events(
    store: TrackerStore,
    broker: EventBroker,
    *,
    minimum_timestamp: float | None = None,
    maximum_timestamp: float | None = None,
    conversation_ids: Sequence[str] | None = None,
    offset_timestamps_by_seconds: float | None = None,
    state_path: Path | None = None,
    destination: str | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Publish stored events, each awaited until the broker has confirmed it.

    The events of a conversation come in the order of its log, with Rasa's body and the
    id that they are stored under. Where Rasa stored none, it is made from the place of
    the event, so that it is the same whenever it is exported: consumers drop repeats.
    A conversation whose data key was erased is passed over, and named in the report.

    Args:
        store: Where from; it is only read.
        broker: Where to; it is open.
        minimum_timestamp: Only events of this time or later (s since the epoch).
        maximum_timestamp: Only events before this time (s since the epoch).
        conversation_ids: Only these conversations; None is all.
        offset_timestamps_by_seconds: Added to the timestamp of each event.
        state_path: File that remembers how far it is: a run that was cut off goes on
            there, and repeats what was sent in its last second. It is deleted at the
            end.
        destination: What tells the broker and its queue from others in that file; None
            is its class.
        progress: Is told how far it is.

    Raises:
        PublishError: The broker did not confirm an event; call it again.
        CorruptEventError: A stored event is not a JSON object.
        StoreUnavailableError: The storage cannot be reached; call it again.
        ConfigurationError: The state is of another export.
        InvalidInputError: `conversation_ids` is a text, or holds no sender ids.
    """
    if isinstance(conversation_ids, str):
        raise InvalidInputError("conversation_ids is a list of ids, not one text")
    started = time.perf_counter()
    bounds = _Bounds(
        minimum_timestamp, maximum_timestamp, offset_timestamps_by_seconds or 0
    )
    ids = None if conversation_ids is None else sorted(set(conversation_ids))
    job = {
        "kind": "export",
        "from": repr(store),
        "to": destination or type(broker).__name__,
        "bounds": [bounds.minimum, bounds.maximum, bounds.offset_seconds],
        "conversations": ids,
    }
    state = StateFile(state_path, job)
    run = _Export(store, broker, bounds, state, progress or Silent())
    await run.send(ids)
    run.report.seconds = time.perf_counter() - started
    return run.report


class _Export:
    """One run of `export_events`."""

    def __init__(
        self,
        store: TrackerStore,
        broker: EventBroker,
        bounds: _Bounds,
        state: StateFile,
        progress: Progress,
    ) -> None:
        self._store = store
        self._broker = broker
        self._bounds = bounds
        self._state = state
        self._progress = progress
        self._remembered = state.load()
        self.report = ExportReport()
        for sender_id in self._remembered.get("erased", ()):
            self.report.add_erased(sender_id)

    async def send(self, ids: Sequence[str] | None) -> None:
        """Send everything behind what was sent already."""
        cursor = self._remembered.get("cursor")
        seen = set()
        try:
            async for summary in selected(self._store, Selection(ids), cursor):
                if ids is not None:
                    seen.add(summary.sender_id)
                try:
                    await self._send_one(summary.sender_id, cursor)
                    self.report.conversations += 1
                except ErasedKeyError:
                    self.report.add_erased(summary.sender_id)
                cursor = summary.cursor
                self._progress.advance(1, 0)
                self._note({"cursor": cursor})
        finally:
            self._state.save()
        self._state.finish()
        before = self._remembered.get("cursor") or ""
        for each in sorted(set(ids or ()) - seen):
            # Who came before was sent, or was missing then and nobody was told.
            if each > before or not await self._store.exists(each):
                self.report.missing.append(each)

    async def _send_one(self, sender_id: str, cursor: str | None) -> None:
        remembered = self._remembered
        is_remembered = remembered.get("sender_id") == sender_id
        async for page in pages_of(self._store, sender_id, PAGE_EVENTS):
            # One that was begun again since is another log.
            is_same = is_remembered and remembered.get("log") == page.created_at
            start = remembered["position"] if is_same else 0
            messages = self._messages(sender_id, page, start)
            if messages:
                await self._publish(sender_id, messages)
            position = page.first_position + len(page.rows)
            self._note(
                {
                    "cursor": cursor,
                    "sender_id": sender_id,
                    "log": page.created_at,
                    "position": position,
                }
            )

    def _note(self, progress: dict[str, Any]) -> None:
        # A run that is cut off tells nobody: the one that goes on does.
        self._state.note({**progress, "erased": self.report.erased})

    def _messages(
        self, sender_id: str, page: StoredConversation, start: int
    ) -> list[EventMessage]:
        messages = []
        for position, (event_id, data) in enumerate(page.rows, page.first_position):
            if position < start:
                continue
            try:
                body = self._bounds.body_of(sender_id, data)
            except ValueError as error:
                raise TrackerDeserialisationError(
                    f"event {position} of conversation {sender_id!r} is not a JSON "
                    "object: export the others with --conversation-ids"
                ) from error
            if body is not None:
                name = event_id or _id_of(sender_id, position, data)
                messages.append(EventMessage(name, sender_id, position, body))
        return messages

    async def _publish(self, sender_id: str, messages: list[EventMessage]) -> None:
        try:
            await self._broker.publish_many(messages)
        except Exception as error:
            raise PublishError(
                f"the event broker {type(self._broker).__name__} did not confirm the "
                f"events of conversation {sender_id!r} ({type(error).__name__}): "
                "export again once the broker is back"
            ) from error
        self.report.events += len(messages)
        self._progress.advance(0, len(messages))


def _id_of(sender_id: str, position: int, data: str | bytes) -> str:
    return str(uuid5(_IDS, f"{sender_id}\n{position}\n{as_text(data)}"))
