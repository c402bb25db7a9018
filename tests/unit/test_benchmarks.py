"""The benchmarks run: each script at tiny sizes, and the protocol of its workers."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    arguments,
    catalog,
    charts,
    environments,
    measure,
    peers,
    render,
    worker_process,
)
from benchmarks.__main__ import SCRIPTS
from benchmarks.contestant import Contestant, Event, Place
from benchmarks.workers.protocol import serve

ROOT = Path(__file__).parents[2]
PLACE = {
    "backend": "postgresql",
    "url": "postgresql://me:p%40ss@127.0.0.1/db",
    "namespace": "ours",
    "folder": "",
}
TINY = {
    "turn": ["--backend", "sqlite", "--events", "10", "--repetitions", "1"],
    "cache": ["--backend", "sqlite", "--events", "10", "--repetitions", "1"],
    "encryption": ["--backend", "sqlite", "--events", "10", "--repetitions", "1"],
    "loop": ["--backend", "sqlite", "--conversations", "2", "--repetitions", "1"],
    "peers": ["--backend", "sqlite", "--events", "10", "--repetitions", "1"],
    "conversations": ["--backend", "sqlite", "--conversations", "2", "--turns", "1"],
    "scale": ["--events", "20", "--conversations", "3", "--repetitions", "1"],
    "footprint": ["--backend", "in_memory", "--events", "10", "--repetitions", "1"],
    "broker": ["--backend", "file", "sqlite", "--conversations", "2", "--turns", "1"],
}
SERVERS = {"outage", "broker_outage", "overhead", "moving"}
"""They start servers of their own, or measure drivers of servers alone."""

FURTHER = {
    "peers": ["--no-peers", "--only", "ours", "floor"],
    "conversations": ["--no-peers", "--only", "ours_cached", "--rounds", "1"],
    "scale": ["--backend", "sqlite"],
    "footprint": ["--trackers", "1", "--wheel", "missing.whl"],
}


class InMemory(Contestant):
    """Keeps events in a dict, and fails when told to."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stored: dict[str, list[Event]] = {}
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def retrieve(self, sender_id: str) -> Any:
        if sender_id == "broken":
            raise RuntimeError(f"cannot reach {self.place.url}, password p@ss")
        print("noise that is no reply")
        return self.stored.get(sender_id)

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, events

    async def save(self, prepared: Any) -> None:
        sender_id, events = prepared
        self.stored.setdefault(sender_id, []).extend(events)


async def ask(*requests: dict[str, Any]) -> tuple[list[dict[str, Any]], InMemory]:
    """Return the replies to requests, and the contestant that was asked."""
    made: list[InMemory] = []

    def make(place: Place) -> InMemory:
        made.append(InMemory(place))
        return made[-1]

    replies = io.StringIO()
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    await serve(io.StringIO(lines), replies, make)
    found = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert len(found) == len(requests), "a reply to each request"
    return found, made[0] if made else InMemory(Place(**PLACE))


OPEN = {"do": "open", "place": PLACE, "packages": ["pydantic"]}


async def test_a_worker_opens_fills_and_takes_a_turn() -> None:
    replies, contestant = await ask(
        OPEN,
        {"do": "fill", "sender_ids": ["a", "b"], "events": 10},
        {"do": "turn", "sender_id": "a", "number": 1},
        {"do": "close"},
    )
    assert replies[0]["versions"].keys() == {"python", "pydantic"}
    assert replies[1] == replies[3] == {}
    assert all(replies[2][name] >= 0 for name in ("load_seconds", "save_seconds"))
    assert [len(contestant.stored[name]) for name in "ab"] == [16, 10]
    assert not contestant.is_open


async def test_a_worker_converses() -> None:
    asked = {"do": "converse", "sender_ids": ["a", "b"], "first": 3, "turns": 2}
    (_, found), contestant = await ask(OPEN, asked)
    assert len(found["turn_seconds"]) == 4
    assert found.keys() == {"seconds", "turn_seconds", "gap_seconds", "cpu_seconds"}
    assert [len(events) for events in contestant.stored.values()] == [12, 12]
    texts = [e["text"] for e in contestant.stored["a"] if e["event"] == "user"]
    assert ["for 4 " in texts[0], "for 5 " in texts[1]] == [True, True]


async def test_a_worker_reports_an_error_without_the_password_and_goes_on() -> None:
    turn = {"do": "turn", "sender_id": "broken", "number": 1}
    replies, _ = await ask(OPEN, turn, {"do": "steal"}, {"do": "close"})
    assert replies[1]["error"] == "RuntimeError: cannot reach ***, password ***"
    assert "'steal' is no request" in replies[2]["error"]
    assert replies[3] == {}


async def test_a_worker_that_is_not_open_says_so() -> None:
    (reply,), _ = await ask({"do": "close"})
    assert reply["error"] == "RuntimeError: ask to open first"


def test_a_place_hides_its_url() -> None:
    assert "me" not in repr(Place(**PLACE)).replace("namespace", "")


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name in TINY])
def test_a_script_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "encryption":
        pytest.importorskip("cryptography")  # an extra
    module = __import__(f"benchmarks.{name}", fromlist=["main"])
    written = tmp_path / "figures.json"
    if name == "footprint":
        monkeypatch.setattr(module, "STATEMENTS", {"nothing": "0", "pydantic": "0"})
        monkeypatch.setattr(module, "wheel_sizes", lambda given: f"no {given}")
    further = [*FURTHER.get(name, []), "--folder", str(tmp_path)]
    command = [name, *TINY[name], *further, "--json", str(written)]
    monkeypatch.setattr(sys, "argv", command)
    module.main()
    found = json.loads(written.read_text())[name]
    if name in render.TABLES:  # what was written can be read again
        assert any(line.startswith("| ") for line in render.TABLES[name](found))
        assert render.PANELS[name][1](found)
    assert "not measured" not in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == [written], "nothing else is left behind"


def test_every_script_is_listed_and_has_help() -> None:
    assert set(SCRIPTS) == {*TINY, *SERVERS}
    listed = run_module("benchmarks").stdout
    assert all(f"python -m benchmarks.{name} " in listed for name in SCRIPTS)


@pytest.mark.parametrize("name", ["turn", "peers"])
def test_help_shows_no_url_of_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "postgresql://me:hidden@host/db"
    monkeypatch.setenv("TRACKER_STORE_BENCHMARK_URL", secret)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    module = __import__(f"benchmarks.{name}", fromlist=["main"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    printed = capsys.readouterr().out
    assert "--backend" in printed
    assert "hidden" not in printed


def run_module(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def test_urls_are_told_apart_by_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in arguments.VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(arguments.socket, "create_connection", lambda *_: io.BytesIO())
    given = ["--url", "rediss://there", "postgres://here/db"]
    options = arguments.parser("").parse_args(given)
    assert arguments.url_of("redis", options) == "rediss://there"
    assert arguments.url_of("postgresql", options) == "postgres://here/db"
    assert arguments.url_of("mongo", options) == arguments.DEFAULT_URLS["mongo"]
    assert arguments.url_of("sqlite", options) == ""


def test_a_variable_that_is_no_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_STORE_BENCHMARK_URL", "hidden@host")
    with pytest.raises(SystemExit) as found:
        arguments.url_of("postgresql", arguments.parser("").parse_args([]))
    assert "TRACKER_STORE_BENCHMARK_URL: a URL begins with" in str(found.value)
    assert "hidden" not in str(found.value)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    url = "redis://:hidden@127.0.0.1:1"
    options = arguments.parser("").parse_args(["--url", url])
    with pytest.raises(SystemExit) as found:
        arguments.url_of("redis", options)
    assert "no server for redis answers at 127.0.0.1:1" in str(found.value)
    assert "hidden" not in str(found.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--url", "oracle:hidden"], "a URL begins with one of"),
        (["--url", "redis://me:hidden/@host"], "the URL cannot be read"),
        (["--redis-url", "redis://[hidden"], "the URL cannot be read"),
        (["--folder", "/does/not/exist"], "there is no folder"),
        (["--chart", "chart.png"], "pip install --group charts"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    given: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(charts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        arguments.parser("").parse_args(given)
    printed = capsys.readouterr().err
    assert said in printed
    assert "hidden" not in printed


def test_a_chart_is_a_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts.importlib.util, "find_spec", lambda name: object())
    assert charts.why_not(str(tmp_path / "chart.png")) is None
    assert ".png" in str(charts.why_not(str(tmp_path / "chart.jpg")))
    assert "folder" in str(charts.why_not(str(tmp_path / "missing" / "chart.png")))


def test_charts_are_drawn_and_small(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the dependency group charts")
    points = [(10, 1.0, 0.9, 1.1), (100, 2.0, 1.8, 2.2)]
    panels = [
        charts.Panel("lines", "ms", series={"tracker_store_async": points}, limit=1.3),
        charts.Panel("bars", "ms", bars={"raw driver": (1.0, 0.5, 1.5)}),
    ]
    path = tmp_path / "chart.png"
    charts.draw(str(path), "title", panels)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 100_000


def test_peers_that_cannot_be_had_are_named_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    peers.report("postgresql", {}, {"rasa": "there is no Python 3.10"})
    assert (
        "not measured: Rasa 3.6.21: there is no Python 3.10" in capsys.readouterr().out
    )


def test_a_missing_python_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments.subprocess, "run", missing)
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    with pytest.raises(environments.NotInstallableError, match="BENCHMARK_PYTHON310"):
        environments.built("rasa", tmp_path)


def missing(*_: object, **__: object) -> None:
    raise FileNotFoundError


def test_an_environment_is_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []

    def run(*command: str) -> None:
        commands.append(command)
        (tmp_path / "eventsourcing").mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    first = environments.built("eventsourcing", tmp_path)
    assert environments.built("eventsourcing", tmp_path) == first
    assert [command[2] for command in commands] == ["venv", "pip"]
    assert commands[1][-1] == "eventsourcing[postgres]"


def test_the_catalog_says_what_each_lacks_and_why_it_is_missing() -> None:
    for entry in catalog.ENTRIES:
        assert entry.lacks
        same = [one for one in catalog.ENTRIES if one.module == entry.module]
        there = {backend for one in same for backend in one.variants}
        assert there == set(catalog.BACKENDS) or entry.missing, entry.name
        assert entry.environment in {"", *environments.ENVIRONMENTS}
        assert (ROOT / f"benchmarks/workers/{entry.module}.py").exists()


def test_a_faster_peer_is_named() -> None:
    def cell(load: float, append: float) -> dict[str, list[float]]:
        return {"load": [load], "append": [append]}

    samples = {
        "ours": {10: cell(2.0, 1.0)},
        "rasa": {10: cell(1.0, 3.0)},
        "floor": {10: cell(1.0, 0.5)},
    }
    assert peers.verdicts(samples) == [
        "load at 10: faster: Rasa 3.6.21 (2.00x)",
        "load / raw driver, decoding to dicts: 2.00",
        "append / raw driver, decoding to dicts: 2.00",
    ]
    del samples["floor"]
    samples["rasa"][10] = cell(3.0, 3.0)
    assert peers.verdicts(samples) == ["ahead of every measured peer in every cell"]


def test_tables_go_between_the_marks_of_their_name() -> None:
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    expected = "a\n<!-- begin x -->\n| n\\1 |\n<!-- end x -->\nb\n"
    assert render.put(text, "x", ["| n\\1 |", ""]) == expected
    with pytest.raises(SystemExit, match="begin y"):
        render.put(text, "y", [])


def test_notes_are_aligned_left() -> None:
    found = measure.table(["who", "ms", "lacks"], [["a", "10.0", "x"]], notes=True)
    assert found.splitlines()[-1] == "a    10.0  x"


async def test_a_worker_that_is_silent_or_gone_is_dropped_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = catalog.BY_NAME["floor"]
    place = Place("in_memory", "", "", "")
    silent = "import time; time.sleep(60)"
    reasons = {}
    for name, code, seconds in (("silent", silent, 0.2), ("gone", "pass", 60)):
        monkeypatch.setattr(worker_process, "REPLY_TIMEOUT_SECONDS", seconds)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        worker = worker_process.Worker(entry, place, process)
        ready = worker_process.Team({"floor": worker}, {}, place)
        await peers.each(ready, "fill", lambda _: {"sender_ids": [], "events": 1})
        await worker.end()
        assert ready.workers == {}
        reasons[name] = ready.absent["floor"]
    assert reasons["silent"] == "no reply in 0.2 s when asked to fill"
    assert reasons["gone"] == "its process ended while it was asked to fill"


def test_every_contestant_takes_the_url_of_redis_whole() -> None:
    pytest.importorskip("redis", reason="the extra redis")
    from benchmarks.redis_contestants import OursOnRedis

    shown = repr(OursOnRedis("rediss://:hidden@there:6380/3", "prefix").store)
    assert "there:6380" in shown
    assert "6379" not in shown
