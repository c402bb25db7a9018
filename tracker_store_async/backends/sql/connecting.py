"""Connecting with each driver: within bounded time, with the password of now."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.errors import Kind, kind_of
from tracker_store_async.credentials import log_in_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker_store_async.credentials import PasswordSource


@contextmanager
def _showing_certificate(shows: bool) -> Iterator[None]:
    """Say what it may be that a server ends a connection which it did not let in.

    With TLS 1.3 the client is done before the server looks at its certificate: what is
    refused then looks like a connection that is lost.
    """
    try:
        yield
    except Exception as error:
        # A driver's error with TLS for its cause loses that where SQLAlchemy wraps it.
        is_other = not isinstance(error, ssl.SSLError)
        if shows and is_other and kind_of(error) in (Kind.LOST, Kind.TLS):
            raise ssl.SSLError(
                "the server ended the connection: it may refuse the client's "
                "certificate"
            ) from error
        raise


async def connect_postgresql(
    setup: str | None,
    password_source: PasswordSource | None = None,
    shows_certificate: bool = False,
    **arguments: Any,
) -> Any:
    """Connect with asyncpg, and set the session up.

    That is done here and not in an event of the pool, which would lose the connection
    of a caller who is cancelled meanwhile. asyncpg cancelled while it agrees on TLS
    leaves a future behind that nobody looks at: so it always ends what it began.
    """
    import asyncpg

    async def connect() -> Any:
        await log_in_with(arguments, password_source)
        with _showing_certificate(shows_certificate):
            connection = await asyncpg.connect(**arguments)
        try:
            if setup:
                await connection.execute(setup)
        except BaseException:
            connection.terminate()
            raise
        return connection

    connecting = asyncio.ensure_future(connect())
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(connecting: asyncio.Future[Any]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


async def connect_mysql(
    connect_timeout: float,
    lock_seconds: int,
    password_source: PasswordSource | None = None,
    shows_certificate: bool = False,
    **arguments: Any,
) -> Any:
    """Connect with asyncmy within a time that the handshake counts for as well.

    The server is told to give up on a row's lock when the caller does: one round trip
    for each new connection, none for an operation.
    """
    import asyncmy

    async with asyncio.timeout(connect_timeout):
        await log_in_with(arguments, password_source)
        connection: Any
        with _showing_certificate(shows_certificate):
            connection = await asyncmy.connect(
                connect_timeout=connect_timeout, **arguments
            )
        try:
            await connection.query(
                "SET SESSION innodb_lock_wait_timeout ="
                f" least(@@SESSION.innodb_lock_wait_timeout, {lock_seconds})"
            )
        except BaseException:
            connection.close()
            raise
        return connection


async def connect_oracle(password_source: PasswordSource, **arguments: Any) -> Any:
    """Connect with python-oracledb and the password of now."""
    import oracledb

    await log_in_with(arguments, password_source)
    return await oracledb.connect_async(**arguments)
