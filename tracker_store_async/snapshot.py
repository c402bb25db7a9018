"""The state of a tracker as plain data, without its events.

A store keeps it with the conversation, so that a tracker that holds only the last
events still knows what was set before them. It holds:

- `slots`: the raw values set since the last reset, also of slots that the domain does
  not know: a process with another domain, or none, writes the same snapshot.
- `paused`, `followup_action`, `latest_action`, `latest_input_channel`.
- `active_loop`: its fields, or null. A trigger message that is the latest message is
  only flagged, so that it stays the same object.
- `latest_message`: the event, and beside it what later events changed on it; null if
  there is none. `latest_bot_utterance`: the event, or null.
- `loop_names`: the loops activated since the session began; an action of that name
  counts as a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.events import BotUttered, UserUttered, event_from_dict
from tracker_store_async.events.base import event_from_own
from tracker_store_async.events.json_values import JSON_ATOMS, isolated
from tracker_store_async.state import TrackerActiveLoop, new_slots, set_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tracker_store_async.encoded_events import EncodedEvents
    from tracker_store_async.events import Event
    from tracker_store_async.slots import Slot
    from tracker_store_async.state import ConversationState


def take_snapshot(
    state: ConversationState, texts: EncodedEvents | None = None
) -> dict[str, Any]:
    """Return the state as plain data, which shares values with it.

    Args:
        state: The state; its `latest_input_channel` is for the tracker to add.
        texts: Events that are encoded already; what stands for them is put in their
            place.
    """
    return {
        "slots": dict(state._assigned_slots),
        "paused": state._paused,
        "followup_action": state.followup_action,
        "latest_action": dict(state.latest_action or {}),
        "active_loop": None
        if state.active_loop is None
        else _loop_data(state.active_loop, state.latest_message),
        "latest_message": _message_data(state.latest_message, texts),
        "latest_bot_utterance": _event_data(state.latest_bot_utterance, texts),
        "loop_names": sorted(state._loop_names),
    }


def restore_snapshot(
    state: ConversationState, snapshot: Mapping[str, Any], *, is_given_up: bool = False
) -> None:
    """Replace a state by the one that `take_snapshot` was given.

    Args:
        state: The state to replace.
        snapshot: The data; messages in it are copied, slot values are not.
        is_given_up: Whether nobody uses the data any more, so that nothing is copied.
    """
    event_of = event_from_own if is_given_up else event_from_dict
    state._reset_slots()
    for name, value in snapshot["slots"].items():
        state._set_slot(name, value)
    state._paused = snapshot["paused"]
    state.followup_action = snapshot["followup_action"]
    state.latest_action = dict(snapshot["latest_action"])
    state.latest_message = _message_from(snapshot["latest_message"], event_of)
    said = snapshot["latest_bot_utterance"]
    said = None if said is None else event_of(said)
    state.latest_bot_utterance = (
        said if isinstance(said, BotUttered) else BotUttered.empty()
    )
    state.active_loop = _loop_from(snapshot["active_loop"], state.latest_message)
    state._loop_names.update(snapshot["loop_names"])


def attributes_of(
    snapshot: Mapping[str, Any], slots: Iterable[Slot] | None
) -> dict[str, Any]:
    """Return the attributes of a state, as a new tracker that is restored has them.

    In a third of the time: nothing is made that is replaced at once.

    Args:
        snapshot: What `take_snapshot` gave; it is used up.
        slots: The slots that can be set, or None for all.
    """
    held = new_slots(slots)
    assigned: dict[str, Any] = {}
    for slot in held.values():
        slot.reset()
    for name, value in snapshot["slots"].items():
        set_slot(held, name, value)
        assigned[name] = value if type(value) in JSON_ATOMS else isolated(value)
    message = _message_from(snapshot["latest_message"], event_from_own)
    said = snapshot["latest_bot_utterance"]
    said = None if said is None else event_from_own(said)
    return {
        "slots": held,
        "_assigned_slots": assigned,
        "_loop_names": set(snapshot["loop_names"]),
        "_paused": snapshot["paused"],
        "followup_action": snapshot["followup_action"],
        "latest_action": dict(snapshot["latest_action"]),
        "latest_message": message,
        "latest_bot_utterance": (
            said if isinstance(said, BotUttered) else BotUttered.empty()
        ),
        "active_loop": _loop_from(snapshot["active_loop"], message),
    }


def copy_message(message: UserUttered) -> UserUttered:
    """Return a copy of a message that later events can change on its own."""
    other = message.model_copy()
    parse_data = other.parse_data = dict(message.parse_data)
    other.entities = list(message.entities)
    if message.entities is parse_data.get("entities"):
        parse_data["entities"] = other.entities
    return other


def _loop_data(loop: TrackerActiveLoop, message: UserUttered | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": loop.name,
        "is_interrupted": loop.is_interrupted,
        "rejected": loop.rejected,
    }
    if message is not None and loop.trigger_message is message.parse_data:
        data["triggered_by_latest_message"] = True
    else:
        data["trigger_message"] = loop.trigger_message
    return data


def _loop_from(
    data: Mapping[str, Any] | None, message: UserUttered | None
) -> TrackerActiveLoop | None:
    if data is None:
        return None
    trigger = data.get("trigger_message")
    if "triggered_by_latest_message" in data and message is not None:
        trigger = message.parse_data
    return TrackerActiveLoop(
        data["name"], data["is_interrupted"], data["rejected"], trigger
    )


def _event_data(
    event: UserUttered | BotUttered | None, texts: EncodedEvents | None
) -> Any:
    """Return the event's fields, or None for the placeholder that says nothing."""
    if event is None:
        return None
    if event.text and texts is not None:  # so it says something
        return texts.stand_in(event) or event.shared_dict()
    data = event.shared_dict()
    return None if {**data, "timestamp": 0} in _NOTHING_SAID else data


def _message_data(
    message: UserUttered | None, texts: EncodedEvents | None
) -> dict[str, Any] | None:
    if message is None:
        return None
    decided = message.use_text_for_featurization
    event = _event_data(message, texts)
    if event is None and decided is None and not message.entities:
        return None
    data: dict[str, Any] = {
        "event": message.shared_dict() if event is None else event,
        "use_text_for_featurization": decided,
    }
    if message.entities is not message.parse_data.get("entities"):
        data["entities"] = message.entities
    return data


def _message_from(
    data: Mapping[str, Any] | None, event_of: Callable[[dict[str, Any]], Event]
) -> UserUttered:
    message = None if data is None else event_of(data["event"])
    if data is None or not isinstance(message, UserUttered):
        return UserUttered.empty()
    # Setting an attribute of a pydantic model takes ten times as long.
    fields = message.__dict__
    fields["_use_text"] = data["use_text_for_featurization"]
    fields["entities"] = (
        list(data["entities"]) if "entities" in data else message.parse_data["entities"]
    )
    return message


_NOTHING_SAID = [
    {**event.shared_dict(), "timestamp": 0}
    for event in (UserUttered.empty(), BotUttered.empty())
]
