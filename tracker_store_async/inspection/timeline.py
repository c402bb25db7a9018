"""A conversation as lines for people: messages, slots, actions, sessions, silences.

It reads events as Rasa's JSON, so an event type that nobody has heard of is shown too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from tracker_store_async.inspection.terminal import (
    can_draw,
    duration,
    moment,
    printable,
    zone_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from tracker_store_async.events import Event
    from tracker_store_async.tracker import DialogueStateTracker

SILENCE_SECONDS = 300
"""A gap between two events that is worth a line of its own."""

LONGEST_VALUE = 400
"""Characters of a slot value or unknown event that are shown, unless all are."""

_LABEL_WIDTH = 8
_RULE_WIDTH = 72
_NARROWEST = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What is shown of one event.

    Attributes:
        label: Its kind, such as `user`.
        text: Its content.
        note: What is worth knowing beside it, such as the intent.
        style: Colour, in rich's words.
        quiet: Whether only a complete view shows it.
    """

    label: str
    text: str
    note: str = ""
    style: str = "dim"
    quiet: bool = False


class Timeline:
    """Writes events to a console, one line each, with sessions and silences between.

    Args:
        console: Where to write.
        complete: Show every event, and values at any length.
    """

    def __init__(self, console: Console, *, complete: bool = False) -> None:
        self._console = console
        self._complete = complete
        self._dash = "─" if can_draw(console) else "-"
        self._last_time: float | None = None
        self._last_date = ""
        self._silence = ""
        self.hidden_count = 0

    def write(self, events: Iterable[Event], first_position: int = 0) -> None:
        """Write events; a second call goes on where the first one ended.

        Args:
            events: The events, in order.
            first_position: Position of the first one in the log.
        """
        for position, event in enumerate(events, first_position):
            fields = event.as_dict()
            self._note_silence(fields)
            entry = describe(fields, complete=self._complete)
            if entry.quiet and not self._complete:
                self.hidden_count += 1
            elif fields.get("event") == "session_started":
                self._write_session(position, fields)
            else:
                self._write_day(fields)
                self._write_entry(entry, position, fields)

    def _note_silence(self, fields: Mapping[str, Any]) -> None:
        timestamp: Any = fields.get("timestamp")
        if moment(timestamp) is None:
            return
        gap = 0.0 if self._last_time is None else timestamp - self._last_time
        self._last_time = timestamp
        if gap >= SILENCE_SECONDS:
            self._silence = f"{duration(gap)} later"
        elif gap <= -1:
            self._silence = f"the clock went back by {duration(-gap)}"

    def _write_session(self, position: int, fields: Mapping[str, Any]) -> None:
        when = moment(fields.get("timestamp"))
        title = [f"session started at event {position}", self._silence]
        if when is not None:
            self._last_date = when.strftime("%a %Y-%m-%d")
            title.insert(1, f"{self._last_date} {when:%H:%M:%S}")
        self._silence = ""
        self.write_rule(", ".join(filter(None, title)), "bold")

    def _write_day(self, fields: Mapping[str, Any]) -> None:
        when = moment(fields.get("timestamp"))
        date = self._last_date if when is None else when.strftime("%a %Y-%m-%d")
        if date != self._last_date or self._silence:
            new_date = date if date != self._last_date else ""
            self.write_rule(", ".join(filter(None, (new_date, self._silence))))
        self._last_date, self._silence = date, ""

    def write_rule(self, title: str, style: str = "dim") -> None:
        """Write a line across with a title in it."""
        width = min(_RULE_WIDTH, self._console.width - 1)
        line = f"{self._dash * 2} {title} "
        line += self._dash * max(2, width - cell_len(line))
        self._console.print(Text(line, style), soft_wrap=True)

    def _write_entry(
        self, entry: Entry, position: int, fields: Mapping[str, Any]
    ) -> None:
        when = moment(fields.get("timestamp"))
        clock = "        " if when is None else when.strftime("%H:%M:%S")
        label = f"{printable(entry.label):<{_LABEL_WIDTH}} "
        prefix = Text.assemble(
            (f"{position:>4}  {clock}  ", "dim"), (label, f"bold {entry.style}")
        )
        body = [Text(printable(line), entry.style) for line in entry.text.split("\n")]
        if entry.note:
            space = "  " if entry.text else ""
            body[-1].append(f"{space}({printable(entry.note)})", "dim")
        _print_hanging(self._console, prefix, body)


def _print_hanging(console: Console, prefix: Text, lines: list[Text]) -> None:
    """Print lines behind a prefix, wrapped for a terminal and whole for a pipe."""
    indent = Text(" " * prefix.cell_len)
    room = console.width - prefix.cell_len
    if console.is_terminal and room >= _NARROWEST:
        lines = [part for line in lines for part in line.wrap(console, room)]
    for line in lines:
        text = prefix + line
        text.rstrip()
        console.print(text, soft_wrap=True)
        prefix = indent


def describe(fields: Mapping[str, Any], *, complete: bool = False) -> Entry:
    """Return what to show of an event.

    Args:
        fields: The event as Rasa's JSON.
        complete: Show policies and confidences, and values at any length.
    """
    kind = fields.get("event")
    describer = _DESCRIBERS.get(kind) if isinstance(kind, str) else None
    if describer is None:
        return _describe_unknown(fields, complete)
    return describer(fields, complete)


def _describe_user(fields: Mapping[str, Any], complete: bool) -> Entry:
    parse_data = _mapping(fields.get("parse_data"))
    intent = _mapping(parse_data.get("intent"))
    notes = [str(intent["name"])] if intent.get("name") else []
    if notes and isinstance(intent.get("confidence"), int | float):
        notes[0] += f" {intent['confidence']:.2f}"
    entities = parse_data.get("entities")
    for entity in entities if isinstance(entities, list) else ():
        found = _mapping(entity)
        if "entity" in found:
            value = _short(found.get("value"), complete)
            notes.append(f"{found['entity']}={value}")
    if complete and fields.get("input_channel"):
        notes.append(f"over {fields['input_channel']}")
    return Entry("user", _text(fields), ", ".join(notes), "cyan")


def _describe_bot(fields: Mapping[str, Any], complete: bool) -> Entry:
    data = _mapping(fields.get("data"))
    parts = [_describe_extra(key, value) for key, value in data.items() if value]
    return Entry(str(fields["event"]), _text(fields), ", ".join(parts), "green")


def _describe_extra(key: str, value: Any) -> str:
    if key in ("buttons", "quick_replies") and isinstance(value, list):
        titles = [str(_mapping(button).get("title")) for button in value]
        return f"{key.replace('_', ' ')}: {' | '.join(titles)}"
    if isinstance(value, str):
        return f"{key}: {value}"
    return key


def _describe_slot(fields: Mapping[str, Any], complete: bool) -> Entry:
    value = _short(fields.get("value"), complete)
    return Entry("slot", f"{fields.get('name')} = {value}", style="yellow")


def _describe_action(fields: Mapping[str, Any], complete: bool) -> Entry:
    name = fields.get("name") or fields.get("action_text")
    note = ""
    if complete and fields.get("policy"):
        note = f"{fields['policy']} {_short(fields.get('confidence'), complete)}"
    quiet = name in ("action_listen", "action_session_start")
    return Entry("action", str(name), note, quiet=quiet)


def _describe_loop(fields: Mapping[str, Any], complete: bool) -> Entry:
    name = fields.get("name")
    return Entry("loop", f"{name} active" if name else "ended", style="magenta")


def _describe_interruption(fields: Mapping[str, Any], complete: bool) -> Entry:
    interrupted = fields.get("is_interrupted", not fields.get("validate", True))
    return Entry("loop", "interrupted" if interrupted else "goes on", style="magenta")


def _describe_entities(fields: Mapping[str, Any], complete: bool) -> Entry:
    return Entry("entities", _short(fields.get("entities"), complete))


def _describe_reminder(fields: Mapping[str, Any], complete: bool) -> Entry:
    cancelled = "cancelled: " if fields["event"] == "cancel_reminder" else ""
    at = f" at {fields['date_time']}" if fields.get("date_time") else ""
    intent = fields.get("intent") or fields.get("name") or "all"
    return Entry("reminder", f"{cancelled}{intent}{at}")


def _named(label: str, text: str) -> Callable[[Mapping[str, Any], bool], Entry]:
    return lambda fields, complete: Entry(label, text.format(name=fields.get("name")))


def _describe_featurization(fields: Mapping[str, Any], complete: bool) -> Entry:
    source = "text" if fields.get("use_text_for_featurization") else "intent"
    return Entry("nlu", f"last message featurized by its {source}", quiet=True)


def _describe_unknown(fields: Mapping[str, Any], complete: bool) -> Entry:
    shown = {
        key: value
        for key, value in fields.items()
        if key not in ("event", "timestamp", "metadata") and value is not None
    }
    text = _short(shown, complete) if shown else ""
    return Entry(str(fields.get("event")), text)


_DESCRIBERS: dict[str, Callable[[Mapping[str, Any], bool], Entry]] = {
    "user": _describe_user,
    "bot": _describe_bot,
    "agent": _describe_bot,
    "slot": _describe_slot,
    "action": _describe_action,
    "active_loop": _describe_loop,
    "form": _describe_loop,
    "loop_interrupted": _describe_interruption,
    "form_validation": _describe_interruption,
    "entities": _describe_entities,
    "reminder": _describe_reminder,
    "cancel_reminder": _describe_reminder,
    "user_featurization": _describe_featurization,
    "session_started": _named("session", "started"),
    "session_ended": _named("session", "ended"),
    "followup": _named("followup", "next action: {name}"),
    "action_execution_rejected": _named("action", "{name} rejected"),
    "reset_slots": _named("slot", "all slots reset"),
    "restart": _named("restart", "everything forgotten"),
    "rewind": _named("rewind", "last message taken back"),
    "undo": _named("undo", "last action taken back"),
    "pause": _named("pause", "the assistant is silent"),
    "resume": _named("resume", "the assistant answers again"),
    "export": _named("export", "story exported"),
}


def write_conversation(
    console: Console,
    tracker: DialogueStateTracker,
    *,
    last: int | None = None,
    complete: bool = False,
) -> None:
    """Write what is known of a conversation, and its events.

    Args:
        console: Where to write.
        tracker: The conversation as it was retrieved.
        last: Most events to show, or None for all that the tracker holds.
        complete: Show every event, and values at any length.
    """
    version = version_of(tracker)
    shown = min(len(tracker.events), version if last is None else last)
    first = version - shown
    rows = {
        "conversation": printable(tracker.sender_id),
        "user": printable(tracker.user_id or ""),
        "events": str(version),
        "slots": slots_line(tracker.current_slot_values()),
        "loop": printable(tracker.active_loop_name or ""),
        "paused": "yes" if tracker.is_paused() else "",
        "times": zone_name(),
    }
    for name, value in rows.items():
        if value:
            _print_hanging(console, Text(f"{name:<14}", "dim"), [Text(value)])
    timeline = Timeline(console, complete=complete)
    timeline.write(list(tracker.events)[len(tracker.events) - shown :], first)
    notes = {
        "earlier events" + ("" if last else " (--all-sessions)"): first,
        "internal events (--verbose)": timeline.hidden_count,
    }
    hidden = [f"{count} {name}" for name, count in notes.items() if count]
    if hidden:
        note = f"not shown: {', '.join(hidden)}"
        console.print(Text(note, "dim"), soft_wrap=True)


def version_of(tracker: DialogueStateTracker) -> int:
    """Return the number of events stored when the tracker was loaded."""
    return tracker._log.version or 0


def slots_line(slots: Mapping[str, Any]) -> str:
    """Return the slots that are set as `name = value` pairs, or `none`."""
    shown = [
        f"{name} = {_short(value, complete=False)}"
        for name, value in slots.items()
        if value is not None
    ]
    return printable(", ".join(shown)) if shown else "none"


def _short(value: Any, complete: bool) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    if len(text) > LONGEST_VALUE and not complete:
        return f"{text[:LONGEST_VALUE]}... ({len(text)} characters)"
    return text


def _text(fields: Mapping[str, Any]) -> str:
    text = fields.get("text")
    return text if isinstance(text, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
