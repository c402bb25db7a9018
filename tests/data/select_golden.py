"""Write `tests/data/golden`: the golden data with fewer conversations.

Run it from the repository, with the full data next to it:
`python -m tests.data.select_golden`. Everything about the chosen conversations is
copied as it is; what counts rows is counted again.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from typing import Any

from tests import golden

CHOSEN = (
    "user-0001",  # one session, to the end; the demo has it, too
    "user-0003",  # three sessions, paused and resumed
    "user-0005",  # rewind and undo
    "user-0006-all-events",
    "user-0008-slots",
    "user-0010-empty",
    "user-0012-custom-start",
    "user-0013-only-started",
)
STORES = ("inmemory", "sqlite", "postgres", "redis", "mongo", "dynamo")
TARGET = golden.SELECTION / golden.VERSION
SOURCE = golden.FULL / golden.VERSION


def main() -> None:
    """Write every file of the selection."""
    if not SOURCE.is_dir() or golden.FOLDER != SOURCE:
        raise SystemExit(f"the full golden data is needed in {SOURCE}")
    shutil.rmtree(TARGET, ignore_errors=True)
    for name in ("domain.yml", "sqlite/schema.sql"):
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / name, TARGET / name)
    for name in ("deserialise", "mongo_indexes", "dynamo_table", "errors"):
        _write(name, golden.load(name))
    _write("inputs", _inputs())
    _write("answers", _answers())
    _write("store_calls", _store_calls())
    _write("inmemory", _only(golden.load("inmemory")))
    _write("redis", {"strings": _only(golden.load("redis")["strings"], "tracker:")})
    _write("mongo", [d for d in golden.load("mongo") if d["sender_id"] in CHOSEN])
    items = golden.load("dynamo")
    _write("dynamo", [item for item in items if item["sender_id"]["S"] in CHOSEN])
    for store in STORES:
        messages = golden.load(f"broker/{store}")
        _write(f"broker/{store}", [m for m in messages if m["sender_id"] in CHOSEN])
    rows = _sqlite()
    schema = golden.load("postgres_schema")
    _write("postgres_schema", {**schema, "rows": rows, "sqlite_rows": rows})


def _write(name: str, value: Any) -> None:
    """Write compressed JSON, the same bytes on every run."""
    target = TARGET / f"{name}.json.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(data, mtime=0))


def _only(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keep the keys that are the prefix and a chosen sender id."""
    keys = {f"{prefix}{sender_id}" for sender_id in CHOSEN}
    return {key: value for key, value in values.items() if key in keys}


def _inputs() -> dict[str, Any]:
    inputs: dict[str, Any] = golden.load("inputs")
    chosen = [c for c in inputs["conversations"] if c["sender_id"] in CHOSEN]
    return {**inputs, "conversations": chosen}


def _answers() -> dict[str, Any]:
    """Keep the chosen answers, and the states and events that they refer to."""
    full = golden.load("answers")
    answers = {store: _only(found) for store, found in full["answers"].items()}
    used = json.dumps(answers)
    return {
        "answers": answers,
        "states": {h: state for h, state in full["states"].items() if h in used},
        "events": {h: events for h, events in full["events"].items() if h in used},
    }


def _store_calls() -> dict[str, Any]:
    return {
        store: {
            "keys": [key for key in calls["keys"] if str(key).endswith(CHOSEN)],
            "exists": _only(calls["exists"]),
        }
        for store, calls in golden.load("store_calls").items()
    }


def _sqlite() -> int:
    """Copy the database without the other conversations; return its rows."""
    target = TARGET / "sqlite" / "rasa.db"
    shutil.copyfile(SOURCE / "sqlite" / "rasa.db", target)
    target.chmod(0o644)
    marks = ",".join("?" * len(CHOSEN))
    connection = sqlite3.connect(target, isolation_level=None)
    connection.execute(f"DELETE FROM events WHERE sender_id NOT IN ({marks})", CHOSEN)
    connection.execute("VACUUM")
    (rows,) = connection.execute("SELECT count(*) FROM events").fetchone()
    connection.close()
    return int(rows)


if __name__ == "__main__":
    main()
