"""An SQL database beside the conversations: of the audit trail, or of data keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

ANSWER_SECONDS = 10.0
"""Longest time that such a database may take: every access waits for it."""

CREATE_ATTEMPTS = 5
CREATE_PAUSE_SECONDS = 0.02


def parse_url(url: str, option: str, example: str) -> URL:
    """Return the URL of a database with an asyncio driver.

    Args:
        url: SQLAlchemy's URL.
        option: What it was given as, for the error.
        example: What it could be.

    Raises:
        ConfigurationError: It is none; the text does not show it.
    """
    try:
        parsed = make_url(url)
        is_async = parsed.get_dialect().is_async
    except (SQLAlchemyError, ImportError, ValueError):
        is_async = False
    if is_async:
        return parsed
    raise ConfigurationError(
        f"{option}: must be the URL of an SQL database with an asyncio driver that is "
        f"installed, such as {example}"
    )


def answering() -> asyncio.Timeout:
    """Return what bounds the time of what is done within it, with `TimeoutError`."""
    return asyncio.timeout(ANSWER_SECONDS)


def connect(url: URL) -> AsyncEngine:
    """Return an engine; it connects when it is used.

    A connection that the server has ended meanwhile, as MySQL does with idle ones, is
    replaced before it is used.
    """
    return create_async_engine(url, hide_parameters=True, pool_pre_ping=True)


async def create_table(engine: AsyncEngine, table: Table) -> None:
    """Create a table where there is none, whoever else does so at the same time.

    Raises:
        SQLAlchemyError, OSError: It cannot be created.
    """
    for attempt in range(CREATE_ATTEMPTS):
        try:
            async with engine.begin() as connection:
                await connection.run_sync(table.metadata.create_all)
            return
        except DBAPIError as error:
            is_last = attempt == CREATE_ATTEMPTS - 1
            if is_last or error.statement is None:  # none: it was not reached
                raise
        # MariaDB lets nobody look at a table that another one is just creating.
        await asyncio.sleep(CREATE_PAUSE_SECONDS * attempt)
