"""The layout in SQL databases as revisions of Alembic, which upgrades run.

Revision N leads to version N of the layout, and the table that every opening looks at
(`tracker_store_schema`) is the one that Alembic keeps: an `alembic_version` of somebody
else's is never touched, each schema has a table of its own, and what was stored before
there were revisions is at the right one. Rasa's own database, like an empty one, is
before the first. Only an upgrade, or printing one, imports Alembic.

For an Alembic environment of one's own there are :func:`target_metadata` and
:func:`include_object`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from tracker_store_async.backends.sql.schema import (
    CONVERSATIONS,
    EVENTS,
    LAYOUT,
    build_tables,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection, Dialect, MetaData, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step

DIRECTORY = Path(__file__).parent
VERSIONS = [DIRECTORY / "versions"]
"""Where the revisions are."""

OPTION = "tracker_store"
"""The option of Alembic's context that holds the target."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a revision works on.

    Attributes:
        context: Alembic's context.
        tables: The layout to be there.
        connection: Holds the schema lock; None where statements are only written down.
    """

    context: MigrationContext
    tables: Tables
    connection: AsyncConnection | None

    def run(self, steps: Sequence[Step]) -> None:
        """Take some steps, one after the other."""
        for step in steps:
            assert self.connection is not None  # noqa: S101  `is_written` asks first
            # Alembic is called in a greenlet of SQLAlchemy's, where this waits.
            await_only(step(self.connection, self.tables))

    @property
    def is_written(self) -> bool:
        """Whether statements are only written down: then there is nothing yet."""
        return self.connection is None

    def create(self, *tables: Table) -> None:
        """Create tables, or write down how."""
        for table in tables:
            self.context.impl.create_table(table)


def target() -> Target:
    """Return what the revision that is run works on."""
    from alembic import op

    found: Target = op.get_context().opts[OPTION][0]
    return found


async def migrate(connection: AsyncConnection, tables: Tables) -> None:
    """Bring a database to the latest revision.

    What Alembic does is part of the transaction of the connection. Where a database has
    none for its tables, each revision is noted as it is reached, and its steps can be
    repeated.

    Args:
        connection: Holds the schema lock.
        tables: The layout to be there.
    """
    await connection.run_sync(_migrate, connection, tables)


def _migrate(sync: Connection, connection: AsyncConnection, tables: Tables) -> None:
    _run(sync.dialect, sync, tables, connection)


def statements(dialect: Dialect, tables: Tables) -> list[str]:
    """Return what leads from nothing to the latest revision, as text."""
    written = _Written()
    # Whoever runs them says what is one transaction.
    options = {"as_sql": True, "output_buffer": written, "transactional_ddl": False}
    _run(dialect, None, tables, None, **options)
    return written.statements


class _Written:
    """Takes what Alembic writes, a statement at a time."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def write(self, text: str) -> None:
        """Keep a statement, and neither a comment nor what stands between them."""
        statement = text.strip().removesuffix(";")
        if statement and statement != "/" and not statement.startswith("--"):
            self.statements.append(statement)

    def flush(self) -> None:
        """Do nothing: it is all there."""


def _run(
    dialect: Dialect,
    sync: Connection | None,
    tables: Tables,
    connection: AsyncConnection | None,
    **options: Any,
) -> None:
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    from tracker_store_async.backends.sql.migrations.context import LayoutContext

    locations = [str(each) for each in VERSIONS]
    script = ScriptDirectory(str(DIRECTORY), version_locations=locations)

    def revisions(heads: Any, _: Any) -> Any:
        return script._upgrade_revs("head", heads)

    found: list[Target] = []
    context = LayoutContext(
        dialect, sync, tables, {**options, "fn": revisions, OPTION: found}
    )
    found.append(Target(context, tables, connection))
    with Operations.context(context):
        context.run_migrations()


# -- for an environment of one's own ---------------------------------------------------


def target_metadata(dialect: Dialect, schema: str | None = None) -> MetaData:
    """Return our tables, for `target_metadata` of an Alembic environment.

    Args:
        dialect: The dialect of a connected engine (`connection.dialect`).
        schema: Schema that holds the tables, or None for the connection's own.
    """
    return build_tables(dialect, schema).metadata


def include_object(
    item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
) -> bool:
    """Leave our tables, and what is on them, to us; for `context.configure`.

    Alembic calls it by position, with what it compares; others of that name in another
    schema are left out, too.
    """
    table = item if type_ == "table" else getattr(item, "table", None)
    return getattr(table, "name", None) not in (EVENTS, CONVERSATIONS, LAYOUT)
