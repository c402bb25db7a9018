"""The state without the events: through JSON text, and on any other tracker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from tests.histories import (
    Row,
    domain,
    events_of,
    histories,
    loaded,
    state_of,
    updated,
)
from tracker_store_async.domain import Domain
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import (
    ActionExecuted,
    ActiveLoop,
    BotUttered,
    EntitiesAdded,
    Restarted,
    SlotSet,
    UserUttered,
)
from tracker_store_async.tracker import DialogueStateTracker

OTHER_DOMAIN = Domain.from_dict({"slots": {"name": {"type": "list"}}})


def through_json(tracker: DialogueStateTracker) -> dict[str, Any]:
    snapshot: dict[str, Any] = json.loads(json.dumps(tracker.state_snapshot()))
    return snapshot


def restored(tracker: DialogueStateTracker) -> DialogueStateTracker:
    other = DialogueStateTracker("random", domain().slots)
    other.restore_state(through_json(tracker))
    return other


def observed(tracker: DialogueStateTracker) -> dict[str, Any]:
    message = tracker.latest_message
    assert message is not None
    assert tracker.latest_bot_utterance is not None
    state = state_of(tracker)
    del state["latest_event_time"]
    return {
        **state,
        "use_text": message.use_text_for_featurization,
        "bot": tracker.latest_bot_utterance.text,
        "set": {slot.name for slot in tracker.slots.values() if slot.has_been_set},
    }


@given(histories(), histories(reverting=False, max_size=15))
@settings(max_examples=200, deadline=None)
def test_it_gives_the_same_state_and_the_same_future(
    rows: list[Row], future: list[Row]
) -> None:
    original = updated(rows)
    other = restored(original)
    assert observed(other) == observed(original)
    for theirs, ours in zip(events_of(future), events_of(future), strict=True):
        original.update(theirs)
        other.update(ours)
        assert observed(other) == observed(original)


@given(histories())
@settings(max_examples=100, deadline=None)
def test_every_domain_writes_the_same_snapshot(rows: list[Row]) -> None:
    original = updated(rows)
    for slots in (None, OTHER_DOMAIN.slots):
        tracker = DialogueStateTracker("random", slots)
        tracker.load_events(events_of(rows))
        assert untimed(through_json(tracker)) == untimed(through_json(original))
        tracker.restore_state(through_json(original))
        assert through_json(tracker) == through_json(original)


def untimed(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Drop when the placeholder of a message was made, which entities were added to."""
    if snapshot["latest_message"]:
        del snapshot["latest_message"]["event"]["timestamp"]
    return snapshot


def test_a_slot_that_no_domain_knows_is_kept() -> None:
    tracker = DialogueStateTracker("random", Domain.empty().slots)
    tracker.update(SlotSet("unheard_of", {"a": [1]}))
    assert "unheard_of" not in tracker.current_slot_values()
    anywhere = DialogueStateTracker("random", None)
    anywhere.restore_state(through_json(tracker))
    assert anywhere.get_slot("unheard_of") == {"a": [1]}


def test_coercion_is_done_again_not_stored() -> None:
    tracker = DialogueStateTracker("random", domain().slots)
    tracker.update(SlotSet("dishes", "pizza"))
    assert tracker.get_slot("dishes") == ["pizza"]
    assert through_json(tracker)["slots"] == {"dishes": "pizza"}
    assert restored(tracker).get_slot("dishes") == ["pizza"]


def test_a_new_tracker_has_almost_nothing_to_say() -> None:
    assert DialogueStateTracker("random", domain().slots).state_snapshot() == {
        "slots": {},
        "paused": False,
        "followup_action": "action_listen",
        "latest_action": {},
        "active_loop": None,
        "latest_message": None,
        "latest_bot_utterance": None,
        "loop_names": [],
        "latest_input_channel": None,
    }


def message(**entities: Any) -> UserUttered:
    found = [{"entity": key, "value": value} for key, value in entities.items()]
    event = events_of([{"event": "user", "parse_data": {"entities": found}}])[0]
    assert isinstance(event, UserUttered)
    return event


def test_the_trigger_message_stays_the_latest_message() -> None:
    """As in Rasa, an entity that is added later shows in the trigger message, too."""
    tracker = DialogueStateTracker("random", domain().slots)
    tracker.update(ActionExecuted("action_listen"))
    tracker.update(message(a=1))
    tracker.update(ActiveLoop("f"))
    other = restored(tracker)
    for each in (tracker, other):
        each.update(EntitiesAdded([{"entity": "b", "value": 2}]))
        assert (
            len(each.current_state()["active_loop"]["trigger_message"]["entities"]) == 2
        )
    assert observed(other) == observed(tracker)


def test_the_trigger_message_may_be_an_older_one() -> None:
    tracker = DialogueStateTracker("random", domain().slots)
    for event in (message(a=1), ActiveLoop("f"), message(), BotUttered("hi")):
        tracker.update(event)
    assert observed(restored(tracker)) == observed(tracker)


def test_the_held_event_is_the_latest_message_again() -> None:
    rows: list[Row] = [
        {"event": "action", "name": "action_listen"},
        {"event": "user", "text": "1", "parse_data": {"entities": [{"entity": "a"}]}},
        {"event": "entities", "entities": [{"entity": "b"}]},
    ]
    rows = [{**row, "timestamp": 5.0} for row in rows]
    tracker = DialogueStateTracker("random", domain().slots)
    tracker.load_events(events_of(rows), snapshot=through_json(updated(rows)))
    assert tracker.latest_message is tracker.events[1]
    assert tracker.latest_message is not None
    assert tracker.latest_message.entities == [{"entity": "a"}, {"entity": "b"}]
    assert not tracker.is_truncated
    assert tracker.unsaved_events == []


def test_a_snapshot_can_be_used_twice() -> None:
    tracker = DialogueStateTracker("random", domain().slots)
    tracker.update(ActionExecuted("action_listen"))
    tracker.update(message(a=1))
    snapshot = through_json(tracker)
    before = json.dumps(snapshot)
    for _ in range(2):
        other = DialogueStateTracker("random", domain().slots)
        other.restore_state(snapshot)
        other.update(EntitiesAdded([{"entity": "b"}]))
        other.update(Restarted())
        assert json.dumps(snapshot) == before


def test_a_part_of_the_events_needs_a_snapshot() -> None:
    with pytest.raises(InvalidInputError, match="needs a snapshot"):
        DialogueStateTracker("random").load_events([Restarted()], truncated=True)


def test_the_channel_comes_from_the_events_if_they_are_complete() -> None:
    """A session without a message has no channel, whatever an earlier session had."""
    snapshot = {**loaded([]).state_snapshot(), "latest_input_channel": "earlier"}
    whole = DialogueStateTracker("random")
    whole.load_events([BotUttered("hi")], snapshot=snapshot)
    assert whole.get_latest_input_channel() is None
    part = DialogueStateTracker("random")
    part.load_events([BotUttered("hi")], snapshot=snapshot, truncated=True)
    assert part.get_latest_input_channel() == "earlier"
