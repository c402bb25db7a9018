"""Moves conversations through every kind of store, being killed on the way.

SQLite -> PostgreSQL -> Redis -> DynamoDB -> SQLite, by the command `tracker-store
migrate`. In each leg the process is killed with SIGKILL at a random moment, and run
again. At the end the rows of the last file are the same to the byte as those of the
first one. Then SQLite and PostgreSQL are measured without kills, beside the raw drivers
that copy the same tables in bulk.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import outage_servers
from tracker_store_async import SQLTrackerStore
from tracker_store_async.rows import Append, Origin
from tracker_store_async.serialization import derived_row

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGAN = 1_700_000_000.25
EXPIRES = 4_000_000_000.75
COMMAND = [sys.executable, "-c", "from tracker_store_async.cli import main; main()"]
EVENT_COLUMNS = (
    "sender_id, position, event_id, data, type_name, "
    "timestamp, intent_name, action_name"
)
HEAD_COLUMNS = (
    "sender_id, version, first_position, session_start, snapshot, created_at, "
    "updated_at, expires_at, user_id"
)


# -- what is moved ---------------------------------------------------------------------


def events_of(sender_id: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield events such as an assistant has: a message, actions, a slot, an answer."""
    for number in range(count):
        at = BEGAN + number * 2.5
        kind = number % 5
        if kind == 0:
            text = f"I would like a table for {number} people, please ({sender_id})"
            intent = {"name": "book_table", "confidence": 0.9876543210123}
            parse = {"intent": intent, "entities": [], "text": text, "message_id": "m"}
            ranking = [intent, {"name": "greet", "confidence": 0.0123}]
            yield {
                "event": "user",
                "timestamp": at,
                "text": text,
                "parse_data": parse | {"intent_ranking": ranking},
                "input_channel": "rest",
            }
        elif kind == 1:
            yield {"event": "slot", "timestamp": at, "name": "people", "value": number}
        elif kind == 3:
            yield {
                "event": "bot",
                "timestamp": at,
                "text": "A table, of course. When?",
                "data": {"elements": None, "buttons": None},
            }
        else:
            name = "action_listen" if kind == 4 else "utter_ask_time"
            yield {
                "event": "action",
                "timestamp": at,
                "name": name,
                "policy": "policy_1_MemoizationPolicy",
                "confidence": 1.0,
            }


async def fill(path: Path, conversations: int, events: int) -> None:
    """Write conversations of different lengths, so many events in all."""
    chance = random.Random(7)
    weights = [chance.paretovariate(2.5) for _ in range(conversations)]
    scale = events / sum(weights)
    sizes = [max(1, round(weight * scale)) for weight in weights]
    sizes[0] = max(1, sizes[0] + events - sum(sizes))
    async with SQLTrackerStore(db=str(path)) as store:
        for first in range(0, conversations, 200):
            batch = enumerate(sizes[first : first + 200], first)
            appends = [_append(number, size) for number, size in batch]
            assert set(await store._append_many(appends)) == {True}


def _append(number: int, size: int) -> Append:
    sender_id = f"user-{number:06d}"
    rows = [
        derived_row(f"{number:08x}-{at:08x}-4000-8000-0123456789ab", json.dumps(each))
        for at, each in enumerate(events_of(sender_id, size))
    ]
    state = {"slots": {"people": number, "time": None}, "active_loop": {}}
    return Append(
        sender_id=sender_id,
        expected_version=0,
        rows=rows,
        session_start=0,
        snapshot=json.dumps({"version": size, "session_start": 0, "state": state}),
        now=BEGAN,
        expires_at=EXPIRES if number % 3 == 0 else None,
        user_id=f"person-{number % 1000}" if number % 2 else None,
        origin=Origin(BEGAN + number, BEGAN + number + size * 2.5),
    )


def checksum(path: Path) -> str:
    """Return the SHA-256 of a SQLite file with the rows of another, in order."""
    with tempfile.TemporaryDirectory() as directory:
        ordered = Path(directory) / "ordered.db"
        with closing(sqlite3.connect(ordered)) as connection:
            connection.execute("ATTACH ? AS theirs", (str(path),))
            for table, columns, order in (
                ("events", EVENT_COLUMNS, "sender_id, position"),
                ("conversations", HEAD_COLUMNS, "sender_id"),
            ):
                connection.execute(
                    f"CREATE TABLE {table} AS SELECT {columns} FROM theirs.{table} "
                    f"ORDER BY {order}"
                )
            connection.commit()
        return hashlib.sha256(ordered.read_bytes()).hexdigest()


# -- the legs --------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """One run of the command."""

    code: int
    seconds: float
    memory_mb: float
    output: str


def run(words: list[str], directory: Path, kill_after: float | None = None) -> Run:
    """Run the command; measure its memory.

    Args:
        words: Its arguments.
        directory: Where to run it.
        kill_after: Kill it so many seconds after it has copied something.
    """
    started = time.perf_counter()
    with (directory / "output").open("w+") as output:
        process = subprocess.Popen(
            [*COMMAND, *words], cwd=directory, stdout=output, stderr=output
        )
        if kill_after is not None:
            threading.Thread(
                target=_kill, args=(process.pid, directory, kill_after), daemon=True
            ).start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Run(
            process.returncode,
            time.perf_counter() - started,
            usage.ru_maxrss / 1024,
            output.read().strip(),
        )


def _kill(process_id: int, directory: Path, after: float) -> None:
    # What is remembered is written as soon as the first conversations are copied.
    with suppress(ProcessLookupError):
        while not list(directory.glob("*.state")):
            os.kill(process_id, 0)
            time.sleep(0.02)
        time.sleep(after)
        os.kill(process_id, signal.SIGKILL)


def leg(names: list[str], directory: Path, options: argparse.Namespace) -> float:
    """Do one leg, with kills; return the most memory that it took."""
    source, target = names
    words = ["migrate", "--from", f"{source}.yml", "--to", f"{target}.yml"]
    print(f"\n{source} -> {target}", flush=True)
    most = 0.0
    for _ in range(options.kills):
        after = random.uniform(0.0, options.events / options.guess)
        done = run(words, directory, kill_after=after)
        most = max(most, done.memory_mb)
        how = "killed" if done.code == -9 else f"ended with {done.code}"
        print(f"  {how} after {done.seconds:.1f} s", flush=True)
    done = run([*words, "--verify"], directory)
    most = max(most, done.memory_mb)
    print("  " + done.output.replace("\n", "\n  "), flush=True)
    print(f"  at most {most:.0f} MB", flush=True)
    if done.code:
        raise SystemExit(f"the leg failed with {done.code}")
    return most


def journey(directory: Path, options: argparse.Namespace, stack: ExitStack) -> None:
    """Go all the way round and compare the first file with the last."""
    places = {
        "sqlite": {"type": "sql", "dialect": "sqlite", "db": "first.db"},
        "postgresql": stack.enter_context(outage_servers.postgresql()).section,
        "redis": stack.enter_context(outage_servers.redis()).section,
        "dynamo": stack.enter_context(outage_servers.dynamo()).section,
        "sqlite-again": {"type": "sql", "dialect": "sqlite", "db": "last.db"},
    }
    for name, section in places.items():
        text = json.dumps({"tracker_store": section})
        (directory / f"{name}.yml").write_text(text)
    names = list(places)
    legs = [names[at : at + 2] for at in range(len(names) - 1)]
    most = max([leg(each, directory, options) for each in legs])
    first, last = (checksum(directory / f"{each}.db") for each in ("first", "last"))
    print(f"\nfirst file {first}\nlast file  {last}")
    print("the same" if first == last else "NOT THE SAME", f"- at most {most:.0f} MB")
    if first != last:
        raise SystemExit(1)


# -- beside the raw drivers ------------------------------------------------------------


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy both tables with `sqlite3`: fetchmany and executemany, one transaction."""
    with (
        closing(sqlite3.connect(source)) as ours,
        closing(sqlite3.connect(target, isolation_level=None)) as theirs,
    ):
        theirs.execute("BEGIN")
        for table, columns in (
            ("conversations", HEAD_COLUMNS),
            ("events", EVENT_COLUMNS),
        ):
            marks = ", ".join("?" * len(columns.split(",")))
            insert = f"INSERT INTO {table} ({columns}) VALUES ({marks})"
            found = ours.execute(f"SELECT {columns} FROM {table}")
            while rows := found.fetchmany(2000):
                theirs.executemany(insert, rows)
        theirs.execute("COMMIT")


async def copy_to_postgresql(source: Path, section: dict[str, Any]) -> None:
    """Copy both tables with `sqlite3` and asyncpg's COPY, one transaction."""
    import asyncpg

    connection = await asyncpg.connect(
        host=section["host"],
        port=section["port"],
        user=section["username"],
        password=section["password"],
        database=section["db"],
    )
    try:
        with closing(sqlite3.connect(source)) as ours:
            async with connection.transaction():
                for table, columns in (
                    ("conversations", HEAD_COLUMNS),
                    ("events", EVENT_COLUMNS),
                ):
                    names = [each.strip() for each in columns.split(",")]
                    found = ours.execute(f"SELECT {columns} FROM {table}")
                    while rows := found.fetchmany(2000):
                        await connection.copy_records_to_table(
                            table, records=rows, columns=names
                        )
    finally:
        await connection.close()


def beside_raw(directory: Path, options: argparse.Namespace, stack: ExitStack) -> None:
    """Measure SQLite and PostgreSQL without kills, and the raw drivers."""
    print("\nwithout kills, beside a bulk copy by the raw driver", flush=True)
    figures: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name in ("sqlite", "postgresql"):
            fresh = f"{name}-{number}"
            ours, raw = (f"{fresh}-{who}" for who in ("ours", "raw"))
            for who in (ours, raw):
                _make_target(name, who, directory, stack)
            words = ["migrate", "--from", "sqlite.yml", "--to", f"{ours}.yml"]
            done = run(words, directory)
            seconds = float(done.output.rpartition(" events in ")[2].split(" s")[0])
            raw_seconds = _copy_raw(name, raw, directory)
            for key, value in ((f"{name} ours", seconds), (f"{name} raw", raw_seconds)):
                figures.setdefault(key, []).append(value)
    for name in ("sqlite", "postgresql"):
        seconds = min(figures[f"{name} ours"])
        raw_seconds = min(figures[f"{name} raw"])
        print(
            f"sqlite -> {name:<11} {options.events / seconds:>9,.0f} events/s, "
            f"raw {options.events / raw_seconds:>9,.0f} events/s: "
            f"{raw_seconds / seconds:.2f} of it"
        )


def _make_target(name: str, who: str, directory: Path, stack: ExitStack) -> None:
    if name == "sqlite":
        section: dict[str, Any] = {
            "type": "sql",
            "dialect": "sqlite",
            "db": str(directory / f"{who}.db"),
        }
    else:
        section = stack.enter_context(outage_servers.postgresql()).section
    (directory / f"{who}.yml").write_text(json.dumps({"tracker_store": section}))
    options = {key: value for key, value in section.items() if key != "type"}
    asyncio.run(SQLTrackerStore(**options).upgrade_schema())


def _copy_raw(name: str, who: str, directory: Path) -> float:
    source = directory / "first.db"
    started = time.perf_counter()
    if name == "sqlite":
        copy_sqlite(source, directory / f"{who}.db")
    else:
        section = json.loads((directory / f"{who}.yml").read_text())["tracker_store"]
        asyncio.run(copy_to_postgresql(source, section))
    return time.perf_counter() - started


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=500)
    parser.add_argument("--events", type=int, default=12_500)
    parser.add_argument("--kills", type=int, default=1, help="in each leg")
    parser.add_argument(
        "--guess", type=int, default=20_000, help="events/s, to kill within the run"
    )
    parser.add_argument("--rounds", type=int, default=2, help="the best one counts")
    parser.add_argument("--seed", type=int, help="of the moments of the kills")
    parser.add_argument("--only", choices=["journey", "raw"])
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        started = time.perf_counter()
        first = directory / "first.db"
        asyncio.run(fill(first, options.conversations, options.events))
        size_mb = first.stat().st_size / 1e6
        print(
            f"{options.conversations:,} conversations, {options.events:,} events, "
            f"{size_mb:,.0f} MB, made in {time.perf_counter() - started:.0f} s"
        )
        text = {"tracker_store": {"type": "sql", "dialect": "sqlite", "db": "first.db"}}
        (directory / "sqlite.yml").write_text(json.dumps(text))
        if options.only != "raw":
            journey(directory, options, stack)
        if options.only != "journey":
            beside_raw(directory, options, stack)


if __name__ == "__main__":
    main()
