"""The timeline: what people see of a conversation, whatever it holds."""

from __future__ import annotations

import io
import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from rich.console import Console

from tracker_store_async import DialogueStateTracker
from tracker_store_async.events import (
    ActionExecuted,
    ActiveLoop,
    BotUttered,
    Event,
    SessionStarted,
    SlotSet,
    UserUttered,
)
from tracker_store_async.inspection.terminal import zone_name
from tracker_store_async.inspection.timeline import (
    LONGEST_VALUE,
    Timeline,
    describe,
    slots_line,
    write_conversation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = 1_773_489_600.0  # 2026-03-14 12:00:00 UTC


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "name", "summer"),
    [
        ("Europe/Berlin", "UTC+01:00 or UTC+02:00", "UTC+02:00"),
        ("Europe/London", "UTC or UTC+01:00", "UTC+01:00"),
        ("Asia/Kolkata", "UTC+05:30", "UTC+05:30"),
        ("UTC", "UTC", "UTC"),
    ],
)
def test_the_zone_is_that_of_the_times_and_not_of_today(
    monkeypatch: pytest.MonkeyPatch, zone: str, name: str, summer: str
) -> None:
    """In winter, too, a time of July is shown as the clock stood in July."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert zone_name() == name
    assert zone_name(NOON + 120 * 86400) == summer


def drawn(events: list[Event], width: int = 80, **options: bool) -> list[str]:
    """Return the lines of a timeline on a terminal without colours."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    Timeline(console, **options).write(events)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def drawn_fields(*rows: dict[str, object]) -> list[str]:
    return drawn([Event.from_parameters({"timestamp": NOON, **row}) for row in rows])


def test_a_turn_reads_like_a_conversation() -> None:
    lines = drawn(
        [
            ActionExecuted("action_session_start", timestamp=NOON),
            SessionStarted(timestamp=NOON),
            ActionExecuted("action_listen", timestamp=NOON),
            UserUttered(
                "A table for four",
                intent={"name": "book", "confidence": 0.978},
                entities=[{"entity": "people", "value": 4}],
                timestamp=NOON + 1,
            ),
            SlotSet("people", 4, timestamp=NOON + 2),
            ActiveLoop("booking_form", timestamp=NOON + 2),
            BotUttered(
                "Outside?",
                data={"buttons": [{"title": "yes"}, {"title": "no"}], "image": None},
                timestamp=NOON + 3,
            ),
            ActionExecuted("action_listen", timestamp=NOON + 3),
        ]
    )
    assert lines[0].startswith(
        "── session started at event 1, Sat 2026-03-14 12:00:00 ──"
    )
    assert lines[1:] == [
        "   3  12:00:01  user     A table for four  (book 0.98, people=4)",
        "   4  12:00:02  slot     people = 4",
        "   5  12:00:02  loop     booking_form active",
        "   6  12:00:03  bot      Outside?  (buttons: yes | no)",
    ]


def test_a_complete_timeline_hides_nothing() -> None:
    events = [
        ActionExecuted("action_session_start", timestamp=NOON),
        ActionExecuted("action_listen", "RulePolicy", 1.0, timestamp=NOON),
    ]
    assert not any("action" in line for line in drawn(events))
    shown = drawn(events, complete=True)
    assert [line for line in shown if "action_session_start" in line]
    assert [line for line in shown if "action_listen  (RulePolicy 1.0)" in line]


@pytest.mark.parametrize(
    ("gap_seconds", "expected"),
    [
        (299, None),
        (300, "5 min later"),
        (7_300, "2 h later"),
        (86_400 * 3, "Tue 2026-03-17, 3 days later"),
        (-90, "the clock went back by 1 min"),
    ],
)
def test_silences_get_a_line(gap_seconds: float, expected: str | None) -> None:
    lines = drawn(
        [
            UserUttered("a", timestamp=NOON),
            UserUttered("b", timestamp=NOON + gap_seconds),
        ]
    )
    rules = [line.strip("─ ") for line in lines if line.startswith("──")]
    assert rules == ["Sat 2026-03-14", *filter(None, [expected])]


def test_nothing_stored_can_move_the_cursor() -> None:
    evil = "\x1b[2J\x07\x9b31m\r\u202eabc\u2028\udcffok\x7f\tend"
    lines = drawn_fields(
        {"event": "user", "text": evil, "parse_data": {"intent": {"name": evil}}},
        {"event": "bot", "text": evil, "data": {"image": evil}},
        {"event": "slot", "name": evil, "value": {evil: [evil]}},
        {"event": "action", "name": evil},
        {"event": evil, evil: evil},
    )
    text = "\n".join(lines)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", text)
    assert r"\x1b[2J\x07\x9b31m\r\u202eabc\u2028\udcffok\x7f\tend" in text


def test_line_breaks_of_a_message_are_kept_under_its_first_line() -> None:
    lines = drawn_fields({"event": "user", "text": "one\ntwo", "parse_data": {}})
    assert lines[1:] == ["   0  12:00:00  user     one", " " * 25 + "two"]


def test_wide_text_is_wrapped_by_its_width() -> None:
    lines = drawn_fields({"event": "bot", "text": "食べ物" * 30})
    assert all(cell_len(line) <= 80 for line in lines)
    assert len(lines) > 3
    assert "".join(line[25:] for line in lines[1:]) == "食べ物" * 30


def test_a_pipe_gets_one_line_for_each_event() -> None:
    console = Console(file=io.StringIO(), width=80)
    Timeline(console).write([UserUttered("word " * 100, timestamp=NOON)])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("\n") == 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"event": None},
        {"event": ["x"]},
        {"event": "user"},
        {"event": "user", "text": 7, "parse_data": [1]},
        {"event": "user", "text": None, "parse_data": {"intent": "x", "entities": 3}},
        {"event": "user", "parse_data": {"intent": {"name": 3, "confidence": "a"}}},
        {"event": "user", "parse_data": {"entities": [None, 1, {"entity": None}]}},
        {"event": "bot", "text": {}, "data": "x"},
        {"event": "bot", "data": {"buttons": "x", "quick_replies": [1, {}]}},
        {"event": "slot"},
        {"event": "slot", "name": None, "value": float("nan")},
        {"event": "action"},
        {"event": "form", "name": None},
        {"event": "form_validation", "validate": False},
        {"event": "loop_interrupted"},
        {"event": "entities"},
        {"event": "reminder"},
        {"event": "cancel_reminder"},
        {"event": "agent"},
        {"event": "session_started", "timestamp": "never"},
        {"event": "flow_started", "flow_id": "x", "timestamp": 1e300},
    ],
)
def test_any_row_can_be_described(fields: dict[str, object]) -> None:
    for complete in (False, True):
        entry = describe(fields, complete=complete)
        assert isinstance(entry.text, str)
        assert isinstance(entry.note, str)


@pytest.mark.parametrize("timestamp", [None, "x", True, [], 1e300, float("nan"), 0])
def test_any_timestamp_can_be_drawn(timestamp: object) -> None:
    class Row:
        def as_dict(self) -> dict[str, object]:
            return {"event": "user", "text": "hello", "timestamp": timestamp}

    lines = drawn([UserUttered("x", timestamp=NOON), Row(), Row()])  # type: ignore[list-item]
    assert sum("hello" in line for line in lines) == 2


def test_an_event_of_an_unknown_type_shows_its_fields() -> None:
    [_, line] = drawn_fields({"event": "flow_started", "flow_id": "f", "step": None})
    assert line.endswith('flow_started {"flow_id": "f"}')


def test_long_values_are_cut_unless_everything_is_asked_for() -> None:
    fields = {"event": "slot", "name": "s", "value": "x" * 5000}
    assert describe(fields).text.endswith("... (5002 characters)")
    assert len(describe(fields).text) < LONGEST_VALUE + 50
    assert describe(fields, complete=True).text == f"s = {json.dumps('x' * 5000)}"


def test_slots_that_are_not_set_are_left_out() -> None:
    assert slots_line({"a": None, "b": 0, "c": "x"}) == 'b = 0, c = "x"'
    assert slots_line({"a": None}) == "none"


def test_the_head_says_where_the_conversation_stands() -> None:
    tracker = DialogueStateTracker.from_events(
        "ali\x1bce",
        [
            ActiveLoop("booking_form", timestamp=NOON),
            SlotSet("people", 4, timestamp=NOON),
            ActionExecuted("action_listen", timestamp=NOON),
        ],
    )
    tracker._log.version = 10
    console = Console(file=io.StringIO(), width=80)
    write_conversation(console, tracker, last=2)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        r"conversation  ali\x1bce",
        "events        10",
        "slots         people = 4",
        "loop          booking_form",
        "times         UTC",
        "── Sat 2026-03-14 ".ljust(72, "─"),
        "   8  12:00:00  slot     people = 4",
        "not shown: 8 earlier events, 1 internal events (--verbose)",
    ]
