"""MySQL and MariaDB: how long a statement may be, with the values in its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

RESERVED_BYTES = 1024
"""Room in a statement for its own words, names and numbers, generously."""

ESCAPED = "\0\n\r\x1a\"'\\"
"""Characters that become two in a literal (`escape_string` of asyncmy and PyMySQL)."""


async def statement_room(conn: AsyncConnection) -> int | None:
    """Return how many bytes values may take in a statement; None if as many as any."""
    if conn.dialect.name not in ("mysql", "mariadb"):
        return None
    found = await conn.execute(text("SELECT @@max_allowed_packet"))
    return int(found.scalar_one()) - RESERVED_BYTES


def literal_bytes(texts: Sequence[str | None], enough_bytes: int) -> int:
    """Return the length of texts as literals; or an upper bound that is enough."""
    given = [value for value in texts if value is not None]
    # No character takes more than four bytes; one that is escaped takes two.
    bound = sum(4 * len(value) for value in given)
    if bound <= enough_bytes:
        return bound
    return sum(
        len(value.encode(errors="replace")) + sum(map(value.count, ESCAPED))
        for value in given
    )
