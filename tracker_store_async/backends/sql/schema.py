"""The stored layout: its tables, their DDL for each database, and its version.

Table `events` is Rasa's (`SQLTrackerStore.SQLEvent` of Rasa 3.6.21), so that whatever
reads Rasa's table reads ours, plus `position` and `event_id`. Where Rasa's types lose
data, ours do not: double precision timestamps, long text, sender ids that are compared
byte by byte (`Alice`, `alice` and `alice ` are three conversations everywhere).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from tracker_store_async.rows import MAX_SENDER_ID_LENGTH

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.types import TypeEngine

LAYOUT_VERSION = 1
"""Version of the layout that this code reads and writes."""

UPGRADING = 0
"""The layout version while Rasa's table is being upgraded step by step."""

COLUMN_LENGTH = 255
"""Width of the columns that are derived from an event, as in Rasa's layout."""

EVENTS = "events"
CONVERSATIONS = "conversations"
LAYOUT = "tracker_store_schema"

RASA_COLUMNS = frozenset(
    {
        "id",
        "sender_id",
        "type_name",
        "timestamp",
        "intent_name",
        "action_name",
        "data",
    }
)
"""The columns of Rasa's table `events`."""

OWN_COLUMNS = frozenset({"position", "event_id"})
"""The columns that ours has beyond them."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of the layout, for one database and schema."""

    metadata: MetaData
    events: Table
    conversations: Table
    layout: Table


def build_tables(dialect: Dialect, schema: str | None = None) -> Tables:
    """Return the tables as this database needs them.

    Args:
        dialect: The dialect of a connected engine: MySQL and MariaDB differ.
        schema: Schema that holds the tables, or None for the connection's own.
    """
    metadata = MetaData(schema=schema)
    options = _mysql_options(dialect)
    return Tables(
        metadata,
        events=_events(metadata, dialect, options),
        conversations=_conversations(metadata, dialect, options),
        layout=Table(
            LAYOUT,
            metadata,
            Column("version", Integer, primary_key=True, autoincrement=False),
            **options,
        ),
    )


def _events(metadata: MetaData, dialect: Dialect, options: dict[str, Any]) -> Table:
    return Table(
        EVENTS,
        metadata,
        _id_column(dialect),
        Column("sender_id", _key_type(dialect), nullable=False),
        Column("type_name", String(COLUMN_LENGTH), nullable=False),
        Column("timestamp", Double),
        Column("intent_name", String(COLUMN_LENGTH)),
        Column("action_name", String(COLUMN_LENGTH)),
        Column("data", _long_text()),
        # Without a default: an insert that knows of no positions, such as one by a
        # Rasa process that still runs, fails instead of spoiling the log.
        Column("position", Integer, nullable=False),
        Column("event_id", Text().with_variant(String(1000), "oracle")),
        UniqueConstraint("sender_id", "position", name="uq_events_sender_id_position"),
        **options,
    )


def _conversations(
    metadata: MetaData, dialect: Dialect, options: dict[str, Any]
) -> Table:
    table = Table(
        CONVERSATIONS,
        metadata,
        Column("sender_id", _key_type(dialect), primary_key=True),
        Column("version", Integer, nullable=False),
        Column("first_position", Integer, nullable=False),
        Column("session_start", Integer, nullable=False),
        Column("snapshot", _long_text()),
        Column("created_at", Double, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("expires_at", Double),
        Column("user_id", _key_type(dialect)),
        Index("ix_conversations_user_id", "user_id", "sender_id"),
        **options,
    )
    event.listen(table, "after_create", _leave_room)
    return table


def _leave_room(table: Table, connection: Connection, **_: Any) -> None:
    """Leave room in each page, so that PostgreSQL updates a row in place (HOT).

    Then a save does not touch the table's indexes.
    """
    if connection.dialect.name == "postgresql":
        # As a DDL element, which can be written down as well.
        text = room_statement(connection.dialect, table).replace("%", "%%")
        connection.execute(DDL(text))  # type: ignore[no-untyped-call]


def room_statement(dialect: Dialect, table: Table) -> str:
    """Return PostgreSQL's statement that leaves room in each page of a table."""
    name = dialect.identifier_preparer.format_table(table)
    return f"ALTER TABLE {name} SET (fillfactor = 70)"


def written(dialect: Dialect, *tables: Table) -> list[str]:
    """Return the statements that create tables and their indexes, as text."""
    elements: list[ExecutableDDLElement] = []
    for table in tables:
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        elements += [CreateTable(table), *map(CreateIndex, indexes)]
    texts = [str(element.compile(dialect=dialect)) for element in elements]
    return [text.strip().replace("\t", "    ") for text in texts]


def _id_column(dialect: Dialect) -> Column[int]:
    if dialect.name == "sqlite":
        return Column("id", Integer, primary_key=True)  # an alias of the rowid
    if dialect.name == "oracle":
        return Column("id", BigInteger, Identity(), primary_key=True)
    return Column("id", BigInteger, primary_key=True, autoincrement=True)


def _key_type(dialect: Dialect) -> TypeEngine[str]:
    """Return the type of sender ids: exact comparison, ordered by code point."""
    collation = "C" if dialect.name == "postgresql" else None
    return String(MAX_SENDER_ID_LENGTH, collation=collation)


def _long_text() -> TypeEngine[str]:
    # MySQL's TEXT ends at 64 kB.
    return Text().with_variant(LONGTEXT(), "mysql", "mariadb")


def mysql_collation(dialect: Dialect) -> str:
    """Return the binary collation that does not ignore trailing spaces."""
    return (
        "utf8mb4_nopad_bin"
        if getattr(dialect, "is_mariadb", False)
        else "utf8mb4_0900_bin"
    )


def _mysql_options(dialect: Dialect) -> dict[str, Any]:
    if dialect.name not in ("mysql", "mariadb"):
        return {}
    return {
        f"{dialect.name}_engine": "InnoDB",
        f"{dialect.name}_charset": "utf8mb4",
        f"{dialect.name}_collate": mysql_collation(dialect),
    }
