"""What is shown of events: one line or one bubble each, with divisions between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async.inspection.terminal import duration, moment
from tracker_store_async.inspection.timeline import SILENCE_SECONDS, describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracker_store_async.ops.inspector.masking import Mask
    from tracker_store_async.ops.inspector.reading import Page

LONGEST_TEXT = 4000
"""Characters of a text that the timeline shows; an event's own fields show more."""

SHORTEST_GAP_SECONDS = 1.0
"""A gap between two events that is written beside the second one."""

_UNREADABLE = {"event": "unreadable"}
_SIDES = {"user": "user", "bot": "bot", "agent": "bot"}
_STYLES = frozenset({"slot", "action", "loop", "session", "restart", "rewind", "undo"})


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the timeline.

    Attributes:
        kind: `rule` for a division, `user`, `bot`, or `note` for any other event.
        label: What kind of event it is; the title of a division.
        style: Which colours it has.
        text: What it says.
        note: What is worth knowing beside it, such as the intent.
        position: Of the event.
        clock: Time of day.
        iso: The whole time with its zone, or the empty text.
        gap: How long after the event before, where that is worth a word.
        is_quiet: Whether it says little, such as `action_listen`.
        cut: Number of characters of the whole text if it is not shown whole, or 0.
    """

    kind: str
    label: str
    style: str = ""
    text: str = ""
    note: str = ""
    position: int = -1
    clock: str = ""
    iso: str = ""
    gap: str = ""
    is_quiet: bool = False
    cut: int = 0


def items_of(page: Page, mask: Mask) -> list[Item]:
    """Return what is shown of a page of events.

    Args:
        page: The events. A division that the event before it makes is not repeated.
        mask: Says what is not shown; it has learned of these events.
    """
    divider = Divider()
    if page.before is not None:
        divider.follow(page.before)
    items: list[Item] = []
    for position, fields in enumerate(page.events, page.first):
        known = _UNREADABLE if fields is None else fields
        title, gap = divider.follow(known)
        if title:
            items.append(Item("rule", title, position=position))
        items.append(_item(position, mask.value(known), gap))
    return items


class Divider:
    """Finds where sessions, days and silences divide a conversation."""

    def __init__(self) -> None:
        self._last_time: float | None = None
        self._date = ""
        self._is_after_action = False

    def follow(self, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Return the title of the division before the next event, and a shorter gap.

        Args:
            fields: The event; the one that begins a session begins a division.

        Returns:
            The two; each is empty where there is nothing to say.
        """
        parts = list(self._parts(fields))
        if self._begins_session(fields):
            parts.insert(0, "Session")
        gap = parts.pop() if parts and parts[-1].startswith("+") else ""
        return ", ".join(parts), gap

    def _begins_session(self, fields: Mapping[str, Any]) -> bool:
        """Whether a session begins here: the rule of `tracker_store_async.sessions`.

        An `action_session_start` that nothing follows is taken for a beginning, too.
        """
        is_within, self._is_after_action = self._is_after_action, False
        if fields.get("event") == "action":
            self._is_after_action = fields.get("name") == "action_session_start"
            return self._is_after_action
        return fields.get("event") == "session_started" and not is_within

    def _parts(self, fields: Mapping[str, Any]) -> Iterator[str]:
        timestamp: Any = fields.get("timestamp")
        when = moment(timestamp)
        if when is None:
            return
        date = f"{when:%A, %d %B %Y}"
        if date != self._date:
            self._date = date
            yield date
        gap = 0.0 if self._last_time is None else timestamp - self._last_time
        self._last_time = timestamp
        if gap >= SILENCE_SECONDS:
            yield f"{duration(gap)} later"
        elif gap <= -1:
            yield f"the clock went back by {duration(-gap)}"
        elif gap >= SHORTEST_GAP_SECONDS:
            yield f"+{duration(gap)}"


def _item(position: int, fields: Mapping[str, Any], gap: str) -> Item:
    entry = describe(fields)
    text, kind = entry.text, str(fields.get("event"))
    if fields == _UNREADABLE:
        text = "What is stored here is not a JSON object."
    when = moment(fields.get("timestamp"))
    is_cut = len(text) > LONGEST_TEXT
    return Item(
        kind=_SIDES.get(kind, "note"),
        label=entry.label,
        style=entry.label if entry.label in _STYLES else "",
        text=text[:LONGEST_TEXT] if is_cut else text,
        note=entry.note[:LONGEST_TEXT],
        position=position,
        clock="" if when is None else f"{when:%H:%M:%S}",
        iso="" if when is None else when.isoformat(timespec="milliseconds"),
        gap=gap,
        is_quiet=entry.quiet or kind == "session_started",
        cut=len(text) if is_cut else 0,
    )
