"""The demo: what a stranger sees first, on a real file and with a process killed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import golden
from tests.unit.command import (
    TIMEOUT_SECONDS,
    command_line,
    environment,
    output_of,
    run_process,
    started,
)
from tracker_store_async import InMemoryTrackerStore, SQLTrackerStore
from tracker_store_async.demo.assistant import RestaurantAssistant, load_domain
from tracker_store_async.demo.rasa_data import (
    RESUMED_ID,
    load_rasa_conversations,
    store_rasa_conversations,
)
from tracker_store_async.demo.script import BEFORE_THE_STOP, booking

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async import DialogueStateTracker

EVENING = 1_773_513_000.0


def run_demo(directory: Path, *arguments: str) -> list[str]:
    """Run the demo in a process, which has to succeed silently; return its lines."""
    result = run_process("demo", *arguments, cwd=directory)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def stored(directory: Path, sender_id: str) -> DialogueStateTracker:
    async def work() -> DialogueStateTracker | None:
        db = str(directory / "tracker-store-demo.db")
        async with SQLTrackerStore(dialect="sqlite", db=db) as store:
            return await store.retrieve_full_tracker(sender_id)

    tracker = asyncio.run(work())
    assert tracker is not None
    return tracker


def messages(tracker: DialogueStateTracker) -> list[str]:
    return [event.text for event in tracker.events if event.type_name == "user"]


def test_the_demo_tells_its_story_and_leaves_a_file(tmp_path: Path) -> None:
    lines = run_demo(tmp_path)
    text = "\n".join(lines)
    assert re.search(r"Process \d+ was killed", text)
    assert 'ada has 15 events, cuisine = "thai"; booking_form waits for' in text
    assert "conflicts found when saving: 1." in text
    assert "user-0001 (52), user-0002 (86), user-0007-rich (12)" in text
    assert re.search(r"\d+ years later", text)
    # Its timeline: messages, slots, actions, sessions and silences.
    for kind in ("user  ", "bot  ", "slot  ", "action  ", "loop  "):
        assert re.search(rf"^ +\d+  \d\d:\d\d:\d\d  {kind}", text, re.MULTILINE)
    assert "session started at event 35" in text
    assert "14 h later" in text


def test_the_commands_that_it_names_work(tmp_path: Path) -> None:
    lines = run_demo(tmp_path)
    named = [line.split() for line in lines if line.startswith("  tracker-store ")]
    assert [words[1] for words in named] == ["list", "show", "show", "check"]
    for words in named:
        assert output_of(*words[1:], cwd=tmp_path)


def test_nothing_is_lost_or_doubled_by_the_kill(tmp_path: Path) -> None:
    run_demo(tmp_path)
    for index, sender_id in enumerate(("ada", "ben", "chloé")):
        said = [message.text for message in booking(sender_id, index, EVENING)]
        tracker = stored(tmp_path, sender_id)
        assert messages(tracker)[: len(said)] == said
        listens = [
            event
            for event in tracker.events
            if event.as_dict().get("name") == "action_listen"
        ]
        sessions = [e for e in tracker.events if e.type_name == "session_started"]
        assert len(listens) == len(messages(tracker)) + len(sessions)
    ada = stored(tmp_path, "ada")
    assert ada.get_slot("num_people") == 6
    assert ada.get_slot("outdoor_seating") is False


def test_the_demo_can_be_run_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        run_demo(tmp_path, "--users", "1")
    database = sqlite3.connect(tmp_path / "tracker-store-demo.db")
    found = dict(database.execute("SELECT sender_id, version FROM conversations"))
    database.close()
    assert {name for name in found if name.startswith("ada")} == {
        "ada",
        "ada-2",
        "ada-3",
    }
    assert len({found[name] for name in ("ada", "ada-2", "ada-3")}) == 1
    assert found["user-0002"] == 86  # stored once
    rasa = load_rasa_conversations()[RESUMED_ID]
    resumed = stored(tmp_path, RESUMED_ID)
    assert [event.as_dict() for event in list(resumed.events)[: len(rasa)]] == rasa


def test_many_users_are_served_and_few_are_shown(tmp_path: Path) -> None:
    lines = run_demo(tmp_path, "--users", "40")
    assert not any("user-40" in line for line in lines)
    assert len(lines) < 200
    assert messages(stored(tmp_path, "user-40"))[-1] == "Outside, please"


def test_a_file_that_is_no_database_is_one_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database " * 500)
    result = run_process("demo", "--db", "x.db", cwd=tmp_path)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "is damaged or is not a database" in line


def test_ctrl_c_ends_both_processes(tmp_path: Path) -> None:
    env = environment(PYTHONUNBUFFERED="1")
    with started([*command_line(), "demo"], tmp_path, env=env) as process:
        assert process.stdout is not None
        while "user" not in process.stdout.readline():
            pass  # the first process is at work now
        process.send_signal(signal.SIGINT)
        # Our end of this pipe closes only when both of them are gone.
        _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        assert (process.returncode, stderr) == (130, "")


def test_the_first_process_does_not_outlive_its_parent(tmp_path: Path) -> None:
    module = (sys.executable, "-m", "tracker_store_async.demo.first_process")
    command = [*module, "x.db", str(EVENING), "ada"]
    with started(command, tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        while "thinking" not in json.loads(process.stdout.readline()):
            pass
        process.stdin.close()
        assert process.wait(TIMEOUT_SECONDS) == 1


# -- the assistant ---------------------------------------------------------------------


async def test_a_turn_that_is_thought_about_is_not_stored() -> None:
    async def never(sender_id: str, reply: str) -> None:
        await asyncio.Event().wait()

    async with InMemoryTrackerStore(load_domain()) as store:
        stuck = RestaurantAssistant(store, think=never)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stuck.answer("ada", "Hello", EVENING), 0.05)
        assert await store.retrieve("ada") is None


async def test_any_process_can_answer_any_message() -> None:
    async with InMemoryTrackerStore(load_domain()) as store:
        replies = [
            await RestaurantAssistant(store).answer("ben", each.text, each.at_seconds)
            for each in booking("ben", 1, EVENING)
        ]
    assert len(replies) > BEFORE_THE_STOP + 1
    assert replies[-1] == "Booked: italian food for 2, at 19:30, inside."


async def test_a_long_silence_starts_a_session_that_keeps_the_slots() -> None:
    async with InMemoryTrackerStore(load_domain()) as store:
        assistant = RestaurantAssistant(store)
        await assistant.answer("ada", "A table for four", EVENING)
        await assistant.answer("ada", "Thai", EVENING + 3599)
        one_session = await store.retrieve("ada")
        await assistant.answer("ada", "At 7 pm", EVENING + 3599 + 3700)
        tracker = await store.retrieve("ada")
    assert one_session is not None
    assert tracker is not None
    assert len(messages(one_session)) == 2
    assert len(messages(tracker)) == 1
    assert tracker.get_slot("num_people") == 4
    assert tracker.get_slot("cuisine") == "thai"


# -- the bundled conversations ---------------------------------------------------------


def test_the_bundled_conversations_are_what_rasa_wrote() -> None:
    database = sqlite3.connect(
        f"file:{golden.path('sqlite/rasa.db')}?mode=ro", uri=True
    )
    compared = 0
    for sender_id, events in load_rasa_conversations().items():
        rows = database.execute(
            "SELECT data FROM events WHERE sender_id = ? ORDER BY id", (sender_id,)
        ).fetchall()
        if rows:  # a selection of the golden data may lack it
            compared += 1
            assert [json.loads(data) for (data,) in rows] == events
    database.close()
    assert compared


async def test_they_are_stored_exactly_and_once() -> None:
    async with InMemoryTrackerStore(load_domain()) as store:
        counts = await store_rasa_conversations(store)
        assert await store_rasa_conversations(store) == counts
        for sender_id, events in load_rasa_conversations().items():
            tracker = await store.retrieve_full_tracker(sender_id)
            assert tracker is not None
            assert [event.as_dict() for event in tracker.events] == events
