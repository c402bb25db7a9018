"""Stored events on their way to a broker, and transcripts for people."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from tests.moving.kit import BEGAN
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.config import EndpointConfig
from tracker_store_async.events import decode_event
from tracker_store_async.moving import export_events, transcript
from tracker_store_async.moving import state as states
from tracker_store_async.moving.commands import destination_of
from tracker_store_async.rows import Append
from tracker_store_async.serialization import derived_row

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async.broker import EventMessage
    from tracker_store_async.rows import Read, StoredConversation


class Broker(EventBroker):
    """Keeps messages, and fails once when it has had so many."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.messages: list[EventMessage] = []
        self.fails_at = fails_at

    async def publish(self, message: EventMessage) -> None:
        if len(self.messages) == self.fails_at:
            self.fails_at = None
            raise OSError("gone")
        self.messages.append(message)

    @property
    def places(self) -> list[tuple[str, int]]:
        return [(each.sender_id, each.position) for each in self.messages]


async def stored(*events: dict[str, Any], **more: int) -> InMemoryTrackerStore:
    """Return a memory with these events as `alice`, and others of so many."""
    store = InMemoryTrackerStore()
    await store.open()
    rows = [
        derived_row(None if n % 2 else f"id-{n}", json.dumps(each))
        for n, each in enumerate(events)
    ]
    if rows:
        assert await store._append(Append("alice", 0, rows, 0, "{}", BEGAN))
    for sender_id, count in more.items():
        rows = [
            derived_row(f"{sender_id}-{n}", json.dumps(said(float(n))))
            for n in range(count)
        ]
        assert await store._append(Append(sender_id, 0, rows, 0, "{}", BEGAN))
    return store


def said(timestamp: Any, text: str = "hi", event: str = "user") -> dict[str, Any]:
    return {"event": event, "timestamp": timestamp, "text": text}


async def test_every_event_comes_with_rasas_body_its_id_and_its_place() -> None:
    events = [
        said(2.0),
        said(1.0, "a\0b"),
        {"event": "unknown", "x": 1, "timestamp": 3},
    ]
    store = await stored(*events)
    broker, again = Broker(), Broker()
    report = await export_events(store, broker)
    assert (report.conversations, report.events, report.missing) == (1, 3, [])
    assert broker.places == [("alice", 0), ("alice", 1), ("alice", 2)]
    bodies = [
        {"sender_id": "alice", **decode_event(json.dumps(each)).as_dict()}
        for each in events
    ]
    assert [each.body for each in broker.messages] == bodies
    ids = [each.message_id for each in broker.messages]
    assert (ids[0], ids[2]) == ("id-0", "id-2")
    assert len(set(ids)) == 3
    await export_events(store, again)
    assert [each.message_id for each in again.messages] == ids


async def test_the_bounds_are_rasas() -> None:
    store = await stored(said(1.0), said(2.0), said(3.0), said(None))
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [0, 1, 2, 3]),
        ({"minimum_timestamp": 2.0}, [1, 2]),
        ({"maximum_timestamp": 3.0}, [0, 1]),
        ({"minimum_timestamp": 2.0, "maximum_timestamp": 3.0}, [1]),
    ]
    for options, expected in cases:
        broker = Broker()
        await export_events(store, broker, **options)
        assert [position for _, position in broker.places] == expected


async def test_timestamps_are_moved_in_the_message_alone() -> None:
    store = await stored(said(5.5), said(None))
    broker = Broker()
    await export_events(store, broker, offset_timestamps_by_seconds=-3)
    assert [each.body["timestamp"] for each in broker.messages] == [2.5, None]
    assert '"timestamp": 5.5' in store._conversations["alice"].rows[0][1]  # type: ignore[operator]


async def test_only_some_conversations() -> None:
    store = await stored(a=1, b=2, c=3)
    broker = Broker()
    report = await export_events(store, broker, conversation_ids=["c", "x", "a"])
    assert broker.places == [("a", 0), ("c", 0), ("c", 1), ("c", 2)]
    assert report.missing == ["x"]
    with pytest.raises(errors.InvalidInputError, match="list"):
        await export_events(store, broker, conversation_ids="a")


@pytest.mark.parametrize("fails_at", [0, 1, 3, 203, 410, 455])
async def test_it_goes_on_where_it_failed(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SAVE_SECONDS", 0.0)
    store = await stored(a=3, b=450, c=4)
    broker, state = Broker(fails_at), tmp_path / "state"
    with pytest.raises(errors.PublishError, match="export again") as caught:
        await export_events(store, broker, state_path=state)
    assert "gone" not in str(caught.value)
    had = len(broker.messages)
    report = await export_events(store, broker, state_path=state)
    everything = [
        (name, n)
        for name, count in (("a", 3), ("b", 450), ("c", 4))
        for n in range(count)
    ]
    assert list(dict.fromkeys(broker.places)) == everything
    repeated = len(broker.messages) - len(everything)
    assert report.events == len(broker.messages) - had
    assert repeated < 200
    assert not state.exists()


async def test_one_that_was_begun_again_meanwhile_is_sent_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SAVE_SECONDS", 0.0)
    store = await stored(a=3, b=450)
    broker, state = Broker(203), tmp_path / "state"
    with pytest.raises(errors.PublishError):
        await export_events(store, broker, state_path=state)
    await store.delete("b")
    rows = [derived_row(f"new-{n}", json.dumps(said(float(n)))) for n in range(5)]
    assert await store._append(Append("b", 0, rows, 0, "{}", BEGAN + 1))
    await export_events(store, broker, state_path=state)
    sent = [each.message_id for each in broker.messages]
    assert sent[-5:] == [f"new-{n}" for n in range(5)]


async def test_who_is_missing_is_told_by_the_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SAVE_SECONDS", 0.0)
    store, broker, state = await stored(b=2, d=2), Broker(3), tmp_path / "state"
    ids = ["a", "b", "c", "d", "e"]
    with pytest.raises(errors.PublishError):
        await export_events(store, broker, conversation_ids=ids, state_path=state)
    report = await export_events(store, broker, conversation_ids=ids, state_path=state)
    assert report.missing == ["a", "c", "e"]


async def test_what_nobody_can_read_any_more_is_named_and_passed_over(
    tmp_path: Path,
) -> None:
    """The data key of one was erased; of another while it was sent."""

    class Forgotten(InMemoryTrackerStore):
        async def _read(self, read: Read) -> StoredConversation | None:
            erased = {"b": True, "c": bool(read.start)}
            if read.last != 0 and erased.get(read.sender_id):
                raise errors.ErasedKeyError("the key was erased")
            return await super()._read(read)

    store, broker = Forgotten(), Broker()
    await store.open()
    for sender_id, count in {"a": 1, "b": 2, "c": 201, "d": 1}.items():
        rows = [derived_row(None, json.dumps(said(float(n)))) for n in range(count)]
        assert await store._append(Append(sender_id, 0, rows, 0, "{}", BEGAN))
    report = await export_events(store, broker)
    assert (report.erased, report.erased_count) == (["b", "c"], 2)
    assert (report.conversations, report.missing) == (2, [])
    assert {name for name, _ in broker.places} == {"a", "c", "d"}
    path, broker = tmp_path / "a.state", Broker(fails_at=201)
    with pytest.raises(errors.PublishError, match="'d'"):
        await export_events(store, broker, state_path=path)
    assert (await export_events(store, broker, state_path=path)).erased == ["b", "c"]
    again = await export_events(store, broker, conversation_ids=["b", "d"])
    assert (again.erased, again.conversations, again.missing) == (["b"], 1, [])


async def test_it_goes_on_at_the_same_destination_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SAVE_SECONDS", 0.0)
    store, broker, state = await stored(a=3, b=450), Broker(203), tmp_path / "state"
    common = {"type": "pika", "url": "amqp://me:hush@h"}
    one = destination_of(EndpointConfig(**common, password="old"))
    same = destination_of(EndpointConfig(**common, password="new"))
    two = destination_of(EndpointConfig(**common, exchange_name="two"))
    with pytest.raises(errors.PublishError):
        await export_events(store, broker, state_path=state, destination=one)
    with pytest.raises(errors.ConfigurationError, match="belongs to another move"):
        await export_events(store, broker, state_path=state, destination=two)
    assert "hush" not in state.read_text()
    await export_events(store, broker, state_path=state, destination=same)
    assert len(dict.fromkeys(broker.places)) == 453


async def test_a_row_that_is_no_event_says_where_it_stands() -> None:
    store = await stored(a=2)
    store._conversations["a"].rows[1] = ("x", "no json")
    with pytest.raises(errors.TrackerDeserialisationError, match="event 1 of"):
        await export_events(store, Broker())


# -- transcripts --

TALK = [
    {"event": "action", "name": "action_session_start", "timestamp": 1_700_000_000},
    {"event": "session_started", "timestamp": 1_700_000_000},
    {
        **said(1_700_000_001, "<b>*hi*</b> & \x1b[31m"),
        "parse_data": {"intent": {"name": "greet", "confidence": 1.0}},
    },
    {"event": "slot", "name": "n", "value": "<i>", "timestamp": 1_700_000_002},
    said(1_700_000_003, "line one\nline two", "bot"),
    said(1_700_004_000, "later", "user"),
    {"event": "session_started", "timestamp": 1_700_100_000},
    said(1_700_100_001, "next day"),
]


async def written(name: str, **options: Any) -> str:
    store = await stored(*TALK)
    return "".join([each async for each in transcript(store, "alice", name, **options)])


async def test_text_reads_as_a_talk() -> None:
    text = await written("text")
    assert "\x1b" not in text
    assert "22:13:21  user: <b>*hi*</b> & \\x1b[31m\n" in text
    assert "22:13:23  bot: line one\n               line two\n" in text
    assert "-- new session, Tuesday, 14 November 2023 --" in text
    assert "-- 1 h later --" in text
    assert "-- new session, Thursday, 16 November 2023, 1 day later --" in text
    assert "slot" not in text
    assert "greet" not in text
    full = await written("text", complete=True)
    assert '[slot: n = "<i>"]' in full
    assert "greet 1.00" in full


async def test_nothing_stored_means_anything_in_markdown() -> None:
    text = await written("markdown", complete=True)
    assert r"> \<b\>\*hi\*\</b\> \& " in text
    assert "> line one  \n> line two  \n" in text
    assert text.startswith("# Conversation alice\n")


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_html_is_one_page_and_escaped() -> None:
    page = await written("html", complete=True)
    reader = Reader()
    reader.feed(page)
    assert not {"b", "i", "script", "link", "img"} & set(reader.tags)
    assert reader.links == []
    assert "url(" not in page
    assert "<b>*hi*</b> & \\x1b[31m" in reader.text
    assert "line one\nline two" in reader.text
    assert "prefers-color-scheme:dark" in page
    assert page.endswith("</html>\n")


async def test_a_transcript_of_nothing_is_nothing() -> None:
    store = await stored()
    assert [each async for each in transcript(store, "alice")] == []
    with pytest.raises(errors.ConfigurationError, match="text, markdown, html"):
        await anext(aiter(transcript(store, "alice", "pdf")))
