"""The story that `tracker-store demo` tells, part by part, on a SQLite file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.demo.assistant import (
    FORM,
    RestaurantAssistant,
    load_domain,
)
from tracker_store_async.demo.narration import Narrator
from tracker_store_async.demo.rasa_data import RESUMED_ID, store_rasa_conversations
from tracker_store_async.demo.script import BEFORE_THE_STOP, booking, name_of
from tracker_store_async.errors import TrackerStoreError
from tracker_store_async.inspection.timeline import Timeline, slots_line, version_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from tracker_store_async.store import TrackerStore

SHOWN_USERS = 3
"""Users whose messages are printed; the others are served without a word."""

FIRST_PROCESS_TIMEOUT_SECONDS = 60


class Demo:
    """One run of the demo.

    Args:
        console: Where the story is told.
        db: Path of the SQLite file; conversations that it holds already stay.
        user_count: Users that book a table at the same time.
    """

    def __init__(self, console: Console, db: Path, user_count: int) -> None:
        self._console = console
        self._narrator = Narrator(console)
        self._db = db
        self._user_count = user_count
        self._sender_ids: list[str] = []
        self._evening, self._morning = _evening_and_morning()

    async def run(self) -> None:
        """Tell the whole story.

        Raises:
            TrackerStoreError: The file cannot be used.
        """
        tell = self._narrator
        self._sender_ids = await self._free_sender_ids()
        tell.say(
            "A scripted restaurant assistant. It remembers nothing itself: every turn "
            f"loads the conversation from {self._db} and saves it there. Its clock is "
            "made up."
        )
        tell.heading(f"{self._user_count} users book a table at the same time")
        await self._run_first_process()
        async with self._new_store() as store:
            tell.heading("A second process goes on from the file")
            await self._resume(store)
            tell.heading("The next morning, from two devices at the same moment")
            await self._two_devices(store)
            tell.heading(f"What is stored of {self._sender_ids[0]}")
            tell.say(
                "A line is an event: its position in the log, its time, and what it "
                "says. Internal ones such as action_listen are left out."
            )
            await self._show(store, self._sender_ids[0])
            tell.heading("Conversations that Rasa wrote")
            await self._rasa(store)
        self._next_commands()

    def _new_store(self) -> SQLTrackerStore:
        return SQLTrackerStore(load_domain(), dialect="sqlite", db=str(self._db))

    async def _free_sender_ids(self) -> list[str]:
        """Return ids that no earlier run of the demo has used in this file."""
        names = [name_of(index) for index in range(self._user_count)]
        async with self._new_store() as store:
            for run in count(1):
                ids = names if run == 1 else [f"{name}-{run}" for name in names]
                taken = [await store.exists(sender_id) for sender_id in ids]
                if not any(taken):
                    break
        return ids

    # -- the parts ---------------------------------------------------------------------

    async def _run_first_process(self) -> None:
        """Let a process of its own serve all users, and kill it while it thinks."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tracker_store_async.demo.first_process"),
            *(str(self._db), str(self._evening), *self._sender_ids),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # Ctrl-C is for us; we end it then
        )
        try:
            async with asyncio.timeout(FIRST_PROCESS_TIMEOUT_SECONDS):
                await self._listen(process)
        except TimeoutError:
            raise TrackerStoreError(
                "the first process of the demo did not answer all messages within "
                f"{FIRST_PROCESS_TIMEOUT_SECONDS} s"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._narrator.say(
            f"Process {process.pid} was killed while it worked on the last "
            f"{self._user_count} answers. What it had not stored is gone with it."
        )

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Print what the process reports, until it thinks about every last message."""
        thinking = 0
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        while thinking < self._user_count:
            line = await process.stdout.readline()
            if not line:
                raise TrackerStoreError("the first process of the demo ended by itself")
            said = json.loads(line)
            if "error" in said:
                raise TrackerStoreError(said["error"])
            sender_id = said.pop("sender_id")
            ((who, text),) = said.items()
            if who == "thinking":
                thinking += 1
            else:
                self._line(sender_id, who, text)

    async def _resume(self, store: TrackerStore) -> None:
        """Answer the message that was lost, and those after it, for all users at once.

        Nothing but the file connects this process with the first one.
        """
        for sender_id in self._sender_ids[:SHOWN_USERS]:
            tracker = await store.retrieve(sender_id)
            if tracker is None:
                continue
            slots = tracker.current_slot_values()
            wanted = slots.pop("requested_slot", None)
            self._narrator.say(
                f"{sender_id} has {len(tracker.events)} events, {slots_line(slots)}; "
                f"{FORM} waits for {wanted}."
            )
        self._narrator.say("The messages without an answer are delivered again:")
        assistant = RestaurantAssistant(store)
        await asyncio.gather(
            *(
                self._finish_booking(assistant, sender_id, index)
                for index, sender_id in enumerate(self._sender_ids)
            )
        )

    async def _finish_booking(
        self, assistant: RestaurantAssistant, sender_id: str, index: int
    ) -> None:
        later = self._evening + 360
        for message in booking(sender_id, index, later)[BEFORE_THE_STOP:]:
            await self._converse(assistant, sender_id, message.text, message.at_seconds)

    async def _two_devices(self, store: TrackerStore) -> None:
        sender_id, at_seconds = self._sender_ids[0], self._morning
        assistant = RestaurantAssistant(store)
        await self._converse(assistant, sender_id, "Good morning", at_seconds)
        before = store.conflict_count
        # The warning that a conflict logs is said below, in the story's own words.
        logger = logging.getLogger("tracker_store_async.saving")
        logger.setLevel(logging.ERROR)
        await asyncio.gather(
            self._converse(assistant, sender_id, "We are six now", at_seconds + 40),
            self._converse(assistant, sender_id, "Inside, please", at_seconds + 40),
        )
        logger.setLevel(logging.NOTSET)
        self._narrator.say(
            "Both turns loaded the same version of the conversation; conflicts found "
            f"when saving: {store.conflict_count - before}. The later turn was put "
            "behind the other one: nothing is lost, nothing is doubled."
        )
        question = "So what do we have?"
        await self._converse(assistant, sender_id, question, at_seconds + 90)

    async def _rasa(self, store: TrackerStore) -> None:
        counts = await store_rasa_conversations(store)
        listed = ", ".join(f"{name} ({number})" for name, number in counts.items())
        self._narrator.say(
            f"Rows of Rasa 3.6.21's own SQL tracker store, stored here (events): "
            f"{listed}. In {RESUMED_ID}, cuisine, people and seating were chosen with "
            "Rasa; it goes on here:"
        )
        assistant, at_seconds = RestaurantAssistant(store), time.time()
        for message in ("Is my table still free?", "Yes, at 8 pm"):
            await self._converse(assistant, RESUMED_ID, message, at_seconds)
            at_seconds += 20
        self._narrator.say("The end of that conversation as it is stored now:")
        await self._show(store, RESUMED_ID, last=36)

    async def _show(
        self, store: TrackerStore, sender_id: str, *, last: int | None = None
    ) -> None:
        tracker = await store.retrieve_full_tracker(sender_id)
        if tracker is not None:
            events = list(tracker.events)[-(last or 0) :]
            first = version_of(tracker) - len(events)
            Timeline(self._console).write(events, first)

    # -- what is said ------------------------------------------------------------------

    async def _converse(
        self,
        assistant: RestaurantAssistant,
        sender_id: str,
        message: str,
        at_seconds: float,
    ) -> None:
        self._line(sender_id, "user", message)
        reply = await assistant.answer(sender_id, message, at_seconds)
        self._line(sender_id, "bot", reply)

    def _line(self, sender_id: str, who: str, text: str) -> None:
        if sender_id in (*self._sender_ids[:SHOWN_USERS], RESUMED_ID):
            self._narrator.quote(sender_id, who, text)

    def _next_commands(self) -> None:
        self._narrator.heading("Look for yourself")
        db = f"--db {shlex.quote(str(self._db))}"
        sender_id = shlex.quote(self._sender_ids[0])
        for command in (
            f"list {db}",
            f"show {sender_id} {db}",
            f"show user-0002 --all-sessions {db}",
            f"check {db}",
        ):
            self._narrator.command(f"tracker-store {command}")


def _evening_and_morning() -> tuple[float, float]:
    """Return a past evening and the morning after it, in seconds since the epoch."""
    today = datetime.now(UTC).astimezone()
    morning = today.replace(hour=9, minute=15, second=0, microsecond=0)
    morning -= timedelta(days=1)
    evening = morning.replace(hour=18, minute=30) - timedelta(days=1)
    return evening.timestamp(), morning.timestamp()
