"""The events of a conversation: every type of Rasa 3.6.21, with its names and JSON.

Events are pydantic models. Create them as in Rasa, `SlotSet("people", 4)`; read them
from JSON with `decode_event`, `event_from_dict` or `Event.from_parameters`.

Where this differs from Rasa, on purpose:

- A type that is not known, or a row that the class of its type could not give back,
  is an `UnknownEvent`. Rasa raises, or holds what makes it raise later: a list as the
  name of a slot, text as metadata.
- A reminder's `date_time` is ISO 8601, as Rasa writes it. Rasa guesses at any text.
- Fields that a type does not know are kept; Rasa drops them.
- `StoryExported.path` and the fields of `ReminderCancelled` are stored; Rasa reads
  them but forgets to write them.
- `as_dict()` shares nothing with the event, and `repr()` never shows what was said.
"""

from __future__ import annotations

from tracker_store_async.events.actions import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    AllSlotsReset,
    FollowupAction,
    SlotSet,
)
from tracker_store_async.events.base import Event, UnknownEvent, event_from_dict
from tracker_store_async.events.codec import decode_event, encode_event
from tracker_store_async.events.control import (
    ConversationPaused,
    ConversationResumed,
    Restarted,
    SessionStarted,
    StoryExported,
    UserUtteranceReverted,
)
from tracker_store_async.events.json_values import encode_json
from tracker_store_async.events.loops import (
    ActiveLoop,
    LegacyForm,
    LegacyFormValidation,
    LoopInterrupted,
)
from tracker_store_async.events.messages import AgentUttered, BotUttered
from tracker_store_async.events.reminders import ReminderCancelled, ReminderScheduled
from tracker_store_async.events.sequences import (
    deserialise_events,
    do_events_begin_with_session_start,
    split_events,
)
from tracker_store_async.events.user import (
    DefinePrevUserUtteredFeaturization,
    EntitiesAdded,
    UserUttered,
)

__all__ = [
    "ActionExecuted",
    "ActionExecutionRejected",
    "ActionReverted",
    "ActiveLoop",
    "AgentUttered",
    "AllSlotsReset",
    "BotUttered",
    "ConversationPaused",
    "ConversationResumed",
    "DefinePrevUserUtteredFeaturization",
    "EntitiesAdded",
    "Event",
    "FollowupAction",
    "LegacyForm",
    "LegacyFormValidation",
    "LoopInterrupted",
    "ReminderCancelled",
    "ReminderScheduled",
    "Restarted",
    "SessionStarted",
    "SlotSet",
    "StoryExported",
    "UnknownEvent",
    "UserUtteranceReverted",
    "UserUttered",
    "decode_event",
    "deserialise_events",
    "do_events_begin_with_session_start",
    "encode_event",
    "encode_json",
    "event_from_dict",
    "split_events",
]
