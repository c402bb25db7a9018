"""The workload: turns of six events, of the sizes that an assistant writes.

One user message of about 0.9 kB, one bot message of 0.3 kB, two slots of 0.12 kB and
two actions of 0.15 kB each: about 300 bytes an event.
"""

from __future__ import annotations

import itertools
from typing import Any

_INTENTS = [
    "request_restaurant",
    "inform",
    "affirm",
    "deny",
    "greet",
    "goodbye",
    "chitchat",
    "stop",
    "faq",
]
_CLOCK = itertools.count(1)
_START_SECONDS = 1_700_000_000.0


def turn(number: int) -> list[dict[str, Any]]:
    """Return the six events of one turn as Rasa's JSON dicts.

    Args:
        number: Number of the turn, so that texts and values differ.
    """
    text = f"a table for {number % 9 + 1} at the italian place on the corner please"
    ranking = [
        {"name": name, "confidence": 1 / (index + 2.123)}
        for index, name in enumerate(_INTENTS)
    ]
    user = {
        "text": text,
        "parse_data": {
            "intent": ranking[0],
            "entities": [
                {
                    "entity": "cuisine",
                    "start": 15,
                    "end": 22,
                    "confidence_entity": 0.9023714383470927,
                    "value": "italian",
                    "extractor": "DIETClassifier",
                }
            ],
            "text": text,
            "message_id": f"{number:032x}",
            "metadata": {},
            "intent_ranking": ranking,
        },
        "input_channel": "rest",
        "message_id": f"{number:032x}",
        "metadata": {},
    }
    bot = {
        "metadata": {"utter_action": "utter_ask_num_people"},
        "text": "For how many people shall I look for a table?",
        "data": dict.fromkeys(
            ["elements", "quick_replies", "buttons", "attachment", "image", "custom"]
        ),
    }
    action = {"policy": "RulePolicy", "confidence": 1.0, "action_text": None}
    return [
        _event("user", user),
        _event("slot", {"name": "cuisine", "value": "italian"}),
        _event("slot", {"name": "num_people", "value": number % 9 + 1}),
        _event("action", {"name": "utter_ask_num_people", **action}),
        _event("bot", bot),
        _event("action", {"name": "action_listen", **action}),
    ]


def history(count: int) -> list[dict[str, Any]]:
    """Return the `count` events of one session: its start, then turns."""
    events = [
        _event("action", {"name": "action_session_start"}),
        _event("session_started", {}),
    ]
    number = 0
    while len(events) < count:
        events += turn(number)
        number += 1
    return events[:count]


def sessions(count: int) -> list[dict[str, Any]]:
    """Return the `count` events of a conversation whose sessions have ten turns."""
    events: list[dict[str, Any]] = []
    while len(events) < count:
        events += history(62)
    return events[:count]


def _event(type_name: str, fields: dict[str, Any]) -> dict[str, Any]:
    timestamp = _START_SECONDS + next(_CLOCK) * 0.0371828
    return {"event": type_name, "timestamp": timestamp, **fields}
