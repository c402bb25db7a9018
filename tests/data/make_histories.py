"""Write `histories.json.gz`: what the real Rasa makes of random event sequences.

To run it, Rasa 3.6.21 (open source) has to be importable, which this project never
needs otherwise: `python tests/data/make_histories.py`. The sequences are seeded; they
repeat a few names in odd orders, because that is where reverts and loops interact.
"""

from __future__ import annotations

import copy
import gzip
import json
import logging
import random
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOMAIN = {
    "slots": {
        "name": {"type": "text", "mappings": [{"type": "custom"}]},
        "dishes": {"type": "list", "mappings": [{"type": "custom"}]},
        "budget": {
            "type": "float",
            "initial_value": 0.5,
            "mappings": [{"type": "custom"}],
        },
        "tags": {
            "type": "list",
            "initial_value": [],
            "mappings": [{"type": "custom"}],
        },
    },
    "forms": {"f": {"required_slots": []}},
}
HISTORIES = 240


def random_history(rng: random.Random) -> list[dict[str, Any]]:
    """Return the rows of one history; each history prefers other types."""
    kinds = list(_ROWS)
    weights = [rng.choice(_WEIGHTS.get(kind, (0, 0.3, 1, 2))) for kind in kinds]
    length = rng.choice((4, 10, 20, 40))
    rows = []
    for index, kind in enumerate(rng.choices(kinds, weights, k=length)):
        row = {"event": kind, "timestamp": 1000.0 + index, **_ROWS[kind](rng, index)}
        rows.append(row)
    return rows


def _user(rng: random.Random, index: int) -> dict[str, Any]:
    parse_data: dict[str, Any] = {"text": "t"}
    if rng.random() < 0.8:
        parse_data["entities"] = [_entity(rng) for _ in range(rng.choice((0, 0, 1, 2)))]
    if rng.random() < 0.8:
        parse_data["intent"] = rng.choice(({}, {"name": "greet"}, {"name": None}))
    return {
        "text": rng.choice((None, "", "hi", f"message {index}")),
        "parse_data": parse_data,
        "input_channel": rng.choice((None, "rest", "cmdline")),
        "message_id": rng.choice((None, f"id{index}")),
        "metadata": rng.choice(({}, {"a": index})),
    }


def _action(rng: random.Random, _: int) -> dict[str, Any]:
    row = {"policy": None, "confidence": None, "hide_rule_turn": False}
    if rng.random() < 0.1:
        text = rng.choice(("action_listen", "Hello!"))
        return {**row, "name": None, "action_text": text}
    names = (
        "action_listen",
        "action_listen",
        "action_listen",
        "f",
        "f",
        "g",
        "utter_x",
    )
    return {**row, "name": rng.choice(names), "action_text": None}


def _entity(rng: random.Random) -> dict[str, Any]:
    return {"entity": rng.choice("ab"), "value": rng.choice(("x", "y", 1, None))}


_ROWS: dict[str, Any] = {
    "user": _user,
    "action": _action,
    "bot": lambda rng, index: {
        "text": rng.choice((None, f"response {index}")),
        "data": rng.choice(({}, {"buttons": None}, {"image": "a.png"})),
        "metadata": {},
    },
    "slot": lambda rng, index: {
        "name": rng.choice(("name", "dishes", "budget", "tags", "unknown")),
        "value": rng.choice((None, index, "x", ["l"], 2.5, True, {"a": [1]})),
    },
    "active_loop": lambda rng, _: {
        "name": rng.choice(("f", "f", "g", None, "action_listen", "should_not_be_set"))
    },
    "action_execution_rejected": lambda rng, _: {
        "name": rng.choice("fg"),
        "policy": None,
        "confidence": None,
    },
    "loop_interrupted": lambda rng, _: {"is_interrupted": rng.random() < 0.5},
    "entities": lambda rng, _: {"entities": [_entity(rng)]},
    "user_featurization": lambda rng, _: {
        "use_text_for_featurization": rng.random() < 0.5
    },
    "followup": lambda *_: {"name": "utter_x"},
    "rewind": lambda *_: {},
    "undo": lambda *_: {},
    "restart": lambda *_: {},
    "session_started": lambda *_: {},
    "reset_slots": lambda *_: {},
    "pause": lambda *_: {},
    "resume": lambda *_: {},
}
_WEIGHTS = {
    "user": (1, 3, 5),
    "action": (2, 4, 6),
    "rewind": (0, 0.3, 1),
    "undo": (0, 0.3, 1),
    "restart": (0, 0, 0.1, 0.4),
    "session_started": (0, 0, 0.1, 0.4),
}


def rasas_answer(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what Rasa's tracker says after each event, and at the end."""
    from rasa.shared.core.domain import Domain
    from rasa.shared.core.events import Event
    from rasa.shared.core.trackers import DialogueStateTracker, EventVerbosity

    tracker = DialogueStateTracker(
        "random", Domain.from_dict(copy.deepcopy(DOMAIN)).slots
    )
    steps = []
    for row in rows:
        tracker.update(Event.from_parameters(copy.deepcopy(row)))
        steps.append(json.loads(json.dumps(observed(tracker))))
    told = {each.name: tracker.current_state(each)["events"] for each in EventVerbosity}
    middle = tracker.travel_back_in_time(1000.0 + len(rows) // 2)
    back = middle.current_state(EventVerbosity.ALL)
    return {"rows": rows, "steps": steps, "events": told, "middle": back}


def observed(tracker: Any) -> dict[str, Any]:
    """Return what is compared; every name in it is both Rasa's and ours."""
    return {
        **tracker.current_state(),
        "use_text": tracker.latest_message.use_text_for_featurization,
        "latest_bot_text": tracker.latest_bot_utterance.text,
        "active_loop_name": tracker.active_loop_name,
        "rejected": tracker.is_active_loop_rejected,
        "interrupted": tracker.is_active_loop_interrupted,
        "last_is_f": tracker.last_executed_action_has("f"),
        "one_before_is_f": tracker.last_executed_action_has("f", skip=1),
        "entities_a": list(tracker.get_latest_entity_values("a")),
    }


def main() -> None:
    """Write the file."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    rng = random.Random(3621)
    answers = [rasas_answer(random_history(rng)) for _ in range(HISTORIES)]
    text = json.dumps({"domain": DOMAIN, "histories": answers}, separators=(",", ":"))
    packed = gzip.compress(text.encode(), mtime=0)
    (HERE / "histories.json.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
