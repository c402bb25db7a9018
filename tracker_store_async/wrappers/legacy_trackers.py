"""What a legacy store returns, as encoded events; what it is given to save."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.events import Event, decode_event, encode_event, encode_json
from tracker_store_async.serialization import deserialise_dialogue, encode_snapshot
from tracker_store_async.sessions import session_starts
from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.rows import NewRow

REMEMBERED_EVENTS = 10_000
"""About how many written events `RecentIds` remembers, over all conversations."""


@dataclass(slots=True, repr=False)
class LegacyLog:
    """All events of a conversation, as a legacy store has them.

    Attributes:
        texts: Each event as JSON text.
        events: The same, decoded.
        session_start: Position where the latest session starts.
        tracker_class: Class of the tracker that held them, or None.
    """

    texts: list[str]
    events: list[Event]
    session_start: int = 0
    tracker_class: type[Any] | None = None

    def time_of(self, position: int, default: float) -> float:
        """Return the time of an event in s since the epoch, or the default."""
        try:
            time = float(self.events[position].timestamp)
        except (TypeError, ValueError, OverflowError):
            return default
        return time if math.isfinite(time) else default

    def snapshot(self, empty: DialogueStateTracker) -> str:
        """Return the state after the latest session, as a backend would have stored it.

        Args:
            empty: An empty tracker with the domain's slots; it is used up.
        """
        empty.load_events(self.events[self.session_start :])
        state = empty.state_snapshot()
        return encode_snapshot(state, len(self.events), self.session_start)


def read_log(found: Any) -> LegacyLog:
    """Return the events of what a legacy store returned for a conversation.

    Args:
        found: A tracker, ours or any other whose `events` have `as_dict()`; what a
            `SerializedTracker...` class wrote; or None, which has no events.

    Raises:
        TrackerDeserialisationError: It is none of these.
    """
    if found is None:
        return LegacyLog([], [])
    tracker_class: type[Any] | None = None
    if isinstance(found, str | bytes | Mapping):
        held: Iterable[Any] = deserialise_dialogue(found).events
    else:
        held = getattr(found, "events", None)  # type: ignore[assignment]
        tracker_class = type(found)
        if held is None:
            raise errors.TrackerDeserialisationError(
                "the legacy tracker store returned a "
                f"{tracker_class.__name__}, which is no tracker: it has no 'events'"
            )
    texts = [_encode(event) for event in list(held)]
    events = [decode_event(text) for text in texts]
    starts = session_starts(events)
    return LegacyLog(texts, events, starts[-1] if starts else 0, tracker_class)


def _encode(event: Any) -> str:
    if isinstance(event, Event):
        return encode_event(event)
    fields = event
    if not isinstance(event, Mapping):
        as_dict = getattr(event, "as_dict", None)
        fields = as_dict() if callable(as_dict) else None
    if not isinstance(fields, Mapping):
        raise errors.TrackerDeserialisationError(
            "the legacy tracker store returned a tracker with a "
            f"{type(event).__name__} among its events: an event has as_dict()"
        )
    return encode_json(dict(fields), "an event of the legacy tracker store")


def tracker_to_save(
    log: LegacyLog, rows: Sequence[NewRow], empty: DialogueStateTracker
) -> Any:
    """Return the tracker that a legacy store is to save: what it has, and the new.

    It is of the store's own class if that has Rasa's `from_dict`, and else of ours.

    Args:
        log: The events that the store has, and the class of its trackers.
        rows: The new events.
        empty: An empty tracker of ours, with the domain's slots.
    """
    own_class = log.tracker_class
    if own_class is not None and not issubclass(own_class, DialogueStateTracker):
        from_dict = getattr(own_class, "from_dict", None)
        if callable(from_dict):
            texts = [*log.texts, *(row.data for row in rows)]
            return from_dict(empty.sender_id, [json.loads(text) for text in texts])
    empty.load_events([*log.events, *(decode_event(row.data) for row in rows)])
    return empty


def find_saved(
    log: LegacyLog, before: int, rows: Sequence[NewRow]
) -> tuple[int, int | None]:
    """Return how many events there are after a save, and where the saved ones stand.

    Args:
        log: What the store has after the save.
        before: Number of events that it had before.
        rows: What was saved.

    Returns:
        The number, and the position of the first saved event; None as the position if
        they are not there, or if older events were stored again together with them.
    """
    texts, count = log.texts, len(log.texts)
    if count == before + len(rows):
        # Not compared: a store may leave out what it does not know of an event.
        return count, before
    grown = count - before
    given = [*texts[:before], *(row.data for row in rows)]
    if 0 < grown <= len(given) and all(map(is_same, given[-grown:], texts[before:])):
        return count, None
    for start in range(count - len(rows), before - 1, -1):
        stored = texts[start : start + len(rows)]
        if all(is_same(row.data, text) for row, text in zip(rows, stored, strict=True)):
            return count, start
    return count, None


CHANGING_FIELDS = ("parse_data", "metadata")
"""Fields that come back with more or less in them: entities that a later event added,
or only what the classes of the legacy store know."""


def is_same(written: str, stored: str) -> bool:
    """Whether a stored event is the one that was written.

    A store may turn 1 into 1.0 and leave out fields, but never type and timestamp.
    """
    if written == stored:
        return True
    ours, theirs = json.loads(written), json.loads(stored)
    return all(
        ours.get(name) == theirs.get(name) for name in ("event", "timestamp")
    ) and all(
        ours[name] == theirs[name]
        for name in ours.keys() & theirs.keys()
        if name not in CHANGING_FIELDS
    )


class RecentIds:
    """Remembers the ids of what this process wrote: a legacy store keeps none.

    So a save that is repeated, because its answer was lost, finds its own events.
    """

    def __init__(self) -> None:
        self._written: OrderedDict[str, dict[int, tuple[str, str]]] = OrderedDict()
        self._count = 0

    def remember(self, sender_id: str, position: int, rows: Sequence[NewRow]) -> None:
        """Note that these rows are, or may be, stored from a position on."""
        written = self._written.setdefault(sender_id, {})
        self._written.move_to_end(sender_id)
        self._count -= len(written)
        for offset, row in enumerate(rows):
            written[position + offset] = (row.event_id, row.data)
        for old in sorted(written)[:-REMEMBERED_EVENTS]:
            del written[old]
        self._count += len(written)
        while self._count > REMEMBERED_EVENTS and len(self._written) > 1:
            _, forgotten = self._written.popitem(last=False)
            self._count -= len(forgotten)

    def ids(self, sender_id: str, log: LegacyLog, first: int) -> list[str | None]:
        """Return the id of each event from position `first` on, None if not known."""
        found = [event.event_id for event in log.events[first:]]
        for position, (event_id, text) in self._written.get(sender_id, {}).items():
            known = first <= position < len(log.texts)
            if known and is_same(text, log.texts[position]):
                found[position - first] = event_id
        return found

    def forget(self, sender_id: str) -> None:
        """Forget a conversation."""
        self._count -= len(self._written.pop(sender_id, {}))
