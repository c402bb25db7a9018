"""A scripted restaurant assistant: rules for a model, and a store that it awaits.

It keeps nothing in memory from one message to the next. All that it knows of a
conversation is what the store gives back, so any process can answer any message.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from tracker_store_async.domain import Domain
from tracker_store_async.events import (
    ActionExecuted,
    ActiveLoop,
    BotUttered,
    SessionStarted,
    SlotSet,
    UserUttered,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from tracker_store_async.events import Event
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

FORM = "booking_form"
QUESTIONS = {
    "cuisine": "Which cuisine would you like?",
    "num_people": "For how many people?",
    "time": "At what time?",
    "outdoor_seating": "Would you like to sit outside?",
}
"""The slots that the form fills, in order, and how it asks for them."""

DOMAIN_YAML = """
version: "3.1"
slots:
  cuisine: {type: text, mappings: [{type: custom}]}
  num_people: {type: float, min_value: 1, max_value: 20, mappings: [{type: custom}]}
  time: {type: text, influence_conversation: false, mappings: [{type: custom}]}
  outdoor_seating: {type: bool, mappings: [{type: custom}]}
  # Slots of the bundled conversations that the assistant does not use.
  name: {type: text, influence_conversation: false, mappings: [{type: custom}]}
  preferences: {type: any, influence_conversation: false, mappings: [{type: custom}]}
  feedback: {type: text, influence_conversation: false, mappings: [{type: custom}]}
  dishes: {type: list, influence_conversation: false, mappings: [{type: custom}]}
forms:
  booking_form: {required_slots: [cuisine, num_people, time, outdoor_seating]}
session_config: {session_expiration_time: 60, carry_over_slots_to_new_session: true}
"""

_CUISINES = "thai|italian|indian|mexican|japanese"
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_PATTERNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "cuisine": (rf"\b({_CUISINES})\b", str),
    "num_people": (rf"\b({'|'.join(_NUMBERS)})\b", lambda word: _NUMBERS[word]),
    "time": (r"\b(\d{1,2}(?::\d\d)? ?(?:am|pm|h)?)\b", str),
    "outdoor_seating": (r"\b(outside|inside)\b", lambda word: word == "outside"),
}
_SECONDS_BETWEEN_EVENTS = 0.12


def load_domain() -> Domain:
    """Return the assistant's domain."""
    return Domain.from_yaml(DOMAIN_YAML)


async def think_briefly(sender_id: str, reply: str) -> None:
    """Take as long as a fast model would."""
    await asyncio.sleep(0.02)


class RestaurantAssistant:
    """Answers messages; one turn is loaded, worked out and stored as a whole.

    Args:
        store: Where conversations are kept.
        think: Awaited in the middle of each turn, with the sender id and the reply, in
            place of a language model.
    """

    def __init__(
        self,
        store: TrackerStore,
        think: Callable[[str, str], Awaitable[None]] = think_briefly,
    ) -> None:
        self._store = store
        self._think = think
        self._session_config = store.domain.session_config

    async def answer(self, sender_id: str, message: str, at_seconds: float) -> str:
        """Take one message and return the reply, once both are stored.

        Args:
            sender_id: The conversation.
            message: What the user wrote.
            at_seconds: When, in seconds since the epoch.
        """
        tracker = await self._store.get_or_create_tracker(
            sender_id, append_action_listen=False
        )
        turn = _Turn(tracker, at_seconds)
        if turn.begins_session(60 * self._session_config.session_expiration_time):
            turn.start_session()
        reply = turn.respond(message)
        await self._think(sender_id, reply)
        await self._store.save(tracker)
        return reply


class _Turn:
    """One message and what follows from it, as events of the tracker."""

    def __init__(self, tracker: DialogueStateTracker, at_seconds: float) -> None:
        self._tracker = tracker
        self._time = at_seconds

    def _tick(self) -> float:
        self._time += _SECONDS_BETWEEN_EVENTS
        return self._time

    def _update(self, *events: Event) -> None:
        for event in events:
            self._tracker.update(event)

    def begins_session(self, expiration_seconds: float) -> bool:
        """Whether this is the first message, or the first after a long silence."""
        events = self._tracker.events
        if not events:
            return True
        silence = self._time - (events[-1].timestamp or 0.0)
        return silence > expiration_seconds

    def start_session(self) -> None:
        """Begin a session with the slots of the one before."""
        carried = self._tracker.current_slot_values()
        self._update(
            ActionExecuted("action_session_start", timestamp=self._tick()),
            SessionStarted(timestamp=self._tick()),
        )
        for name in QUESTIONS:
            if carried.get(name) is not None:
                self._update(SlotSet(name, carried[name], timestamp=self._tick()))
        self._update(ActionExecuted("action_listen", timestamp=self._tick()))

    def respond(self, message: str) -> str:
        """Record the message, the slots that it fills and the reply."""
        found = _understand(message)
        entities = [{"entity": name, "value": value} for name, value in found.items()]
        intent = "inform" if found else "book" if "table" in message else "greet"
        self._update(
            UserUttered(
                message,
                intent={"name": intent, "confidence": 1.0},
                entities=entities,
                timestamp=self._tick(),
                input_channel="demo",
            )
        )
        for name, value in found.items():
            self._update(SlotSet(name, value, timestamp=self._tick()))
        action, reply = self._next_action(intent, changed=list(found))
        self._update(
            ActionExecuted(action, timestamp=self._tick()),
            BotUttered(reply, timestamp=self._tick()),
            ActionExecuted("action_listen", timestamp=self._tick()),
        )
        return reply

    def _next_action(self, intent: str, changed: list[str]) -> tuple[str, str]:
        missing = [n for n in QUESTIONS if self._tracker.get_slot(n) is None]
        active = self._tracker.active_loop_name == FORM
        if missing and (active or intent == "book"):
            if not active:
                self._update(ActiveLoop(FORM, timestamp=self._tick()))
            self._ask_for(missing[0])
            return FORM, QUESTIONS[missing[0]]
        if active:
            self._ask_for(None)
            self._update(ActiveLoop(None, timestamp=self._tick()))
            return "utter_booked", f"Booked: {self._booking()}."
        if missing:
            return "utter_greet", "Hello! Shall I book a table for you?"
        if changed:
            return "utter_changed", f"Changed to: {self._booking()}."
        return "utter_remembered", f"You have {self._booking()}."

    def _ask_for(self, slot: str | None) -> None:
        self._update(SlotSet("requested_slot", slot, timestamp=self._tick()))

    def _booking(self) -> str:
        value = self._tracker.get_slot
        where = "outside" if value("outdoor_seating") else "inside"
        return (
            f"{value('cuisine')} food for {value('num_people'):g}, "
            f"at {value('time')}, {where}"
        )


def _understand(message: str) -> dict[str, Any]:
    """Return the slots that a message fills: this demo's language model."""
    found = {}
    for name, (pattern, convert) in _PATTERNS.items():
        match = re.search(pattern, message, re.IGNORECASE)
        if match is not None:
            found[name] = convert(match[1].lower())
    return found
