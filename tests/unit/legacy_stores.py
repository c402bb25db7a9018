"""Tracker stores as Rasa users have written them; none of them knows our Protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

from tracker_store_async.events import SlotSet, UserUttered
from tracker_store_async.tracker import (
    DialogueStateTracker,
    get_trackers_for_conversation_sessions,
)


def latest_session(tracker):
    """Return what Rasa's stores return from `retrieve`."""
    sessions = get_trackers_for_conversation_sessions(tracker)
    return sessions[-1] if sessions else tracker


class JSONTextStore:
    """Keeps each conversation as one text and writes all of it, as Rasa in memory."""

    def __init__(self, domain=None, event_broker=None):
        self.domain = domain
        self.event_broker = event_broker
        self.max_event_history = None
        self.texts = {}

    def save(self, tracker):
        self.stream_events(tracker)
        self.texts[tracker.sender_id] = json.dumps(tracker.as_dialogue().as_dict())

    def stream_events(self, tracker):
        if self.event_broker is not None:
            for event in tracker.events:
                self.event_broker.publish(event.as_dict())

    def retrieve(self, sender_id):
        tracker = self.retrieve_full_tracker(sender_id)
        return None if tracker is None else latest_session(tracker)

    def retrieve_full_tracker(self, sender_id):
        if sender_id not in self.texts:
            return None
        events = json.loads(self.texts[sender_id])["events"]
        return DialogueStateTracker.from_dict(
            sender_id, events, max_event_history=self.max_event_history
        )

    def keys(self):
        return self.texts.keys()

    def delete(self, sender_id):
        del self.texts[sender_id]


class TextStore(JSONTextStore):
    """Returns the text itself."""

    def retrieve_full_tracker(self, sender_id):
        return self.texts.get(sender_id)


class BlockingStore(JSONTextStore):
    """Takes its time for each call, as a sync driver on a slow network does."""

    pause_seconds = 0.002

    def save(self, tracker):
        time.sleep(self.pause_seconds)
        super().save(tracker)

    def retrieve_full_tracker(self, sender_id):
        time.sleep(self.pause_seconds)
        return super().retrieve_full_tracker(sender_id)


class AsyncStore(JSONTextStore):
    """The same with async methods, each of which lets others in between."""

    async def save(self, tracker):
        await asyncio.sleep(0.001)
        super().save(tracker)
        await asyncio.sleep(0.001)

    async def retrieve(self, sender_id):
        tracker = await self.retrieve_full_tracker(sender_id)
        return None if tracker is None else latest_session(tracker)

    async def retrieve_full_tracker(self, sender_id):
        await asyncio.sleep(0.001)
        return JSONTextStore.retrieve_full_tracker(self, sender_id)

    async def keys(self):
        return list(super().keys())

    async def delete(self, sender_id):
        super().delete(sender_id)


class AppendingStore:
    """Appends what goes beyond the latest stored session, as Rasa's SQL store does."""

    def __init__(self):
        self.rows = {}

    def save(self, tracker):
        rows = self.rows.setdefault(tracker.sender_id, [])
        rows += [event.as_dict() for event in self._additional_events(tracker)]

    def _additional_events(self, tracker):
        stored = self.retrieve(tracker.sender_id)
        known = 0 if stored is None else len(stored.events)
        return list(itertools.islice(tracker.events, known, None))

    def retrieve(self, sender_id):
        tracker = self.retrieve_full_tracker(sender_id)
        return None if tracker is None else latest_session(tracker)

    def retrieve_full_tracker(self, sender_id):
        if sender_id not in self.rows:
            return None
        return DialogueStateTracker.from_dict(sender_id, self.rows[sender_id])

    def keys(self):
        return list(self.rows)


class ForeignEvent:
    """An event of another library, which knows nothing of ours."""

    def __init__(self, fields):
        self.fields = fields

    def as_dict(self):
        return dict(self.fields)


class ForeignTracker:
    """A tracker of another library, with Rasa's `from_dict`."""

    def __init__(self, sender_id, events):
        self.sender_id = sender_id
        self.events = events

    @classmethod
    def from_dict(cls, sender_id, events_as_dict, slots=None):
        return cls(sender_id, [ForeignEvent(fields) for fields in events_as_dict])


class ForeignStore:
    """A dict of events, with trackers of its own class in and out."""

    def __init__(self):
        self.events = {}

    def save(self, tracker):
        assert type(tracker) is ForeignTracker
        assert all(type(event) is ForeignEvent for event in tracker.events)
        self.events[tracker.sender_id] = [event.fields for event in tracker.events]

    def retrieve(self, sender_id):
        if sender_id not in self.events:
            return None
        return ForeignTracker.from_dict(sender_id, self.events[sender_id])

    def init_tracker(self, sender_id):
        return ForeignTracker(sender_id, [])

    def keys(self):
        return (sender_id for sender_id in list(self.events))


class RasaBroker:
    """Gets dicts; its `publish` is sync, as in Rasa."""

    def __init__(self):
        self.published = []
        self.closed = False

    def publish(self, event):
        self.published.append(event)

    async def close(self):
        self.closed = True


def say(tracker, *texts):
    """Add what a user says, with a slot in between."""
    for text in texts:
        tracker.update(UserUttered(text))
        tracker.update(SlotSet("said", text))


def said(tracker):
    """Return what the users said, in order."""
    return [event.text for event in tracker.events if isinstance(event, UserUttered)]
