"""The inspector in a real browser, while a conversation is being written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")
pytest.importorskip("httpx")

from tests.browsing import browsing, origins
from tests.canaries import TEXT
from tests.conformance.kit import add, bot, new_session, slot, turn, user
from tests.unit.command import serving
from tracker_store_async import SQLTrackerStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browsing import Browser
    from tests.servers import BrowserServer
    from tracker_store_async.events import Event

TOKEN = "a-token-of-enough-length"
HOSTILE = 'a/../b "c"<img src=x onerror=document.title="owned">'
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def write(db: Path, sender_id: str, *events: Event) -> None:
    """Append events, as an assistant's own process does."""

    async def work() -> None:
        async with SQLTrackerStore(dialect="sqlite", db=str(db)) as store:
            await add(store, sender_id, *events)

    asyncio.run(work())


def sign_in(browser: Browser, url: str) -> None:
    """Go to the list, which leads to the form and back."""
    browser.open(f"{url}/")
    assert browser.text("h1") == "Sign in"
    browser.type("#name", "maria")
    browser.type("#token", TOKEN)
    browser.click(".primary")
    browser.wait("document.querySelector('table')")
    assert TOKEN not in browser.run("return location.href + document.cookie")


def look_at_an_event(browser: Browser) -> None:
    """Follow the list to the conversation, and see the slots as they were."""
    browser.type("#q", "A/../B")  # the case does not matter
    browser.click(".search .primary")
    browser.wait("document.querySelectorAll('tbody tr').length === 1")
    browser.click("tbody th a")
    browser.wait("document.getElementById('events')")
    assert browser.text("h1") == HOSTILE
    assert "people\n4" in browser.text("#state")
    browser.click("#e2 .position")
    browser.wait("document.querySelector('#state h2').textContent.includes('event 2')")
    assert "people\nnull 2" in browser.text("#state")
    assert browser.run("return location.search").endswith("&at=2")
    assert not browser.run("return document.querySelector('#e7').offsetHeight")
    browser.click("#quiet")
    assert browser.run("return document.querySelector('#e7').offsetHeight")
    browser.click("#state header a")  # back to the latest event
    browser.wait("!location.search.includes('at=')")


def follow_the_tail(browser: Browser, db: Path) -> None:
    """Watch events come in, pause, and go on."""
    browser.wait("document.querySelector('.live[data-mood=on]')")
    write(db, HOSTILE, user("are you there?"), slot("people", 6), bot("<b>Yes</b>"))
    browser.wait("document.querySelector('#e11')")
    assert "are you there?" in browser.text("#e9")
    assert "<b>Yes</b>" in browser.text("#e11")
    assert "people\n6" in browser.text("#state")
    assert browser.text("[data-fact=events]") == "12"
    browser.click("#live")
    assert browser.text("#live-status") == "Paused"
    write(db, HOSTILE, user("still there?"))
    browser.click("#live")
    browser.wait("document.querySelector('#e12')")
    assert browser.run("return document.title").startswith(HOSTILE)


def switch_the_light(browser: Browser) -> None:
    """Follow the system, then the switch, which outlives the page."""
    browser.prefer("light")
    light = browser.run(f"return {BACKGROUND}")
    browser.prefer("dark")
    dark = browser.run(f"return {BACKGROUND}")
    assert dark != light
    assert browser.text("#theme") == "Light"
    browser.run("scrollTo(0, 0)")
    browser.click("#theme")
    assert browser.run(f"return {BACKGROUND}") == light
    browser.call("POST", "refresh")
    assert browser.run(f"return {BACKGROUND}") == light


@pytest.mark.timeout(120)
def test_a_conversation_is_inspected_while_it_is_written(
    tmp_path: Path, browser_server: BrowserServer
) -> None:
    db = tmp_path / "chats.db"
    write(db, "bob", *turn())
    write(db, HOSTILE, *new_session(), slot("people", 2), slot("people", 4))
    write(db, HOSTILE, *turn(f"{TEXT} <script>document.title='owned'</script>"))
    write(db, HOSTILE, bot("where the list begins"))
    arguments = ("--db", "chats.db")
    with (
        serving(tmp_path, *arguments, TRACKER_STORE_TOKEN=TOKEN) as url,
        browsing(browser_server) as browser,
    ):
        sign_in(browser, url)
        look_at_an_event(browser)
        follow_the_tail(browser, db)
        switch_the_light(browser)
        asked = [link for link in browser.requests() if link.startswith("http")]
        assert len(asked) > 10
        assert origins(asked) == {url}
        assert TOKEN not in "".join(asked)
        assert browser.complaints() == []
        browser.click(".leaving button")
        browser.wait("location.pathname.endsWith('/sign-in')")
        browser.open(f"{url}/inspector/")
        assert browser.text("h1") == "Sign in"
