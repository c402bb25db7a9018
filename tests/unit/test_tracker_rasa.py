"""The tracker against Rasa's own: random histories, compared after every event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.make_histories import observed
from tests.histories import (
    Row,
    domain,
    events_of,
    everything_of,
    loaded,
    rasas_histories,
    state_of,
    updated,
)
from tracker_store_async.tracker import DialogueStateTracker, EventVerbosity

HISTORIES: list[dict[str, Any]] = rasas_histories()["histories"]


def kinds(rows: list[Row]) -> str:
    return " ".join(f"{row['event']}:{row.get('name', '')}" for row in rows)


@pytest.mark.parametrize("number", range(len(HISTORIES)))
def test_every_step_is_rasas(number: int) -> None:
    history = HISTORIES[number]
    rows: list[Row] = history["rows"]
    tracker = DialogueStateTracker("random", domain().slots)
    for count, event in enumerate(events_of(rows), 1):
        tracker.update(event)
        ours = json.loads(json.dumps(observed(tracker)))
        assert ours == history["steps"][count - 1], kinds(rows[:count])
    for verbosity in EventVerbosity:
        told = state_of(tracker, verbosity)["events"]
        assert told == history["events"][verbosity.name]
    middle = tracker.travel_back_in_time(1000.0 + len(rows) // 2)
    assert state_of(middle, EventVerbosity.ALL) == history["middle"]


@pytest.mark.parametrize("number", range(len(HISTORIES)))
def test_loading_at_once_gives_the_same(number: int) -> None:
    rows: list[Row] = HISTORIES[number]["rows"]
    for count in (len(rows), len(rows) * 2 // 3, len(rows) // 2):
        part = rows[:count]
        assert everything_of(loaded(part)) == everything_of(updated(part)), kinds(part)


def test_the_histories_are_worth_it() -> None:
    rows = [row for history in HISTORIES for row in history["rows"]]
    assert len(rows) > 3000
    counts = dict.fromkeys({row["event"] for row in rows}, 0)
    for row in rows:
        counts[row["event"]] += 1
    assert len(counts) == 17
    assert min(counts.values()) >= 20
