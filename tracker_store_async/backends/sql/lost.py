"""Connections that are of no use any more, though the pool takes them for sound."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.errors import Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import Pool, PoolProxiedConnection

MIN_LOGIN_AGE_SECONDS = 10.0
"""A younger connection is kept though rights are refused: they are missing, then, and a
new one would have no others."""


@asynccontextmanager
async def dropping_lost(
    conn: AsyncConnection, *, renews_login: bool = False
) -> AsyncIterator[None]:
    """Keep a connection that turned out to be lost from going back to the pool.

    SQLAlchemy sees to that itself only for errors that it knows as a driver's. One that
    is read-only may be so for as long as it lives, whatever a new one is.

    Args:
        conn: The connection.
        renews_login: Whether a new one may log in as somebody else.
    """
    try:
        yield
    except Exception as error:
        kind = kind_of(error)
        is_lost = kind in (Kind.LOST, Kind.READ_ONLY)
        if (
            renews_login
            and kind is Kind.ACCESS
            and not (conn.closed or conn.invalidated)
        ):
            pooled = await conn.get_raw_connection()
            is_lost = has_outlived_login(pooled, error, conn.engine.pool)
        if is_lost:
            await conn.invalidate()
        raise


def has_outlived_login(
    pooled: PoolProxiedConnection, error: Exception, pool: Pool
) -> bool:
    """Whether the user of a connection has lost its rights.

    So it is with one that was made for a time, as Vault does, and is dropped then: its
    connections stay. Those of the pool that are as old are not used again either.

    Args:
        pooled: The connection; it may log in as somebody else if it is made anew.
        error: What it raised.
        pool: Its pool.
    """
    record: Any = getattr(pooled, "_connection_record", None)
    if record is None or kind_of(error) is not Kind.ACCESS:
        return False
    if time.time() - record.starttime < MIN_LOGIN_AGE_SECONDS:
        return False
    pool._invalidate(pooled, _checkin=False)
    return True


def is_outdated(pooled: PoolProxiedConnection, pool: Pool) -> bool:
    """Whether the pool would not use it again, since all of its age were given up."""
    record: Any = pooled._connection_record
    return bool(record.starttime < pool._invalidate_time)
