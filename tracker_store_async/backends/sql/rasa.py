"""Rasa's own table `events`, only read: what is moved from there stays as it is.

Rasa keeps neither positions nor ids: the order of a conversation is that of the column
`id`. Everything that is not read is refused with the sentence on how to upgrade.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import (
    LargeBinary,
    and_,
    case,
    cast,
    func,
    literal_column,
    select,
)

from tracker_store_async.backends.sql.core import CoreOperations
from tracker_store_async.backends.sql.layout import RASA, check_layout
from tracker_store_async.backends.sql.upgrade.common import is_storable
from tracker_store_async.rows import ConversationSummary, StoredConversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.rows import (
        Append,
        Listing,
        NewRow,
        Read,
        Rewrite,
        StoredRow,
    )

PLACES = 1024
"""Conversations whose place is remembered, to read on page by page."""


class RasaOperations(CoreOperations):
    """Read and list on a database that Rasa wrote and that nobody has upgraded."""

    async def open(self) -> None:
        """Remember nothing yet."""
        self._places: OrderedDict[tuple[str, int], int] = OrderedDict()

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows, or None; an event is never changed by Rasa."""
        async with self._reading() as conn:
            header = await self._header(conn, read.sender_id)
            if header is None:
                return None
            version, session_start, began, updated = header
            start = session_start if read.start is None else read.start
            first = min(start, version)
            if read.last is not None:
                first = max(first, version - read.last)
            end = version if read.limit is None else min(version, first + read.limit)
            rows = await self._rows(conn, read.sender_id, first, end)
        return StoredConversation(
            version=version,
            session_start=session_start,
            snapshot=None,
            created_at=began,
            updated_at=updated,
            first_position=first,
            rows=rows,
        )

    async def read_many(self, reads: Sequence[Read]) -> list[StoredConversation | None]:
        """Do several reads, one after the other."""
        return [await self.read(read) for read in reads]

    async def _header(
        self, conn: AsyncConnection, sender_id: str
    ) -> tuple[int, int, float, float] | None:
        event = self.tables.events
        is_start = event.c.type_name == "session_started"
        statement = select(
            func.count(),
            func.min(self._moment()),
            func.max(self._moment()),
            func.max(case((is_start, event.c.id))),
        ).where(self._is(sender_id))
        version, began, updated, start_id = (await conn.execute(statement)).one()
        if not version:
            return None
        start = 0
        if start_id is not None:
            start = await self._session_start(conn, sender_id, start_id)
        return version, start, float(began or 0.0), float(updated or 0.0)

    async def _session_start(
        self, conn: AsyncConnection, sender_id: str, start_id: int
    ) -> int:
        event = self.tables.events
        earlier = [self._is(sender_id), event.c.id < start_id]
        position: int = (
            await conn.execute(select(func.count()).where(*earlier))
        ).scalar_one()
        before = (
            await conn.execute(
                select(event.c.type_name, event.c.action_name)
                .where(*earlier)
                .order_by(event.c.id.desc())
                .limit(1)
            )
        ).first()
        is_action = before is not None and tuple(before) == (
            "action",
            "action_session_start",
        )
        return position - 1 if is_action else position

    async def _rows(
        self, conn: AsyncConnection, sender_id: str, first: int, end: int
    ) -> list[StoredRow]:
        if first >= end:
            return []
        event = self.tables.events
        statement = (
            select(event.c.id, event.c.data)
            .where(self._is(sender_id))
            .order_by(event.c.id)
            .limit(end - first)
        )
        after = self._places.pop((sender_id, first), None)
        if after is not None:
            statement = statement.where(event.c.id > after)
        elif first:
            statement = statement.offset(first)
        found = (await conn.execute(statement)).all()
        if found:
            self._places[sender_id, first + len(found)] = found[-1][0]
            while len(self._places) > PLACES:
                self._places.popitem(last=False)
        return [(None, row[1] or "") for row in found]

    # -- list --------------------------------------------------------------------------

    def list_statement(self, listing: Listing) -> Select[Any]:
        """Return one page's statement, by the ids that this library can store."""
        event, key = self.tables.events, self._key()
        first, latest = func.min(self._moment()), func.max(self._moment())
        statement = select(key, func.count(), first, latest).where(
            is_storable(event.c.sender_id, self.engine.dialect.name)
        )
        if listing.after is not None:
            statement = statement.where(key > self._value(listing.after))
        if listing.user_id is not None:  # Rasa knows of no users
            statement = statement.where(literal_column("1") == literal_column("0"))
        statement = statement.group_by(key)
        if listing.updated_from is not None:
            statement = statement.having(latest >= listing.updated_from)
        if listing.updated_before is not None:
            statement = statement.having(latest < listing.updated_before)
        return statement.order_by(key).limit(listing.limit)

    # -- writing -----------------------------------------------------------------------

    async def append(self, append: Append) -> bool:
        """Refuse it.

        Raises:
            SchemaUpgradeRequiredError: Always.
        """
        self._refuse()

    async def append_many(self, appends: Sequence[Append]) -> list[bool]:
        """Refuse it.

        Raises:
            SchemaUpgradeRequiredError: Always.
        """
        self._refuse()

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Refuse it.

        Raises:
            SchemaUpgradeRequiredError: Always.
        """
        self._refuse()

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Refuse it.

        Raises:
            SchemaUpgradeRequiredError: Always.
        """
        self._refuse()

    def check_size(self, sender_id: str, rows: Sequence[NewRow], snapshot: str) -> None:
        """Refuse what could never be stored: everything.

        Raises:
            SchemaUpgradeRequiredError: Always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        check_layout(RASA, create_tables=False, auto_upgrade=False)
        raise AssertionError  # it raised

    # -- expressions -------------------------------------------------------------------

    @property
    def _is_mysql(self) -> bool:
        return self.engine.dialect.name in ("mysql", "mariadb")

    def _key(self) -> ColumnElement[Any]:
        """Return the sender id as something that is compared byte by byte."""
        column = self.tables.events.c.sender_id
        if self._is_mysql:
            return cast(column, LargeBinary)
        if self.engine.dialect.name == "postgresql":
            return column.collate("C")
        return column

    def _value(self, sender_id: str) -> Any:
        return sender_id.encode() if self._is_mysql else sender_id

    def _is(self, sender_id: str) -> ColumnElement[bool]:
        column = self.tables.events.c.sender_id
        if self._is_mysql:  # by the index first: its collation takes more for equal
            exact = cast(column, LargeBinary) == sender_id.encode()
            return and_(column == sender_id, exact)
        return column == sender_id

    def _moment(self) -> ColumnElement[Any]:
        """Return the time of an event, or NULL where it is none."""
        event = self.tables.events
        moment: Any = event.c.timestamp
        if self._is_mysql:  # Rasa's column has 32 bits: the exact one is in the JSON
            text = func.json_extract(event.c.data, "$.timestamp")
            exact = text.op("+")(literal_column("0e0"))
            is_number = func.json_type(text).in_(("DOUBLE", "INTEGER", "DECIMAL"))
            moment = case((and_(func.json_valid(event.c.data), is_number), exact))
        return case((moment.between(-1e300, 1e300), moment))

    # -- last: its name hides the type ------------------------------------------------

    async def list(self, listing: Listing) -> Sequence[ConversationSummary]:
        """Return the next page, in the order of the sender ids' code points."""
        async with self._reading() as conn:
            found = (await conn.execute(self.list_statement(listing))).all()
        return [_summary(*row) for row in found]


def _summary(
    key: str | bytes, count: int, began: float | None, updated: float | None
) -> ConversationSummary:
    sender_id = key.decode() if isinstance(key, bytes) else key
    times = (float(began or 0.0), float(updated or 0.0))
    return ConversationSummary(sender_id, count, *times, None, sender_id)
