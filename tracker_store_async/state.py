"""The state of a conversation: what its events change, and what is asked of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tracker_store_async.events import BotUttered, UserUttered
from tracker_store_async.events.json_values import JSON_ATOMS, isolated
from tracker_store_async.redaction import get_logger
from tracker_store_async.slots import AnySlotDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tracker_store_async.slots import Slot
    from tracker_store_async.unsaved import SlotValue

logger = get_logger(__name__)

ACTION_LISTEN = "action_listen"
SHOULD_NOT_BE_SET = "should_not_be_set"
"""Name that Rasa's policies give to a loop that must not be active."""


@dataclass
class TrackerActiveLoop:
    """The loop (form) that is active.

    Attributes:
        name: Name of the loop.
        is_interrupted: Whether something else was done since the loop ran.
        rejected: Whether the loop refused to run.
        trigger_message: `parse_data` of the message that started it.
    """

    name: str | None
    is_interrupted: bool
    rejected: bool
    trigger_message: dict[str, Any] | None = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields; nothing is shared with the loop."""
        return {
            "name": self.name,
            "is_interrupted": self.is_interrupted,
            "rejected": self.rejected,
            "trigger_message": isolated(self.trigger_message),
        }


class ConversationState:
    """What the events of a conversation add up to.

    Every event changes it through the methods here, which have Rasa's names.

    Args:
        slots: The slots that can be set; they are copied. None accepts every slot.

    Attributes:
        slots: The slots by name.
        followup_action: The action that must run next, or None.
        latest_action: `{"action_name": ...}` or `{"action_text": ...}` of the action
            that ran last; empty if none did.
        latest_message: The latest user message; one that says nothing if there is none.
        latest_bot_utterance: The latest thing that the bot said, likewise.
        active_loop: The loop that is active, or None.
    """

    def __init__(self, slots: Iterable[Slot] | None) -> None:
        self.slots = new_slots(slots)
        self._assigned_slots: dict[str, Any] = {}
        self._loop_names: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        """Go back to the initial state."""
        self._reset_slots()
        self._paused = False
        self.followup_action: str | None = ACTION_LISTEN
        self.latest_action: dict[str, str] | None = {}
        self.latest_message: UserUttered | None = UserUttered.empty()
        self.latest_bot_utterance: BotUttered | None = BotUttered.empty()
        self.active_loop: TrackerActiveLoop | None = None

    def _begin_session(self) -> None:
        """Go back to the initial state, as a new session does."""
        self._loop_names = set()
        self._reset()

    def state_attributes(self) -> dict[str, Any]:
        """Return the attributes that are the state, by name; nothing is copied."""
        return {name: getattr(self, name) for name in _ATTRIBUTES}

    def _copy_state(
        self, other: ConversationState, copies: Mapping[int, UserUttered]
    ) -> None:
        """Take over another state, except for the slots.

        Args:
            other: The other state.
            copies: Copies of its user messages that are to take their place, by the id
                of the message and of its `parse_data`.
        """
        self._loop_names = set(other._loop_names)
        self._paused = other._paused
        self.followup_action = other.followup_action
        self.latest_action = other.latest_action
        self.latest_bot_utterance = other.latest_bot_utterance
        message = other.latest_message
        self.latest_message = copies.get(id(message), message)
        loop = self.active_loop = copy.copy(other.active_loop)
        if loop is not None and id(loop.trigger_message) in copies:
            loop.trigger_message = copies[id(loop.trigger_message)].parse_data

    # -- slots -------------------------------------------------------------------------

    def _set_slot(self, key: str, value: Any) -> None:
        """Set a slot; a value for one that the domain lacks is only remembered."""
        self._assigned_slots[key] = value
        set_slot(self.slots, key, value)

    def keep_assigned_slots(self) -> None:
        """Note the values as they are now: these are stored.

        What a caller changes in place later on, in a list that is a slot's value, is
        not in the stored events, so it must not be in the next snapshot either.
        """
        self._assigned_slots = {
            name: value if type(value) in JSON_ATOMS else isolated(value)
            for name, value in self._assigned_slots.items()
        }

    def keep_stored(self, values: Iterable[SlotValue]) -> None:
        """Note that slot events are stored, with the values that they had then.

        What a caller changes in place later on is not in the stored events, so it must
        neither be in the next snapshot nor come back when an event is reverted.

        Args:
            values: The events whose values may be changed in place.
        """
        for event, value, stored in values:
            if event.value is value:
                event.value = stored
            if self._assigned_slots.get(event.key) is value:
                self._assigned_slots[event.key] = isolated(stored)

    def _reset_slots(self) -> None:
        """Give every slot its initial value."""
        self._assigned_slots = {}
        if isinstance(self.slots, AnySlotDict):
            self.slots.clear()
        for slot in self.slots.values():
            slot.reset()

    def _copied_slots(self) -> dict[str, Slot]:
        return type(self.slots)(
            (name, copy.copy(slot)) for name, slot in self.slots.items()
        )

    def get_slot(self, key: str) -> Any:
        """Return the value of a slot, or None if there is no such slot.

        Args:
            key: Name of the slot.
        """
        slot = self.slots.get(key)
        if slot is not None:
            return slot.value
        if key not in self.slots:
            logger.info("Tried to access the slot %r, which does not exist", key)
        return None

    def current_slot_values(self) -> dict[str, Any]:
        """Return the value of every slot by name."""
        return {name: slot.value for name, slot in self.slots.items()}

    # -- messages ----------------------------------------------------------------------

    def get_latest_entity_values(
        self,
        entity_type: str,
        entity_role: str | None = None,
        entity_group: str | None = None,
    ) -> Iterator[Any]:
        """Return the values of the matching entities in the latest message.

        Args:
            entity_type: Type of the entity.
            entity_role: Its role; None matches entities without one.
            entity_group: Its group; None matches entities without one.
        """
        if self.latest_message is None:
            return iter(())
        wanted = (entity_type, entity_role, entity_group)
        return (
            entity["value"]
            for entity in self.latest_message.entities
            if (entity.get("entity"), entity.get("role"), entity.get("group")) == wanted
        )

    def _latest_message_data(self) -> dict[str, Any] | None:
        """Return what was understood of the latest message, with all its entities."""
        if self.latest_message is None:
            return None
        return {
            **self.latest_message.parse_data,
            "entities": self.latest_message.entities,
        }

    # -- actions -----------------------------------------------------------------------

    def is_paused(self) -> bool:
        """Whether the bot is to leave the conversation to a human."""
        return self._paused

    def trigger_followup_action(self, action: str) -> None:
        """Make an action the next one to run.

        Args:
            action: Name of the action.
        """
        self.followup_action = action

    def clear_followup_action(self) -> None:
        """Forget the action that was to run next."""
        self.followup_action = None

    def set_latest_action(self, action: dict[str, str]) -> None:
        """Note which action ran; the active loop is not interrupted any more.

        Args:
            action: `{"action_name": ...}` or `{"action_text": ...}`.
        """
        self.latest_action = action
        loop = self.active_loop
        if loop is None:
            return
        if self.active_loop_name:
            loop.is_interrupted = False
        if action.get("action_name") == self.active_loop_name:
            loop.rejected = False

    @property
    def latest_action_name(self) -> str | None:
        """Name of the action that ran last, or its text if it has no name."""
        action = self.latest_action
        if action is None:
            return None
        return action.get("action_name") or action.get("action_text")

    # -- loops -------------------------------------------------------------------------

    def change_loop_to(self, loop_name: str | None) -> None:
        """Activate a loop.

        Args:
            loop_name: Name of the loop; None deactivates the active one.
        """
        if loop_name is None:
            self.active_loop = None
            return
        if loop_name:
            self._loop_names.add(loop_name)
        message = self.latest_message
        trigger = None if message is None else message.parse_data
        self.active_loop = TrackerActiveLoop(loop_name, False, False, trigger)

    def interrupt_loop(self, is_interrupted: bool) -> None:
        """Note whether something else is being done while a loop is active.

        Args:
            is_interrupted: Whether it is.
        """
        if self.active_loop is not None:
            self.active_loop.is_interrupted = is_interrupted

    def reject_action(self, action_name: str) -> None:
        """Note that an action refused to run.

        Args:
            action_name: Name of the action; only the active loop is of interest.
        """
        if self.active_loop is not None and action_name == self.active_loop_name:
            self.active_loop.rejected = True

    @property
    def active_loop_name(self) -> str | None:
        """Name of the active loop, or None."""
        if self.active_loop is None or self.active_loop.name == SHOULD_NOT_BE_SET:
            return None
        return self.active_loop.name

    @property
    def is_active_loop_rejected(self) -> bool:
        """Whether there is an active loop and it refused to run."""
        return self.active_loop is not None and self.active_loop.rejected

    @property
    def is_active_loop_interrupted(self) -> bool:
        """Whether there is an active loop and something else is being done."""
        return self.active_loop is not None and self.active_loop.is_interrupted


_ATTRIBUTES = (
    *("slots", "_assigned_slots", "_loop_names", "_paused", "followup_action"),
    *("latest_action", "latest_message", "latest_bot_utterance", "active_loop"),
)


def new_slots(slots: Iterable[Slot] | None) -> dict[str, Slot]:
    """Return slots of a tracker's own, by name; None accepts every slot."""
    if slots is None:
        return AnySlotDict()
    return {slot.name: copy.copy(slot) for slot in slots}


def set_slot(slots: Mapping[str, Slot], name: str, value: Any) -> None:
    """Set one of some slots; a value for one that the domain lacks is left out."""
    try:
        slot = slots[name]
    except KeyError:
        _warn_of_unknown_slot(name)
    else:
        slot.value = value


@lru_cache(maxsize=1024)
def _warn_of_unknown_slot(name: str) -> None:
    """Say it once for each name: a history sets the same slots again and again."""
    logger.warning(
        "The slot %r is set, but the domain does not have it: its value is stored and "
        "not shown. Add the slot to the domain.",
        name,
    )
