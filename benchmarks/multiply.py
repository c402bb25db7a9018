"""Filling a store with very many conversations, in its own layout, within minutes.

One conversation is saved through the store; the database copies its rows under other
names. So what is there is what the store would have written, column for column.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from benchmarks import workload
from benchmarks.contestants import Ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracker_store_async import TrackerStore

TEMPLATE = "template"
CHUNK = 50_000
TABLES = {"conversations": (), "events": ("id",)}  # without what the database numbers


def name_of(number: int) -> str:
    """Return the name of a conversation that was filled in."""
    return f"conversation-{number}"


async def save_template(store: TrackerStore, events_each: int) -> None:
    """Save the conversation that is to be copied."""
    await Ours(store).fill(TEMPLATE, workload.history(events_each))


def statement(table: str, columns: list[str], schema: str, numbers: str) -> str:
    """Return the statement that copies the rows of the template.

    Args:
        table: Name of the table.
        columns: Names of its columns.
        schema: Name of the schema, with a dot, or nothing.
        numbers: A query whose rows have one column `n`.
    """
    target = ", ".join(f'"{column}"' for column in columns)
    name = "'conversation-' || g.n"  # as `name_of` has it
    source = ", ".join(
        name if column == "sender_id" else f't."{column}"' for column in columns
    )
    return (
        f"INSERT INTO {schema}{table} ({target}) SELECT {source} "
        f"FROM ({numbers}) g CROSS JOIN {schema}{table} t "
        f"WHERE t.sender_id = '{TEMPLATE}'"
    )


def multiply_in_sqlite(path: Path, count: int, say: Callable[[str], None]) -> None:
    """Copy the template into `count` conversations of a closed database file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # while it is filled
        for first in range(0, count, CHUNK):
            say(f"filling in conversation {first:,} of {count:,}")
            last = min(first + CHUNK, count) - 1
            numbers = (
                f"WITH RECURSIVE r(n) AS (SELECT {first} UNION ALL "
                f"SELECT n + 1 FROM r WHERE n < {last}) SELECT n FROM r"
            )
            connection.execute("BEGIN")
            for table, numbered in TABLES.items():
                found = connection.execute(f"PRAGMA table_info({table})").fetchall()
                columns = [row[1] for row in found if row[1] not in numbered]
                connection.execute(statement(table, columns, "", numbers))
            connection.execute("COMMIT")
    finally:
        connection.close()


async def multiply_in_postgres(
    url: str, schema: str, count: int, say: Callable[[str], None]
) -> None:
    """Copy the template into `count` conversations of a schema."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=60)
    try:
        columns = {
            table: [
                row[0]
                for row in await connection.fetch(
                    "SELECT column_name FROM information_schema.columns "
                    "WHERE table_schema = $1 AND table_name = $2",
                    schema,
                    table,
                )
                if row[0] not in numbered
            ]
            for table, numbered in TABLES.items()
        }
        for first in range(0, count, CHUNK):
            say(f"filling in conversation {first:,} of {count:,}")
            last = min(first + CHUNK, count) - 1
            numbers = f"SELECT generate_series({first}, {last}) AS n"
            for table, names in columns.items():
                await connection.execute(statement(table, names, f"{schema}.", numbers))
    finally:
        await connection.close()
