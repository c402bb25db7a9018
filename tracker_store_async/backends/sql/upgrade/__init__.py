"""From Rasa's table `events` to our layout, once somebody said so.

These are the steps of the first revision; `migrations` has Alembic take them.

PostgreSQL and SQLite do it in one transaction: cut short, nothing has happened. MySQL,
MariaDB and Oracle commit each change of a table, so there the layout's version is 0
while the upgrade is under way, and each step can be run again. At every moment the rows
are there and Rasa can read them; until `position` is required Rasa can also write.

The memory needed is the same for any number of events: the database does the work.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tracker_store_async.backends.sql.migrations import migrate
from tracker_store_async.backends.sql.upgrade.common import REBUILD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step


def steps_of(dialect: str) -> Sequence[Step]:
    """Return the steps for a database.

    Args:
        dialect: Name of its dialect.
    """
    name = "mysql" if dialect == "mariadb" else dialect
    steps: Sequence[Step] = import_module(f"{__name__}.{name}").STEPS
    return steps


async def rebuild_conversations(connection: AsyncConnection, tables: Tables) -> None:
    """Make `conversations` from events that are ours, as after a partial restore.

    Args:
        connection: Holds the schema lock.
        tables: The layout to be there.
    """
    if connection.dialect.name in ("mysql", "mariadb"):
        # Its steps can be repeated, and one of them may be what is missing.
        await migrate(connection, tables)
        return
    for step in REBUILD:
        await step(connection, tables)
