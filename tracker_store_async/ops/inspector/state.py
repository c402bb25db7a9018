"""What is shown of the state at an event: slots, loop, and the event's own fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker_store_async.ops.inspector.masking import Mask
    from tracker_store_async.tracker import DialogueStateTracker

LONGEST_VALUE = 2000
LONGEST_EVENT = 50_000
"""Characters of a slot's value and of an event's fields that are shown."""

TOO_DEEP = "It is nested too deeply to be shown."


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot.

    Attributes:
        name: Its name.
        value: Its value as JSON.
        former: Its value before the event, if the event changed it, or None.
        is_set: Whether it has a value.
    """

    name: str
    value: str
    former: str | None = None
    is_set: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """The state after an event.

    Attributes:
        position: Of the event.
        slots: The slots, those that the event changed first.
        facts: What else is known, by name.
        fields: The event's own fields as JSON.
        is_selected: Whether somebody asked for this event; else it is the latest one.
    """

    position: int
    slots: list[SlotRow]
    facts: dict[str, str]
    fields: str
    is_selected: bool


def state_of(
    tracker: DialogueStateTracker,
    mask: Mask,
    position: int,
    fields: Mapping[str, Any] | None,
    before: Mapping[str, Any] | None = None,
) -> State:
    """Return what is shown of a state.

    Args:
        tracker: Has the state.
        mask: Says what is not shown; it has learned of these slots.
        position: Of the event.
        fields: The event, or None if it cannot be read.
        before: The slots before the event, if they are known.
    """
    slots = tracker.current_slot_values()
    rows = [_row(name, value, mask, before) for name, value in slots.items()]
    if before is not None:
        gone = before.keys() - slots.keys()
        rows += [_row(name, None, mask, before) for name in sorted(gone, key=str)]
    rows.sort(key=lambda row: (row.former is None, not row.is_set, str(row.name)))
    shown = "" if fields is None else _json(mask.value(fields), LONGEST_EVENT, indent=2)
    return State(position, rows, _facts(tracker, mask), shown, before is not None)


def _row(
    name: str, value: Any, mask: Mask, before: Mapping[str, Any] | None
) -> SlotRow:
    former = None
    if before is not None and before.get(name) != value:
        former = _json(mask.slot(name, before.get(name)), LONGEST_VALUE)
    shown = _json(mask.slot(name, value), LONGEST_VALUE)
    return SlotRow(name, shown, former, value is not None)


def _facts(tracker: DialogueStateTracker, mask: Mask) -> dict[str, str]:
    loop = tracker.active_loop_name or ""
    if loop and tracker.is_active_loop_rejected:
        loop += " (rejected)"
    elif loop and tracker.is_active_loop_interrupted:
        loop += " (interrupted)"
    message = tracker.latest_message
    intent = None if message is None else (message.intent or {}).get("name")
    facts = {
        "loop": loop,
        "paused": "yes" if tracker.is_paused() else "",
        "latest intent": intent,
        "latest action": tracker.latest_action_name,
        "next action": tracker.followup_action,
    }
    return {k: str(mask.value(str(v))) for k, v in facts.items() if v}


def _json(value: Any, longest: int, indent: int | None = None) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent)
    except (TypeError, ValueError):
        text = repr(value)
    except RecursionError:
        text = TOO_DEEP
    if len(text) > longest:
        return f"{text[:longest]}... ({len(text):,} characters)"
    return text
