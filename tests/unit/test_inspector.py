"""The inspector through its app: lists, timelines, the tail, hostile input."""

from __future__ import annotations

import re
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
pytest.importorskip("httpx")

import httpx

from tests.conformance.kit import (
    SENDER,
    START,
    add,
    slot,
    turn,
    user,
)
from tests.inspecting import PACKAGE, Client, Seen, tail_of
from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.events import (
    ActionExecuted,
    SessionStarted,
    SlotSet,
    UserUttered,
    event_from_dict,
)
from tracker_store_async.ops.inspector import app as inspecting
from tracker_store_async.ops.inspector import rendering, searching, views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Read

STRANGE_IDS = [
    *("a/b", "a//b/../c", "..", ".", "%2F%00", "a b", "ä ö 漢字 🙂", "a?b#c&d=e+f"),
    *("<b>", '"quoted"', "'", "back\\slash", " padded ", "tab\tline\nend", "\u202eabc"),
]


@pytest.fixture
async def store() -> InMemoryTrackerStore:
    return InMemoryTrackerStore()


@pytest.fixture
async def client(store: InMemoryTrackerStore) -> AsyncIterator[Client]:
    async with Client(store) as client:
        yield client


# -- lists -----------------------------------------------------------------------------


async def fill(store: TrackerStore, count: int) -> list[str]:
    """Store conversations; return their ids."""
    names = [f"Chat-{number:03}" for number in range(count)]
    for name in names:
        await add(store, name, user())
    return names


async def all_pages(client: Client, path: str = "") -> list[list[str]]:
    """Follow the pages of a list; return the ids on each."""
    pages, link = [], path
    while link is not None:
        seen = Seen(await client.page(link))
        ids = [httpx.URL(each).params["id"] for each in seen.links("conversation?")]
        pages.append(ids)
        following = [each for each in seen.links("./?") if "after=" in each]
        link = following[-1] if following else None  # type: ignore[assignment]
    return pages


async def test_a_list_has_pages(client: Client, store: TrackerStore) -> None:
    names = await fill(store, 120)
    pages = await all_pages(client)
    assert [len(page) for page in pages] == [50, 50, 20]
    assert sorted(chain(*pages)) == names


async def test_an_empty_store_says_so(client: Client) -> None:
    assert "Nothing is stored yet" in await client.page()


async def test_a_search_within_ids_is_bounded_and_goes_on(
    client: Client, store: TrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, 30)
    monkeypatch.setattr(searching, "LISTED_AT_ONCE", 5)
    monkeypatch.setattr(searching, "MOST_LOOKED_AT", 10)
    pages = await all_pages(client, "?q=cHAT-01")
    assert len(pages) == 3
    assert sorted(chain(*pages)) == [f"Chat-{number:03}" for number in range(10, 20)]
    assert "10 conversations looked at; there are more" in await client.page(q="x")
    assert "No conversation is like that" in await client.page(q="x", user="nobody")


async def test_an_exact_id_is_found_at_once(
    client: Client, store: TrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, 30)
    monkeypatch.setattr(searching, "LISTED_AT_ONCE", 5)
    monkeypatch.setattr(searching, "MOST_LOOKED_AT", 5)
    page = await client.page(q="Chat-029")
    assert "exactly this id" in page
    assert len(Seen(page).links("conversation?")) == 1
    page = await client.page(q="Chat-003")
    assert len(Seen(page).links("conversation?")) == 1


async def test_the_store_filters_by_user_and_time(client: Client) -> None:
    store = InMemoryTrackerStore()
    for number, name in enumerate(("a", "b", "c")):
        store._now = lambda n=number: START + n * 3600  # type: ignore[method-assign]
        tracker = await store.get_or_create_tracker(name)
        tracker.user_id = "maria" if name == "b" else None
        tracker.update(user())
        await store.save(tracker)
    async with Client(store) as client:
        assert await all_pages(client, "?user=maria") == [["b"]]
        at = "2023-11-14T23:13:20+00:00"
        assert await all_pages(client, f"?from={quote(at)}") == [["b", "c"]]
        assert await all_pages(client, f"?before={quote(at)}") == [["a"]]


@pytest.mark.parametrize("query", [{"from": "yesterday"}, {"after": "\x00nonsense"}])
async def test_what_cannot_be_asked_is_refused(client: Client, query: Any) -> None:
    page = await client.page(status=400, **query)
    assert "That cannot be asked" in page


@pytest.mark.parametrize("sender_id", STRANGE_IDS)
async def test_any_id_can_be_followed(
    client: Client, store: TrackerStore, sender_id: str
) -> None:
    await add(store, sender_id, *turn("found it"))
    seen = Seen(await client.page())
    (link,) = seen.links("conversation?")
    url = httpx.URL("http://127.0.0.1/inspector/").join(link)
    assert url.path == "/inspector/conversation"
    answer = await client.get(url)
    assert answer.status_code == 200
    assert "found it" in answer.text
    assert "\u202e" not in answer.text


@pytest.mark.parametrize("sender_id", ["nobody", "nul\x00", "x" * 256, "", "\ufffd"])
async def test_an_unknown_id_is_a_page_that_says_so(
    client: Client, store: TrackerStore, sender_id: str
) -> None:
    await add(store, SENDER, user())
    page = await client.page("conversation", 404, id=sender_id)
    assert "Not here" in page
    assert "conversation" in page
    for path in ("tail", "state"):
        told = await client.get(
            f"/inspector/{path}", params={"id": sender_id, "at": 0, "after": 0}
        )
        assert told.status_code == 404
        assert "Not here" in told.json()["error"]


async def test_an_expired_conversation_is_unknown() -> None:
    store = InMemoryTrackerStore(record_exp=10)
    await add(store, SENDER, user())
    async with Client(store) as client:
        assert "expires" in await client.show()
        later = store._now() + 11
        store._now = lambda: later  # type: ignore[method-assign]
        await client.page("conversation", 404, id=SENDER)


# -- timelines -------------------------------------------------------------------------


async def test_a_timeline_shows_what_happened(
    client: Client, store: TrackerStore
) -> None:
    at = START  # times of its own: those of the kit depend on what ran before
    said = UserUttered(
        "A table, please",
        {"name": "request", "confidence": 0.93},
        [{"entity": "people", "value": 4}],
        timestamp=at,
    )
    rows = [
        {"event": "agent_joined", "timestamp": at + 2, "agent": "Kim", "n": 1},
        {"event": "slot", "name": "people", "value": 4, "timestamp": at + 2.5},
        {"event": "bot", "text": "For four.", "timestamp": at + 3},
        {"event": "user", "text": "hello again", "timestamp": at + 7300},
    ]
    begun = [
        ActionExecuted("action_session_start", timestamp=at - 0.2),
        SessionStarted(timestamp=at - 0.1),
    ]
    await add(store, SENDER, *begun, said, *map(event_from_dict, rows))
    text = " ".join(Seen(await client.show()).text.split())
    for expected in (
        "Session, Tuesday, 14 November 2023",
        "user A table, please request 0.93, people=4",
        '+2 s agent_joined {"agent": "Kim", "n": 1}',
        "slot people = 4",
        "bot For four.",
        "2 h later",
        "hello again",
        "people 4",
        "events 7",
    ):
        assert expected in text


async def test_a_row_that_cannot_be_read_hides_no_other(
    client: Client, store: InMemoryTrackerStore
) -> None:
    await add(store, SENDER, *turn("before"))
    rows = store._conversations[SENDER].rows
    rows[1] = (rows[1][0], "[1, 2]")
    page = await client.show()
    assert "before" in page
    assert "not a JSON object" in page
    assert "It cannot be read" in await client.show(at=1)
    assert "&#34;event&#34;: &#34;bot&#34;" in await client.show(at=2)


class Counting(InMemoryTrackerStore):
    """Counts the rows that are read, and the reads."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    async def _read(self, read: Read) -> Any:
        found = await super()._read(read)
        self.rows.append(0 if found is None else len(found.rows))
        return found


async def test_a_long_conversation_is_read_and_shown_in_pages() -> None:
    store = Counting()
    tracker = store.init_tracker(SENDER)
    for number in range(10_000):
        tracker.update(SlotSet("n", number, timestamp=START + number))
    await store.save(tracker)
    async with Client(store) as client:
        store.rows.clear()
        seen = Seen(await client.show())
        assert store.rows == [201]
        assert "events 9,800\N{EN DASH}9,999" in seen.text
        assert len([a for a in seen.attributes if a[0] == "data-at"]) == 200
        positions = []
        link = next(each for each in seen.links("conversation?") if "from=0" in each)
        while link:
            store.rows.clear()
            seen = Seen(await client.page(link))
            assert store.rows[0] <= 201
            positions += [int(v) for name, v in seen.attributes if name == "data-at"]
            later = re.search(r'href="([^"]*)">Later', await client.page(link))
            link = later[1].replace("&amp;", "&") if later else ""
            if len(positions) > 600:
                break
        assert positions == list(range(800))
        assert "events 400\N{EN DASH}599" in Seen(await client.show(at=555)).text
        assert (
            "events 9,800\N{EN DASH}9,999"
            in Seen(await client.show(**{"from": 10**9})).text
        )
        for wrong in ("-1", "x", "9" * 20, "1e3"):
            await client.page("conversation", 400, id=SENDER, at=wrong)
        await client.page("conversation", 404, id=SENDER, at=10_000)


async def test_pages_are_made_beside_the_loop(
    client: Client, store: TrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered while a page of 200 events, a lot of work, is made."""
    threads = set()
    render, state_of = rendering.render, views.state_of

    def noted_state(*arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return state_of(*arguments)

    def noted(*arguments: Any, **values: Any) -> str:
        threads.add(threading.get_ident())
        return render(*arguments, **values)

    monkeypatch.setattr(inspecting, "render", noted)
    monkeypatch.setattr(views, "state_of", noted_state)
    await add(store, SENDER, *turn())
    await client.show()
    await client.page()
    assert threads
    assert threading.get_ident() not in threads


async def test_a_long_text_is_cut_and_whole_in_its_own_fields(
    client: Client, store: TrackerStore
) -> None:
    await add(store, SENDER, user("x" * 20_000))
    page = await client.page("conversation", id=SENDER)
    assert "… (20,000 characters)" in Seen(page).text
    told = await client.get("/inspector/state", params={"id": SENDER, "at": 0})
    assert "x" * 20_000 in told.json()["state"]


# -- what follows the end --------------------------------------------------------------


async def test_the_tail_asks_for_what_is_new_alone() -> None:
    store = Counting()
    await add(store, SENDER, *turn(), *turn())
    async with Client(store) as client:
        page = await client.show()
        store.rows.clear()
        assert await tail_of(client, page) == 204
        assert store.rows == [0]
        await add(store, SENDER, user("news"), slot("people", 7))
        store.rows.clear()
        told = await tail_of(client, page)
        assert store.rows == [0, 3]  # one more, for the time between
        assert (told["next"], told["is_last"]) == (10, True)
        assert told["facts"]["events"] == "10"
        assert "news" in told["html"]
        assert "hi" not in Seen(told["html"]).text
        assert "people" in told["state"]


async def test_a_tail_that_lags_catches_up_in_pages() -> None:
    store = Counting()
    await add(store, SENDER, user())
    async with Client(store) as client:
        page = await client.show()
        await add(store, SENDER, *[slot("n", n) for n in range(300)])
        store.rows.clear()
        told = await tail_of(client, page)
        assert (told["next"], told["is_last"]) == (201, False)
        assert store.rows[:2] == [0, 201]


async def test_the_tail_of_what_was_erased_or_begun_again(
    client: Client, store: TrackerStore
) -> None:
    await add(store, SENDER, *turn())
    page = await client.show()
    await store.delete(SENDER)
    assert "Not here" in (await tail_of(client, page))["error"]
    await add(store, SENDER, *turn(), *turn())
    assert await tail_of(client, page) == {"rewritten": True}


# -- hostile input ---------------------------------------------------------------------

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}</pre>\x1b[0m"
FINE = {
    *("html", "head", "meta", "title", "link", "script", "body", "a", "header", "img"),
    *("span", "button", "main", "form", "div", "label", "input", "h1", "h2", "h3"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "nav", "section"),
    *("dl", "dt", "dd", "ol", "li", "time", "aside", "details", "summary", "pre", "p"),
    *("del", "ins"),
}


async def test_nothing_stored_becomes_markup(
    client: Client, store: TrackerStore
) -> None:
    hostile = {
        "event": "user",
        "text": EVIL,
        "metadata": {EVIL: [EVIL]},
        "timestamp": 1e9,
        "input_channel": EVIL,
        "message_id": EVIL,
        "parse_data": {
            "intent": {"name": EVIL, "confidence": 1.0},
            "entities": [{"entity": EVIL, "value": EVIL}],
        },
    }
    events = [
        event_from_dict(hostile),
        slot(EVIL, EVIL),
        event_from_dict({"event": EVIL, "timestamp": 1e9, EVIL: EVIL}),
        event_from_dict({"event": "action", "name": EVIL, "timestamp": 1e9}),
        event_from_dict({"event": "active_loop", "name": EVIL, "timestamp": 1e9}),
        event_from_dict({"event": "followup", "name": EVIL, "timestamp": 1e9}),
        event_from_dict(
            {
                "event": "bot",
                "text": EVIL,
                "timestamp": 1e9,
                "data": {"buttons": [{"title": EVIL}], "image": EVIL},
            }
        ),
        user("lone \ud800 surrogate"),
    ]
    tracker = await store.get_or_create_tracker(EVIL, append_action_listen=False)
    tracker.user_id = EVIL
    tracker.update_with_events(events, override_timestamp=False)
    await store.save(tracker)
    pages = [
        await client.page(),
        await client.page(q=EVIL, user=EVIL, after=""),
        *[await client.show(EVIL, at=number) for number in range(len(events))],
        await client.page("conversation", 404, id=EVIL + "?"),
        await client.page(quote(EVIL.replace("/", "")), 404),
    ]
    told = await client.get("/inspector/tail", params={"id": EVIL, "after": 0})
    began = re.search(r"began=([^\"&]*)", pages[2])
    assert began
    told = await client.get(
        "/inspector/tail", params={"id": EVIL, "after": 0, "began": began[1]}
    )
    pages += [told.json()["html"], told.json()["state"]]
    for page in pages:
        seen = Seen(page)
        assert seen.tags <= FINE
        assert not [name for name, _ in seen.attributes if name.startswith("on")]
        scripts = [v for name, v in seen.attributes if name == "src"]
        assert all(re.match(r"(inspector\.js|icon\.svg)\?", each) for each in scripts)
        assert "\x1b" not in page
    shown = Seen(pages[2]).text
    assert EVIL.replace("\x1b", "\\x1b") in shown
    assert "lone \\ud800 surrogate" in shown


def test_nothing_comes_from_elsewhere() -> None:
    files = [*(PACKAGE / "templates").iterdir(), *(PACKAGE / "static").iterdir()]
    assert len(files) > 8
    for path in files:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|\|\s*safe", text), path
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), path


async def test_every_answer_is_locked_down(client: Client, store: TrackerStore) -> None:
    await add(store, SENDER, user())
    paths = [
        "",
        "conversation?id=alice",
        "conversation?id=x",
        "inspector.js",
        "sign-in",
    ]
    for path in [*paths, "tail?id=alice&after=0", "state?id=alice&at=0", "nowhere"]:
        answer = await client.get(f"/inspector/{path}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"\w+\.\w+|\*|https?:|data:", policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        if path != "inspector.js":
            assert answer.headers["cache-control"] == "no-store"
