"""Takes the pictures of the inspector that docs/inspector.md shows.

::

    python -m tests.inspector_pictures docs

It stores a few conversations in a file of its own, serves them and drives a Chromium.
Times are fixed, so that only what has changed looks different.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browsing import browsing
from tests.servers import available_servers
from tests.unit.command import serving
from tracker_store_async import SQLTrackerStore
from tracker_store_async.events import (
    ActionExecuted,
    ActiveLoop,
    BotUttered,
    SessionStarted,
    SlotSet,
    UserUttered,
    event_from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.browsing import Browser
    from tracker_store_async.events import Event

BEGIN = 1_767_621_722.0
"""When the conversation of the pictures begins, in seconds since the epoch."""

ALICE = "web/7f3a-alice"
SIZE = {"width": 1280, "height": 900}


def booking(start: float, *, first: bool = True) -> list[Event]:
    """Return a session in which a table is booked."""
    times = iter(
        [
            *(0, 0.1, 0.4, 1.9, 2.0, 2.4, 2.5, 3.1, 3.2, 16, 16.4, 16.5, 17.2),
            *(17.3, 51, 51.3, 51.4, 51.9, 52.6, 52.7),
        ]
    )

    def at() -> float:
        return start + next(times)

    def intent(name: str, score: float, **entities: Any) -> dict[str, Any]:
        found = [{"entity": k, "value": v} for k, v in entities.items()]
        return {
            "intent": {"name": name, "confidence": score},
            "entities": found,
        }

    day = "Saturday" if first else "Sunday"
    return [
        ActionExecuted("action_session_start", timestamp=at()),
        SessionStarted(timestamp=at()),
        ActionExecuted("action_listen", timestamp=at()),
        UserUttered(
            f"A table for four on {day}, please",
            parse_data=intent("request_table", 0.97, people=4, day=day),
            timestamp=at(),
        ),
        ActionExecuted("booking_form", policy="RulePolicy", timestamp=at()),
        ActiveLoop("booking_form", timestamp=at()),
        SlotSet("people", 4, timestamp=at()),
        SlotSet("day", day, timestamp=at()),
        BotUttered("For four. At what time?", timestamp=at()),
        UserUttered(
            "half past seven",
            parse_data=intent("inform", 0.88, time="19:30"),
            timestamp=at(),
        ),
        SlotSet("time", "19:30", timestamp=at()),
        ActionExecuted("booking_form", policy="RulePolicy", timestamp=at()),
        BotUttered(
            "Inside or on the terrace?",
            {"buttons": [{"title": "Inside"}, {"title": "Terrace"}]},
            timestamp=at(),
        ),
        ActionExecuted("action_listen", timestamp=at()),
        UserUttered(
            "Terrace. My number is 0171 5550101",
            parse_data=intent("inform", 0.93, place="terrace", phone="0171 5550101"),
            timestamp=at(),
        ),
        SlotSet("place", "terrace", timestamp=at()),
        SlotSet("phone", "0171 5550101", timestamp=at()),
        ActiveLoop(None, timestamp=at()),
        event_from_dict(
            {"event": "table_reserved", "timestamp": at(), "table": 12, "seats": 4}
        ),
        BotUttered("Booked: table 12 on the terrace, at 19:30.", timestamp=at()),
    ]


async def store_conversations(path: Path) -> None:
    """Store what the pictures show."""
    names = ["0151-bela", "café/ünsal", "chat 21", "demo-03", "nina@example.org"]
    names += ["telegram:99120", "web/2c90", "web/5d11", "web/a0b3", "zoë"]
    for number, name in enumerate(names):
        begin = BEGIN - 86_400 * (number % 4) - 3_977 * number
        user_id = f"user-{number % 4}" if number % 3 else None
        await store(path, name, booking(begin)[: 20 - number], user_id)
    await store(path, ALICE, booking(BEGIN - 3 * 86_400), "alice")
    await store(path, ALICE, booking(BEGIN, first=False), "alice")


async def store(
    path: Path, sender_id: str, events: Iterable[Event], user_id: str | None
) -> None:
    """Append events to a conversation, at the time of the last one."""
    added = list(events)
    async with SQLTrackerStore(dialect="sqlite", db=str(path)) as target:
        target._now = lambda: added[-1].timestamp  # type: ignore[method-assign]
        tracker = await target.get_or_create_tracker(
            sender_id, append_action_listen=False
        )
        tracker.user_id = user_id
        tracker.update_with_events(added, override_timestamp=False)
        await target.save(tracker)


def take(browser: Browser, url: str, directory: Path) -> None:
    """Take the pictures."""
    browser.prefer("light")
    browser.open(f"{url}/inspector/")
    save(browser, directory / "inspector-list.png")
    browser.open(f"{url}/inspector/conversation?id={ALICE}")
    browser.run("document.getElementById('e30').scrollIntoView({block: 'center'})")
    browser.click("#e30 .position")
    browser.wait("document.querySelector('#state h2').textContent.includes('30')")
    browser.run("scrollTo(0, document.getElementById('e23').offsetTop - 130)")
    save(browser, directory / "inspector-light.png")
    browser.prefer("dark")
    browser.open(f"{url}/inspector/conversation?id={ALICE}")
    save(browser, directory / "inspector-dark.png")


def save(browser: Browser, path: Path) -> None:
    """Write what is seen into a file."""
    path.write_bytes(browser.picture())
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Take the pictures and put them into the directory that is named."""
    directory = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as work, available_servers() as servers:
        path = Path(work) / "conversations.db"
        asyncio.run(store_conversations(path))
        arguments = ("--db", "conversations.db", "--mask-slot", "phone")
        with (
            serving(Path(work), *arguments) as url,
            browsing(servers.get("browser"), **SIZE) as browser,  # type: ignore[arg-type]
        ):
            take(browser, url, directory)


if __name__ == "__main__":
    main()
