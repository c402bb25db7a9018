"""Spans and metrics: what they say, what they never say, and what they cost unused."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.prometheus")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.canaries import TEXT, WATCHER
from tests.conformance.kit import SENDER, FailingBroker, add, slot, turn, user
from tests.faults.proxy import FaultProxy
from tests.outboxes import RefusingBroker
from tests.servers import fresh_database
from tracker_store_async import (
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    RetryingTrackerStore,
    SQLTrackerStore,
    best_effort,
    create_tracker_store,
    errors,
    relay,
    relay_holds,
)
from tracker_store_async.ops.prometheus import PrometheusMetrics
from tracker_store_async.ops.telemetry import Telemetry, instrument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker_store_async import TrackerStore

DASHBOARD = Path(__file__).parents[2] / "docs/grafana/tracker-store.json"


class Watched:
    """Providers of our own, and what they got."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.metrics = PrometheusMetrics()

    def watch(self, store: TrackerStore, **options: Any) -> Telemetry:
        """Instrument a store."""
        providers = (self.tracer_provider, self.metrics.meter_provider)
        return instrument(store, *providers, **options)

    def names(self) -> list[str]:
        """Return the names of the finished spans, as they ended."""
        return [span.name for span in self.spans.get_finished_spans()]

    def outcomes(self, operation: str) -> list[Any]:
        """Return how the spans of an operation ended."""
        return [
            (span.attributes or {})["tracker_store.outcome"]
            for span in self.spans.get_finished_spans()
            if span.name == f"tracker_store.{operation}"
        ]

    def text(self) -> str:
        """Return the metrics as text."""
        return self.metrics.text().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return one number."""
        for line in self.text().splitlines():
            found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
            if found and all(f'{k}="{v}"' in found[1] for k, v in labels.items()):
                return float(found[2])
        raise AssertionError(f"no {name} with {labels} in\n{self.text()}")


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    for span in watched.spans.get_finished_spans():
        WATCHER.look("traced", span.to_json())
    WATCHER.look("measured", watched.text())
    watched.metrics.close()


async def test_a_turn_is_traced_with_backend_and_outcome(watched: Watched) -> None:
    store = InMemoryTrackerStore(event_broker=FailingBroker())
    watched.watch(store)
    await add(store, SENDER, *turn(TEXT), slot(TEXT, TEXT))
    await store.retrieve(SENDER)
    await store.delete(SENDER)
    names = [name.removeprefix("tracker_store.") for name in watched.names()]
    assert names[:2] == ["open", "read"]  # the add looks, and finds nothing
    assert names[-4:] == ["save", "read", "retrieve", "delete"]
    assert names.index("publish") < names.index("append") < names.index("save")
    spans = {span.name: span for span in watched.spans.get_finished_spans()}
    append = spans["tracker_store.append"]
    assert append.parent is not None
    assert append.parent.span_id == spans["tracker_store.save"].context.span_id
    attributes = dict(append.attributes or {})
    assert attributes.pop("tracker_store.bytes", 0) > 500
    assert attributes == {
        "tracker_store.operation": "append",
        "tracker_store.backend": "in_memory",
        "tracker_store.outcome": "ok",
        "tracker_store.events": 5,
    }
    events = "tracker_store_events_total"
    assert watched.metric(events, operation="append", backend="in_memory") == 5
    assert watched.metric(events, operation="read") == 5
    duration = "tracker_store_operation_duration_seconds_count"
    assert watched.metric(duration, operation="save", outcome="ok") == 1


@pytest.mark.parametrize("include_ids", [False, True])
async def test_ids_are_told_when_asked_and_text_never(
    watched: Watched, include_ids: bool
) -> None:
    store = InMemoryTrackerStore(event_broker=FailingBroker())
    watched.watch(store, include_ids=include_ids)
    await add(store, "somebody@example", *turn(TEXT), slot(TEXT, TEXT))
    shown = "".join(span.to_json() for span in watched.spans.get_finished_spans())
    assert ("somebody@example" in shown) is include_ids
    assert "somebody@example" not in watched.text()
    assert TEXT not in shown + watched.text()


class Faulty(InMemoryTrackerStore):
    """A store that fails as it is told to."""

    error: Exception | None = None
    times = 0

    async def _append(self, append: Any) -> bool:
        if self.times:
            self.times -= 1
            raise self.error or errors.StoreUnavailableError("away")
        return await super()._append(append)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.StoreUnavailableError(f"{SENDER} is away"), "unavailable"),
        (errors.StoreDataError("refused"), "refused"),
        (RuntimeError(TEXT), "error"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
async def test_an_error_is_told_by_its_kind(
    watched: Watched, error: BaseException, outcome: str
) -> None:
    store = Faulty()
    store.error, store.times = error, 1  # type: ignore[assignment]
    watched.watch(store)
    with pytest.raises(type(error)):
        await add(store, SENDER, *turn(TEXT))
    assert watched.outcomes("append") == watched.outcomes("save") == [outcome]
    (append,) = [s for s in watched.spans.get_finished_spans() if "append" in s.name]
    assert (append.attributes or {})["error.type"] == type(error).__name__
    assert append.events == ()
    assert not append.status.is_ok


async def test_conflicts_and_retries_are_counted(watched: Watched) -> None:
    inner = Faulty()
    store = RetryingTrackerStore(inner)
    watched.watch(store)
    trackers = [await store.get_or_create_tracker(SENDER) for _ in range(2)]
    for tracker in trackers:
        tracker.update(user())
        await store.save(tracker)
    assert watched.metric("tracker_store_conflicts_total", backend="in_memory") == 1
    assert "conflict" in watched.outcomes("append")
    inner.times = 1
    await add(store, SENDER, user())
    assert watched.metric("tracker_store_retries_total", backend="in_memory") == 1
    await store.close()


async def test_an_outage_is_told_as_it_goes(watched: Watched) -> None:
    primary = Faulty()
    store = FailSafeTrackerStore(primary, probe_min_seconds=0.01)
    watched.watch(store)
    await add(store, SENDER, *turn())
    state = "tracker_store_breaker_state"
    backlog = "tracker_store_backlog_events"
    assert watched.metric(state) == 0
    primary.times = 10_000
    primary._read = primary._health = _away  # type: ignore[method-assign]
    tracker = await store.retrieve(SENDER)
    assert tracker is not None
    tracker.update(user(TEXT))
    await store.save(tracker)
    assert watched.metric(state) == 2
    assert watched.metric(backlog, **{"for": "storage"}) == 1
    transitions = "tracker_store_breaker_transitions_total"
    assert watched.metric(transitions, to="open") == 1
    assert f'{transitions}{{backend="in_memory",to="closed"' not in watched.text()
    primary.times = 0
    del primary._read, primary._health
    while watched.metric(state):
        await asyncio.sleep(0.01)
    assert watched.metric(backlog, **{"for": "storage"}) == 0
    assert "ok" in watched.outcomes("replay")
    assert watched.metric(transitions, to="open") == 1
    assert watched.metric(transitions, to="closed") == 1
    assert watched.metric("tracker_store_replayed_events_total") == 1
    await store.close()


async def _away(*args: Any) -> Any:
    raise errors.StoreUnavailableError("away")


@pytest.mark.backend("postgresql")
async def test_the_pool_is_measured(watched: Watched, postgresql_server: Any) -> None:
    with fresh_database(postgresql_server) as name:
        url = postgresql_server.url("postgresql+asyncpg", name)
        async with SQLTrackerStore(host=url, pool_size=7) as store:
            watched.watch(store)
            await add(store, SENDER, *turn())
            pool = "tracker_store_pool_connections"
            assert watched.metric(pool, kind="size", backend="postgresql") == 7
            assert watched.metric(pool, kind="checked_out") == 0


@pytest.mark.backend("redis")
async def test_the_connections_of_redis_are_measured(
    watched: Watched, redis_server: Any
) -> None:
    from tracker_store_async import RedisTrackerStore

    prefix = f"test{uuid4().hex[:12]}"
    store = RedisTrackerStore(
        host=redis_server.host,
        port=redis_server.port,
        username=redis_server.username or None,
        password=redis_server.password or None,
        key_prefix=prefix,
        max_connections=5,
    )
    watched.watch(store)
    health = await store.health()
    assert health.details["pool"] == {"size": 5, "checked_out": 0}
    pool = "tracker_store_pool_connections"
    assert watched.metric(pool, kind="size", backend="redis") == 5
    await store.close()
    with redis_server.client() as client:
        client.delete(f"{prefix}:trackers:layout")


async def test_the_broker_that_is_away_is_told(watched: Watched) -> None:
    broker = FailingBroker()
    broker.is_down = True
    store = InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")
    watched.watch(store)
    await add(store, SENDER, *turn(TEXT))
    waiting = watched.metric("tracker_store_backlog_events", **{"for": "broker"})
    assert waiting == len(store._publisher.backlog) > 0  # type: ignore[union-attr]


async def test_what_no_consumer_will_see_is_counted(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_effort, "BACKLOG_LIMIT", 1)
    broker = RefusingBroker("poison", error=errors.BrokerRefusedError("too large"))
    store = InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")
    watched.watch(store)
    await add(store, SENDER, user("poison"))
    held = "tracker_store_backlog_held"
    async with asyncio.timeout(5):
        while watched.metric(held, **{"in": "backlog"}) != 1:
            await asyncio.sleep(0.005)
    broker.is_down = True
    await add(store, "other", user("one"))
    assert watched.metric(held, **{"in": "backlog"}) == 0
    assert watched.metric("tracker_store_backlog_dropped_total") == 1
    store.event_broker = after = FailingBroker()
    assert watched.metric("tracker_store_backlog_dropped_total") == 1
    await store.close()
    assert [message.sender_id for message in after.messages] == ["other"]


async def test_what_waits_in_the_outbox_is_measured(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "COUNT_SECONDS", 0)
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(relay_holds, "LONGEST_HOLD_SECONDS", 0.01)
    broker = RefusingBroker("poison", error=errors.BrokerRefusedError("too large"))
    inner = SQLTrackerStore(
        db=str(tmp_path / "store.db"), event_broker=broker, outbox=True
    )
    async with RetryingTrackerStore(inner) as store:
        watched.watch(store)
        waiting = "tracker_store_outbox_waiting"
        assert waiting not in watched.text()
        await add(store, SENDER, user("poison"), user("after"))
        async with asyncio.timeout(5):
            while f"{waiting}{{" not in watched.text() or not watched.metric(waiting):
                await asyncio.sleep(0.01)
        assert watched.metric(waiting) == 2
        broker.refused.clear()
        async with asyncio.timeout(5):
            while watched.metric(waiting):
                await asyncio.sleep(0.01)
    assert len(broker.messages) == 2


async def test_wrappers_are_watched_once_and_no_longer_when_told(
    watched: Watched,
) -> None:
    store = create_tracker_store(
        {"type": "in_memory", "retry": True, "fail_safe": True, "cache": True}
    )
    telemetry = watched.watch(store)
    await add(store, SENDER, *turn())
    assert watched.names().count("tracker_store.append") == 1
    assert watched.names().count("tracker_store.open") == 1
    telemetry.remove(store)
    assert store._observer is None
    await add(store, SENDER, *turn())
    assert watched.names().count("tracker_store.append") == 1
    await store.close()


async def test_stores_that_are_watched_one_by_one_are_all_measured(
    watched: Watched,
) -> None:
    """A provider takes an instrument of one name once."""
    stores = [FailSafeTrackerStore(InMemoryTrackerStore()), InMemoryTrackerStore()]
    stores[1].backend_name = "another"
    stores[0].event_broker, stores[1].event_broker = FailingBroker(), FailingBroker()
    for store in stores:
        watched.watch(store)
    for backend in ("in_memory", "another"):
        waiting = "tracker_store_backlog_events"
        assert watched.metric(waiting, backend=backend, **{"for": "broker"}) == 0


async def test_stores_of_one_backend_are_measured_together(watched: Watched) -> None:
    """Of observations with the same labels the last one would count."""
    primaries = [Faulty() for _ in range(3)]
    stores = [FailSafeTrackerStore(each, probe_min_seconds=9) for each in primaries]
    for store in stores:
        watched.watch(store)
        await add(store, SENDER, *turn())
    for primary, store in zip(primaries[:2], stores, strict=False):
        primary.times = 10_000
        primary._read = _away  # type: ignore[method-assign]
        await add(store, SENDER, user("x"))
    backlog = "tracker_store_backlog_events"
    assert watched.metric(backlog, **{"for": "storage"}) == 2
    assert watched.metric("tracker_store_breaker_state") == 2
    for primary, store in zip(primaries, stores, strict=True):
        primary.times = 0
        primary.__dict__.pop("_read", None)
        await store.close()


# -- the dashboard ---------------------------------------------------------------------


@pytest.mark.backend("redis")
async def test_the_dashboard_asks_for_what_is_exported(
    watched: Watched,
    redis_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a real run with a pool, a conflict, a retry, an outage and an outbox."""
    monkeypatch.setattr(relay, "COUNT_SECONDS", 0)
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.01)
    prefix = f"telemetry{uuid4().hex[:8]}"
    async with FaultProxy(redis_server.host, redis_server.port) as proxy:
        store = create_tracker_store(
            {
                "type": "redis",
                "host": proxy.host,
                "port": proxy.port,
                "username": redis_server.username or None,
                "password": redis_server.password or None,
                "key_prefix": prefix,
                "retry": True,
                "fail_safe": {"probe_min_seconds": 0.01, "probe_max_seconds": 0.05},
            },
            event_broker=FailingBroker(),
        )
        watched.watch(store)
        tracker = await store.get_or_create_tracker(SENDER)
        other = await store.get_or_create_tracker(SENDER)
        for each in (tracker, other):
            each.update(user())
            await store.save(each)
        proxy.cut()  # the next request finds that out, and is repeated
        await store.retrieve(SENDER)
        await proxy.refuse()
        proxy.cut()
        await add(store, SENDER, user())
        await proxy.accept()
        while watched.metric("tracker_store_breaker_state"):
            await asyncio.sleep(0.01)
        with_outbox = SQLTrackerStore(
            db=str(tmp_path / "a.db"),
            event_broker=RefusingBroker("poison", error=errors.BrokerRefusedError("")),
            outbox=True,
        )
        watched.watch(with_outbox)
        await add(with_outbox, SENDER, user("poison"))
        while "tracker_store_outbox_waiting{" not in watched.text():
            await asyncio.sleep(0.01)
        text = watched.text()
        await store.close()
        await with_outbox.close()
    with redis_server.client() as client:
        client.delete(*client.scan_iter(match=f"*{prefix}:*"))
    for counted in ("conflicts", "retries", "replayed_events", "io_bytes", "events"):
        assert watched.metric(f"tracker_store_{counted}_total", backend="redis") > 0
    exported = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [
        target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    asked = set(re.findall(r"tracker_store_\w+", " ".join(expressions)))
    assert asked - exported == set()
    ours = {name for name in exported if name.startswith("tracker_store_")}
    of_histograms = {"_sum", "_created", "_count", "_bucket"}
    missing = {
        name
        for name in ours - asked
        if not any(name.endswith(suffix) for suffix in of_histograms)
    }
    assert missing == set()
    for expression in expressions:
        [metric] = set(re.findall(r"tracker_store_\w+", expression))
        labels = set(re.findall(r'(?:{|,)(\w+)="(?=.*)', lines_of(metric, text)))
        named = set(re.findall(r"(?:by \(|, )(\w+)(?=[,)]|!?=)", expression))
        named |= set(re.findall(r"[{,]\s*(\w+)(?:=~|!=|=)", expression))
        assert named - labels == set(), expression


def lines_of(metric: str, text: str) -> str:
    """Return what is exported of one metric."""
    return "\n".join(line for line in text.splitlines() if line.startswith(metric))


# -- what it costs unused --------------------------------------------------------------


def test_nothing_is_imported_and_nothing_is_wrapped_unused() -> None:
    program = (
        "import asyncio, sys, tracker_store_async as t\n"
        "from tracker_store_async.observation import observed\n"
        "store = t.InMemoryTrackerStore()\n"
        "asyncio.run(store.get_or_create_tracker('x'))\n"
        "work = object()\n"
        "assert observed(store, 'save', work) is work\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


async def test_many_are_one_append_of_all_that_landed(watched: Watched) -> None:
    store = Faulty()
    trackers = [await store.get_or_create_tracker(f"user {n}") for n in range(3)]
    for tracker in trackers:
        tracker.update(user(TEXT))
    watched.watch(store)
    store.times = 1
    with pytest.raises(errors.SaveManyError):
        await store.save_many(trackers)
    await store.save_many(trackers)  # one is left
    assert watched.outcomes("append") == ["unavailable", "ok"]
    assert watched.outcomes("save_many") == ["refused", "ok"]
    assert watched.metric("tracker_store_events_total", operation="append") == 3
    await store.close()


async def test_a_batch_that_others_were_faster_in_is_a_conflict(
    watched: Watched,
) -> None:
    store = InMemoryTrackerStore()
    trackers = [await store.get_or_create_tracker(f"user {n}") for n in range(2)]
    await add(store, "user 0", user("faster"))
    for tracker in trackers:
        tracker.update(user())
    watched.watch(store)
    await store.save_many(trackers)
    assert watched.outcomes("append") == ["conflict", "ok"]
    assert watched.metric("tracker_store_events_total", operation="append") == 2


async def test_what_an_outbox_publishes_is_traced(
    watched: Watched, tmp_path: Path
) -> None:
    broker = FailingBroker()
    store = SQLTrackerStore(db=str(tmp_path / "db"), outbox=True, event_broker=broker)
    watched.watch(store)
    broker.is_down = True
    async with store:
        await add(store, SENDER, user(TEXT))
        async with asyncio.timeout(10):
            while "error" not in watched.outcomes("publish"):
                await asyncio.sleep(0.01)
        health = await store.health()
        assert health.details["outbox"]["waiting"] == 1
        assert health.details["publishing"]["backlog_events"] == 0
        broker.is_down = False
    assert watched.outcomes("publish")[-1] == "ok"
    assert [body.get("text") for body in broker.bodies] == [TEXT]


async def test_a_tracker_brought_up_to_date_is_a_retrieve(watched: Watched) -> None:
    store = InMemoryTrackerStore()
    await add(store, SENDER, *turn(TEXT))
    tracker = await store.retrieve(SENDER)
    watched.watch(store)
    assert await store.retrieve(SENDER, since=tracker, validate=True) is tracker
    names = [name.removeprefix("tracker_store.") for name in watched.names()]
    assert names == ["read", "retrieve"]
