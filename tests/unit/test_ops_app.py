"""Health and metrics over HTTP: by a real server, and mounted in other frameworks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.canaries import TEXT
from tests.conformance.kit import SENDER, FailingBroker, add, turn
from tests.unit.command import error_of, serving
from tracker_store_async import FailSafeTrackerStore, InMemoryTrackerStore, errors
from tracker_store_async.ops.asgi import create_app
from tracker_store_async.ops.endpoints import Endpoints
from tracker_store_async.ops.serving import check_binding
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tracker_store_async import Health, TrackerStore

TOKEN = "a-token-of-enough-length"
SECRET = "hunter2"
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Away(InMemoryTrackerStore):
    """A store that is away, or hangs, when it is told to be."""

    is_away = False
    hangs = False

    async def _health(self) -> Health:
        if self.hangs:
            await asyncio.sleep(60)
        if self.is_away:
            raise errors.StoreUnavailableError(f"redis://me:{SECRET}@h does not answer")
        return await super()._health()

    async def _append(self, append: Any) -> bool:
        if self.is_away:
            raise errors.StoreUnavailableError("away")
        return await super()._append(append)


def client_of(app: Any) -> httpx.AsyncClient:
    """Return a client that calls an app in this process."""
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://app")


async def get(store: TrackerStore, path: str, **options: Any) -> httpx.Response:
    """Return the answer of a new app for a store."""
    headers = options.pop("headers", {})
    async with client_of(create_app(store, **options)) as client:
        return await client.get(path, headers=headers)


async def test_ready_says_what_the_store_says() -> None:
    store = InMemoryTrackerStore(event_broker=FailingBroker())
    await add(store, SENDER, *turn(TEXT))
    answer = await get(store, "/health/ready")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert (told["status"], told["backend"]) == ("ready", "in_memory")
    assert told["reachable"] is True
    assert told["latency_seconds"] >= 0
    assert told["details"]["publishing"] == {
        "policy": "raise",
        "backlog_events": 0,
        "dropped_events": 0,
        "held_conversations": 0,
        "broker_is_away": False,
        "error": None,
    }
    assert TEXT not in answer.text


async def test_a_store_that_is_away_is_not_ready_and_shows_no_password() -> None:
    store = Away()
    store.is_away = True
    answer = await get(store, "/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert "does not answer" in answer.json()["error"]
    assert SECRET not in answer.text
    live = await get(store, "/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "alive"})


async def test_a_store_that_hangs_is_not_waited_for() -> None:
    store = Away()
    store.hangs = True
    answer = await get(store, "/health/ready", timeout_seconds=0.05)
    assert answer.status_code == 503
    assert "no answer within 0.05 s" in answer.json()["error"]


async def test_nor_is_what_it_has_begun_and_will_not_give_up() -> None:
    class Settling(InMemoryTrackerStore):
        """A store that is opening at a server who does not answer."""

        async def _open(self) -> None:
            await settled(asyncio.sleep(60))

    store = Settling()
    endpoints = Endpoints(store, timeout_seconds=0.05)
    started = time.monotonic()
    answer = await endpoints.answer("/health/ready", None)
    assert time.monotonic() - started < 1  # `settled` takes two
    assert answer.status == 503
    (asking,) = endpoints._asking
    with suppress(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert not endpoints._asking


async def test_a_fail_safe_stands_in() -> None:
    primary = Away()
    store = FailSafeTrackerStore(primary)
    await add(store, SENDER, *turn())
    primary.is_away = True
    answer = await get(store, "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    fail_safe = answer.json()["details"]["fail_safe"]
    assert fail_safe["state"] == "open"
    assert fail_safe["outage_seconds"] >= 0
    primary.is_away = False
    await store.close()


async def test_a_closed_store_is_not_ready() -> None:
    store = InMemoryTrackerStore()
    await store.close()
    assert (await get(store, "/health/ready")).status_code == 503


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer ünicode", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
    ],
)
async def test_a_token_is_wanted(header: str | None, status: int) -> None:
    endpoints = Endpoints(InMemoryTrackerStore(), token=TOKEN)
    assert (await endpoints.answer("/health/live", None)).status == 200
    answer = await endpoints.answer("/health/ready", header)
    assert answer.status == status
    assert ("www-authenticate" in answer.all_headers) is (status == 401)


async def test_metrics_are_behind_the_token_too() -> None:
    class Text:
        content_type = "text/plain"

        def text(self) -> bytes:
            return b"x 1\n"

    store = InMemoryTrackerStore()
    answer = await get(store, "/metrics", metrics=Text(), token=TOKEN)
    assert answer.status_code == 401
    found = await get(store, "/metrics", metrics=Text(), token=TOKEN, headers=BEARER)
    assert (found.status_code, found.text) == (200, "x 1\n")
    assert found.headers["content-type"].startswith("text/plain")
    assert (await get(store, "/metrics")).status_code == 404
    assert (await get(store, "/other")).status_code == 404


def test_a_short_token_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="at least 16") as caught:
        Endpoints(InMemoryTrackerStore(), token="short-secret")
    assert "short-secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_the_loopback_needs_no_token(host: str) -> None:
    check_binding(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_any_other_address_does(host: str) -> None:
    check_binding(host, TOKEN)
    with pytest.raises(errors.ConfigurationError, match="TRACKER_STORE_TOKEN"):
        check_binding(host, None)


# -- mounted ---------------------------------------------------------------------------


async def test_it_is_mounted_in_starlette_and_fastapi() -> None:
    inner = create_app(InMemoryTrackerStore(), token=TOKEN)
    apps: list[Any] = [Starlette(routes=[Mount("/ts", inner)])]
    try:
        from fastapi import FastAPI
    except ModuleNotFoundError:
        pass
    else:
        apps.append(FastAPI())
        apps[-1].mount("/ts", inner)
    for app in apps:
        async with client_of(app) as client:
            assert (await client.get("/ts/health/live")).status_code == 200
            assert (await client.get("/ts/health/ready")).status_code == 401
            ready = await client.get("/ts/health/ready", headers=BEARER)
            assert ready.json()["status"] == "ready"


@asynccontextmanager
async def alive(app: Any) -> AsyncIterator[None]:
    """Start an ASGI app, and end it, as a server does."""
    asked: asyncio.Queue[Any] = asyncio.Queue()
    answered: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    running = asyncio.ensure_future(app(scope, asked.get, answered.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await answered.get())["type"] == "lifespan.startup.complete"
    yield
    await asked.put({"type": "lifespan.shutdown"})
    assert (await answered.get())["type"] == "lifespan.shutdown.complete"
    await running


async def test_it_is_a_blueprint_of_sanic() -> None:
    sanic = pytest.importorskip("sanic")
    from tracker_store_async.ops.sanic import create_blueprint

    # one for all that is tested: Sanic can be started once in a process
    app = sanic.Sanic("tracker_store_test", configure_logging=False)
    store = InMemoryTrackerStore()
    await add(store, "a/b c", *turn("hello there"))
    blueprint = create_blueprint(store, token=TOKEN)
    app.blueprint(blueprint, url_prefix="/ts")
    async with alive(app), client_of(app) as client:
        assert (await client.get("/ts/health/live")).json() == {"status": "alive"}
        assert (await client.get("/ts/health/ready")).status_code == 401
        ready = await client.get("/ts/health/ready", headers=BEARER)
        assert ready.json()["status"] == "ready"
        await look_at_the_inspector(client)


async def look_at_the_inspector(client: httpx.AsyncClient) -> None:
    """Sign in and read, in an app that is mounted at `/ts`."""
    lead = await client.get("/ts/inspector")
    assert (lead.status_code, lead.headers["location"]) == (303, "inspector/")
    form = {"name": "maria", "token": TOKEN, "next": "conversation?id=a%2Fb+c"}
    answer = await client.post("/ts/inspector/sign-in", data=form)
    assert answer.status_code == 303
    page = await client.get(answer.url.join(answer.headers["location"]))
    assert page.url.path == "/ts/inspector/conversation"
    assert "hello there" in page.text
    assert (await client.put("/ts/inspector/")).status_code == 405
    assert (await client.get("/ts/inspector/inspector.css")).status_code == 200


# -- by a real server ------------------------------------------------------------------


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, TrackerStore]]:
    """Give the URL of a real server on the loopback, and its store."""
    store = InMemoryTrackerStore()
    app = create_app(store, token=TOKEN, owns_store=True)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", store
    server.should_exit = True
    await running


async def test_a_real_server_answers_and_closes_the_store(
    served: tuple[str, TrackerStore],
) -> None:
    url, store = served
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health/ready")).status_code == 401
        ready = await client.get("/health/ready", headers=BEARER)
        assert ready.json()["backend"] == "in_memory"
        assert (await client.post("/health/ready", headers=BEARER)).status_code == 405
    assert store._loop is not None


def test_the_command_without_a_token_answers_to_the_loopback_alone(
    tmp_path: Path,
) -> None:
    sqlite3.connect(tmp_path / "chats.db").close()
    with serving(tmp_path, "--db", "chats.db", "--no-inspector") as url:
        port = url.rpartition(":")[2]
        for path in ("/health/ready", "/metrics", "/health/live"):
            for host in (f"127.0.0.1:{port}", "localhost", "[::1]:1"):
                answer = httpx.get(f"{url}{path}", headers={"host": host})
                assert answer.status_code != 403
            for host in ("attacker.example", f"attacker.example:{port}", "["):
                answer = httpx.get(f"{url}{path}", headers={"host": host})
                assert answer.status_code == 403


def test_the_command_serves_and_ends(tmp_path: Path) -> None:
    db = tmp_path / "chats.db"
    sqlite3.connect(db).close()
    with serving(tmp_path, "--db", "chats.db", TRACKER_STORE_TOKEN=TOKEN) as url:
        assert httpx.get(f"{url}/health/ready").status_code == 401
        ready = httpx.get(f"{url}/health/ready", headers=BEARER)
        assert ready.status_code == 503  # no tables yet, and none are made
        assert "tables are missing" in json.dumps(ready.json())
        metrics = httpx.get(f"{url}/metrics", headers=BEARER)
        assert metrics.status_code in (200, 404)
        if metrics.status_code == 200:
            assert "tracker_store_operation_duration_seconds" in metrics.text


def test_the_command_serves_no_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    named = error_of("serve", "--db", "no.db", "--port", "0", cwd=tmp_path, code=1)
    assert named == "there is no SQLite file 'no.db'"
    endpoints = tmp_path / "endpoints.yml"
    endpoints.write_text("tracker_store: {type: sql, db: no.db, retry: true}")
    configured = error_of("serve", "--port", "0", cwd=tmp_path, code=1)
    assert configured == (
        "nothing is stored in endpoints.yml (sql): its SQLite file does not exist yet"
    )
    assert list(tmp_path.iterdir()) == [endpoints]


def test_a_file_that_goes_while_it_is_served_is_not_made_anew(tmp_path: Path) -> None:
    db = tmp_path / "chats.db"
    sqlite3.connect(db).close()
    with serving(tmp_path, "--db", "chats.db") as url:
        db.unlink()
        ready = httpx.get(f"{url}/health/ready")
        assert ready.status_code == 503
        assert "there is no such file" in json.dumps(ready.json())
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_to_be_open_to_all(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "x.db").close()
    arguments = ("serve", "--db", "x.db", "--host", "0.0.0.0")
    assert "TRACKER_STORE_TOKEN" in error_of(*arguments, cwd=tmp_path, code=2)
