"""The inspector: who is let in, what is refused, masked, recorded and said."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")
pytest.importorskip("httpx")

import httpx

from tests.canaries import SECRET
from tests.conformance.kit import (
    SENDER,
    START,
    add,
    bot,
    turn,
    user,
)
from tests.inspecting import PACKAGE, TOKEN, Client, Seen, tail_of
from tests.unit.command import error_of, run
from tests.unit.test_audited import ListSink
from tracker_store_async import InMemoryTrackerStore, errors, redaction
from tracker_store_async.auditing import acting_as
from tracker_store_async.events import SlotSet, UserUttered, event_from_dict
from tracker_store_async.ops.access import Gate
from tracker_store_async.ops.asgi import create_app
from tracker_store_async.ops.inspector import app as inspecting
from tracker_store_async.ops.inspector.entry import Entry
from tracker_store_async.ops.inspector.masking import MOST_VALUES
from tracker_store_async.ops.inspector.options import InspectorOptions
from tracker_store_async.ops.inspector.reading import PAGE_EVENTS
from tracker_store_async.wrappers.audited import AuditedTrackerStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Read


@pytest.fixture
async def store() -> InMemoryTrackerStore:
    return InMemoryTrackerStore()


@pytest.fixture
async def client(store: InMemoryTrackerStore) -> AsyncIterator[Client]:
    async with Client(store) as client:
        yield client


@pytest.fixture
def masked() -> Iterator[None]:
    """Have the slot `phone` and a password masked."""
    redaction.configure(slots=["phone"], secrets=["hunter2"])
    yield
    redaction.configure()


# -- reading only ----------------------------------------------------------------------


class Unchangeable(InMemoryTrackerStore):
    """Fails the test when anything is to be changed."""

    is_sealed = False

    async def _change(self, *arguments: Any, **named: Any) -> Any:
        assert not self.is_sealed, "the inspector changes something"

    async def _append(self, append: Any) -> bool:
        await self._change()
        return await super()._append(append)

    _append_many = _delete = _rewrite = _upkeep = _change


PATHS = ["", "conversation", "tail", "state", "inspector.css", "sign-in", "sign-out"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(method: str) -> None:
    store = Unchangeable()
    await add(store, SENDER, *turn())
    store.is_sealed = True
    async with Client(store) as client:
        for path in PATHS:
            if method == "POST" and path.startswith("sign"):
                continue
            answer = await client.request(method, f"/inspector/{path}?id={SENDER}")
            assert answer.status_code == 405
            assert "GET" in answer.headers["allow"]


async def test_looking_changes_nothing() -> None:
    store = Unchangeable()
    await add(store, SENDER, *turn())
    store.is_sealed = True
    async with Client(store) as client:
        for query in ({}, {"at": 1}, {"after": 2}, {"q": "a"}):
            for path in PATHS:
                params = {"id": SENDER, **query}
                await client.get(f"/inspector/{path}", params=params)
                head = await client.head(f"/inspector/{path}", params=params)
                assert head.status_code < 500


def test_the_inspector_names_nothing_that_changes_a_store() -> None:
    writing = r"\.(save\w*|delete|_append\w*|_delete|_rewrite|_upkeep|create_tracker)\("
    for path in PACKAGE.glob("*.py"):
        assert not re.search(writing, path.read_text()), path


# -- who is let in ---------------------------------------------------------------------


async def sign_in(client: Client, **form: str) -> httpx.Response:
    """Send the form."""
    sent = {"name": "maria", "token": TOKEN, **form}
    return await client.post("/inspector/sign-in", data=sent)


async def test_one_signs_in_and_out(store: TrackerStore) -> None:
    await add(store, SENDER, user("hello there"))
    async with Client(store, token=TOKEN) as client:
        answer = await client.get(f"/inspector/conversation?id={SENDER}")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("sign-in?next=conversation")
        form = Seen(await client.page(answer.headers["location"]))
        place = dict(form.attributes)
        assert ("value", f"conversation?id={SENDER}") in form.attributes
        assert place["type"] == "password"
        answer = await sign_in(client, next=f"conversation?id={SENDER}")
        assert answer.status_code == 303
        assert answer.headers["location"] == f"conversation?id={SENDER}"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        assert "Secure" not in cookie
        assert "path" not in cookie.lower()  # the browser's default: the inspector
        assert TOKEN not in cookie
        page = await client.show()
        assert "hello there" in page
        assert "maria" in page
        out = await client.post("/inspector/sign-out")
        assert (out.status_code, out.headers["location"]) == (303, "sign-in")
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert (await client.get("/inspector/")).status_code == 303


async def test_a_cookie_that_came_over_tls_stays_there(store: TrackerStore) -> None:
    async with Client(store, token=TOKEN) as client:
        client.base_url = httpx.URL("https://127.0.0.1")
        assert "; Secure" in (await sign_in(client)).headers["set-cookie"]


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"token": TOKEN + "x"}, "not the token"),
        ({"token": ""}, "not the token"),
        ({"token": "ünicode\ud800"}, "not the token"),
        ({"name": " "}, "Give a name"),
    ],
)
async def test_a_wrong_form_is_shown_again(
    store: TrackerStore, form: dict[str, str], problem: str
) -> None:
    async with Client(store, token=TOKEN) as client:
        data = {"name": "maria", "token": TOKEN, **form}
        body = "&".join(
            f"{k}={quote(v.encode('utf-8', 'surrogatepass'))}" for k, v in data.items()
        )
        answer = await client.post("/inspector/sign-in", content=body)
        assert answer.status_code == 403
        assert problem in answer.text
        assert "set-cookie" not in answer.headers
        assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "place",
    [
        *("https://evil.example/", "//evil.example", "/\\evil.example", "../../x"),
        *(
            "javascript:alert(1)",
            "./\r\nset-cookie: a=b",
            ".//evil.example",
            "sign-out",
        ),
    ],
)
async def test_one_is_never_led_elsewhere(store: TrackerStore, place: str) -> None:
    async with Client(store, token=TOKEN) as client:
        assert (await sign_in(client, next=place)).headers["location"] == "./"
        page = Seen(await client.page("sign-in", next=place))
        assert ("value", "./") in page.attributes


async def test_cookies_that_are_not_ours_are_worth_nothing(
    store: TrackerStore,
) -> None:
    async with Client(store, token=TOKEN) as client:
        cookie = (await sign_in(client)).headers["set-cookie"].partition(";")[0]
        name, _, value = cookie.partition("=")
        text, _, signature = value.partition(".")
        client.cookies.clear()

        async def status(value: str, who: Client = client) -> int:
            headers = {"cookie": f"{name}={value}".encode("latin-1")}
            return (await who.get("/inspector/tail", headers=headers)).status_code

        assert await status(value) == 404  # let in: it names no conversation
        # what others on this host have set goes with it
        assert await status(f'old; other={{"a":[1]}}; x; =; {name}={value}; y=ü') == 404
        for wrong in (
            text,
            f"{text}.",
            f".{signature}",
            f"{text}x.{signature}",
            "",
            "ü",
        ):
            assert await status(wrong) == 401
        async with Client(store, token=TOKEN + "another") as other:
            assert await status(value, other) == 401
        assert Entry(Gate(TOKEN)).name_in(cookie) == "maria"
        later = Entry(Gate(TOKEN), now=lambda: time.time() + 13 * 3600)
        assert later.name_in(cookie) is None


def test_headers_that_no_encoding_has_are_worth_nothing() -> None:
    """Sanic hands on bytes that are no UTF-8 as lone surrogates."""
    gate = Gate(TOKEN)
    assert not gate.lets_in("Bearer \udcff")
    signature = gate.signature("inspector x")
    for value in ("\udcff", "\udcff.\udcff", f"x.{signature}\udcff"):
        assert Entry(gate).name_in(f"tracker_store_inspector={value}") is None


@pytest.mark.parametrize("path", ["foo", "foo/", "foo/sign-in", "conversation/"])
async def test_a_page_that_is_not_there_leads_to_no_sign_in(
    store: TrackerStore, path: str
) -> None:
    """A relative link from below would lead to another such page, and on."""
    async with Client(store, token=TOKEN) as client:
        await client.page(path, 404)


async def test_other_sites_and_long_forms_are_refused(store: TrackerStore) -> None:
    async with Client(store, token=TOKEN) as client:
        for path in ("sign-in", "sign-out"):
            headers = {"sec-fetch-site": "cross-site"}
            answer = await client.post(f"/inspector/{path}", headers=headers)
            assert answer.status_code == 403
        assert (await sign_in(client, name="x" * 10_000)).status_code == 413


async def test_the_header_of_the_other_endpoints_does_as_well(
    store: TrackerStore,
) -> None:
    async with Client(store, token=TOKEN) as client:
        client.headers["authorization"] = f"Bearer {TOKEN}"
        assert "Nothing is stored yet" in await client.page()
        client.headers["authorization"] = f"Bearer {TOKEN}x"
        assert (await client.get("/inspector/")).status_code == 303


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:8060", 200), ("localhost", 200), ("[::1]:80", 200)),
        *(("evil.example", 403), ("127.0.0.1.evil.example", 403), ("[::1", 403)),
    ],
)
async def test_names_of_others_that_lead_to_the_loopback(
    store: TrackerStore, host: str, status: int
) -> None:
    options = InspectorOptions(loopback_only=True)
    async with Client(store, inspector=options) as client:
        answer = await client.get("/inspector/", headers={"host": host})
        assert answer.status_code == status


async def test_it_is_there_where_it_is_wanted(store: TrackerStore) -> None:
    for options, status in (
        ({"inspector": None}, 404),
        ({"inspector": None, "token": TOKEN}, 303),
        ({"inspector": False, "token": TOKEN}, 404),
        ({"inspector": True}, 200),
    ):
        async with Client(store, **options) as client:
            assert (await client.get("/inspector/")).status_code == status
            assert (await client.get("/health/live")).status_code == 200
            lead = await client.get("/inspector")
            assert lead.headers.get("location") == (
                None if status == 404 else "inspector/"
            )
    with pytest.raises(errors.ConfigurationError, match="InspectorOptions"):
        create_app(store, inspector="yes")  # type: ignore[arg-type]


async def test_it_works_below_any_path(store: TrackerStore) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    await add(store, SENDER, user("hello there"))
    inner = create_app(store, token=TOKEN)
    outer = Starlette(routes=[Mount("/a/b", inner)])
    transport = httpx.ASGITransport(app=outer)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://app", follow_redirects=True
    ) as client:
        answer = await client.get("/a/b/")
        assert str(answer.url).startswith("http://app/a/b/inspector/sign-in?")
        form = {"name": "maria", "token": TOKEN, "next": f"conversation?id={SENDER}"}
        answer = await client.post(answer.url.copy_with(query=None), data=form)
        assert str(answer.url) == f"http://app/a/b/inspector/conversation?id={SENDER}"
        assert "hello there" in answer.text
        link = re.search(r'src="(inspector\.js[^"]*)"', answer.text)
        assert link
        script = await client.get(answer.url.join(link[1]))
        assert script.headers["content-type"].startswith("text/javascript")


# -- what is masked, recorded, and said of failures ------------------------------------

NUMBER = "0171 5550101"


async def converse_with_secrets(store: TrackerStore) -> None:
    """Store a conversation with a phone number, a password and a login."""
    entity = {"entity": "phone", "value": NUMBER, "start": 6, "end": 18}
    said = UserUttered(f"I am: {NUMBER}, ok?", None, [entity], timestamp=START)
    await add(store, SENDER, said, SlotSet("phone", NUMBER), SlotSet("city", "Ulm"))
    await add(store, SENDER, bot(f"So {NUMBER}. And the password: {SECRET}"))
    await add(
        store, SENDER, bot("redis://me:hunter2@host"), SlotSet("api_token", "zz9")
    )
    await add(store, SENDER, user("bye", metadata={"api_key": "k3y", "a": [NUMBER]}))


@pytest.mark.usefixtures("masked")
async def test_named_slots_and_secrets_are_masked(
    client: Client, store: TrackerStore
) -> None:
    await converse_with_secrets(store)
    pages = [await client.show()]
    for number in range(7):
        pages.append(await client.show(at=number))
        told = await client.get("/inspector/state", params={"id": SENDER, "at": number})
        pages.append(told.text)
    for secret in (NUMBER, SECRET, "hunter2", "zz9", "k3y"):
        assert not [page for page in pages if secret in page]
    assert "I am: ***, ok?" in pages[0]
    assert "Ulm" in pages[0]


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("jane@x.de", "It is Jane@X.de", "It is ***"),
        (5551234.0, "call 5551234", "call ***"),
        ([f"number-{n:04}" for n in range(2 * MOST_VALUES)], "number-0900", "***"),
    ],
)
async def test_a_value_is_masked_however_it_is_written(
    client: Client, store: TrackerStore, value: Any, text: str, shown: str
) -> None:
    await add(store, SENDER, user(text), SlotSet("phone", value), bot(text.upper()))
    page = await client.show()
    assert text not in page
    assert text.upper() not in page
    assert shown in page


@pytest.mark.usefixtures("masked")
async def test_a_number_is_masked_wherever_it_is_one(
    client: Client, store: TrackerStore
) -> None:
    """A form's extraction makes a float of it, and a channel's payload an int."""
    other = SlotSet("other", 5551234.0)
    await add(store, SENDER, SlotSet("phone", 5551234.0), other)
    await add(store, SENDER, SlotSet("another", 5551234))
    for page in [await client.show(), *[await client.show(at=n) for n in range(3)]]:
        assert "5551234" not in page


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize("unmasked", [False, True])
async def test_an_event_that_is_nested_deeply_hides_no_other(
    store: TrackerStore, unmasked: bool
) -> None:
    """A channel hands on whatever it is sent as the metadata of a message."""
    deep: Any = {"phone": NUMBER}
    for _ in range(240):  # a save takes 500 levels
        deep = {"a": [deep]}
    await add(store, SENDER, user("before"), user("deep", metadata=deep))
    await add(store, SENDER, SlotSet("phone", deep), user(f"after {NUMBER}"))
    options = InspectorOptions(unmasked=unmasked)
    async with Client(store, inspector=options) as client:
        pages = [await client.show(), *[await client.show(at=n) for n in range(4)]]
    assert all("before" in page and "after" in page for page in pages)
    assert unmasked or not [page for page in pages if NUMBER in page]


async def test_a_slot_without_a_name_hides_no_state(
    client: Client, store: TrackerStore
) -> None:
    nameless = event_from_dict({"event": "slot", "name": None, "value": 1})
    await add(store, SENDER, SlotSet("city", "Ulm"), nameless, user("x"))
    assert "Ulm" in await client.show(at=2)


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize(
    "page",
    ["state?at=199", "conversation?from=0", "conversation?from=230&at=199"],
)
async def test_a_message_is_masked_for_the_slot_that_is_set_after_it(
    client: Client, store: TrackerStore, page: str
) -> None:
    """A form fills it from the text, in an event that is not shown with the message."""
    await add(store, SENDER, *(bot("hm") for _ in range(PAGE_EVENTS - 1)))
    await add(store, SENDER, user(f"it is {NUMBER}"))
    await add(store, SENDER, SlotSet("phone", NUMBER), SlotSet("phone", None))
    await add(store, SENDER, *(bot("hm") for _ in range(60)))
    answer = await client.get(f"/inspector/{page}&id={SENDER}")
    assert answer.status_code == 200
    assert "it is ***" in answer.text
    assert NUMBER not in answer.text


@pytest.mark.usefixtures("masked")
async def test_all_is_shown_to_who_asked_for_it(store: TrackerStore) -> None:
    await converse_with_secrets(store)
    async with Client(store, inspector=InspectorOptions(unmasked=True)) as client:
        text = "".join([await client.show(at=number) for number in (1, 6)])
        for secret in (NUMBER, SECRET, "hunter2", "zz9", "k3y"):
            assert secret in text


async def test_the_audit_trail_says_who_looked() -> None:
    sink = ListSink()
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    await add(store, SENDER, *turn())
    async with Client(store, token=TOKEN) as client:
        assert (await client.get("/inspector/")).status_code == 303
        sink.lines.clear()
        await sign_in(client)
        await client.page()
        page = await client.show()
        assert sink.told == [
            ("inspector: maria", "list", None),
            ("inspector: maria", "inspect", SENDER),
        ]
        sink.lines.clear()
        assert await tail_of(client, page) == 204
        assert sink.told == []  # nothing of what was said was looked at
        await add(store, SENDER, user())
        sink.lines.clear()
        await tail_of(client, page)
        assert sink.told == [("inspector: maria", "inspect", SENDER)]
        sink.is_full = True
        assert "audit" not in await client.page("conversation", 500, id=SENDER)
    await store.close()


async def test_a_login_of_the_surrounding_app_is_recorded() -> None:
    sink = ListSink()
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    async with Client(store) as client:
        await client.page()
        with acting_as("support:kim"):
            await client.page()
    assert sink.told == [("inspector", "list", None), ("support:kim", "list", None)]
    await store.close()


class Failing(InMemoryTrackerStore):
    """A store whose reads fail, or hang."""

    error: Exception | None = None

    async def _read(self, read: Read) -> Any:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(60)


async def test_failures_have_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Failing()
    monkeypatch.setattr(inspecting, "PAGE_SECONDS", 0.05)
    away = errors.StoreUnavailableError("redis://me:hunter2@h does not answer")
    async with Client(store) as client:
        assert "took too long" in await client.page("conversation", 503, id=SENDER)
        store.error = away
        page = await client.page("conversation", 503, id=SENDER)
        assert "does not answer" in page
        assert "hunter2" not in page
        told = await client.get("/inspector/tail", params={"id": SENDER, "after": 0})
        assert (told.status_code, "away" in told.json()["error"]) == (503, True)
        store.error = errors.EncryptionKeyError("the key was erased")
        assert "erased" in await client.page("conversation", 500, id=SENDER)


# -- the command -----------------------------------------------------------------------


async def test_the_command_says_how_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite3.connect(tmp_path / "x.db").close()
    served: list[Any] = []
    monkeypatch.setattr(
        "uvicorn.Server.run", lambda server, sockets: served.append(server)
    )

    def app_of(*arguments: str, **variables: str) -> Any:
        command = ("serve", "--db", "x.db", "--port", "0", *arguments)
        result = run(*command, cwd=tmp_path, env=variables)
        assert (result.returncode, result.stderr) == (0, "")
        assert ("/inspector/" in result.stdout) is ("--no-inspector" not in arguments)
        return httpx.ASGITransport(app=served.pop().config.app)

    async def status(transport: Any, path: str, host: str = "localhost") -> int:
        url = f"http://{host}"
        async with httpx.AsyncClient(transport=transport, base_url=url) as client:
            return (await client.get(path)).status_code

    page = "/inspector/sign-in"
    assert await status(app_of(), page) == 303
    assert await status(app_of(), page, "evil.example") == 403
    assert await status(app_of("--no-inspector"), page) == 404
    assert await status(app_of("--no-inspector"), "/health/live") == 200
    assert await status(app_of(TRACKER_STORE_TOKEN=TOKEN), page, "example.com") == 200
    app_of("--mask-slot", "phone", "--mask-slot", "iban")
    assert redaction.REDACTOR.slots == {"phone", "iban"}
    redaction.configure()
    # uvicorn logs what goes wrong in a request, in a driver's own words
    filters = logging.getLogger("uvicorn.error").filters
    assert any(isinstance(each, redaction.RedactionFilter) for each in filters)


def test_masking_and_not_masking_is_a_contradiction(tmp_path: Path) -> None:
    arguments = ("serve", "--db", "x.db", "--mask-slot", "a", "--unmasked")
    assert "either" in error_of(*arguments, cwd=tmp_path, code=2)
